"""`run` and several workers with an endpoint: the parent asks it for all of them, as it asks a model of its own."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from endpoint_helpers import Reply, Told, chat, logprobs, settings, told

from trustmine import calibrate, ingest, labels, pipeline, worker
from trustmine.config import Settings
from trustmine.db import claims, queries
from trustmine.db.claims import Scope
from trustmine.demo import write_demo, write_known_fixes

pytestmark = pytest.mark.usefixtures("endpoint_environment")


@contextmanager
def unseen() -> Iterator[Callable[[str, int, int | None], None]]:
    yield lambda *drawn: None


def saying(body: dict[str, Any]) -> dict[str, Any] | Reply:
    """Label probabilities, or a sentence that no stage can use."""
    return chat("no", **logprobs(no=0.5, yes=0.3, cannot=0.2)) if body.get("logprobs") else chat("Well.")


@pytest.fixture
def server() -> Iterator[Told]:
    with told() as server:
        server.answer = saying
        yield server


@pytest.fixture
def waiting(conn: sqlite3.Connection, tmp_path: Path) -> sqlite3.Connection:
    """The demo repository, its rows before s0_3."""
    write_demo(tmp_path / "demo")
    ingest.ingest(conn, ingest.find(str(tmp_path / "demo")), name="demo")
    for stage in ("s0_1", "s0_2"):
        worker.advance(conn, stage, Settings())
    return conn


def run(conn: sqlite3.Connection, db: Path, chosen: Settings, plan: pipeline.Plan) -> None:
    models = pipeline.Models(conn, chosen)
    try:
        pipeline.run(db, conn, chosen, models, plan, unseen())
    finally:
        models.close()


def test_workers_ask_the_endpoint_of_their_parent(waiting: sqlite3.Connection, db_path: Path, server: Told) -> None:
    chosen = settings(server.url, calibration_rows=0, rationale="none")
    run(waiting, db_path, chosen, pipeline.Plan(n_workers=2, limit=4))
    assert waiting.execute("SELECT count(*) FROM verdicts").fetchone() == (4,)
    assert claims.owners(waiting) == []


def test_a_request_that_is_refused_fails_its_row_and_no_other(
    waiting: sqlite3.Connection, db_path: Path, server: Told
) -> None:
    sha, message = waiting.execute(
        """SELECT sha, message FROM commits JOIN messages ON commit_id = id
           WHERE status = 's0_2' AND outcome = 'open' ORDER BY id LIMIT 1"""
    ).fetchone()
    subject = message.splitlines()[0]

    def answer(body: dict[str, Any]) -> dict[str, Any] | Reply:
        if subject in body["messages"][-1]["content"]:
            return Reply(400, b'{"error": {"message": "filtered"}}')
        return saying(body)

    server.answer = answer
    n_rows = queries.n_pending(waiting, "s0_2", Scope())
    run(waiting, db_path, settings(server.url, calibration_rows=0), pipeline.Plan(n_workers=2))
    assert waiting.execute("SELECT count(*) FROM verdicts").fetchone() == (n_rows - 1,)
    [(failed, error)] = waiting.execute(
        "SELECT DISTINCT sha, error FROM failures JOIN commits ON id = commit_id"
    ).fetchall()
    assert failed == sha
    assert "filtered" in error


def test_a_calibration_waits_for_questions_that_are_under_way(
    waiting: sqlite3.Connection, db_path: Path, server: Told, tmp_path: Path
) -> None:
    # Rows that a list has judged wait at deeper stages; the others need a calibration, which asks the same model.
    write_known_fixes(tmp_path / "known.csv")
    labels.label(waiting, tmp_path / "known.csv")
    worker.advance(waiting, "s0_3", Settings(), scope=Scope(is_labelled=True))
    worker.advance(waiting, "s1_1", Settings())
    assert queries.n_pending(waiting, "s1_1", Scope()) > 2
    n_unlabelled = queries.n_pending(waiting, "s0_2", Scope())
    run(waiting, db_path, settings(server.url, calibration_rows=calibrate.MIN_ROWS), pipeline.Plan(n_workers=1))
    assert waiting.execute("SELECT n_rows FROM calibrations").fetchone() == (calibrate.MIN_ROWS,)
    assert waiting.execute("SELECT count(*) FROM verdicts WHERE source = 'model'").fetchone() == (n_unlabelled,)
    assert queries.n_pending(waiting, "s1_1", Scope()) == queries.n_pending(waiting, "s0_2", Scope()) == 0
