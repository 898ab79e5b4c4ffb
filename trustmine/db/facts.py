"""Facts in and out of their tables, by the dataclasses of records.py.

The columns of a table are its dataclass's fields, preceded by commit_id
unless the fact is shared. Tuples and mappings are JSON, bools are 0 or 1.
"""

import json
import operator
import sqlite3
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from trustmine.records import FACTS, Commit, Fact, Label

F = TypeVar("F", bound=Fact)


@dataclass(frozen=True, slots=True)
class _Columns:
    names: tuple[str, ...]
    get: Callable[[Any], tuple[Any, ...]]  # the values of a fact, as they are
    as_json: tuple[int, ...]  # places of those that are stored as JSON
    decode: tuple[Callable[[Any], Any] | None, ...]


_COLUMNS: dict[type[Fact], _Columns] = {}


def as_json(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces, text as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _columns(fact: type[Fact]) -> _Columns:
    if fact not in _COLUMNS:
        _COLUMNS[fact] = _read_columns(fact)
    return _COLUMNS[fact]


def _read_columns(fact: type[Fact]) -> _Columns:
    hints = typing.get_type_hints(fact)
    names: list[str] = []
    json_places: list[int] = []
    decode: list[Callable[[Any], Any] | None] = []
    for place, field in enumerate(fields(fact)):
        origin = typing.get_origin(hints[field.name]) or hints[field.name]
        names.append(f'"{field.name}"')
        if origin in (tuple, Mapping):
            json_places.append(place)
        if origin is tuple:
            decode.append(lambda text: tuple(json.loads(text)))
        elif origin is Mapping:
            decode.append(json.loads)
        elif origin is bool:  # SQLite takes a bool for 0 or 1
            decode.append(bool)
        else:
            decode.append(None)
    own = [field.name for field in fields(fact)]
    # With one name attrgetter gives the value itself, with more a tuple.
    get = operator.attrgetter(*own) if len(own) > 1 else lambda fact: (getattr(fact, own[0]),)
    return _Columns(tuple(names), get, tuple(json_places), tuple(decode))


def _insert(fact: type[Fact]) -> str:
    names = _columns(fact).names if fact.SHARED else ("commit_id", *_columns(fact).names)
    verb = "INSERT OR IGNORE" if fact.SHARED else "INSERT"
    return f"{verb} INTO {fact.TABLE} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def write(conn: sqlite3.Connection, facts: Iterable[tuple[int, Fact]]) -> None:
    """Store facts of commits (by commit id), inside the caller's transaction."""
    rows: dict[type[Fact], list[tuple[Any, ...]]] = {}
    for commit_id, fact in facts:
        kind = type(fact)
        columns = _columns(kind)
        values = columns.get(fact)
        if columns.as_json:
            values = tuple(as_json(v) if place in columns.as_json else v for place, v in enumerate(values))
        rows.setdefault(kind, []).append(values if kind.SHARED else (commit_id, *values))
    for kind, wanted in rows.items():
        conn.executemany(_insert(kind), wanted)


def tables_from(stages: Iterable[str]) -> list[str]:
    """Tables of facts that belong to commits and are written by these stages."""
    wanted = set(stages)
    return [fact.TABLE for fact in FACTS if fact.STAGE in wanted and not fact.SHARED]


class FactReader:
    """Reads of earlier facts; see stages.base.Facts."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn

    def all(self, fact: type[F], commit: Commit) -> tuple[F, ...]:
        names = ", ".join(_columns(fact).names)
        # The key orders the rows: (commit_id, number or name) in every table.
        cursor = self._conn.execute(
            f"SELECT {names} FROM {fact.TABLE} WHERE commit_id = ? ORDER BY {_order(self._conn, fact)}",
            (commit.id,),
        )
        return tuple(_decoded(fact, row) for row in cursor)

    def one(self, fact: type[F], commit: Commit) -> F:
        found = self.all(fact, commit)
        if len(found) != 1:
            raise LookupError(f"{len(found)} rows in {fact.TABLE} for commit {commit.sha}")
        return found[0]

    def shared(self, fact: type[F], *key: str) -> F:
        found = self.find_shared(fact, *key)
        if found is None:
            raise LookupError(f"no {' '.join(key)} in {fact.TABLE}")
        return found

    def find_shared(self, fact: type[F], *key: str) -> F | None:
        names = _columns(fact).names  # the key comes first
        where = " AND ".join(f"{name} = ?" for name in names[: len(key)])
        row = self._conn.execute(f"SELECT {', '.join(names)} FROM {fact.TABLE} WHERE {where}", key).fetchone()
        return None if row is None else _decoded(fact, row)

    def labels(self, commit: Commit) -> tuple[Label, ...]:
        cursor = self._conn.execute(
            """SELECT source, identifier, label, cwe, quality FROM labels
               WHERE commit_id = ? ORDER BY source, identifier""",
            (commit.id,),
        )
        return tuple(Label(*row) for row in cursor)


def _decoded(fact: type[F], row: tuple[Any, ...]) -> F:
    decode = _columns(fact).decode
    return fact(*(value if how is None else how(value) for value, how in zip(row, decode, strict=True)))


_KEYS: dict[type[Fact], str] = {}


def _order(conn: sqlite3.Connection, fact: type[Fact]) -> str:
    if fact not in _KEYS:
        keyed = [row for row in conn.execute(f"PRAGMA table_info({fact.TABLE})") if row[5]]
        _KEYS[fact] = ", ".join(f'"{row[1]}"' for row in sorted(keyed, key=lambda row: row[5]))
    return _KEYS[fact]
