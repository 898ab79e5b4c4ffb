"""What went wrong, by stage and cause, and bringing rows back that were set aside.

A cause is the line of the error without what differs from row to row:
numbers, SHAs, paths and quoted text.
"""

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from trustmine.db.claims import Scope
from trustmine.db.connect import transaction
from trustmine.db.recipes import stage_places

# In this order: what is taken out first is not seen by the others.
_VARIES = (
    (re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""), "'…'"),
    (re.compile(r"(?<!\w)(?:[A-Za-z]:)?[\w.@+~-]*/[^\s:,;()]+"), "PATH"),
    (re.compile(r"(?<!\w)0x[0-9a-fA-F]+\b"), "N"),
    (re.compile(r"(?<!\w)(?=[0-9a-f]*\d)[0-9a-f]{7,64}(?!\w)"), "SHA"),
    (re.compile(r"\b\d+(?:\.\d+)?\b"), "N"),
)


@dataclass(slots=True)
class Cause:
    """Rows that failed at a stage for one cause."""

    stage: str
    cause: str
    n_set_aside: int  # rows that are not tried any more
    n_retried: int  # rows that failed and will be tried again
    example: str  # full SHA of one of them
    error: str  # its last error, as it was


def cause_of(error: str) -> str:
    """The line of an error without what differs from row to row."""
    for pattern, name in _VARIES:
        error = pattern.sub(name, error)
    return error


def causes(conn: sqlite3.Connection, scope: Scope = Scope()) -> list[Cause]:
    """Each cause with its rows, in the order of the stages, commonest first. A row counts for its last error."""
    places = stage_places(conn)
    found: dict[tuple[str, str], Cause] = {}
    for _, sha, stage, is_set_aside, error in _failed(conn, scope):
        cause = found.setdefault((stage, cause_of(error)), Cause(stage, cause_of(error), 0, 0, sha, error))
        cause.n_set_aside += is_set_aside
        cause.n_retried += not is_set_aside
    return sorted(found.values(), key=lambda one: (places[one.stage], -one.n_set_aside, -one.n_retried, one.cause))


def retry(
    conn: sqlite3.Connection, *, stage: str | None = None, cause: str | None = None, scope: Scope = Scope()
) -> int:
    """Bring rows that were set aside back, as if never tried; their number.

    `stage`: only rows that failed there. `cause`: only rows whose last error,
    as it is or as a cause, holds this text, in any case.
    """
    wanted = [
        (commit_id, at)
        for commit_id, _, at, is_set_aside, error in _failed(conn, scope)
        if is_set_aside
        and stage in (None, at)
        and (cause is None or cause.casefold() in f"{error}\n{cause_of(error)}".casefold())
    ]
    with transaction(conn):
        # An aside row was given up with a step, which ended its attempts.
        conn.executemany(
            """DELETE FROM steps WHERE commit_id = ? AND stage = ?
               AND commit_id IN (SELECT id FROM commits WHERE outcome = 'rejected')""",
            wanted,
        )
        conn.executemany("DELETE FROM failures WHERE commit_id = ? AND stage = ?", wanted)
        conn.executemany(
            """UPDATE commits SET attempts = 0, outcome = CASE outcome WHEN 'failed' THEN 'open' ELSE outcome END
               WHERE id = ?""",
            [(commit_id,) for commit_id, _ in wanted],
        )
    return len(wanted)


def _failed(conn: sqlite3.Connection, scope: Scope) -> Iterator[tuple[int, str, str, bool, str]]:
    """(commit id, SHA, stage, whether it was set aside, last error) of each row with failures."""
    clause, values = scope.where()
    yield from (
        (row[0], row[1], row[2], bool(row[3]), row[4])
        for row in conn.execute(
            f"""SELECT id, sha, f.stage,
                       outcome = 'failed'
                           OR (outcome = 'rejected'
                               AND EXISTS (SELECT 1 FROM steps WHERE commit_id = id AND steps.stage = f.stage)),
                       error
                FROM failures AS f CROSS JOIN commits ON id = f.commit_id -- in this nesting: failures are few
                WHERE attempt = (SELECT max(attempt) FROM failures
                                 WHERE commit_id = f.commit_id AND stage = f.stage){clause}
                ORDER BY f.commit_id, f.stage""",
            values,
        )
    )
