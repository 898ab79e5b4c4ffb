"""What a check is, what it finds, and what it may look at."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from trustmine.config import Settings
from trustmine.db import claims
from trustmine.db.facts import FactReader
from trustmine.records import Commit

Statement = tuple[str, tuple[Any, ...]]
EVERY = 100  # rows between two steps of a progress bar


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    commit_id: int | None  # None: not about one commit
    what: str
    back: str | None = None  # the stage before which the row is sent back; None: sending it back would not help
    mend: tuple[Statement, ...] = ()  # what `--repair` runs after that


@dataclass(slots=True)
class Look:
    """What checks read from: one database, and the settings in force for prompts."""

    conn: sqlite3.Connection
    settings: Settings
    draw: Callable[[int], None] = lambda done: None
    found: set[int] = field(default_factory=set)  # commits found by earlier checks; they are not looked at again
    skipped: dict[str, int] = field(default_factory=dict)  # why -> rows that could not be looked at

    @property
    def facts(self) -> FactReader:
        return FactReader(self.conn)

    def skip(self, why: str, n: int = 1) -> None:
        self.skipped[why] = self.skipped.get(why, 0) + n

    def renew(self) -> None:
        """See what has been committed since; only where no query is being read.

        A reader that stays where it is keeps the write-ahead log from being folded back into the file.
        """
        if self.conn.in_transaction:
            self.conn.execute("ROLLBACK")
            self.conn.execute("BEGIN")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While others that write wait, and nothing is kept: for a check that SQLite takes for a write.

        From a snapshot it would fail at once if anybody has written since. Raises OperationalError if somebody else
        writes for too long.
        """
        if self.conn.in_transaction:
            self.conn.execute("ROLLBACK")
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            if self.conn.in_transaction:
                self.conn.execute("ROLLBACK")
            self.conn.execute("BEGIN")

    def rows(self, sql: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query one after the other, counted for the progress bar."""
        for n, row in enumerate(self.conn.execute(sql, values), 1):
            if n % EVERY == 0:
                self.draw(n)
            yield row

    def commits(self, table: str) -> Iterator[Commit]:
        """Each commit once that has rows in a table of facts, in the order of ids; a batch is of one snapshot."""
        # In batches: what is read while a cursor is open must not depend on when SQLite steps it.
        last = 0
        while ids := [
            row[0]
            for row in self.conn.execute(
                f"SELECT DISTINCT commit_id FROM {table} WHERE commit_id > ? ORDER BY commit_id LIMIT {EVERY}", (last,)
            )
        ]:
            yield from (commit for commit in claims.read(self.conn, ids) if commit.id not in self.found)
            last = ids[-1]
            self.renew()


def is_locked(error: Exception) -> bool:
    """Whether it says only that somebody else holds the database: that is no damage."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what kind of busy it is
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@dataclass(frozen=True, slots=True)
class Check:
    """Something that holds in a sound database."""

    name: str
    holds: str  # one line: what is so if all is well
    find: Callable[[Look], Iterator[Finding]]
    hint: str = ""  # what to do about findings that `--repair` cannot mend
    table: str | None = None  # whose rows it walks through, for the progress bar
    is_slow: bool = False  # does the work of a stage again: left out by --quick


@dataclass(slots=True)
class Result:
    """What a check found."""

    check: Check
    n_found: int = 0
    examples: list[str] = field(default_factory=list)  # of the first ones: short SHA and what is wrong
    skipped: dict[str, int] = field(default_factory=dict)
    n_left: int = 0  # of these, how many `--repair` cannot mend
