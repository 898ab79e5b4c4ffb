"""The built-in model, loaded once per test session."""

import functools
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


def question(text: str, **more: Any) -> Request:
    """A request with one system and one user message."""
    messages = (Message("system", "You are helpful."), Message("user", text))
    fields: dict[str, Any] = {"messages": messages, "max_tokens": 12, **more}
    return Request(task="test", prompt_name="test", prompt_hash="0", **fields)
