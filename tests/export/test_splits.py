"""No commit, function or CVE is on two sides, and no function is labelled both ways."""

import json
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from web_helpers import Row, make_db

from trustmine import leakage
from trustmine.export import export
from trustmine.export.splits import of_instructions, of_pairs

PATCH = "diff --git a/a.c b/a.c\nindex 1..2 100644\n--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-old {};\n+new {};\n"


def _function(number: int, state: str) -> str:
    lines = "".join(f"  step_{number}_{n}({state}, {n});\n" for n in range(10))
    return f"int f{number}(void)\n{{\n{lines}}}\n"


def _db(path: Path, n: int, repos: int = 1) -> sqlite3.Connection:
    """So many fixes, one a day, each of a function of its own; ids from 1 are in the order of time."""
    conn = make_db(path, [Row(f"r{i % repos}", str(i), "s4", "done") for i in range(n)])
    for id in range(1, n + 1):
        conn.execute("UPDATE commits SET commit_time_s = ? WHERE id = ?", (id * 86_400, id))
        conn.execute("UPDATE identifiers SET value = ? WHERE commit_id = ?", (f"CVE-2000-{id:04}", id))
        conn.execute("UPDATE diffs SET patch = ? WHERE commit_id = ?", (PATCH.replace("{}", str(id)), id))
        _set(conn, id, _function(id, "bad"), _function(id, "good"))
    conn.execute("DELETE FROM labels")
    return conn


def _set(conn: sqlite3.Connection, id: int, before: str, after: str) -> None:
    conn.execute("UPDATE functions SET pre_text = ?, post_text = ? WHERE commit_id = ?", (before, after, id))


def _instruct(conn: sqlite3.Connection, id: int, task: str) -> None:
    conn.execute("INSERT INTO instructions VALUES (?, ?, 1, 'train', 'i', '', 'o', '{}')", (id, task))


def _bench(conn: sqlite3.Connection, *ids: int) -> None:
    for table in ("functions", "instructions"):
        conn.execute(f"UPDATE {table} SET split = 'bench' WHERE commit_id IN ({', '.join(map(str, ids))})")


