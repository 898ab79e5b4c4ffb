"""Exports read back equal, and the same database gives the same bytes."""

import datetime
import hashlib
import importlib
import json
import random
import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow.json import read_json
from pyarrow.parquet import read_schema, read_table
from web_helpers import HOSTILE, MODEL_SHA256, SAMPLES, TASKS, Row, make_db

from trustmine.errors import TrustmineError
from trustmine.export import FORMATS, export

INSTRUCTIONS = [name for name, form in FORMATS.items() if form.SOURCE == "instructions"]
# What each of them makes of instruction, input and output, and how that is read back.
SHAPES: dict[str, tuple[Callable[[str, str, str], tuple[str, ...]], Callable[[Any], tuple[str, ...]]]] = {
    "alpaca": (lambda i, n, o: (i, n, o), lambda r: (r["instruction"], r["input"], r["output"])),
    "parquet": (lambda i, n, o: (i, n, o), lambda r: (r["instruction"], r["input"], r["output"])),
    "messages": (lambda i, n, o: (f"{i}\n\n{n}" if n else i, o), lambda r: tuple(m["content"] for m in r["messages"])),
    "sharegpt": (
        lambda i, n, o: (f"{i}\n\n{n}" if n else i, o),
        lambda r: tuple(m["value"] for m in r["conversations"]),
    ),
}


def _db(path: Path, rows: tuple[Row, ...] = SAMPLES) -> sqlite3.Connection:
    make_db(path, rows).close()
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


def _read(folder: Path, format: str, split: str) -> list[dict[str, Any]]:
    if format == "parquet":
        return read_table(folder / "data" / f"{split}-00000-of-00001.parquet").to_pylist()  # type: ignore[no-any-return]
    if format == "alpaca":
        return json.loads((folder / f"{split}.json").read_bytes())  # type: ignore[no-any-return]
    text = (folder / f"{split}.jsonl").read_bytes().decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]  # splitlines: no text may hold a line end of any kind


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", INSTRUCTIONS)
def test_every_instruction_is_read_back_as_stored_with_its_origin(tmp_path: Path, format: str) -> None:
    conn = _db(tmp_path / "t.db")
    export(conn, tmp_path / "out", format)
    found = [row for split in ("train", "bench") for row in _read(tmp_path / "out", format, split)]
    stored = conn.execute(
        "SELECT sha, task, split, instruction, input, output, meta FROM instructions JOIN commits ON id = commit_id"
    )
    shape, asked = SHAPES[format]
    assert sorted((r["commit"], r["task"], r["split"], *asked(r), r["meta"]) for r in found) == sorted(
        (sha, task, split, *shape(i, n, o), meta) for sha, task, split, i, n, o, meta in stored
    )
    assert len({row["id"] for row in found}) == len(found) == 18
    assert all(HOSTILE in str(asked(row)[-1]) for row in found)
    if format == "messages":
        assert all([m["role"] for m in row["messages"]] == ["user", "assistant"] for row in found)


