"""The queue: who works on which row, and how a row moves on.

A claim is an owner and the end of a lease on the row itself, taken in one
short write. No transaction is open while a worker works. `finish` stores
facts, status and step together, only for rows whose claim is still this
worker's and has not run out: a late result is dropped. Claims of a process
that is gone, on this host, end at once; all others when their lease does.

A row may kill its worker in native code or for want of memory, so no row of a
worker that died or fell silent is trusted: from then on it is claimed alone,
and where it asks a model, alone among all workers, for the model may be what
dies. If it dies again the row is blamed: that counts as a failure, and after
max_attempts of them the row is set aside. Its neighbours never pay for it.
"""

import itertools
import sqlite3
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from trustmine.db import calls, identities
from trustmine.db import facts as fact_tables
from trustmine.db.calls import Call
from trustmine.db.connect import transaction
from trustmine.records import Advance, Commit, Outcome, Reject

LAST_STAGE = "s4"
MAX_ATTEMPTS = 3  # where the caller has no settings
DIED = "The worker died while this row was all it worked on: killed, out of memory, or crashed in native code"
FELL_SILENT = "The worker was silent for longer than its lease while this row was all it worked on"


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage raised: one line for people, the traceback for us."""

    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows a run is about. `start` and `end` are commit ids, end not included."""

    repo_id: int | None = None
    start: int | None = None
    end: int | None = None
    ids: tuple[int, ...] | None = None  # only these rows
    is_labelled: bool = False  # only rows with a label from outside
    qualities: tuple[str, ...] | None = None  # of labels that count then; None: all

    def where(self, repo: str = "repo_id") -> tuple[str, list[object]]:
        """SQL that starts with AND (or is empty), with its values. `repo`: how the column is written; see OF_ASIDE."""
        parts: list[str] = []
        values: list[object] = []
        for clause, value in ((f"{repo} = ?", self.repo_id), ("id >= ?", self.start), ("id < ?", self.end)):
            if value is not None:
                parts.append(f" AND {clause}")
                values.append(value)
        if self.ids is not None:
            parts.append(" AND id IN (SELECT value FROM json_each(?))")
            values.append(fact_tables.as_json(self.ids))
        if self.is_labelled and self.qualities is None:
            parts.append(" AND id IN (SELECT commit_id FROM labels)")
        elif self.is_labelled:
            parts.append(" AND id IN (SELECT commit_id FROM labels WHERE quality IN (SELECT value FROM json_each(?)))")
            values.append(fact_tables.as_json(self.qualities))
        return "".join(parts), values


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of some rows."""

    advanced: int = 0
    rejected: int = 0
    failed: int = 0
    lost: int = 0  # results dropped because the lease had run out

    @property
    def total(self) -> int:
        return self.advanced + self.rejected + self.failed

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.advanced + other.advanced,
            self.rejected + other.rejected,
            self.failed + other.failed,
            self.lost + other.lost,
        )


# -------------------------------------------------------------------------- claims


def claim(
    conn: sqlite3.Connection,
    stage: str,
    after: str,
    worker: str,
    *,
    limit: int,
    lease_s: float,
    scope: Scope = Scope(),
    aside: Collection[tuple[str, str]] = (),
    order: str = "oldest",
    max_attempts: int = MAX_ATTEMPTS,
) -> list[Commit]:
    """Up to `limit` pending rows of a stage, now held by `worker`.

    A row that a worker may have died of comes alone, and only when there is
    no company for it: who holds rows and gets none asks again when it holds
    none.

    `order`: oldest, newest, or priority; by priority, rows that have none
    (s0_2 gives it) come last, oldest first. `aside` names (stage, reason) of
    rejected rows that this stage also takes once; they come when no others
    are left, in the same order.
    """
    now = time.time()
    _, values = scope.where()
    wanted: list[tuple[str, tuple[object, ...]]] = [(PENDING, (after,))]
    wanted += [(aside_where(), (reject_stage, reason, stage)) for reject_stage, reason in aside]
    found: list[tuple[int, int]] = []
    with transaction(conn):
        _expire(conn, now, max_attempts)
        n_company, n_untrusted = _company(conn, stage, worker, now)
        for where, names in wanted if not n_untrusted else ():
            where += " AND crashes = 0" if n_company else ""
            for part in ORDERS[order]:
                if len(found) < limit:
                    sql = claim_sql(where, part, scope)
                    found += conn.execute(sql, (*names, now, *values, limit - len(found))).fetchall()
        trusted = list(itertools.takewhile(lambda row: not row[1], found))
        ids = [commit_id for commit_id, _ in trusted or found[:1]]
        conn.executemany(
            "UPDATE commits SET claim_owner = ?, claim_until_s = ? WHERE id = ?",
            [(worker, now + lease_s, commit_id) for commit_id in ids],
        )
    return read(conn, ids)


def _company(conn: sqlite3.Connection, stage: str, worker: str, now: float) -> tuple[int, int]:
    """How many rows would share the fate of one claimed now, and how many of them are not trusted.

    Those that the worker holds; at a stage that can ask a model, also those
    that any worker holds at such a stage, for they may share the model's process.
    """
    n, n_untrusted = conn.execute(
        """SELECT count(*), coalesce(sum(crashes > 0), 0) FROM commits AS c INDEXED BY commits_claimed
           WHERE claim_owner IS NOT NULL AND (claim_owner = ?1 OR (
               (SELECT kind FROM stages WHERE stage = ?3) = 'llm' AND claim_until_s >= ?2 AND 'llm' =
               (SELECT n.kind FROM stages AS p JOIN stages AS n ON n.place = p.place + 1 WHERE p.stage = c.status)))""",
        (worker, now, stage),
    ).fetchone()
    return int(n), int(n_untrusted)


PENDING = "outcome = 'open' AND status = ?"
# Which rows come first: the parts of an order, one after the other, each with the index that has pending rows in it.
ORDERS = {
    "oldest": (("commits_pending", "ORDER BY id"),),
    "newest": (("commits_pending", "ORDER BY id DESC"),),
    "priority": (
        ("commits_best", "AND priority IS NOT NULL ORDER BY priority DESC, id"),
        ("commits_pending", "AND priority IS NULL ORDER BY id"),
    ),
}
# How the repository of rejected rows that a stage also takes is asked for: they have small indexes, and with that of
# the repository SQLite would read all of it.
OF_ASIDE = "+repo_id"
# The same within one repository, so that no row of others is stepped over; the funnel's columns after outcome are NULL.
_OF_REPO = {
    "commits_pending": ("commits_funnel", " AND reject_stage IS NULL AND reject_reason IS NULL"),
    "commits_best": ("commits_best_of_repo", ""),
}


def claim_sql(where: str, part: tuple[str, str], scope: Scope) -> str:
    """SQL for the free rows of one part of an order; its values: those of `where`, now, those of the scope, how many.

    Pending rows are read from the part's index, so that a claim takes the
    same time whatever is pending: left to itself SQLite sorts all rows of a
    repository or range. A scope that lists its rows is short, and is sorted.
    """
    index, order = part
    clause, _ = scope.where("repo_id" if where.startswith(PENDING) else OF_ASIDE)
    source = "commits"
    if where.startswith(PENDING) and scope.ids is None and not scope.is_labelled:
        index, more = (index, "") if scope.repo_id is None else _OF_REPO[index]
        source, clause = f"commits INDEXED BY {index}", clause + more
    free = f"(claim_owner IS NULL OR claim_until_s < ?){clause}"
    return f"SELECT id, crashes FROM {source} WHERE {where} AND {free} {order} LIMIT ?"


def aside_where() -> str:
    """SQL for rows a stage takes although they were rejected: values are reject stage, reason, stage."""
    return """outcome = 'rejected' AND reject_stage = ? AND reject_reason = ?
        AND NOT EXISTS (SELECT 1 FROM steps WHERE commit_id = commits.id AND stage = ?)"""


def read(conn: sqlite3.Connection, ids: Sequence[int]) -> list[Commit]:
    """The rows with these ids, in this order."""
    found = {
        row[0]: Commit(
            row[0], row[1], row[2], tuple(row[3].split()), row[4], row[5], bool(row[6]), row[7], row[8], bool(row[9])
        )
        for row in conn.execute(
            """SELECT id, repo_id, sha, parents, author_time_s, commit_time_s, is_boundary, message, status,
                      outcome = 'rejected'
               FROM commits JOIN messages ON commit_id = id WHERE id IN (SELECT value FROM json_each(?))""",
            (fact_tables.as_json(list(ids)),),
        )
    }
    return [found[commit_id] for commit_id in ids if commit_id in found]


def renew(conn: sqlite3.Connection, worker: str, lease_s: float) -> None:
    """Give the worker's live claims a fresh lease."""
    now = time.time()
    with transaction(conn):
        conn.execute(
            "UPDATE commits SET claim_until_s = ? WHERE claim_owner = ? AND claim_until_s >= ?",
            (now + lease_s, worker, now),
        )


