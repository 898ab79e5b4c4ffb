"""Better and worse answers come from what the database holds."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from web_helpers import Row, make_db

from trustmine.errors import TrustmineError
from trustmine.export import export


@pytest.fixture
def conn(tmp_path: Path) -> sqlite3.Connection:
    """One fix, with two candidates of calibrate, and a segment that the fix does not touch."""
    conn = make_db(tmp_path / "t.db", [Row("r", "x", "s4", "done")])
    put = conn.execute
    put("UPDATE instructions SET output = 'Yes. Gone.', meta = '{\"removes\":true}' WHERE task = 'calibrate'")
    put("INSERT INTO instructions VALUES (1, 'calibrate', 2, 'train', 'i', 'n', 'No. There.', '{\"removes\":false}')")
    put("UPDATE instructions SET meta = '{\"segments\":[[3,3]]}' WHERE task = 'locate'")
    put("UPDATE segments SET n_fix_lines = 0, first_line = 4, last_line = 5, snippet = 'x;\n}\n' WHERE segment_no = 2")
    return conn


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_dpo_sets_the_fix_against_what_it_took_away(conn: sqlite3.Connection, tmp_path: Path) -> None:
    export(conn, tmp_path / "out", "dpo")
    rows = {(row["task"], row["id"][-1]): row for row in _rows(tmp_path / "out")}
    worse = {key: row["rejected"][0]["content"] for key, row in rows.items()}
    stored = dict(conn.execute("SELECT task || example_no, output FROM instructions"))
    assert {key: row["chosen"][0]["content"] for key, row in rows.items()} == {
        (task, no): stored[task + no] for task, no in rows
    }
    (before,) = conn.execute("SELECT pre_text FROM functions").fetchone()
    assert worse == {
        ("infill", "1"): "```c\n    bad(x);\n```",
        ("refine", "1"): f"```c\n{before}```",
        ("calibrate", "1"): "No. There.",
        ("calibrate", "2"): "Yes. Gone.",
        ("locate", "1"): "Lines 4-5:\n\n```c\nx;\n}\n```",
    }
    assert [turn["role"] for turn in rows["refine", "1"]["prompt"]] == ["user"]


def test_kto_has_every_answer_with_its_label(conn: sqlite3.Connection, tmp_path: Path) -> None:
    export(conn, tmp_path / "dpo", "dpo")
    export(conn, tmp_path / "kto", "kto")
    rows = _rows(tmp_path / "kto")
    assert len({row["id"] for row in rows}) == len(rows)
    outputs = [output for (output,) in conn.execute("SELECT output FROM instructions")]
    assert sorted(row["completion"][0]["content"] for row in rows if row["label"] is True) == sorted(outputs)
    assert sorted(row["completion"][0]["content"] for row in rows if row["label"] is False) == sorted(
        row["rejected"][0]["content"] for row in _rows(tmp_path / "dpo")
    )


def test_an_answer_is_never_worse_than_itself(conn: sqlite3.Connection, tmp_path: Path) -> None:
    conn.execute("UPDATE instructions SET output = '```c\n    bad(x);\n```\n' WHERE task = 'infill'")
    with pytest.raises(TrustmineError, match="can be written as dpo"):
        export(conn, tmp_path / "out", "dpo", tasks=["infill", "abstain"])
    assert not (tmp_path / "out" / "train.jsonl").exists()
