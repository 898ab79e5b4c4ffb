"""Formats made of function pairs: every span is exact text, and every row is a fix that passed s1_1."""

import json
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_helpers import Row, make_db

from trustmine.errors import TrustmineError
from trustmine.export import charspans, description, export
from trustmine.export.splits import LeftOut

BEFORE = """static int copy(char *dst, const char *src, size_t n)
{
  size_t len = strlen(src);
  memcpy(dst, src, len);
  return check(dst);
}
"""
AFTER = BEFORE.replace("  memcpy(dst, src, len);\n", "  if(len >= n)\n    return -1;\n  memcpy(dst, src, len + 1);\n")


@pytest.fixture
def fixes(tmp_path: Path) -> sqlite3.Connection:
    """Ten fixes of functions of their own, the last one after the cutoff, one without a CWE; and one verdict no."""
    conn = make_db(tmp_path / "fixes.db", [Row("acme/tool", str(n), "s1_1", message=f"Fix {n}\n") for n in range(11)])
    for id, sha in conn.execute("SELECT id, sha FROM commits").fetchall():
        names = ((text.replace("copy", f"copy_{id}")) for text in (BEFORE, AFTER))
        conn.execute(
            """UPDATE functions SET name = ?, path = 'lib/a.c', pre_text = ?, post_text = ?, deleted_lines = '[4]',
               added_lines = '[4,5,6]' WHERE commit_id = ?""",
            (f"copy_{id}", *names, id),
        )
        conn.execute("UPDATE commits SET commit_time_s = ?, parents = ? WHERE id = ?", (id * 1000, sha[::-1], id))
        conn.execute("DELETE FROM labels WHERE commit_id = ?", (id,))
        conn.execute("UPDATE identifiers SET value = ? WHERE commit_id = ?", (f"CVE-2020-{id:04}", id))
        if id > 1:
            conn.execute(
                "INSERT INTO labels (commit_id, source, label, cwe, labelled_at_s) VALUES (?, '', 'yes', 'CWE-787', 1)",
                (id,),
            )
    conn.execute("UPDATE functions SET split = 'bench', pre_first_line = 5")
    conn.execute("UPDATE functions SET split = 'train' WHERE commit_id <> 10")
    above = b"int x;\n\n/* Makes a copy of the text.\n*/\n"
    conn.execute("UPDATE pre_images SET content = ?", (zlib.compress(above + BEFORE.encode()),))
    conn.execute("UPDATE verdicts SET label = 'no' WHERE commit_id = 11")
    conn.execute("UPDATE repos SET url = 'git@example.org:acme/tool.git'")
    return conn


def _rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    files = sorted(folder.rglob("*.jsonl"))
    return {
        file.relative_to(folder).as_posix(): [json.loads(line) for line in file.read_text().splitlines()]
        for file in files
    }


def test_sven_has_a_file_per_split_and_cwe_with_exact_spans(fixes: sqlite3.Connection, tmp_path: Path) -> None:
    export(fixes, tmp_path / "out", "sven")
    files = _rows(tmp_path / "out")
    assert {name: len(rows) for name, rows in files.items() if rows} == {
        "train/cwe-787.jsonl": 7,
        "train/cwe-unknown.jsonl": 1,
        "test/cwe-787.jsonl": 1,
        "bench/cwe-787.jsonl": 1,
    }
    assert files["val/cwe-089.jsonl"] == [], "SVEN opens the file of every CWE that it trains on"
    row = files["train/cwe-787.jsonl"][0]
    assert row["func_src_before"].endswith("}") and row["vul_type"] == "cwe-787"
    sha = fixes.execute("SELECT min(sha) FROM commits WHERE id BETWEEN 2 AND 9").fetchone()[0]
    assert row["commit_link"] == f"example.org/acme/tool/commit/{sha}"
    assert [change["line_no"] for change in row["line_changes"]["added"]] == [4, 5, 6]
    assert row["line_changes"]["deleted"][0]["line"] == "  memcpy(dst, src, len);\n"
    assert [change["chars"] for change in row["char_changes"]["deleted"]] == []
    assert [change["chars"] for change in row["char_changes"]["added"]][-1] == " + 1"
    for side, text in (("deleted", row["func_src_before"]), ("added", row["func_src_after"])):
        for kind, chars in (("line_changes", "line"), ("char_changes", "chars")):
            for change in row[kind][side]:
                assert text[change["char_start"] : change["char_end"]] == change[chars] != ""


