"""Named reads: the funnel, what is running, repositories, commits by SHA, one commit's life."""

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trustmine.db import claims, identities
from trustmine.db.claims import Scope
from trustmine.db.recipes import stage_places
from trustmine.errors import TrustmineError


@dataclass(slots=True)
class StageCounts:
    """Where the rows stand at one stage."""

    pending: int = 0
    claimed: int = 0
    passed: int = 0  # rows that have passed this stage, wherever they are now
    failed: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # by reason, commonest first


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a stage is going: of workers that run now."""

    n_workers: int
    rows_per_s: float
    left_s: float | None  # None: not known yet


@dataclass(frozen=True, slots=True)
class ModelRun:
    """What a model does that is loaded now, or did when it last was."""

    model: str
    is_running: bool
    seconds: float  # since it was loaded, or how long it was
    busy_s: float
    n_calls: int
    n_evaluated: int  # tokens that it had to work on
    n_cached: int  # tokens of prompts that it had not
    n_prompt: int

    @property
    def calls_per_hour(self) -> float:
        return self.n_calls / max(self.seconds, 1e-3) * 3600

    @property
    def tokens_per_s(self) -> float:
        return self.n_evaluated / max(self.busy_s, 1e-3)


@dataclass(frozen=True, slots=True)
class RepoRow:
    id: int
    name: str
    path: str
    url: str | None
    is_shallow: bool
    n_commits: int


def funnel(conn: sqlite3.Connection, scope: Scope = Scope()) -> dict[str, StageCounts]:
    """Counts per stage, s0_1 first. Rows held by a process that is gone count as pending."""
    places = stage_places(conn)
    names = list(places)
    counts = {name: StageCounts() for name in names[1:]}
    clause, values = scope.where()
    # By repo_id first, in the order of the index commits_funnel: so a million rows are counted without sorting them.
    grouped = conn.execute(
        f"""SELECT status, outcome, reject_stage, reject_reason, count(*) FROM commits
            WHERE 1{clause} GROUP BY repo_id, status, outcome, reject_stage, reject_reason""",
        values,
    )
    for status, outcome, reject_stage, reason, n in grouped:
        for name in names[1 : places[status] + 1]:
            counts[name].passed += n
        if outcome == "rejected":
            at = counts[reject_stage].rejected
            at[reason] = at.get(reason, 0) + n
        elif outcome == "failed":
            counts[names[places[status] + 1]].failed += n
        elif outcome == "open":
            counts[names[places[status] + 1]].pending += n
    for stage in counts.values():
        stage.rejected = dict(sorted(stage.rejected.items(), key=lambda item: (-item[1], item[0])))
    live = [owner for owner in claims.owners(conn) if identities.is_alive(owner)]
    now = time.time()
    for owner in live:
        held = conn.execute(
            f"""SELECT status, count(*) FROM commits
                WHERE claim_owner = ? AND claim_until_s >= ? AND outcome = 'open'{clause} GROUP BY status""",
            (owner, now, *values),
        )
        for status, n in held:
            counts[names[places[status] + 1]].pending -= n
            counts[names[places[status] + 1]].claimed += n
    return counts


def n_pending_aside(conn: sqlite3.Connection, stage: str, aside: tuple[tuple[str, str], ...], scope: Scope) -> int:
    """Rejected rows that the stage will take too."""
    clause, values = scope.where(claims.OF_ASIDE)
    return sum(
        conn.execute(
            f"SELECT count(*) FROM commits WHERE {claims.aside_where()}{clause}",
            (reject_stage, reason, stage, *values),
        ).fetchone()[0]
        for reject_stage, reason in aside
    )


def has_pending(
    conn: sqlite3.Connection, stage: str, after: str, aside: tuple[tuple[str, str], ...], scope: Scope
) -> bool:
    """Whether the stage has rows to take, or rows that other workers hold."""
    clause, values = scope.where()
    beside, _ = scope.where(claims.OF_ASIDE)
    wanted: list[tuple[str, tuple[object, ...]]] = [(claims.PENDING + clause, (after,))]
    wanted += [(claims.aside_where() + beside, (reject_stage, reason, stage)) for reject_stage, reason in aside]
    return any(
        conn.execute(f"SELECT 1 FROM commits WHERE {where} LIMIT 1", (*names, *values)).fetchone()
        for where, names in wanted
    )


def n_pending(conn: sqlite3.Connection, after: str, scope: Scope) -> int:
    """Open rows whose status is `after`, claimed or not."""
    clause, values = scope.where()
    row = conn.execute(
        f"SELECT count(*) FROM commits WHERE outcome = 'open' AND status = ?{clause}",
        (after, *values),
    ).fetchone()
    return int(row[0])


def rates(
    conn: sqlite3.Connection, counts: Mapping[str, StageCounts], lease_s: float, scope: Scope = Scope()
) -> dict[str, Rate]:
    """Speed and time left of the stages that workers are at now and that have rows left.

    Of one repository (`scope`) only where no other has rows left at the stage:
    nothing tells which of several a worker will take next.
    """
    found = conn.execute(
        """SELECT worker, stage, started_at_s, n_advanced + n_rejected + n_failed, seen_at_s FROM workers
           WHERE ended_at_s IS NULL"""
    ).fetchall()
    seen: dict[str, float] = {}
    for worker, *_, seen_at_s in found:
        seen[worker] = max(seen_at_s, seen.get(worker, 0.0))
    live = {worker for worker, seen_at_s in seen.items() if _is_running(conn, worker, seen_at_s, lease_s)}
    running: dict[str, tuple[int, float]] = {}
    for worker, stage, started_at_s, n, _ in found:
        if worker in live:
            n_workers, speed = running.get(stage, (0, 0.0))
            running[stage] = (n_workers + 1, speed + n / max(time.time() - started_at_s, 1e-3))
    return {
        stage: Rate(n_workers, speed, (counts[stage].pending + counts[stage].claimed) / speed if speed > 0 else None)
        for stage, (n_workers, speed) in running.items()
        if counts[stage].pending + counts[stage].claimed > 0 and not _others_wait(conn, stage, scope)
    }


def _others_wait(conn: sqlite3.Connection, stage: str, scope: Scope) -> bool:
    """Whether repositories that are not in the scope have rows left at the stage."""
    if scope.repo_id is None:
        return False
    return bool(
        conn.execute(
            """SELECT 1 FROM commits INDEXED BY commits_funnel
               WHERE repo_id IN (SELECT id FROM repos WHERE id <> ?) AND outcome = 'open' AND status =
                     (SELECT b.stage FROM stages AS s JOIN stages AS b ON b.place = s.place - 1 WHERE s.stage = ?)
               LIMIT 1""",
            (scope.repo_id, stage),
        ).fetchone()
    )


def _is_running(conn: sqlite3.Connection, worker: str, seen_at_s: float, lease_s: float) -> bool:
    """Whether a worker that has not said that it ended is still there.

    On this host its process is; on another one that cannot be seen, and it has
    been heard of within its lease.
    """
    if identities.is_here(worker):
        return identities.is_alive(worker)
    now = time.time()
    return seen_at_s >= now - lease_s or bool(
        conn.execute(
            "SELECT 1 FROM commits WHERE claim_owner = ? AND claim_until_s >= ? LIMIT 1", (worker, now)
        ).fetchone()
    )


def model_runs(conn: sqlite3.Connection, lease_s: float) -> list[ModelRun]:
    """The models that are loaded now; if none is, the one that was last."""
    found = conn.execute(
        """SELECT name, ended_at_s IS NULL, worker, seen_at_s, seen_at_s - started_at_s, busy_s, n_calls,
                  n_prompt - n_cached + n_completion, n_cached, n_prompt
           FROM model_runs JOIN models ON models.id = model_id ORDER BY model_runs.id DESC LIMIT 32"""
    ).fetchall()
    runs = [ModelRun(row[0], bool(row[1]) and _is_running(conn, row[2], row[3], lease_s), *row[4:]) for row in found]
    return [run for run in runs if run.is_running] or runs[:1]


def repos(conn: sqlite3.Connection) -> list[RepoRow]:
    """The ingested repositories by name."""
    return [
        RepoRow(row[0], row[1], row[2], row[3], bool(row[4]), row[5])
        for row in conn.execute(
            """SELECT id, name, path, url, is_shallow, (SELECT count(*) FROM commits WHERE repo_id = repos.id)
               FROM repos ORDER BY name"""
        )
    ]


def repo_id(conn: sqlite3.Connection, name: str) -> int:
    """The id of the repository with this name (or its last part, if only one has it)."""
    rows = conn.execute("SELECT id, name FROM repos ORDER BY name").fetchall()
    found = [row for row in rows if row[1] == name] or [row for row in rows if row[1].rsplit("/", 1)[-1] == name]
    if len(found) == 1:
        return int(found[0][0])
    known = ", ".join(row[1] for row in rows) or "none: trustmine ingest REPO"
    what = f"There is no repository {name!r}" if not found else f"Several repositories end in {name!r}"
    raise TrustmineError(what, "--repo", f"In this database: {known}")


def repo_name(conn: sqlite3.Connection, repo_id: int) -> str:
    """Its whole name."""
    return str(conn.execute("SELECT name FROM repos WHERE id = ?", (repo_id,)).fetchone()[0])


def commits_by_sha(conn: sqlite3.Connection, sha: str, repo: int | None = None) -> list[int]:
    """Ids of the commits whose SHA begins so (one per repository that has it)."""
    sha = sha.lower()
    clause, values = Scope(repo_id=repo).where()
    return [
        row[0]
        for row in conn.execute(
            f"SELECT id FROM commits WHERE sha >= ? AND sha < ?{clause} ORDER BY id",
            (sha, sha + "g", *values),
        )
    ]


def rows(conn: sqlite3.Connection, sql: str, values: tuple[object, ...] = ()) -> list[dict[str, Any]]:
    """The result of a query as dicts."""
    cursor = conn.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
