"""Estimates a calibration on the project's own rows, once per model and prompt.

The rows are those that passed s0_2, first in the order of their SHAs (as good
as random, and the same on every machine). Their answers are recorded like any
other call, so s0_3 does not ask for them again, and an interrupted estimate
goes on where it stopped. The evaluation against known fixes asks and stores
in the same way (evaluate.py).
"""

import hashlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence

from trustmine import calibration, tools
from trustmine.calibration import Calibration
from trustmine.config import Settings
from trustmine.db import calls, claims
from trustmine.db.calls import Call
from trustmine.db.claims import Scope
from trustmine.db.connect import transaction
from trustmine.db.facts import as_json
from trustmine.llm.base import Engine
from trustmine.records import Commit, Completion, Request
from trustmine.stages import s0_3_classify
from trustmine.stages.base import Context

STAGE = s0_3_classify.NAME
MIN_ROWS = 8  # below this an offset says more about the rows than about the model

Scores = dict[int, Mapping[str, float]]  # label log-probabilities by commit id
Progress = Callable[[int], None]  # rows done


def ensure(
    conn: sqlite3.Connection,
    settings: Settings,
    engine: tuple[Engine, int],
    progress: Progress = lambda done: None,
) -> bool:
    """Have a batch calibration of this model and s0_3's prompt; False if there are too few rows for one.

    `engine` comes with its model's id. `progress` is told the rows done.
    """
    ctx = tools.context(conn, settings, engine[1])
    if ctx.calibration is not None:
        return True
    estimated = estimate(conn, ctx, *engine, progress)
    if estimated is None:
        return False
    store(conn, ctx, engine[1], estimated)
    return True


def estimate(
    conn: sqlite3.Connection, ctx: Context, engine: Engine, model_id: int, progress: Progress = lambda done: None
) -> Calibration | None:
    """The batch calibration of this model and s0_3's prompt, not stored; None if there are too few rows for one."""
    commits = sample(conn, ctx.settings.calibration_rows)
    if len(commits) < MIN_ROWS:
        return None
    asked = scores(conn, ctx, engine, model_id, commits, progress)
    rows = {commit.sha: asked[commit.id] for commit in commits if commit.id in asked}  # a fork's copy counts once
    if len(rows) < MIN_ROWS:  # the others did not fit in the context
        return None
    offset, scale, cutoff = calibration.estimate(list(rows.values()), ctx.settings.undecided_share)
    return made(conn, ctx, model_id, "batch", offset, scale, cutoff, len(rows))


def passed(conn: sqlite3.Connection, scope: Scope = Scope(), limit: int | None = None) -> list[tuple[int, str]]:
    """(id, SHA) of rows that passed s0_2, first in the order of their SHAs."""
    clause, values = scope.where()
    return conn.execute(
        f"""SELECT id, sha FROM commits JOIN steps ON commit_id = id AND stage = 's0_2'
            WHERE coalesce(reject_stage, '') <> 's0_2'{clause} ORDER BY sha, id LIMIT ?""",
        (*values, -1 if limit is None else limit),
    ).fetchall()


def sample(conn: sqlite3.Connection, n: int) -> list[Commit]:
    """The first n rows that passed s0_2, in the order of their SHAs."""
    return claims.read(conn, [row_id for row_id, _ in passed(conn, limit=n)])


def scores(
    conn: sqlite3.Connection,
    ctx: Context,
    engine: Engine,
    model_id: int,
    commits: Sequence[Commit],
    progress: Progress = lambda done: None,
) -> Scores:
    """What the model says of each commit: recorded before, or asked now and recorded.

    Commits whose question does not fit in the context are left out.
    """
    asked = {
        commit.id: {engine.request_hash(request): request for request in s0_3_classify.classify_requests(commit, ctx)}
        for commit in commits
    }
    given: dict[str, Completion] = {}  # by request hash
    waiting: dict[int, tuple[int, Request]] = {}  # by ticket: commit id, request

    def collect() -> None:
        given.update(_collect(conn, engine, model_id, waiting))
        progress(sum(given.keys() >= requests.keys() for requests in asked.values()))

    tickets = itertools.count()
    for commit_id, requests in asked.items():
        for digest, request in requests.items():
            known = calls.recorded(conn, digest)
            if known is not None and known.label_logprobs is not None:
                given[digest] = known
                continue
            ticket = next(tickets)
            waiting[ticket] = (commit_id, request)
            engine.submit(ticket, request)
            if len(waiting) >= engine.capacity:
                collect()
    while waiting:
        collect()
    return {
        commit_id: s0_3_classify.raw([given[digest] for digest in requests])
        for commit_id, requests in asked.items()
        if given.keys() >= requests.keys()
    }


def _collect(
    conn: sqlite3.Connection, engine: Engine, model_id: int, waiting: dict[int, tuple[int, Request]]
) -> dict[str, Completion]:
    """Take the answers that are ready, and record them; those with label probabilities by request hash."""
    given: dict[str, Completion] = {}
    for ticket, answer in engine.poll():
        commit_id, request = waiting.pop(ticket)
        if isinstance(answer, Completion) and answer.label_logprobs is not None:
            given[answer.request_hash] = answer
            with transaction(conn):
                calls.write(conn, [Call(commit_id, STAGE, request, answer, model_id, engine.info.n_ctx)])
    return given


def made(
    conn: sqlite3.Connection,
    ctx: Context,
    model_id: int,
    method: str,
    offset: float,
    scale: float,
    undecided_cutoff: float,
    n_rows: int,
) -> Calibration:
    """A calibration of this model and s0_3's prompt that is not stored: its id is 0."""
    model = conn.execute("SELECT sha256 FROM models WHERE id = ?", (model_id,)).fetchone()[0]
    prompt_hash = ctx.prompts.hash(s0_3_classify.CLASSIFY_PROMPT)
    values = {
        "model": model,
        "prompt": prompt_hash,
        "method": method,
        "offset": offset,
        "scale": scale,
        "undecided_cutoff": undecided_cutoff,
        "n_rows": n_rows,
    }
    digest = hashlib.sha256(as_json(values).encode()).hexdigest()
    return Calibration(0, digest, method, offset, scale, undecided_cutoff, n_rows)


def store(conn: sqlite3.Connection, ctx: Context, model_id: int, new: Calibration) -> None:
    """From now on s0_3 uses this one; verdicts that another one decided are stale."""
    with transaction(conn):
        conn.execute(
            """INSERT INTO calibrations
               (hash, model_id, prompt_hash, method, "offset", scale, undecided_cutoff, n_rows, created_at_s)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (hash) DO UPDATE SET created_at_s = excluded.created_at_s""",
            (
                new.hash,
                model_id,
                ctx.prompts.hash(s0_3_classify.CLASSIFY_PROMPT),
                new.method,
                new.offset,
                new.scale,
                new.undecided_cutoff,
                new.n_rows,
                time.time(),
            ),
        )