@given(st.text("ab{};\n \u2028\U0001f41b", max_size=60), st.text("ab{};\n \u2028\U0001f41b", max_size=60))
def test_what_is_not_changed_is_the_same_on_both_sides(before: str, after: str) -> None:
    changes = charspans.char_changes(before, after)
    kept = []
    for text, spans in ((before, changes["deleted"]), (after, changes["added"])):
        at, rest = 0, ""
        for span in spans:
            start, end = int(span["char_start"]), int(span["char_end"])
            assert at <= start < end and text[start:end] == span["chars"]
            rest, at = rest + text[at:start], end
        kept.append(rest + text[at:])
    assert kept[0] == kept[1]


def test_versions_that_have_nothing_in_common_are_left_out_and_counted(
    fixes: sqlite3.Connection, tmp_path: Path
) -> None:
    with pytest.raises(LeftOut):
        charspans.char_changes("a" * 30_000, "b")
    fixes.execute(
        "UPDATE functions SET post_text = 'int x(void)\n{\n' || hex(zeroblob(15000)) || '}\n' WHERE commit_id = 3"
    )
    made = export(fixes, tmp_path / "out", "sven")
    assert made.dropped["versions_too_different"] == 1


def test_safecoder_describes_what_both_versions_do(fixes: sqlite3.Connection, tmp_path: Path) -> None:
    export(fixes, tmp_path / "out", "safecoder")
    files = _rows(tmp_path / "out")
    assert {name: len(rows) for name, rows in files.items()} == {
        "train/sec-desc.jsonl": 7,
        "train/sec-new-desc.jsonl": 1,
        "test/sec-desc.jsonl": 1,
        "val/sec-desc.jsonl": 0,
        "val/sec-new-desc.jsonl": 0,
        "bench/sec-desc.jsonl": 1,
    }
    (row,) = files["train/sec-new-desc.jsonl"]
    assert row["description"] == (
        "Write a C function named `copy_1` that takes `char *dst`, `const char *src` and `size_t n`; returns `int`; "
        "calls `memcpy` and `strlen`. Its name reads: copy 1. Its comment says: Makes a copy of the text."
    ), "`check` is among the words of security"
    assert row["parent_commit"] != "" and row["commit_msg"] == "Fix 0\n"


COMMENTS = [
    ("/* Reads one line. */", "Reads one line."),
    ("/***\n ** f()\n **\n ** Reads one line\n **********/", "Reads one line."),
    ("/*\n * f_line()\n *\n * Reads one whole line\n */", "Reads one whole line."),
    ("/**\n * \\brief Reads one whole line.\n * \\param s from here\n */", "Reads one whole line."),
    ("// Reads one whole line,\n// and `ends` it.", "Reads one whole line, and 'ends' it."),
    ("/* Reads one line. Make sure that it fits. */", ""),
    ("/* Reads one line, checked by the caller. */", ""),
    ("/* Reads a whole line. */ /* ------------- */", "Reads a whole line."),
    ("/* Reads one line.\n *\n * Beware of overflows. */", "Reads one line."),
    ("/* " + "Reads a whole line. " * 30 + "*/", ("Reads a whole line. " * 15).strip()),
    ("", ""),
]


@pytest.mark.parametrize(("comment", "said"), COMMENTS)
def test_a_comment_is_told_without_its_marks_and_not_if_it_is_of_security(comment: str, said: str) -> None:
    assert description.plain(comment) == said


def test_a_word_without_end_is_read_once() -> None:
    started = time.process_time()
    assert description.plain(f"/* {'a' * 200_000} */") == ""
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "name", ["check_overflow", "curlx_safefree", "isOutOfBounds", "CHECK_LEN", "verify", "do_validate2", "sanitize_it"]
)
def test_names_are_split_before_words_of_security_are_looked_for(name: str) -> None:
    assert description.speaks_of_security(name)
    assert not description.speaks_of_security("Hands the boundary fixture's offset to copy_hexcheckers")