def test_by_date_the_oldest_are_trained_on(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db", 22)
    _bench(conn, 21, 22)
    plan = of_pairs(conn, "date")
    assert dict(plan.split) == {
        **dict.fromkeys(range(1, 17), "train"),
        **dict.fromkeys((17, 18), "val"),
        **dict.fromkeys((19, 20), "test"),
        **dict.fromkeys((21, 22), "bench"),
    }
    assert of_instructions(conn, "date").split == plan.split
    assert Counter(of_instructions(conn, None).split.values()) == {"train": 20, "bench": 2}


def test_by_project_a_repository_is_whole_on_one_side(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db", 40, repos=10)
    plan = of_pairs(conn, "project")
    sides = {
        repo: {plan.split[id] for (id,) in conn.execute("SELECT id FROM commits WHERE repo_id = ?", (repo,))}
        for (repo,) in conn.execute("SELECT id FROM repos").fetchall()
    }
    assert all(len(found) == 1 for found in sides.values())
    assert Counter(plan.split.values()) == {"train": 32, "val": 4, "test": 4}


def test_of_cherry_picks_and_branch_copies_the_first_is_kept(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db", 6)
    moved = PATCH.replace("{}", "1").replace("@@ -1 +1 @@", "@@ -70 +71 @@").replace("index 1..2", "index 3..4")
    conn.execute("UPDATE diffs SET patch = ? WHERE commit_id = 4", (moved,))
    # A copy whose context differs, so that the patch does.
    _set(conn, 5, _function(2, "bad").replace("\n", " // old branch\n"), _function(2, "good"))
    plan = of_pairs(conn, None)
    assert set(plan.split) == {1, 2, 3, 6}
    assert plan.dropped["copy_of_an_earlier_commit"] == 2


def test_a_fix_is_kept_rather_than_its_undecided_original(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db", 4)
    conn.execute("UPDATE diffs SET patch = (SELECT patch FROM diffs WHERE commit_id = 3) WHERE commit_id IN (1, 4)")
    # 1 was judged undecided on one branch, which is all that is known of it; 3 and 4 are the fixes on others.
    for table in ("instructions", "functions"):
        conn.execute(f"DELETE FROM {table} WHERE commit_id = 1")
    _instruct(conn, 1, "abstain")
    plan = of_instructions(conn, None)
    assert set(plan.split) == {2, 3}
    assert plan.dropped["copy_of_an_earlier_commit"] == 2


def test_a_function_that_another_commit_fixes_is_not_taken_for_fixed(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db", 5)
    _set(conn, 3, _function(2, "good").replace("  ", "\t"), _function(2, "better"))
    # And a fix that was taken back and done again.
    _set(conn, 5, _function(4, "good"), _function(4, "bad"))
    plan = of_pairs(conn, None)
    assert set(plan.split) == {1, 3}
    assert plan.dropped["function_labelled_both_ways"] == 3


def test_one_side_alone_counts_what_is_left_out_of_it(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db", 6)
    _bench(conn, 4, 5, 6)
    _set(conn, 3, _function(2, "good"), _function(2, "better"))  # 2 was not safe yet, and 4 was not
    _set(conn, 5, _function(4, "good"), _function(4, "better"))
    conn.execute("UPDATE diffs SET patch = (SELECT patch FROM diffs WHERE commit_id = 5) WHERE commit_id = 6")
    plan = of_pairs(conn, None)
    lost = {side: {reason: n for reason, n in plan.only(side).dropped.items() if n} for side in ("train", "bench")}
    assert lost == {
        "train": {"function_labelled_both_ways": 1},
        "bench": {"copy_of_an_earlier_commit": 1, "function_labelled_both_ways": 1},
    }
    assert sum(plan.dropped.values()) == 3


def test_evaluation_keeps_what_it_shares_with_training(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db", 22)
    _bench(conn, 21, 22)
    _set(conn, 1, _function(21, "bad"), _function(21, "another fix"))  # shares a function with bench
    conn.execute("UPDATE identifiers SET value = 'CVE-2000-0022' WHERE commit_id = 2")
    _set(conn, 17, _function(20, "worse"), _function(20, "good"))  # val shares with test
    plan = of_pairs(conn, "date")
    assert set(range(1, 23)) - set(plan.split) == {1, 2, 17}
    assert (plan.dropped["function_in_another_split"], plan.dropped["cve_in_another_split"]) == (2, 1)


def test_a_benign_function_is_on_one_side_too_and_none_that_was_fixed(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db", 22)
    _bench(conn, 21, 22)
    lived = {2: _function(50, "quiet"), 21: _function(50, " quiet"), 3: _function(4, "bad"), 5: _function(51, "quiet")}
    for number, (id, code) in enumerate(lived.items()):
        conn.execute(
            """INSERT INTO benign_functions VALUES
               (1, 'a.c', ?, 9, 'f', ?, ?, ?, 0, 9, 0, 0, 9, 'utf-8', ?, 'train', 0, 'unknown')""",
            (number, "0" * 40, "1" * 40, id, code),
        )
        _instruct(conn, id, "benign")
    plan = of_instructions(conn, "date")
    assert set(range(1, 23)) - set(plan.split) == {2, 3}
    assert (plan.dropped["function_in_another_split"], plan.dropped["function_labelled_both_ways"]) == (1, 1)


@pytest.mark.parametrize("format", ["messages", "dpo", "sven", "detection", "parquet"])
def test_no_export_leaks_whatever_its_commits_have_in_common(tmp_path: Path, format: str) -> None:
    conn = _db(tmp_path / "t.db", 40, repos=4)
    _bench(conn, 36, 37, 38, 39, 40)
    mixer = random.Random(7)
    for id in range(1, 41):
        if mixer.random() < 0.5:
            other = mixer.randrange(1, 41)
            _set(conn, id, *(_function(other, mixer.choice(("bad", "good", "best"))) for _ in range(2)))
            conn.execute("UPDATE identifiers SET value = ? WHERE commit_id = ?", (f"CVE-2000-{other:04}", id))
    functions = dict(conn.execute("SELECT commit_id, '```c' || char(10) || pre_text || '```' FROM functions"))
    for id, text in functions.items():
        conn.execute("UPDATE instructions SET input = ?, output = 'no code' WHERE commit_id = ?", (text, id))
    for split_by in ("date", "project"):
        made = export(conn, tmp_path / "out", format, split_by=split_by)
        assert sum(made.dropped.values()) > 5 and len(made.counts) > 2
        report = leakage.compare(tmp_path / "out", None, 1.0)
        assert report.findings == () and sum(report.functions.values()) > 10
        counts = dict.fromkeys(("commit", "cve", "function", "function_normalised"), 0)
        assert {kind: made.leakage["counts"][kind] for kind in counts} == counts
        if format == "detection":
            rows = [
                json.loads(line)
                for file in (tmp_path / "out").glob("*.jsonl")
                for line in file.read_text().splitlines()
            ]
            assert not {r["hash"] for r in rows if r["target"]} & {r["hash"] for r in rows if not r["target"]}