def test_each_row_leads_to_its_recipes_models_prompts_and_answers(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db")
    export(conn, tmp_path / "out", "alpaca")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for row in _read(tmp_path / "out", "alpaca", "train"):
        assert row["cve"] == "CVE-2023-0001 CVE-2023-0002 CVE-2023-0003"
        assert (row["cwe"], row["cwe_source"], row["cwe_by_model"]) == ("CWE-787", "label", "CWE-121")
        assert row["date"] == "2020-09-13"
        recipes = {stage: manifest["recipes"][hash] for stage, hash in manifest["made_by"][row["made_by"]].items()}
        assert list(recipes) == sorted(recipes) and len(recipes) == 11
        assert manifest["models"][recipes["s3_2"]["model"]]["name"] == "tiny <b>model</b>"
        assert manifest["prompts"]["explain"] == list(recipes["s3_2"]["content"]["prompts"].values())
        for request in row["requests"].split():
            stage, hash = request.split(":")
            call = conn.execute(
                "SELECT sha FROM llm_calls JOIN commits ON id = commit_id WHERE stage = ? AND request_hash = ?",
                (stage, hash),
            )
            assert call.fetchall() == [(row["commit"],)]
        assert [request.split(":")[0] for request in row["requests"].split()] == [
            "s0_3",
            "s1_2",
            "s2_1",
            "s3_1",
            "s3_2",
        ]
        assert all(isinstance(value, str) for value in row.values())
    assert manifest["repos"]["zlib"]["refs"] == {"HEAD": hashlib.sha1(b"zlib").hexdigest()}
    assert list(manifest["models"]) == [MODEL_SHA256]


def test_the_manifest_states_size_hash_and_counts_of_every_file(tmp_path: Path) -> None:
    made = export(_db(tmp_path / "t.db"), tmp_path / "out", "messages")
    assert set(_bytes(tmp_path / "out")) == {"train.jsonl", "bench.jsonl", "manifest.json", "README.md"}
    assert (tmp_path / "out" / "manifest.json").read_text() == made.to_json()
    for name, file in made.files.items():
        data = (tmp_path / "out" / name).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert file.n_rows == data.count(b"\n") == sum(made.counts[file.split].values())
    assert made.counts == {"train": dict.fromkeys(sorted(TASKS), 2), "bench": dict.fromkeys(sorted(TASKS), 1)}
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| locate | 2 | 1 |" in card


def test_no_path_or_password_of_this_machine_gets_out(tmp_path: Path) -> None:
    export(_db(tmp_path / "t.db"), tmp_path / "out", "alpaca")
    everything = b"".join(_bytes(tmp_path / "out").values())
    assert b"https://example.org/zlib.git" in everything
    assert b"secret" not in everything
    assert b"/somewhere/" not in everything
    assert str(tmp_path).encode() not in everything


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(sorted(FORMATS)))
def test_rows_put_in_in_any_order_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, mixer: random.Random, format: str
) -> None:
    folder = tmp_path_factory.mktemp("order")
    shuffled = list(SAMPLES)
    mixer.shuffle(shuffled)
    for name, rows in (("a", SAMPLES), ("b", tuple(shuffled)), ("c", SAMPLES)):
        conn = _db(folder / f"{name}.db", rows)
        export(conn, folder / name, format)
        conn.close()
    assert _bytes(folder / "a") == _bytes(folder / "b") == _bytes(folder / "c")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), min_size=3, max_size=3), st.sampled_from(INSTRUCTIONS))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str], format: str) -> None:
    folder = tmp_path_factory.mktemp("text")
    conn = make_db(folder / "t.db", [Row("r", "x", "s4", "done")])
    conn.execute("UPDATE instructions SET instruction = ?, input = ?, output = ?", texts)
    export(conn, folder / "out", format, tasks=["infill"])
    (row,) = _read(folder / "out", format, "train")
    shape, asked = SHAPES[format]
    assert asked(row) == shape(*texts)
    conn.close()