def test_detection_labels_the_function_before_1_and_after_0(fixes: sqlite3.Connection, tmp_path: Path) -> None:
    export(fixes, tmp_path / "out", "detection")
    rows = [row for rows in _rows(tmp_path / "out").values() for row in rows]
    assert len(rows) == len({row["idx"] for row in rows}) == 20
    for row in rows:
        text = fixes.execute(
            f"SELECT {'pre_text' if row['target'] else 'post_text'} FROM functions JOIN commits ON id = commit_id"
            " WHERE sha = ?",
            (row["commit_id"],),
        ).fetchone()[0]
        assert row["func"] == text and row["project"] == "tool"
    assert {row["cwe_source"] for row in rows} == {"label", ""}


def _benign(conn: sqlite3.Connection, commit_id: int, line: int, code: str, licence: str = "ISC") -> None:
    conn.execute(
        """INSERT INTO benign_functions VALUES
           (1, 'lib/b.c', ?, 9, 'calm', ?, ?, ?, 0, 900, 70, 0, 9, 'utf-8', ?, 'train', 1, ?)""",
        (line, "0" * 40, "1" * 40, commit_id, code, licence),
    )


def test_detection_has_long_lived_functions_as_negatives(fixes: sqlite3.Connection, tmp_path: Path) -> None:
    _benign(fixes, 11, 1, "int calm(void)\n{\n  return 4;\n}\n")  # its commit is no fix
    _benign(fixes, 3, 20, AFTER.replace("copy", "copy_4").replace("  ", "    "))  # stands in a pair
    made = export(fixes, tmp_path / "out", "detection")
    rows = [row for rows in _rows(tmp_path / "out").values() for row in rows]
    (calm,) = (row for row in rows if row["label_source"] == "lifespan")
    assert len(rows) == len({row["idx"] for row in rows}) == len({row["hash"] for row in rows}) == 21
    assert (calm["target"], calm["cwe"], calm["cve"], calm["licence"]) == (0, [], "", "ISC")
    assert (calm["file_name"], calm["n_commits"], calm["n_changes"]) == ("lib/b.c", 900, 70)
    assert {row["n_commits"] for row in rows if row is not calm} == {0}
    assert sum(counts.get("benign", 0) for counts in made.counts.values()) == 1
    assert "in which no vulnerability is known" in (tmp_path / "out" / "README.md").read_text()
    assert "lifespan" not in {row.get("label_source") for rows in _sven(fixes, tmp_path).values() for row in rows}


def test_every_licence_of_a_commit_s_functions_is_in_the_card(fixes: sqlite3.Connection, tmp_path: Path) -> None:
    for line, licence in ((1, "ISC"), (20, "MIT"), (40, "MIT")):
        _benign(fixes, 11, line, f"int calm_{line}(void)\n{{\n  return {line};\n}}\n", licence)
    made = export(fixes, tmp_path / "out", "detection")
    assert made.licences == {"acme/tool": {"ISC": 1, "MIT": 1, "curl": 10}}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| acme/tool | ISC | 1 |\n| acme/tool | MIT | 1 |\n| acme/tool | curl | 10 |" in card


def _sven(conn: sqlite3.Connection, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    export(conn, tmp_path / "sven", "sven")
    return _rows(tmp_path / "sven")


def test_all_weaknesses_that_a_label_names_are_exported(fixes: sqlite3.Connection, tmp_path: Path) -> None:
    fixes.execute("UPDATE labels SET other_cwes = 'CWE-20 CWE-787 CWE-125' WHERE commit_id = 2")
    export(fixes, tmp_path / "out", "detection")
    rows = [row for rows in _rows(tmp_path / "out").values() for row in rows]
    assert [row["cwe"] for row in rows if "copy_2(" in row["func"]] == 2 * [["CWE-787", "CWE-20", "CWE-125"]]


def test_no_function_stands_twice_in_detection(fixes: sqlite3.Connection, tmp_path: Path) -> None:
    fixes.execute(
        """UPDATE functions SET post_text = replace((SELECT post_text FROM functions WHERE commit_id = 2), 'check(',
           '/* checked */ check( ') WHERE commit_id = 3"""
    )
    export(fixes, tmp_path / "out", "detection")
    rows = [row for rows in _rows(tmp_path / "out").values() for row in rows]
    assert len(rows) == len({row["hash"] for row in rows}) == 19


def test_pairs_need_no_instructions_but_a_fix(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", [Row("r", "x", "s0_3")])
    with pytest.raises(TrustmineError, match="no pairs of functions"):
        export(conn, tmp_path / "out", "sven")
