"""The built-in model, loaded once per test session."""

import functools
from collections.abc import Sequence
from typing import Any

from trustmine.llm.base import Engine
from trustmine.llm.local import LocalEngine
from trustmine.records import Completion, Message, Request
from trustmine.resources import built_in_model


@functools.cache
def engine() -> LocalEngine:
    """The engine of the built-in model with a context of 2,048 tokens, on one thread: others may need the cores.

    Its answers are the same to the last bit, whatever else was asked of it.
    """
    return LocalEngine.open(built_in_model(), n_ctx=2048, n_threads=1, is_deterministic=True)


def ask(request: Request, of: Engine | None = None) -> Completion:
    """The answer to one request."""
    asked: Engine = engine() if of is None else of
    asked.submit(7, request)
    [(ticket, answer)] = asked.poll()
    assert ticket == 7
    assert isinstance(answer, Completion)
    return answer


def answers(of: Engine, requests: Sequence[Request]) -> list[Completion]:
    """All answers, in the order of the requests, with as many in flight as there is capacity for."""
    found: dict[int, Completion] = {}
    waiting = list(enumerate(requests))
    n_out = 0
    while len(found) < len(requests):
        while waiting and n_out < of.capacity:
            of.submit(*waiting.pop(0))
            n_out += 1
        for ticket, answer in of.poll():
            assert isinstance(answer, Completion)
            found[ticket] = answer
            n_out -= 1
    return [found[ticket] for ticket in range(len(requests))]


def question(text: str, **more: Any) -> Request:
    """A request with one system and one user message."""
    messages = (Message("system", "You are helpful."), Message("user", text))
    fields: dict[str, Any] = {"messages": messages, "max_tokens": 12, **more}
    return Request(task="test", prompt_name="test", prompt_hash="0", **fields)
