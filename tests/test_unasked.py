"""From the known fixes of the demo to TRUST-Bench without a model: masked by the fix, elements by the parser."""

import csv
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from trustmine import console, ingest, labels, pipeline, tools, verify
from trustmine.config import Settings
from trustmine.db.claims import Scope
from trustmine.db.connect import connect
from trustmine.demo import write_demo, write_known_fixes
from trustmine.export import export
from trustmine.llm.base import Engine, ModelInfo
from trustmine.stages import STAGES

SETTINGS = Settings(masked_by="fix", elements_by="parser", cutoff=date(2000, 1, 1))
STEPS = tuple(STAGES)[: tuple(STAGES).index("s2_2") + 1]


class NoModels(pipeline.Models):
    def get(self) -> tuple[Engine, int]:
        raise AssertionError("a model is loaded")


@pytest.fixture(scope="module", params=[1, 2], ids=["here", "two workers"])
def conn(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    """A database whose labelled rows went to s2_2; `known.csv` and the repository lie beside it."""
    db = tmp_path_factory.mktemp("unasked") / "trustmine.db"
    write_demo(db.parent / "repo")
    known = db.parent / "known.csv"
    write_known_fixes(known)
    shas = [row["commit"] for row in csv.DictReader(known.read_text().splitlines())]
    known.write_text("commit,cve\n" + "".join(f"{sha},CVE-2020-{n:04}\n" for n, sha in enumerate(shas)))
    conn = connect(db, create=True)
    ingest.ingest(conn, ingest.find(str(db.parent / "repo")), name="demo")
    labels.label(conn, known)
    plan = pipeline.Plan(Scope(is_labelled=True), n_workers=request.param)
    models = NoModels(conn, SETTINGS)
    for stage in STEPS:
        pipeline.advance(db, conn, stage, SETTINGS, models, plan, console.progress)
    yield conn
    conn.close()


def test_rows_get_a_mask_and_a_context_and_no_call_is_made(conn: sqlite3.Connection) -> None:
    (passed,) = conn.execute("SELECT count(*) FROM commits WHERE status = 's2_2'").fetchone()
    assert passed >= 4
    missed = "SELECT count(*), sum(request_hash IS NULL), sum(n_fix_lines_missed) FROM masked_functions"
    n, n_unasked, n_missed = conn.execute(missed).fetchone()
    assert (n_unasked, n_missed) == (n, 0) and n >= passed
    assert conn.execute("SELECT DISTINCT found_by FROM elements").fetchall() == [("parser",)]
    assert conn.execute("SELECT DISTINCT n_model FROM element_counts").fetchall() == [(0,)]
    assert conn.execute("SELECT count(*) FROM llm_calls").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM failures").fetchone() == (0,)


def test_their_recipes_name_no_model_and_no_prompt(conn: sqlite3.Connection) -> None:
    found = conn.execute("SELECT content, model_id FROM recipes WHERE stage IN ('s1_2', 's2_1')").fetchall()
    assert len(found) == 2
    for content, model_id in found:
        assert model_id is None
        recipe = json.loads(content)
        assert recipe["prompts"] == {} and not {"model", "engine", "sampling"} & recipe.keys()
        assert {"masked_by", "elements_by"} & recipe["settings"].keys()


def test_a_recipe_with_a_model_is_as_it_was_before_there_was_a_choice(conn: sqlite3.Connection) -> None:
    model = ModelInfo("sha", "name", "file", 1, 1, "llama", 1, 8_192, "engine", 8_192)
    for stage in (STAGES["s1_2"], STAGES["s2_1"]):
        recipe: dict[str, Any] = tools.recipe(stage, tools.context(conn, Settings()), model)
        assert set(recipe["settings"]) == {*stage.SETTINGS} - {"masked_by", "elements_by"}
        assert set(recipe["prompts"]) == {*stage.PROMPTS}


def test_they_are_stale_only_if_a_model_is_to_answer_now(conn: sqlite3.Connection, tmp_path: Path) -> None:
    other_model = replace(SETTINGS, temperature=0.5, seed=7, n_ctx=512)
    asked = replace(SETTINGS, masked_by="model")
    assert not any(pipeline.count_stale(conn, SETTINGS, Scope()).values())
    assert not any(pipeline.count_stale(conn, other_model, Scope()).values())
    assert not pipeline.send_stale_back(conn, SETTINGS, NoModels(conn, SETTINGS), Scope(), "s1_2")
    (n,) = conn.execute("SELECT count(*) FROM steps WHERE stage = 's1_2'").fetchone()
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        conn.backup(copy)
    copy.close()
    again = connect(tmp_path / "copy.db")
    models = pipeline.Models(again, asked)
    sent = pipeline.send_stale_back(again, asked, models, Scope(), None)
    assert {stage: len(ids) for stage, ids in sent.items()} == {"s1_2": n}
    models.close()
    again.close()


def test_a_verification_does_them_again_and_finds_nothing(conn: sqlite3.Connection) -> None:
    results = verify.verify(conn, SETTINGS, console.progress)
    assert [result.check.name for result in results if result.n_found or result.skipped] == []


def test_gaps_of_the_benchmark_are_masked_by_the_fix_and_have_a_context(
    conn: sqlite3.Connection, tmp_path: Path
) -> None:
    export(conn, tmp_path / "out", "bench")
    rows = [json.loads(line) for line in (tmp_path / "out" / "bench.jsonl").read_text().splitlines()]
    with_context = [row for row in rows if any(row["context"].values())]
    assert len(with_context) >= 4
    assert {row["masked_by"] for row in rows} == {"fix"}
