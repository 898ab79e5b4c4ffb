"""Each kind of leak is found where it was planted, and only there."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow.parquet import write_table

from trustmine import leakage
from trustmine.errors import TrustmineError

SHAS = ("1" * 40, "2" * 40)


def _function(name: str, extra: str = "") -> str:
    lines = "".join(f"  if({name}_{n} > {n})\n    {name}_{n} = next({name}_{n});\n" for n in range(12))
    return f"static int {name}(int n)\n{{\n{lines}{extra}  return n;\n}}\n"


def _write(folder: Path, **files: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _found(folder: Path, threshold: float = 0.8) -> list[tuple[str, tuple[str, str], tuple[str, str]]]:
    report = leakage.compare(folder, None, threshold)
    return [(one.kind, one.sides, one.places) for one in report.findings]


BASE = {"func": _function("other"), "commit_id": SHAS[0], "cve": "CVE-2020-0001"}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
TRAIN = {"func": _function("first"), "commit_id": SHAS[1], "cve": ["CVE-2020-0002", "CVE-2020-0003"]}


@pytest.mark.parametrize(
    ("leak", "kind"),
    [
        ({"commit_id": SHAS[1]}, "commit"),
        ({"commit_id": None, "commit_link": f"github.com/a/b/commit/{SHAS[1]}"}, "commit"),
        ({"cve": "see cve-2020-0003"}, "cve"),
        ({"func": _function("first") + "\n"}, "function"),
        ({"func": _function("first").replace("  ", "\t").replace("{\n", "{ /* new */\n", 1)}, "function_normalised"),
        ({"func": _function("first", "  log(n);\n")}, "near_copy"),
        ({"func": "x", "input": f"Review:\n\n```c\n{_function('first')}```\n"}, "function"),
        ({"func": "x", "messages": [{"role": "user", "content": f"```\n{_function('first')}```"}]}, "function"),
        ({"func": "x", "conversations": [{"from": "gpt", "value": _function("first")}]}, "function"),
    ],
)
def test_what_was_planted_is_found(tmp_path: Path, leak: dict[str, Any], kind: str) -> None:
    clean = _write(tmp_path / "clean", train=[TRAIN, TRAIN], test=[BASE])
    assert _found(clean) == []
    leaky = _write(tmp_path / "leaky", train=[TRAIN, TRAIN], test=[BASE, {**BASE, **leak}])
    assert _found(leaky) == [(kind, ("test", "train"), ("test.jsonl:2", "train.jsonl:1"))]


@pytest.mark.parametrize("number", ["{}\t", "  {}| "])
def test_numbered_lines_are_read_without_their_numbers(tmp_path: Path, number: str) -> None:
    numbered = "".join(f"{number.format(n)}{line}\n" for n, line in enumerate(_function("first").splitlines(), 1))
    folder = _write(tmp_path / "d", train=[TRAIN], bench=[{"input": f"Function:\n\n````c\n{numbered}````"}])
    assert [kind for kind, _, _ in _found(folder)] == ["function"]


def test_context_and_short_code_and_prose_are_no_leak(tmp_path: Path) -> None:
    asked = "Name the lines that are vulnerable; quote them exactly."
    given = f"```c\nreturn NULL;\n```\n\nDefinitions of names used:\n\n```c\n{_function('helper')}```"
    row = {"instruction": asked, "input": given, "output": "```c\n  x = y;\n```"}
    assert _found(_write(tmp_path / "d", train=[row], test=[row])) == []


def test_the_threshold_decides_what_is_nearly_the_same(tmp_path: Path) -> None:
    changed = _function("first").replace("first_3", "third")
    folder = _write(tmp_path / "d", train=[TRAIN], val=[{"func": changed}])
    report = leakage.compare(folder, None, 0.5)
    (found,) = report.findings
    assert found.kind == "near_copy" and 0.5 <= found.similarity < 0.9
    assert _found(folder, 0.95) == []


def test_all_of_a_data_set_is_compared_with_another_one(tmp_path: Path) -> None:
    ours = _write(tmp_path / "ours", train=[BASE, TRAIN])
    with pytest.raises(TrustmineError, match="only one side"):
        leakage.compare(ours, None, 0.8)
    theirs = tmp_path / "theirs.parquet"
    write_table(pyarrow.Table.from_pylist([{"code": _function("first")}]), theirs)
    (found,) = leakage.compare(ours, theirs, 0.8).findings
    assert (found.kind, found.places) == ("function", ("theirs.parquet/theirs.parquet:1", "train.jsonl:2"))


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("train.jsonl", "train"),
        ("primevul_valid.jsonl", "val"),
        ("val/cwe-787.jsonl", "val"),
        ("data/test-00000-of-00001.parquet", "test"),
        ("dev.json", "val"),
        ("constraints.json", "constraints.json"),
    ],
)
def test_a_file_is_on_the_side_that_its_name_says(name: str, side: str) -> None:
    assert leakage.side_of(name) == side


def test_half_a_character_can_be_read_and_shown(tmp_path: Path) -> None:
    row = {"func": "// \ud800\n" + _function("first"), "commit": "\ud800"}
    (found,) = leakage.compare(_write(tmp_path / "d", train=[row], test=[row]), None, 0.8).findings
    assert found.what == "// ?"


@pytest.mark.parametrize("line", ["{", "[1]", '"x"', "[" * 100_000])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    folder = _write(tmp_path / "d", train=[BASE], test=[BASE])
    with (folder / "test.jsonl").open("a") as file:
        file.write("\n" + line + "\n")
    with pytest.raises(TrustmineError) as raised:
        leakage.compare(folder, None, 0.8)
    assert "test.jsonl:3" in raised.value.where


@pytest.mark.parametrize(
    ("name", "data", "what", "hint"),
    [
        ("test.parquet", b"PAR2 is something else", "no Parquet file", "Get it again"),
        ("test.parquet", b"", "no Parquet file", "Get it again"),
        ("test.parquet", POINTER, "pointer of Git LFS", "git lfs pull"),
        ("test.jsonl", POINTER, "pointer of Git LFS", "git lfs pull"),
    ],
)
def test_a_file_that_is_not_the_data_is_named(tmp_path: Path, name: str, data: bytes, what: str, hint: str) -> None:
    folder = _write(tmp_path / "d", train=[BASE])
    (folder / name).write_bytes(data)
    with pytest.raises(TrustmineError, match=what) as raised:
        leakage.compare(folder, None, 0.8)
    assert name in raised.value.where and hint in raised.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "\n" + json.dumps(TRAIN) + "\n" + json.dumps(BASE) + "\n",
        json.dumps([TRAIN, BASE]),
        json.dumps([TRAIN, BASE], indent=1),
    ],
)
def test_a_json_file_may_hold_an_array_or_an_object_per_line(tmp_path: Path, text: str) -> None:
    folder = _write(tmp_path / "d", train=[BASE])
    (folder / "test.json").write_text(text)
    report = leakage.compare(folder, None, 0.8)
    assert report.rows == {"train": 1, "test": 2}
    assert {(one.kind, one.places) for one in report.findings} == {
        (kind, ("test.json:2", "train.jsonl:1")) for kind in ("commit", "cve", "function")
    }


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_file_may_hold_one_row(tmp_path: Path, indent: int | None) -> None:
    folder = _write(tmp_path / "d", train=[BASE])
    (folder / "test.json").write_text(json.dumps(TRAIN, indent=indent))
    assert leakage.compare(folder, None, 0.8).rows == {"train": 1, "test": 1}


def test_reading_and_comparing_tell_how_far_they_are(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    rows = [{"func": f"int f{n}(int a)\n{{\n" + f"  a = g{n}(a);\n" * 20 + "  return a;\n}\n"} for n in range(3)]
    folder = _write(tmp_path / "d", train=rows[:2], test=rows[2:])
    leakage.compare(folder, None, 0.8, lambda *one: told.append(one))
    assert [done for what, done, _ in told if what == "rows read"] == [1, 2, 3]
    assert [(done, total) for what, done, total in told if what == "functions compared"] == [(1, 3), (2, 3), (3, 3)]
