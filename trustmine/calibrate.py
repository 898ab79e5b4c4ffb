"""Estimates a calibration on the project's own rows, once per model and prompt.

The rows are those that passed s0_2, first in the order of their SHAs (as good
as random, and the same on every machine). Their answers are recorded like any
other call, so s0_3 does not ask for them again, and an interrupted estimate
goes on where it stopped.
"""

import hashlib
import sqlite3
import time
from collections.abc import Callable, Mapping

from trustmine import calibration, tools
from trustmine.config import Settings
from trustmine.db import calls, claims
from trustmine.db.calls import Call
from trustmine.db.connect import transaction
from trustmine.db.facts import as_json
from trustmine.llm.base import Engine
from trustmine.records import Commit, Completion, Request
from trustmine.stages import s0_3_classify
from trustmine.stages.base import Context

STAGE = s0_3_classify.NAME
MIN_ROWS = 8  # below this an offset says more about the rows than about the model


def ensure(
    conn: sqlite3.Connection,
    settings: Settings,
    engine: tuple[Engine, int],
    progress: Callable[[int], None] = lambda done: None,
) -> bool:
    """Have a batch calibration of this model and s0_3's prompt; False if there are too few rows for one.

    `engine` comes with its model's id. `progress` is told the rows done.
    """
    ctx = tools.context(conn, settings, engine[1])
    return ctx.calibration is not None or _estimate(conn, ctx, *engine, progress)


def _estimate(
    conn: sqlite3.Connection, ctx: Context, engine: Engine, model_id: int, progress: Callable[[int], None]
) -> bool:
    commits = sample(conn, ctx.settings.calibration_rows)
    if len(commits) < MIN_ROWS:
        return False
    scores: dict[str, Mapping[str, float]] = {}
    waiting: dict[int, tuple[Commit, Request]] = {}
    for commit in commits:
        request = s0_3_classify.classify_request(commit, ctx)
        known = calls.recorded(conn, engine.request_hash(request))
        if known is not None and known.label_logprobs is not None:
            scores[commit.sha] = known.label_logprobs
            continue
        waiting[commit.id] = (commit, request)
        engine.submit(commit.id, request)
        if len(waiting) >= engine.capacity:
            _collect(conn, engine, model_id, waiting, scores)
            progress(len(scores))
    while waiting:
        _collect(conn, engine, model_id, waiting, scores)
        progress(len(scores))
    if len(scores) < MIN_ROWS:  # the others did not fit in the context
        return False
    offset, scale, cutoff = calibration.estimate([scores[sha] for sha in sorted(scores)], ctx.settings.undecided_share)
    _store(conn, model_id, ctx.prompts.hash(s0_3_classify.CLASSIFY_PROMPT), offset, scale, cutoff, len(scores))
    return True


def sample(conn: sqlite3.Connection, n: int) -> list[Commit]:
    """The first n rows that passed s0_2, in the order of their SHAs."""
    ids = [
        row[0]
        for row in conn.execute(
            """SELECT id FROM commits JOIN steps ON commit_id = id AND stage = 's0_2'
               WHERE coalesce(reject_stage, '') <> 's0_2' ORDER BY sha, id LIMIT ?""",
            (n,),
        )
    ]
    return claims.read(conn, ids)


def _collect(
    conn: sqlite3.Connection,
    engine: Engine,
    model_id: int,
    waiting: dict[int, tuple[Commit, Request]],
    scores: dict[str, Mapping[str, float]],
) -> None:
    """Take the answers that are ready, and record them."""
    for ticket, answer in engine.poll():
        commit, request = waiting.pop(ticket)
        if isinstance(answer, Completion) and answer.label_logprobs is not None:
            scores[commit.sha] = answer.label_logprobs
            with transaction(conn):
                calls.write(conn, [Call(commit.id, STAGE, request, answer, model_id, engine.info.n_ctx)])


def _store(
    conn: sqlite3.Connection, model_id: int, prompt_hash: str, offset: float, scale: float, cutoff: float, n: int
) -> None:
    model = conn.execute("SELECT sha256 FROM models WHERE id = ?", (model_id,)).fetchone()[0]
    values = {
        "model": model,
        "prompt": prompt_hash,
        "method": "batch",
        "offset": offset,
        "scale": scale,
        "undecided_cutoff": cutoff,
        "n_rows": n,
    }
    with transaction(conn):
        conn.execute(
            """INSERT OR IGNORE INTO calibrations
               (hash, model_id, prompt_hash, method, "offset", scale, undecided_cutoff, n_rows, created_at_s)
               VALUES (?, ?, ?, 'batch', ?, ?, ?, ?, ?)""",
            (
                hashlib.sha256(as_json(values).encode()).hexdigest(),
                model_id,
                prompt_hash,
                offset,
                scale,
                cutoff,
                n,
                time.time(),
            ),
        )