def release(conn: sqlite3.Connection, worker: str) -> None:
    """Give all rows of the worker back; they are pending again."""
    with transaction(conn):
        _release(conn, worker)


def _release(conn: sqlite3.Connection, worker: str) -> None:
    conn.execute("UPDATE commits SET claim_owner = NULL, claim_until_s = NULL WHERE claim_owner = ?", (worker,))


def reclaim(conn: sqlite3.Connection, max_attempts: int = MAX_ATTEMPTS) -> None:
    """End the claims of workers of this host whose process is gone; see the module on whom that is blamed."""
    dead = [owner for owner in owners(conn) if not identities.is_alive(owner)]
    if dead:
        with transaction(conn):
            for owner in dead:
                _crashed(conn, owner, DIED, max_attempts)


def _expire(conn: sqlite3.Connection, now: float, max_attempts: int) -> None:
    """End the claims whose lease has run out."""
    silent = conn.execute(
        "SELECT DISTINCT claim_owner FROM commits WHERE claim_owner IS NOT NULL AND claim_until_s < ?", (now,)
    ).fetchall()
    for (owner,) in silent:
        _crashed(conn, owner, FELL_SILENT, max_attempts)


def _crashed(conn: sqlite3.Connection, worker: str, error: str, max_attempts: int) -> None:
    """Give the rows of a worker that is gone back; one that was alone in hand, and not trusted, has failed."""
    held = conn.execute("SELECT id, outcome, status, crashes FROM commits WHERE claim_owner = ?", (worker,)).fetchall()
    conn.execute("UPDATE commits SET crashes = crashes + 1 WHERE claim_owner = ?", (worker,))
    _release(conn, worker)
    if len(held) != 1 or not held[0][3]:
        return
    commit_id, outcome, status, _ = held[0]
    # A row waits for the stage after its status; one aside was taken by a later one, the last that the worker was at.
    [stage] = conn.execute(
        """SELECT stage FROM stages WHERE place = 1 + (SELECT place FROM stages WHERE stage = ?)"""
        if outcome == "open"
        else "SELECT stage FROM workers JOIN stages USING (stage) WHERE worker = ? ORDER BY place DESC LIMIT 1",
        (status if outcome == "open" else worker,),
    ).fetchone() or (LAST_STAGE,)
    recipe = conn.execute("SELECT max(id) FROM recipes WHERE stage = ?", (stage,)).fetchone()[0]
    is_aside = outcome == "rejected"
    _fail_row(conn, stage, worker, recipe, commit_id, is_aside, Failure(error, ""), max_attempts, time.time())


