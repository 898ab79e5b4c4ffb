"""What every engine promises, wherever the model runs.

An engine answers Requests. Work is handed over with `submit` and comes back
from `poll` in any order, so an engine may run many at once: the worker keeps
`capacity` requests in flight. Same request, model file, settings and machine:
same answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trustmine.records import Completion, Request

OPENAI_COMPATIBLE = "openai-compatible"  # ModelInfo.engine of any model behind an endpoint

Progress = Callable[[int, int], None]  # bytes done, bytes in all


class NoAnswer(Exception):
    """Why one request has no answer where others may have: its row fails, and the run goes on."""


class ContextOverflow(NoAnswer):
    """Prompt and answer do not fit in the context: the row is rejected, nothing is cut silently."""

    def __init__(self, n_prompt: int, max_tokens: int, n_ctx: int) -> None:
        # The numbers alone, so that it can be sent to another process.
        super().__init__(n_prompt, max_tokens, n_ctx)

    def __str__(self) -> str:
        n_prompt, max_tokens, n_ctx = self.args
        return f"{n_prompt} prompt tokens + {max_tokens} do not fit in {n_ctx}"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model behind an engine, as stored in the table models."""

    sha256: str  # of the file; behind an endpoint, of the model's name
    name: str
    path: str  # the file, or the endpoint's address
    size_bytes: int
    mtime_ns: int  # of the file; behind an endpoint, when it was last opened
    architecture: str
    n_params: int
    n_ctx_train: int
    engine: str  # with version, where the engine is part of this process
    n_ctx: int  # context of this run, tokens; 0: the endpoint does not say
    is_deterministic: bool = False  # answers do not depend at all on what shares their batch


class Engine(Protocol):
    """Answers requests; see the module docstring."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def capacity(self) -> int:
        """How many requests are worth having in flight."""
        ...

    @property
    def request_hash(self) -> Callable[[Request], str]:
        """Gives the sha256 over all that decides the answer: prompt as rendered, answer form, sampling, model, engine.

        A function that other processes may be sent.
        """
        ...

    def submit(self, ticket: int, request: Request) -> None:
        """Take over a request; its answer comes back under `ticket`."""
        ...

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
        """Answers that are ready; works until there is one, or for about `timeout_s`.

        Without a timeout empty only if nothing was submitted.
        """
        ...

    def close(self) -> None: ...