def test_an_undecided_commit_is_exported_though_it_has_no_function(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", [Row("r", "x", "s0_2", "rejected", "undecided")])
    conn.execute(
        "INSERT INTO instructions VALUES (1, 'abstain', 1, 'train', 'i', '', 'I cannot do that because', '{}')"
    )
    export(conn, tmp_path / "out", "messages")
    (row,) = _read(tmp_path / "out", "messages", "train")
    assert (row["path"], row["function"], row["requests"]) == ("", "", "")
    assert row["messages"][0]["content"] == "i"


@pytest.mark.parametrize("format", INSTRUCTIONS)
def test_a_benign_function_has_no_weakness_though_its_commit_names_one(tmp_path: Path, format: str) -> None:
    conn = make_db(tmp_path / "t.db", [Row("r", "x", "s3_2")])
    conn.execute(
        "INSERT INTO instructions VALUES (1, 'benign', 1, 'train', 'i', '', 'No vulnerability detected', '{}')"
    )
    conn.execute(
        """INSERT INTO benign_functions VALUES
           (1, 'b.c', 1, 9, 'calm', ?, ?, 1, 0, 9, 0, 0, 9, 'utf-8', 'int calm;', 'train', 1, 'ISC')""",
        ("0" * 40, "1" * 40),
    )
    made = export(conn, tmp_path / "out", format)
    (row,) = _read(tmp_path / "out", format, "train")
    assert not any(row[name] for name in ("cve", "cwe", "cwe_source", "cwe_by_model", "requests"))
    assert (row["function"], row["label_source"]) == ("calm", "lifespan")
    assert made.stats["cwe"] == {"benign": {"train": 1}}


def test_tasks_and_split_choose_what_is_written(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    made = export(
        _db(tmp_path / "t.db"),
        tmp_path / "out",
        "alpaca",
        ["infill", "refine"],
        "train",
        progress=lambda *told: seen.append(told),
    )
    assert made.counts == {"train": {"infill": 2, "refine": 2}}
    assert [done for what, done, _ in seen if what == "records"] == [1, 2, 3, 4]
    planned = [(done, total) for what, done, total in seen if what == "planned"]
    assert planned == [(number, len(planned)) for number in range(1, len(planned) + 1)] and planned
    order = [(r["repo"], r["commit"], r["task"]) for r in _read(tmp_path / "out", "alpaca", "train")]
    assert order == sorted(order)


@pytest.mark.parametrize("format", ["messages", "dpo", "sven", "detection", "bench"])
def test_of_one_repository_nothing_else_is_written(tmp_path: Path, format: str) -> None:
    conn = _db(tmp_path / "t.db", (*SAMPLES, Row("zlib", "ten", "s4", "done", split="bench")))
    made = export(conn, tmp_path / "out", format, repo="curl")
    assert made.repo == json.loads((tmp_path / "out" / "manifest.json").read_text())["repo"] == "acme/curl"
    assert list(made.repos) == list(made.licences) == list(made.stats["project"]) == ["acme/curl"]
    assert export(conn, tmp_path / "out", format).repo is None
    with pytest.raises(TrustmineError, match="no repository 'gzip'"):
        export(conn, tmp_path / "out", format, repo="gzip")


def test_an_earlier_export_is_replaced_whole(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db")
    export(conn, tmp_path / "out", "alpaca")
    (tmp_path / "out" / "train.json.part").write_text("left by a killed export")
    export(conn, tmp_path / "out", "sven")
    export(conn, tmp_path / "out", "messages", split="bench")
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {"bench.jsonl", "manifest.json", "README.md"}


@pytest.mark.parametrize("name", ["notes.txt", "README.md", "train.json", "manifest.json", "sub", "train", "data"])
def test_a_folder_with_other_things_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if name in ("sub", "train", "data"):
        (out / name).mkdir()
    else:
        (out / name).write_text('{"files": ["train.json"]}')
    with pytest.raises(TrustmineError, match="not of an earlier export"):
        export(_db(tmp_path / "t.db"), out, "alpaca")
    assert [p.name for p in out.iterdir()] == [name]


def test_a_manifest_cannot_claim_files_that_no_export_writes(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db")
    export(conn, tmp_path / "out", "alpaca")
    manifest = tmp_path / "out" / "manifest.json"
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    manifest.write_text(json.dumps({"kind": "trustmine export", "files": {"thesis.tex": {}, "../t.db": {}}}))
    with pytest.raises(TrustmineError, match=r"thesis\.tex"):
        export(conn, tmp_path / "out", "alpaca")
    assert (tmp_path / "out" / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"format": "csv"}, "format 'csv'"),
        ({"format": "alpaca", "tasks": ["sing"]}, "task 'sing'"),
        ({"format": "alpaca", "split": "dev"}, "split 'dev'"),
        ({"format": "alpaca", "split_by": "luck"}, "way to split 'luck'"),
        ({"format": "sven", "tasks": ["infill"]}, "sven has no tasks"),
    ],
)
def test_what_does_not_exist_is_named_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, str], said: str
) -> None:
    with pytest.raises(TrustmineError, match=said):
        export(_db(tmp_path / "t.db"), tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_nothing_to_export_is_said_and_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TrustmineError, match="no instructions"):
        export(_db(tmp_path / "t.db", (Row("r", "x"),)), tmp_path / "out", "alpaca")
    assert not (tmp_path / "out").exists()


def test_an_export_sees_one_state_of_the_database_while_workers_write(tmp_path: Path) -> None:
    writer = make_db(tmp_path / "t.db", SAMPLES)
    reader = sqlite3.connect(f"{(tmp_path / 't.db').as_uri()}?mode=ro", uri=True)

    def disturb(what: str, done: int, total: int | None) -> None:
        if what == "records" and done == 1:
            writer.execute("DELETE FROM instructions")

    made = export(reader, tmp_path / "out", "alpaca", progress=disturb)
    assert sum(file.n_rows for file in made.files.values()) == 18
    assert writer.execute("SELECT count(*) FROM instructions").fetchone() == (0,)
    assert not reader.in_transaction