def owners(conn: sqlite3.Connection) -> list[str]:
    """Workers that hold rows, dead or alive."""
    # Steps from one owner to the next through the index instead of reading every claimed row.
    found, last = [], ""
    while row := conn.execute("SELECT min(claim_owner) FROM commits WHERE claim_owner > ?", (last,)).fetchone():
        if row[0] is None:
            break
        found.append(last := row[0])
    return found


# -------------------------------------------------------------------------- finish


def finish(
    conn: sqlite3.Connection,
    stage: str,
    worker: str,
    recipe_id: int,
    results: Sequence[tuple[Commit, Outcome | Failure]],
    *,
    max_attempts: int,
    made: Sequence[Call] = (),
) -> Tally:
    """Store what became of claimed rows: facts, status, step and calls in one transaction.

    Rows whose claim is not this worker's any more are counted as lost and
    nothing of them is stored.
    """
    with transaction(conn):
        now = time.time()
        mine = {
            row[0]
            for row in conn.execute(
                "SELECT id FROM commits WHERE claim_owner = ? AND claim_until_s >= ?", (worker, now)
            )
        }
        kept = [(commit, outcome) for commit, outcome in results if commit.id in mine]
        passed = [commit for commit, outcome in kept if isinstance(outcome, Advance) and not commit.is_aside]
        aside = [commit for commit, outcome in kept if not isinstance(outcome, Failure) and commit.is_aside]
        rejected = [
            (commit, outcome) for commit, outcome in kept if isinstance(outcome, Reject) and not commit.is_aside
        ]
        failed = [(commit, outcome) for commit, outcome in kept if isinstance(outcome, Failure)]
        conn.executemany(
            """UPDATE commits SET status = ?, outcome = ?, attempts = 0, crashes = 0,
                      claim_owner = NULL, claim_until_s = NULL WHERE id = ?""",
            [(stage, "done" if stage == LAST_STAGE else "open", commit.id) for commit in passed],
        )
        conn.executemany(
            """UPDATE commits SET outcome = 'rejected', reject_stage = ?, reject_reason = ?, attempts = 0, crashes = 0,
                      claim_owner = NULL, claim_until_s = NULL WHERE id = ?""",
            [(stage, outcome.reason, commit.id) for commit, outcome in rejected],
        )
        conn.executemany(
            "UPDATE commits SET attempts = 0, crashes = 0, claim_owner = NULL, claim_until_s = NULL WHERE id = ?",
            [(commit.id,) for commit in aside],
        )
        fact_tables.write(
            conn,
            [
                (commit.id, fact)
                for commit, outcome in kept
                if not isinstance(outcome, Failure)
                for fact in outcome.facts
            ],
        )
        decided = [commit.id for commit, outcome in kept if not isinstance(outcome, Failure)]
        conn.executemany(
            "INSERT INTO steps (commit_id, stage, recipe_id) VALUES (?, ?, ?)",
            [(commit_id, stage, recipe_id) for commit_id in decided],
        )
        conn.executemany(
            "DELETE FROM failures WHERE commit_id = ? AND stage = ?", [(commit_id, stage) for commit_id in decided]
        )
        _fail(conn, stage, worker, recipe_id, failed, max_attempts, now)
        calls.write(conn, [call for call in made if call.commit_id in mine])
        tally = Tally(
            advanced=len(passed) + len(aside),
            rejected=len(rejected),
            failed=len(failed),
            lost=len(results) - len(kept),
        )
        conn.execute(
            """UPDATE workers SET seen_at_s = ?, n_advanced = n_advanced + ?, n_rejected = n_rejected + ?,
                      n_failed = n_failed + ?, n_lost = n_lost + ? WHERE worker = ? AND stage = ?""",
            (now, tally.advanced, tally.rejected, tally.failed, tally.lost, worker, stage),
        )
    return tally


