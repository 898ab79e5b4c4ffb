"""Descriptions come from schema.sql, and what metadata.yaml names exists."""

import sqlite3
from pathlib import Path

import pytest
from web_helpers import SAMPLES, Row, make_db

from trustmine import resources
from trustmine.web.describe import DATABASE, descriptions, metadata

PAGES = metadata(Path("some.db"))["databases"][DATABASE]


def test_every_table_and_view_is_described_and_every_described_column_exists(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", SAMPLES)
    described = descriptions(resources.schema())
    shown = conn.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE '%\\_fts%' ESCAPE '\\'"
    )
    assert set(described) == {name for (name,) in shown}
    for name, entry in described.items():
        columns = {column for _, column, *_ in conn.execute(f"PRAGMA table_info({name})")}
        assert entry.description
        assert set(entry.columns) <= columns, name
    conn.close()


def test_a_comment_is_found_where_it_stands() -> None:
    described = descriptions(resources.schema())
    assert described["commit_sizes"].columns == {"n_tokens": "exact; only rows below the limit are stored"}
    assert described["calibrations"].columns["undecided_cutoff"].startswith("undecided if log p(cannot decide)")
    assert described["messages"].description == "The commit message, whole. Written by ingest."
    assert described["funnel"].columns["passed"] == "rows that have passed this stage, wherever they are now"


def test_the_pages_name_only_tables_and_columns_that_exist(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", ())
    for name, page in PAGES["tables"].items():
        columns = {column for _, column, *_ in conn.execute(f"PRAGMA table_info({name})")}
        named = [*page.get("facets", []), *(page[k] for k in ("label_column", "sort_desc", "fts_pk") if k in page)]
        assert columns and set(named) <= columns, name
    conn.close()


@pytest.mark.parametrize("name", PAGES["queries"])
def test_every_ready_made_query_runs_and_finds_something(tmp_path: Path, name: str) -> None:
    conn = make_db(tmp_path / "t.db", SAMPLES)
    conn.create_function("escape_fts", 1, lambda words: words)  # datasette's
    given = {"repo": "zlib", "keyword": " Overflow ", "words": "smashing", "sha": Row("zlib", "one").sha[:8].upper()}
    query = PAGES["queries"][name]
    found = conn.execute(query["sql"], {param: given[param] for param in query.get("params", [])}).fetchall()
    assert found
    conn.close()


def test_one_commits_life_tells_every_stage(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", SAMPLES)
    sql = PAGES["queries"]["commit"]["sql"]
    life = conn.execute(sql, {"sha": Row("zlib", "one").sha}).fetchall()
    assert list(dict.fromkeys(stage for _, stage, *_ in life)) == [
        s for (s,) in conn.execute("SELECT stage FROM stages")
    ]
    assert conn.execute(sql, {"sha": ""}).fetchall() == []
    with conn:
        conn.execute("UPDATE commits SET sha = substr(sha, 1, 39) || 'g'")
    conn.close()


def test_the_funnel_of_one_repository_agrees_with_the_whole(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", SAMPLES)
    sql = PAGES["queries"]["funnel_of_repo"]["sql"]
    whole = {
        stage: (p + c, *rest)
        for stage, p, c, *rest in conn.execute("SELECT stage, pending, claimed, passed, failed, rejected FROM funnel")
    }
    parts: dict[str, list[tuple[int, ...]]] = {stage: [] for stage in whole}
    for repo in ("zlib", "acme/curl"):
        for stage, *numbers in conn.execute(sql, {"repo": repo}):
            parts[stage].append(tuple(numbers))
    assert {stage: tuple(map(sum, zip(*numbers, strict=True))) for stage, numbers in parts.items()} == whole
    conn.close()


def test_the_queries_are_valid_while_the_database_is_empty(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", ())
    conn.create_function("escape_fts", 1, lambda words: words)
    given = dict.fromkeys(("repo", "keyword", "sha"), "") | {"words": "x"}
    for query in PAGES["queries"].values():
        assert conn.execute(query["sql"], {p: given[p] for p in query.get("params", [])}).fetchall() == []
    assert conn.execute("SELECT sum(passed) FROM funnel").fetchone() == (0,)
    conn.close()


def test_the_file_shown_is_named_but_not_where_it_lies() -> None:
    shown = metadata(Path("/home/someone/data/my.db"))
    assert shown["databases"][DATABASE]["source"] == "my.db"
    assert "someone" not in str(shown)


def test_sqlite_checks_the_schema_it_was_given(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", SAMPLES)
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute("UPDATE commits SET status = 's9'")
    conn.close()