def test_the_front_matter_names_the_files_of_every_split(tmp_path: Path) -> None:
    for format in ("parquet", "messages", "detection"):
        made = export(_db(tmp_path / f"{format}.db"), tmp_path / format, format, split_by="date")
        _, matter, _ = (tmp_path / format / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        (config,) = yaml.safe_load(matter)["configs"]
        stated = {one["split"]: one["path"] for one in config["data_files"]}
        files = {file.split: [name] for name, file in made.files.items()}
        assert stated == {{"val": "validation"}.get(split, split): names for split, names in files.items()}


def _arrow(feature: dict[str, Any]) -> pyarrow.DataType:
    """The type that a feature of the front matter stands for."""
    if "dtype" in feature:
        return {"string": pyarrow.string(), "bool": pyarrow.bool_(), "date32": pyarrow.date32()}.get(
            feature["dtype"], pyarrow.int64()
        )
    inner = feature.get("struct", feature.get("list"))
    fields = [(one["name"], _arrow(one)) for one in inner] if isinstance(inner, list) else []
    what = pyarrow.struct(fields) if fields else _arrow({"dtype": inner})
    return what if "struct" in feature else pyarrow.list_(what)


@pytest.mark.parametrize("format", sorted(FORMATS.keys() - {"parquet", "alpaca"}))
def test_the_front_matter_gives_every_column_the_type_that_it_has(tmp_path: Path, format: str) -> None:
    conn = _db(tmp_path / "t.db")
    with closing(sqlite3.connect(tmp_path / "t.db")) as writer, writer:
        writer.execute("UPDATE commits SET commit_time_s = 1 << 50 WHERE id = 1")
    made = export(conn, tmp_path / "out", format)
    _, matter, _ = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    features = yaml.safe_load(matter)["dataset_info"]["features"]
    schema = pyarrow.schema([(one["name"], _arrow(one)) for one in features])
    dates = []
    for name, file in made.files.items():
        if file.n_rows:
            # As `datasets` does: types are guessed, then cast; whoever calls a date text gets 00:00:00 at its end.
            table = read_json(tmp_path / "out" / name)
            assert table.column_names == schema.names
            dates += table.cast(schema).to_pydict().get("date", [])
    if "date" in schema.names:
        assert set(dates) <= {datetime.date(2020, 9, 13), None} and datetime.date(2020, 9, 13) in dates


def test_parquet_columns_have_types(tmp_path: Path) -> None:
    export(_db(tmp_path / "t.db"), tmp_path / "out", "parquet")
    file = tmp_path / "out" / "data" / "train-00000-of-00001.parquet"
    types = {field.name: str(field.type) for field in read_schema(file)}
    assert types["cve"].startswith("list<") and types["date"] == "date32[day]"
    assert types["messages"].startswith("list<") and "struct<role: string, content: string>" in types["messages"]
    (first, *_) = _read(tmp_path / "out", "parquet", "train")
    assert first["cve"] == ["CVE-2023-0001", "CVE-2023-0002", "CVE-2023-0003"]
    assert first["date"] == datetime.date(2020, 9, 13)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(TrustmineError, match="need the package pyarrow") as raised:
        export(_db(tmp_path / "t.db"), tmp_path / "out", "parquet")
    assert "trustmine[parquet]" in raised.value.hint


def test_the_card_says_what_made_the_rows_and_under_which_licence(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", SAMPLES)
    conn.execute("UPDATE repos SET name = 'a|b<script>`' WHERE name = 'zlib'")
    conn.execute("DELETE FROM licences WHERE commit_id = 3")
    conn.execute("UPDATE llm_calls SET sampling = '{\"seed\":7}' WHERE stage = 's3_2'")
    made = export(conn, tmp_path / "out", "messages")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| acme/curl | curl | 1 |\n| acme/curl | unknown | 1 |" in card
    assert "a\\|b&lt;script&gt;'" in card and "<script>" not in card
    assert 'Sampling at s3_2: `{"seed": 7}`' in card and made.sampling["s3_2"] == [{"seed": 7}]
    assert "| s0_1 | 7 |" in card and "1 not_c |" in card and made.funnel["s4"]["passed"] == 3
    assert f"`{made.files['train.jsonl'].sha256}`" in card
    assert made.packages["tree-sitter"] in card
    assert made.stats["year"] == {"2020": {"train": 12, "bench": 6}}
    assert {row["licence"] for row in _read(tmp_path / "out", "messages", "train")} == {"curl", "unknown"}


def test_pictures_are_drawn_and_go_with_the_export(tmp_path: Path) -> None:
    conn = _db(tmp_path / "t.db")
    export(conn, tmp_path / "out", "sven", pictures=True)
    drawn = {name for name in _bytes(tmp_path / "out") if name.endswith(".png")}
    assert drawn == {"plots/cwe.png", "plots/year.png", "plots/project.png", "plots/length.png"}
    assert all(f"]({name})" in (tmp_path / "out" / "README.md").read_text() for name in drawn)
    export(conn, tmp_path / "out", "sven")
    assert not (tmp_path / "out" / "plots").exists()


def test_memory_stays_flat_however_much_is_written(tmp_path: Path) -> None:
    conn = make_db(tmp_path / "t.db", [Row("r", str(i), "s4", "done", message="m") for i in range(40)])
    conn.execute("UPDATE instructions SET input = ?", ("x" * 100_000,))  # 24 MB in all
    tracemalloc.start()
    made = export(conn, tmp_path / "out", "messages")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.files["train.jsonl"].size_bytes > 24_000_000
    assert peak < 5_000_000
