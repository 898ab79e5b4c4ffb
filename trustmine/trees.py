"""The symbols of all C and C++ files of one commit's tree at a time, by name.

A private database of this process, which SQLite keeps in a bounded cache and
beyond that in a temporary file. From one commit's tree to the next it takes
the difference of the two. A blob is read and parsed once, or taken from what
an earlier worker has stored (BlobSymbols); what is new, `news` hands out to be
stored.

All files of a tree are parsed, not only those that hold a name asked for: the
names that one function uses and its file does not define stand in a third
(curl) to nine tenths (gpac) of the tree's files (median of 12 random functions
each, 2026-11), so that after some rows all of it would be parsed anyway, while
every row would read every blob to tell. So the first row of a repository costs
some 6 (curl) to 20 ms (vim) per file, once for all workers if it is stored;
later rows cost what differs, and a name that is defined nowhere costs no more
than others.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterator
from typing import Protocol, TypeVar

from trustmine.cparse import PARSER, FileSymbols, Symbol, file_symbols, grammar
from trustmine.records import BlobSymbols, Fact
from trustmine.text import decode

F = TypeVar("F", bound=Fact)

C_SUFFIXES = (".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".inl", ".ipp")
# What one row stores at most: curl's 1,019 files take 0.3 MB, gpac's 684 take 0.8 MB. Larger trees are stored over
# several rows.
MAX_NEWS_BYTES = 8_000_000
# Blobs kept beyond those of the present tree, for trees to come: the history of a large project in some years.
MAX_OLD_BLOBS = 50_000
# Memory of the private database; the rest of it lies in a temporary file.
CACHE_KIB = 65_536

_SCHEMA = """
CREATE TABLE blobs (
    no INTEGER PRIMARY KEY, oid TEXT NOT NULL, grammar TEXT NOT NULL, includes TEXT NOT NULL,
    n_symbols INTEGER NOT NULL, loss TEXT, content BLOB, -- NULL: stored, as far as this process knows
    UNIQUE (oid, grammar)
);
CREATE INDEX unstored ON blobs (no) WHERE content IS NOT NULL;
CREATE TABLE symbols (
    name TEXT NOT NULL, blob INTEGER NOT NULL, place INTEGER NOT NULL,
    kind TEXT NOT NULL, first_line INTEGER NOT NULL, last_line INTEGER NOT NULL, is_declared INTEGER NOT NULL,
    PRIMARY KEY (name, blob, place)
) WITHOUT ROWID;
CREATE TABLE files (
    raw BLOB PRIMARY KEY, path TEXT NOT NULL, base TEXT NOT NULL, oid TEXT NOT NULL,
    blob INTEGER -- NULL: neither C by its name nor included so far
) WITHOUT ROWID;
CREATE INDEX files_path ON files (path);
CREATE INDEX files_base ON files (base);
CREATE INDEX files_blob ON files (blob);
"""


class Repo(Protocol):
    """What is needed of a GitRepo."""

    def blob(self, oid: str) -> bytes: ...

    def blob_oid(self, data: bytes) -> str: ...

    def tree_changes(self, old: str | None, new: str) -> Iterator[tuple[bytes, str | None]]: ...


class SharedFacts(Protocol):
    """What is needed of a FactReader."""

    def find_shared(self, fact: type[F], *key: str) -> F | None: ...


class TreeIndex:
    """The symbols of a repository's tree. Whatever raises, an object that is missing say, leaves it as it was."""

    def __init__(self, repo: Repo, facts: SharedFacts | None = None) -> None:
        self._repo = repo
        self._facts = facts
        self._sha: str | None = None
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._db.execute("PRAGMA journal_mode = MEMORY")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)

    def __del__(self) -> None:
        self._db.close()

    def move_to(self, sha: str) -> None:
        """Make a commit's tree the present one. Raises what the repository raises for objects it lacks."""
        if sha == self._sha:
            return
        changes = [(raw, decode(raw)[0], oid) for raw, oid in self._repo.tree_changes(self._sha, sha)]
        self._db.execute("BEGIN")
        try:  # blobs that were read before one is missing are kept
            blobs = [self.take(oid, grammar(path)) if oid and is_c(path) else None for _, path, oid in changes]
        finally:
            self._db.execute("COMMIT")
        self._db.execute("BEGIN")
        self._db.executemany("DELETE FROM files WHERE raw = ?", [(raw,) for raw, _, _ in changes])
        self._db.executemany(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?)",
            [
                (raw, path, path.rpartition("/")[2], oid, blob)
                for (raw, path, oid), blob in zip(changes, blobs, strict=True)
                if oid is not None
            ],
        )
        self._forget()
        self._db.execute("COMMIT")
        self._sha = sha

    def take(self, oid: str, grammar: str, source: bytes | None = None) -> int:
        """The number of a blob here; it is read and parsed if nobody has done so."""
        known = self._db.execute("SELECT no FROM blobs WHERE oid = ? AND grammar = ?", (oid, grammar)).fetchone()
        if known is not None:
            return int(known[0])
        stored = None if self._facts is None else self._facts.find_shared(BlobSymbols, oid, grammar, PARSER)
        if stored is not None:
            found, content = _unpacked(stored), None
        else:
            found = file_symbols(self._repo.blob(oid) if source is None else source, grammar)
            content = None if self._facts is None else _packed(found)
        number = self._db.execute(
            "INSERT INTO blobs (oid, grammar, includes, n_symbols, loss, content) VALUES (?, ?, ?, ?, ?, ?)",
            (oid, grammar, json.dumps(found.includes), len(found.symbols), found.loss, content),
        ).lastrowid
        assert number is not None, "a row was inserted"
        self._db.executemany(
            "INSERT INTO symbols VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (s.name, number, place, s.kind, s.first_line, s.last_line, s.is_declaration_only)
                for place, s in enumerate(found.symbols)
            ],
        )
        return number

    def oid_at(self, path: str) -> str | None:
        """The blob of a file of the tree; None if there is no such file."""
        row = self._db.execute("SELECT oid FROM files WHERE path = ?", (path,)).fetchone()
        return None if row is None else str(row[0])

    def paths_named(self, base: str) -> list[str]:
        """The files of the tree with this last part of their path, in alphabetical order."""
        return [row[0] for row in self._db.execute("SELECT path FROM files WHERE base = ? ORDER BY path", (base,))]

    def includes(self, path: str) -> tuple[str, ...]:
        """What a file of the tree includes, as written there. Its symbols are found from now on, whatever its name."""
        oid = self.oid_at(path)
        if oid is None:
            return ()
        number = self.take(oid, grammar(path))
        self._db.execute("UPDATE files SET blob = ? WHERE path = ? AND blob IS NULL", (number, path))
        return self.includes_of(number)

    def includes_of(self, blob: int) -> tuple[str, ...]:
        """What a blob includes, as written there."""
        (text,) = self._db.execute("SELECT includes FROM blobs WHERE no = ?", (blob,)).fetchone()
        return tuple(json.loads(text))

    def in_blob(self, name: str, blob: int) -> list[Symbol]:
        """What a name is in a blob, in the order of its lines."""
        rows = self._db.execute(
            """SELECT name, kind, first_line, last_line, is_declared FROM symbols
               WHERE name = ? AND blob = ? ORDER BY place""",
            (name, blob),
        )
        return [_symbol(row) for row in rows]

    def in_tree(self, name: str) -> list[tuple[str, str, Symbol]]:
        """(path, blob oid, symbol) of a name in the tree, by path, then in the order of lines."""
        rows = self._db.execute(
            """SELECT name, kind, first_line, last_line, is_declared, path, oid
               FROM symbols JOIN files USING (blob) WHERE name = ? ORDER BY path, raw, place""",
            (name,),
        )
        return [(row[5], row[6], _symbol(row[:5])) for row in rows]

    def news(self) -> tuple[BlobSymbols, ...]:
        """What nobody has stored yet of the present tree, up to MAX_NEWS_BYTES; the rest comes later."""
        found: list[BlobSymbols] = []
        size_bytes = 0
        rows = self._db.execute(
            """SELECT no, oid, grammar, n_symbols, loss, content FROM blobs
               WHERE content IS NOT NULL AND no IN (SELECT blob FROM files) ORDER BY no"""
        )
        stored: list[int] = []
        for number, oid, kind, n_symbols, loss, content in rows:
            if self._facts is None or self._facts.find_shared(BlobSymbols, oid, kind, PARSER) is not None:
                stored.append(number)
                continue
            size_bytes += len(content)
            if found and size_bytes > MAX_NEWS_BYTES:
                break
            found.append(BlobSymbols(oid, kind, PARSER, n_symbols, loss, content))
        rows.close()
        self._db.executemany("UPDATE blobs SET content = NULL WHERE no = ?", [(number,) for number in stored])
        return tuple(found)

    def _forget(self) -> None:
        """Drop blobs that are not in the tree, all at once where there are too many."""
        (n_old,) = self._db.execute(
            "SELECT (SELECT count(*) FROM blobs) - (SELECT count(DISTINCT blob) FROM files)"
        ).fetchone()
        if n_old > MAX_OLD_BLOBS:
            for table, column in (("symbols", "blob"), ("blobs", "no")):
                self._db.execute(
                    f"DELETE FROM {table} WHERE {column} NOT IN (SELECT blob FROM files WHERE blob IS NOT NULL)"
                )


def is_c(path: str) -> bool:
    """Whether a file's name says C or C++."""
    return path.lower().endswith(C_SUFFIXES)


def _symbol(row: tuple[str, str, int, int, int]) -> Symbol:
    return Symbol(row[0], row[1], row[2], row[3], bool(row[4]))


def _packed(found: FileSymbols) -> bytes:
    rows = [
        (s.name, s.kind, s.first_line, s.last_line - s.first_line, int(s.is_declaration_only)) for s in found.symbols
    ]
    return zlib.compress(json.dumps([found.includes, rows], separators=(",", ":")).encode())


def _unpacked(fact: BlobSymbols) -> FileSymbols:
    includes, rows = json.loads(zlib.decompress(fact.content))
    found = tuple(Symbol(name, kind, first, first + more, bool(only)) for name, kind, first, more, only in rows)
    return FileSymbols(found, tuple(includes), fact.loss)
