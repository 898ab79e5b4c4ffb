"""The whole pipeline on the demo repository with the built-in model: what it leaves behind holds together.

What a model of 135M parameters answers is not asserted; that every row is
accounted for, every fact has its provenance, and nothing is asked twice, is.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trustmine import console, ingest, labels, pipeline, resources, verify
from trustmine.calibration import SPELLINGS
from trustmine.config import Settings
from trustmine.db import queries, recipes
from trustmine.db.claims import Scope
from trustmine.db.connect import connect
from trustmine.demo import write_demo, write_known_fixes
from trustmine.records import FACTS
from trustmine.stages import STAGES

N_JUDGED, N_LABELLED = 10, 6
SETTINGS = Settings(calibration_rows=8, rationale="yes", max_elements=8, explanation_tokens=96, n_threads=1)


@pytest.fixture(scope="module")
def db_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline") / "trustmine.db"


@pytest.fixture(scope="module")
def conn(db_path: Path) -> Iterator[sqlite3.Connection]:
    """A database after a run: some rows judged by the model, some labelled and taken as far as they go."""
    repo, known = db_path.parent / "repo", db_path.parent / "known.csv"
    write_demo(repo)
    write_known_fixes(known)
    conn = connect(db_path, create=True)
    ingest.ingest(conn, ingest.find(str(repo)), name="demo")
    run_all(db_path, conn, SETTINGS, pipeline.Plan(), ("s0_1", "s0_2"))
    # Not by priority: the first rows would be the known fixes, whose labels outrank the model.
    run_all(db_path, conn, replace(SETTINGS, order="oldest"), pipeline.Plan(limit=N_JUDGED), ("s0_3",))
    labels.label(conn, known)
    run_all(db_path, conn, SETTINGS, pipeline.Plan(Scope(is_labelled=True)), ("s0_3", "s1_1"))
    run_all(db_path, conn, SETTINGS, pipeline.Plan(Scope(is_labelled=True), N_LABELLED), tuple(STAGES)[4:])
    yield conn
    conn.close()


def run_all(
    db_path: Path, conn: sqlite3.Connection, settings: Settings, plan: pipeline.Plan, stages: tuple[str, ...]
) -> None:
    models = pipeline.Models(conn, settings)
    for stage in stages:
        pipeline.advance(db_path, conn, stage, settings, models, plan, console.progress)
    models.close()


def count(conn: sqlite3.Connection, sql: str) -> int:
    return int(conn.execute(sql).fetchone()[0])


def test_every_row_is_somewhere(conn: sqlite3.Connection) -> None:
    counts = queries.funnel(conn)
    assert sum(n.pending + n.failed + sum(n.rejected.values()) for n in counts.values()) + counts["s4"].passed == 76
    assert all(n.claimed == n.failed == 0 for n in counts.values())
    passed = [n.passed for n in counts.values()]
    assert passed == sorted(passed, reverse=True)
    assert counts["s1_1"].passed >= N_LABELLED
    decided = counts["s1_2"].passed + sum(counts["s1_2"].rejected.values())
    assert decided == N_LABELLED


def test_every_reject_has_a_reason_that_its_stage_declares(conn: sqlite3.Connection) -> None:
    for name, n in queries.funnel(conn).items():
        allowed = {*STAGES[name].REASONS, *(["context_overflow"] if STAGES[name].KIND == "llm" else [])}
        assert set(n.rejected) <= allowed


def test_every_decision_names_the_recipe_that_made_it(conn: sqlite3.Connection) -> None:
    places = recipes.stage_places(conn)
    for commit_id, status, reject_stage in conn.execute("SELECT id, status, reject_stage FROM commits"):
        steps = [row[0] for row in conn.execute("SELECT stage FROM steps WHERE commit_id = ?", (commit_id,))]
        expected = [stage for stage, place in places.items() if 0 < place <= places[status]]
        expected += [reject_stage] if reject_stage else []
        assert sorted(steps) == sorted(expected)
    for content, kind in conn.execute("SELECT content, kind FROM recipes JOIN stages USING (stage)"):
        assert (kind == "llm") == ("model" in json.loads(content))


def test_facts_are_only_there_for_rows_that_were_decided_there(conn: sqlite3.Connection) -> None:
    for fact in FACTS:
        if not fact.SHARED:
            stray = count(
                conn,
                f"SELECT count(*) FROM {fact.TABLE} f WHERE NOT EXISTS "
                f"(SELECT 1 FROM steps s WHERE s.commit_id = f.commit_id AND s.stage = '{fact.STAGE}')",
            )
            assert stray == 0, fact.TABLE


def test_model_verdicts_keep_raw_probabilities_and_their_calibration(conn: sqlite3.Connection) -> None:
    rows = conn.execute(
        """SELECT p_yes, p_no, p_undecided, p_fix, calibration_id, label_logprobs, label, rationale
           FROM verdicts JOIN llm_calls c ON c.commit_id = verdicts.commit_id AND c.request_hash = verdicts.request_hash
           WHERE source = 'model'"""
    ).fetchall()
    assert rows
    for p_yes, p_no, p_undecided, p_fix, calibration_id, logprobs, label, rationale in rows:
        assert p_yes + p_no + p_undecided == pytest.approx(1, abs=1e-6)
        assert 0 <= p_fix <= 1
        assert calibration_id == 1
        assert set(json.loads(logprobs)) == set(SPELLINGS)
        assert (rationale is not None) == (label == "yes")
    method, n_rows = conn.execute("SELECT method, n_rows FROM calibrations").fetchone()
    assert (method, n_rows) == ("batch", 8)


def test_labels_outrank_the_model(conn: sqlite3.Connection) -> None:
    assert (
        count(conn, "SELECT count(*) FROM verdicts JOIN labels USING (commit_id) WHERE verdicts.source <> 'known'") == 0
    )
    assert count(conn, "SELECT count(*) FROM verdicts WHERE source = 'known'") > N_LABELLED


def test_what_a_list_judged_depends_on_no_model(conn: sqlite3.Connection) -> None:
    assert conn.execute(
        """SELECT DISTINCT v.source = 'known', json_extract(r.content, '$.model') IS NULL FROM verdicts AS v
           JOIN steps AS s ON s.commit_id = v.commit_id AND s.stage = 's0_3' JOIN recipes AS r ON r.id = s.recipe_id
           ORDER BY 1"""
    ).fetchall() == [(0, 0), (1, 1)]


def test_every_fact_of_a_model_leads_to_its_call(conn: sqlite3.Connection) -> None:
    for table in ("masked_functions", "segments", "explanations"):
        lost = f"""SELECT count(*) FROM {table} f WHERE NOT EXISTS
            (SELECT 1 FROM llm_calls c WHERE c.commit_id = f.commit_id AND c.request_hash = f.request_hash)"""
        assert count(conn, lost) == 0
    assert count(conn, "SELECT count(*) FROM masked_functions") > 0


def test_a_verification_does_every_stage_again_and_finds_nothing(conn: sqlite3.Connection) -> None:
    results = verify.verify(conn, SETTINGS, console.progress)
    assert [(result.check.name, result.examples, result.skipped) for result in results
            if result.n_found or result.skipped] == []  # fmt: skip


def test_nothing_is_pending_twice_and_nothing_asked_twice(conn: sqlite3.Connection, db_path: Path) -> None:
    before = everything(conn)
    ids = [row[0] for row in conn.execute("SELECT commit_id FROM steps WHERE stage = 's1_2'")]
    assert recipes.send_back(conn, "s1_2", ids) == N_LABELLED
    assert everything(conn) != before
    plan = pipeline.Plan(Scope(ids=tuple(ids)))
    run_all(db_path, conn, SETTINGS, plan, tuple(STAGES)[4:])
    assert everything(conn) == before, "the same rows again give the same facts, and no new calls"


def test_stages_side_by_side_leave_what_they_leave_one_after_the_other(conn: sqlite3.Connection, db_path: Path) -> None:
    before = everything(conn)
    ids = [row[0] for row in conn.execute("SELECT commit_id FROM steps WHERE stage = 's1_2'")]
    plan = pipeline.Plan(Scope(ids=tuple(ids)), n_workers=2)
    assert recipes.send_back(conn, "s0_3", ids) == N_LABELLED
    models = pipeline.Models(conn, SETTINGS)
    ran = pipeline.run(db_path, conn, SETTINGS, models, plan, console.board())
    models.close()
    assert everything(conn) == before
    assert {done.stage: done.tally.total for done in ran.stages}["s1_2"] == N_LABELLED


def test_a_changed_prompt_makes_exactly_its_rows_stale(conn: sqlite3.Connection, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    shutil.copytree(resources.prompts_folder(), folder)
    mask = folder / "s1_2_mask.md"
    mask.write_text(mask.read_text(encoding="utf-8").replace("Leave out", "Please leave out"), encoding="utf-8")
    assert not any(pipeline.count_stale(conn, SETTINGS, Scope(is_labelled=True)).values())
    stale = pipeline.count_stale(conn, replace(SETTINGS, prompts=str(folder)), Scope())
    assert {stage: n for stage, n in stale.items() if n} == {"s1_2": N_LABELLED}


def everything(conn: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """All content but times and workers."""
    tables = [fact.TABLE for fact in FACTS] + ["steps", "recipes", "calibrations", "labels", "commits"]
    found = {}
    for table in tables:
        columns = [row[1] for row in conn.execute(f"PRAGMA table_info({table})") if not row[1].endswith("at_s")]
        found[table] = sorted(conn.execute(f"SELECT {', '.join(f'[{c}]' for c in columns)} FROM {table}"), key=repr)
    found["llm_calls"] = sorted(conn.execute("SELECT commit_id, stage, request_hash, completion FROM llm_calls"))
    return found
