"""TRUST-Bench: gaps whose filling gives the fixed function, with context that gives nothing away."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from web_helpers import Row, make_db

from trustmine import masking, score
from trustmine.errors import TrustmineError
from trustmine.export import export
from trustmine.export.bench import by_fix
from trustmine.export.splits import LeftOut

TWICE = "int f(void)\n{\n  a();\n  b();\n  a();\n  b();\n}\n"


@pytest.fixture
def conn(tmp_path: Path) -> sqlite3.Connection:
    """Three fixes from the cutoff on, which got to s4, s1_1 and s1_1, and one before it."""
    rows = [Row("r", "whole", "s4", "done", split="bench"), Row("r", "old", "s4", "done")]
    conn = make_db(tmp_path / "t.db", [*rows, *(Row("r", name, "s1_1", split="bench") for name in ("one", "two"))])
    put = conn.execute
    for column in ("pre_text", "post_text"):  # a function of one statement has no gap
        put(
            f"UPDATE functions SET {column} = replace({column}, '    //', '    end();' || char(10) || '    //')"
            " WHERE commit_id NOT IN (SELECT commit_id FROM masks)"
        )
    put("INSERT INTO elements VALUES (1, 'better', 'function', 'both', 0, 1, 1, 'parser', 'b.c', 5, 6, 'x', NULL)")
    put(
        "INSERT INTO elements VALUES (1, 'MAX', 'macro', 'both', 1, 1, 1, 'parser', 'b.h', 9, 9, '#define MAX 8', NULL)"
    )
    put("INSERT INTO context_items VALUES (1, 'better', 2, 1, NULL, 1, 1), (1, 'MAX', 3, 1, NULL, 7, 1)")
    return conn


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, (folder / "bench.jsonl").read_text().splitlines())}


def test_a_gap_filled_with_the_fix_is_the_fixed_function(conn: sqlite3.Connection, tmp_path: Path) -> None:
    made = export(conn, tmp_path / "out", "bench")
    rows = _rows(tmp_path / "out")
    assert len(rows) == 3 == sum(made.counts["bench"].values())
    stored = conn.execute("SELECT 'r/' || sha, pre_text, post_text FROM functions JOIN commits ON id = commit_id")
    for id, before, after in stored:
        if id in rows:
            assert masking.unmask(rows[id]["masked_function"], [rows[id]["fixed"]]) == after
            assert masking.unmask(rows[id]["masked_function"], [rows[id]["vulnerable"]]) == before
            assert (rows[id]["cwe"], rows[id]["cwe_class"]) == (["CWE-787"], "CWE-664")
            assert rows[id]["cve"][0] == "CVE-2024-0001" and rows[id]["licence"] == "curl"
    assert sorted(row["masked_by"] for row in rows.values()) == ["fix", "fix", "model"]


def test_a_gap_of_the_model_that_shows_part_of_the_fix_is_not_taken(conn: sqlite3.Connection, tmp_path: Path) -> None:
    before = "int f(int n)\n{\n  first(n);\n  bad(n);\n  if(n)\n    last(n);\n  return n;\n}\n"
    after = before.replace("first(n);", "first(n, 8);").replace("bad(n);", "good(n);")
    tables = (
        ("functions", {"pre_text": before, "post_text": after}),
        ("masks", {"removed": "  bad(n);\n"}),
        ("merged_masks", {"masked_post": after.replace("good(n);", "<MASK_1>"), "fixed": "  good(n);\n"}),
    )
    for table, values in tables:
        columns = ", ".join(f"{name} = ?" for name in values)
        conn.execute(f"UPDATE {table} SET {columns} WHERE commit_id = 1", tuple(values.values()))
    export(conn, tmp_path / "out", "bench")
    (sha,) = conn.execute("SELECT sha FROM commits WHERE id = 1").fetchone()
    row = _rows(tmp_path / "out")[f"r/{sha}"]
    assert (row["masked_by"], row["vulnerable"]) == ("fix", "  first(n);\n  bad(n);\n")
    assert masking.unmask(row["masked_function"], [row["vulnerable"]]) == before
    assert masking.unmask(row["masked_function"], [row["fixed"]]) == after


def test_context_is_sorted_by_kind_and_says_where_it_is_cut(conn: sqlite3.Connection, tmp_path: Path) -> None:
    export(conn, tmp_path / "out", "bench")
    (context,) = (row["context"] for row in _rows(tmp_path / "out").values() if row["masked_by"] == "model")
    assert [item["name"] for item in context["callees"]] == ["bad"], "what only the fix uses would give it away"
    assert context["macros"] == [
        {"name": "MAX", "path": "b.h", "first_line": 9, "last_line": 9, "definition": "#define", "is_cut": True}
    ]
    assert (context["types"], context["globals"]) == ([], [])


def test_its_answers_can_be_scored(conn: sqlite3.Connection, tmp_path: Path) -> None:
    export(conn, tmp_path / "out", "bench")
    rows = _rows(tmp_path / "out").values()
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"id": row["id"], "answer": row["fixed"]}) + "\n" for row in rows))
    total = score.score(tmp_path / "out" / "bench.jsonl", answers).total
    assert (total.coverage, total.exact, total.right, total.parses) == (1, 1, 1, 1)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_the_gap_of_a_fix_is_what_it_changes(old: list[str], new: list[str]) -> None:
    assume(old != new)
    before, after = (
        f"int f(void)\n{{\n{''.join(f'  {word}();' + chr(10) for word in words)}}}\n" for words in (old, new)
    )
    if old[0] not in new[:1] and old[-1] not in new[-1:]:
        with pytest.raises(LeftOut, match="mask_whole_function"):
            by_fix(before, after, "a.c", "a.c")
        return
    masked, vulnerable, fixed = by_fix(before, after, "a.c", "a.c")
    assert masking.unmask(masked, [vulnerable]) == before
    assert masking.unmask(masked, [fixed]) == after


LOOP = """int f(int n)
{
  for(int i = 0; i < n; i++) {
    if(a(i)) {
      b(i);
    }
    c(i);
  }
  return 0;
}
"""


@pytest.mark.parametrize(
    ("old", "new", "vulnerable", "fixed"),
    [
        ("c(i);", "c(0);", "    c(i);\n", "    c(0);\n"),
        # The first line of an if is no statement: what it holds belongs to the gap.
        (
            "if(a(i)) {",
            "if(i && a(i)) {",
            "    if(a(i)) {\n      b(i);\n    }\n",
            "    if(i && a(i)) {\n      b(i);\n    }\n",
        ),
        # Line by line this could be a brace of one if and the rest of another.
        ("    c(i);\n", "    if(d(i)) {\n      e(i);\n    }\n    c(i);\n", "", "    if(d(i)) {\n      e(i);\n    }\n"),
        ("    c(i);\n", "", "    c(i);\n", ""),
        (LOOP[16:-16], LOOP[16:-16].replace("int i = 0; ", "int i = 1; ").replace("c(i)", "c(1)"), None, None),
    ],
)
def test_the_gap_of_a_fix_is_whole_statements(old: str, new: str, vulnerable: str | None, fixed: str | None) -> None:
    after = LOOP.replace(old, new)
    masked, was, belongs = by_fix(LOOP, after, "a.c", "a.c")
    assert masking.unmask(masked, [was]) == LOOP and masking.unmask(masked, [belongs]) == after
    assert masked.count("{") == masked.count("}")
    if vulnerable is not None:
        assert (was, belongs) == (vulnerable, fixed)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (TWICE, TWICE.replace("int f(void)", "long f(int a)"), "mask_whole_function"),
        (TWICE, TWICE.replace("a();", "<MASK_1>"), "holds_mask"),
        ("int f(int a)\n{\n  return a;\n}\n", "int f(int a)\n{\n  return 0;\n}\n", "mask_whole_function"),
    ],
)
def test_some_fixes_leave_no_gap(before: str, after: str, reason: str) -> None:
    with pytest.raises(LeftOut, match=reason):
        by_fix(before, after, "a.c", "a.c")


@pytest.mark.parametrize("arguments", [{"split": "train"}, {"split_by": "date"}, {"tasks": ["infill"]}])
def test_the_benchmark_is_not_split(conn: sqlite3.Connection, tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(TrustmineError, match="The format bench"):
        export(conn, tmp_path / "out", "bench", **arguments)
