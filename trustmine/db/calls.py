"""The record of language model calls: every one is a row, and the same question is asked once."""

import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

from trustmine.db.facts import as_json
from trustmine.records import Completion, Request

_COLUMNS = """commit_id, stage, request_hash, task, prompt_name, prompt_hash, rendered_hash, model_id, sampling,
    completion, finish_reason, label_logprobs, n_prompt, n_cached, n_completion, duration_ms, created_at_s"""
_INSERT = f"INSERT OR IGNORE INTO llm_calls ({_COLUMNS}) VALUES ({', '.join('?' * 17)})"


@dataclass(frozen=True, slots=True)
class Call:
    """A request of one commit at one stage, with its answer."""

    commit_id: int
    stage: str
    request: Request
    completion: Completion
    model_id: int
    n_ctx: int


def write(conn: sqlite3.Connection, calls: Iterable[Call]) -> None:
    """Store calls that are not there yet, inside the caller's transaction."""
    conn.executemany(_INSERT, [_row(call) for call in calls])


def _row(call: Call) -> tuple[object, ...]:
    request, answer = call.request, call.completion
    sampling = {
        "max_tokens": request.max_tokens,
        "n_ctx": call.n_ctx,
        "seed": request.seed,
        "repeat_penalty": request.repeat_penalty,
        "temperature": request.temperature,
    }
    return (
        call.commit_id,
        call.stage,
        answer.request_hash,
        request.task,
        request.prompt_name,
        request.prompt_hash,
        answer.rendered_hash,
        call.model_id,
        as_json(sampling),
        answer.text,
        answer.finish_reason,
        None if answer.label_logprobs is None else as_json(dict(answer.label_logprobs)),
        answer.n_prompt,
        answer.n_cached,
        answer.n_completion,
        answer.duration_ms,
        time.time(),
    )


def recorded(conn: sqlite3.Connection, request_hash: str) -> Completion | None:
    """The answer to the very same request, if it was ever given: same prompt, settings, model and engine."""
    row = conn.execute(
        """SELECT completion, finish_reason, label_logprobs, n_prompt, n_cached, n_completion, duration_ms,
                  request_hash, rendered_hash FROM llm_calls WHERE request_hash = ? LIMIT 1""",
        (request_hash,),
    ).fetchone()
    if row is None:
        return None
    logprobs = None if row[2] is None else json.loads(row[2])
    return Completion(row[0], row[1], logprobs, *row[3:])
