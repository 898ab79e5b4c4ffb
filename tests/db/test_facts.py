"""The dataclasses of facts and the tables of schema.sql say the same."""

import sqlite3
from collections.abc import Callable
from dataclasses import fields

import pytest

from trustmine.db import claims, facts
from trustmine.db.facts import FactReader
from trustmine.records import (
    FACTS,
    BlobSymbols,
    Commit,
    DiffFile,
    Fact,
    FunctionPair,
    Identifier,
    Instruction,
    KeywordMatch,
    PreImage,
    Verdict,
)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.__name__)
def test_each_fact_has_the_columns_of_its_table(conn: sqlite3.Connection, fact: type[Fact]) -> None:
    columns = [row[1] for row in conn.execute(f"PRAGMA table_info({fact.TABLE})")]
    mine = [field.name for field in fields(fact)] + ([] if fact.SHARED else ["commit_id"])
    assert sorted(columns) == sorted(mine)


def test_each_table_keyed_by_commit_belongs_to_a_stage_or_is_known_not_to(conn: sqlite3.Connection) -> None:
    tables = {
        row[0]
        for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if any(column[1] == "commit_id" for column in conn.execute(f"PRAGMA table_info({row[0]})"))
    }
    assert tables - {fact.TABLE for fact in FACTS} == {"messages", "steps", "llm_calls", "failures", "labels"}


@pytest.fixture
def commit(conn: sqlite3.Connection, add_commits: Callable[..., list[int]]) -> Commit:
    return claims.read(conn, add_commits(1))[0]


def test_facts_read_back_equal(conn: sqlite3.Connection, commit: Commit) -> None:
    stored: list[Fact] = [
        KeywordMatch(("overflow", "fix")),
        Identifier("CVE", "CVE-2020-1"),
        Identifier("CWE", "CWE-787"),
        DiffFile(1, "modified", "a.c", "a.c", "1" * 40, "2" * 40, False, True, 3, 4, 5),
        Verdict("yes", "model", 0.5, 0.25, 0.25, 0.75, None, "why\0 <b>not</b>", "h"),
        FunctionPair(
            "f", "a.c", "a.c", "train", "1", "2", "latin-1", "@@", 1, 2, 3, 4, "a", "b\r\n", (1, 2), (), (1,), 9
        ),
        Instruction("infill", 1, "train", "do", "in", "out", {"z": [1, None], "a": "ü"}),
    ]
    facts.write(conn, [(commit.id, fact) for fact in stored])
    reader = FactReader(conn)
    for kind in {type(fact) for fact in stored}:
        assert list(reader.all(kind, commit)) == [fact for fact in stored if type(fact) is kind]


def test_a_shared_fact_is_stored_once(conn: sqlite3.Connection) -> None:
    image = PreImage("ab", 3, b"\x00\xff")
    facts.write(conn, [(1, image), (2, image)])
    assert FactReader(conn).shared(PreImage, "ab") == image
    with pytest.raises(LookupError):
        FactReader(conn).shared(PreImage, "cd")


def test_a_shared_fact_may_have_a_key_of_several_columns(conn: sqlite3.Connection) -> None:
    one, two = (BlobSymbols("ab", grammar, "1", 0, None, b"") for grammar in ("c", "h"))
    facts.write(conn, [(1, one), (2, two), (3, one)])
    reader = FactReader(conn)
    assert (reader.shared(BlobSymbols, "ab", "c", "1"), reader.shared(BlobSymbols, "ab", "h", "1")) == (one, two)
    assert reader.find_shared(BlobSymbols, "ab", "c", "2") is None
    with pytest.raises(LookupError, match="no ab cpp 1"):
        reader.shared(BlobSymbols, "ab", "cpp", "1")


def test_one_fact_means_exactly_one(conn: sqlite3.Connection, commit: Commit) -> None:
    with pytest.raises(LookupError, match="0 rows in verdicts"):
        FactReader(conn).one(Verdict, commit)