def _fail(
    conn: sqlite3.Connection,
    stage: str,
    worker: str,
    recipe_id: int,
    failed: Sequence[tuple[Commit, Failure]],
    max_attempts: int,
    now: float,
) -> None:
    for commit, failure in failed:
        conn.execute("UPDATE commits SET crashes = 0 WHERE id = ?", (commit.id,))  # the worker lives
        _fail_row(conn, stage, worker, recipe_id, commit.id, commit.is_aside, failure, max_attempts, now)


def _fail_row(
    conn: sqlite3.Connection,
    stage: str,
    worker: str,
    recipe_id: int | None,
    commit_id: int,
    is_aside: bool,
    failure: Failure,
    max_attempts: int,
    now: float,
) -> None:
    attempt = conn.execute("SELECT attempts + 1 FROM commits WHERE id = ?", (commit_id,)).fetchone()[0]
    conn.execute(
        """UPDATE commits SET attempts = ?, claim_owner = NULL, claim_until_s = NULL,
                  outcome = CASE WHEN ? AND outcome = 'open' THEN 'failed' ELSE outcome END WHERE id = ?""",
        (attempt, attempt >= max_attempts, commit_id),
    )
    conn.execute(
        "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?)",
        (commit_id, stage, attempt, failure.error, failure.traceback, worker, now),
    )
    if is_aside and recipe_id is not None and attempt >= max_attempts:
        # Its outcome stays rejected; the step ends the retries.
        conn.execute("INSERT INTO steps (commit_id, stage, recipe_id) VALUES (?, ?, ?)", (commit_id, stage, recipe_id))


# ----------------------------------------------------------------- the workers' table


def enter(conn: sqlite3.Connection, worker: str, stage: str) -> None:
    """Note that a worker begins with a stage."""
    now = time.time()
    with transaction(conn):
        conn.execute(
            "INSERT INTO workers (worker, stage, started_at_s, seen_at_s) VALUES (?, ?, ?, ?)",
            (worker, stage, now, now),
        )


def leave(conn: sqlite3.Connection, worker: str, stage: str) -> None:
    """Note that a worker has ended a stage, and give back what it still holds."""
    with transaction(conn):
        _release(conn, worker)
        conn.execute(
            "UPDATE workers SET ended_at_s = ? WHERE worker = ? AND stage = ? AND ended_at_s IS NULL",
            (time.time(), worker, stage),
        )
