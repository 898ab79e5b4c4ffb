"""An engine that counts: what a model did since it was loaded, and how busy it was (table model_runs)."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass

from trustmine.db import identities
from trustmine.db.connect import transaction
from trustmine.db.queries import ModelRun
from trustmine.llm.base import Engine, ModelInfo, NoAnswer
from trustmine.records import Completion, Request

WRITE_S = 2.0  # how often the counts are stored


@dataclass(frozen=True, slots=True)
class Counts:
    """Questions answered, and tokens: of prompts, of these from the KV cache, generated."""

    n_calls: int = 0
    n_prompt: int = 0
    n_cached: int = 0
    n_completion: int = 0

    def __add__(self, answer: Completion) -> "Counts":
        return Counts(
            self.n_calls + 1,
            self.n_prompt + answer.n_prompt,
            self.n_cached + answer.n_cached,
            self.n_completion + answer.n_completion,
        )

    @property
    def n_evaluated(self) -> int:
        """Tokens that the model had to work on."""
        return self.n_prompt - self.n_cached + self.n_completion


class Metered:
    """The engine behind it, with its counts; see the module docstring."""

    def __init__(self, engine: Engine, conn: sqlite3.Connection, model_id: int) -> None:
        self._engine, self._conn = engine, conn
        self.busy_s = 0.0
        self.counts = Counts()
        self._written_at = now = time.time()
        with transaction(conn):
            cursor = conn.execute(
                """INSERT INTO model_runs (model_id, worker, n_sequences, started_at_s, seen_at_s)
                   VALUES (?, ?, ?, ?, ?)""",
                (model_id, identities.worker_name(), engine.capacity, now, now),
            )
        self._id = cursor.lastrowid

    @property
    def info(self) -> ModelInfo:
        return self._engine.info

    @property
    def capacity(self) -> int:
        return self._engine.capacity

    @property
    def request_hash(self) -> Callable[[Request], str]:
        return self._engine.request_hash

    def submit(self, ticket: int, request: Request) -> None:
        self._engine.submit(ticket, request)

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
        began = time.monotonic()
        answers = self._engine.poll(timeout_s)
        self.busy_s += time.monotonic() - began
        for _, answer in answers:
            if isinstance(answer, Completion):
                self.counts += answer
        if time.time() > self._written_at + WRITE_S and not self._conn.in_transaction:
            self._write(None)
        return answers

    def summary(self, seconds: float) -> ModelRun:
        """What the engine did in these seconds."""
        counts = self.counts
        return ModelRun(
            self.info.name,
            True,
            seconds,
            self.busy_s,
            counts.n_calls,
            counts.n_evaluated,
            counts.n_cached,
            counts.n_prompt,
        )

    def close(self) -> None:
        self._engine.close()
        if not self._conn.in_transaction:
            self._write(time.time())

    def _write(self, ended_at_s: float | None) -> None:
        self._written_at = time.time()
        with transaction(self._conn):
            self._conn.execute(
                """UPDATE model_runs SET seen_at_s = ?, ended_at_s = ?, busy_s = ?, n_calls = ?, n_prompt = ?,
                          n_cached = ?, n_completion = ? WHERE id = ?""",
                (self._written_at, ended_at_s, self.busy_s, *astuple(self.counts), self._id),
            )
