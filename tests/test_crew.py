"""Workers that ask a model of their parent: who is killed is replaced, and a model is loaded once."""

import os
import pickle
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from trustmine import crew, ingest, pipeline, worker
from trustmine.config import Settings
from trustmine.db import claims, identities, queries
from trustmine.db.claims import Scope, Tally
from trustmine.demo import write_demo
from trustmine.records import Request

N_ROWS = 4
SETTINGS = Settings(calibration_rows=0, rationale="none", n_ctx=4096, n_threads=1)


@pytest.fixture
def filled(conn: sqlite3.Connection, db_path: Path, tmp_path: Path) -> sqlite3.Connection:
    """The demo repository, with N_ROWS rows that wait for a verdict."""
    write_demo(tmp_path / "demo")
    ingest.ingest(conn, ingest.find(str(tmp_path / "demo")), name="demo")
    models = pipeline.Models(conn, SETTINGS)
    for stage in ("s0_1", "s0_2"):
        pipeline.advance(db_path, conn, stage, SETTINGS, models, pipeline.Plan(n_workers=1), silent)
    waiting = [row[0] for row in conn.execute("SELECT id FROM commits WHERE status = 's0_2' AND outcome = 'open'")]
    conn.executemany("DELETE FROM steps WHERE commit_id = ?", [(i,) for i in waiting[N_ROWS:]])
    conn.executemany(
        "UPDATE commits SET outcome = 'rejected', reject_stage = 's0_2', reject_reason = 'not_c' WHERE id = ?",
        [(i,) for i in waiting[N_ROWS:]],
    )
    return conn


@contextmanager
def silent(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


@contextmanager
def board(seen: list[tuple[str, int, int | None]]) -> Iterator[Callable[[str, int, int | None], None]]:
    yield lambda *drawn: seen.append(drawn)


def test_workers_ask_the_model_of_their_parent(filled: sqlite3.Connection, db_path: Path) -> None:
    models = pipeline.Models(filled, SETTINGS)
    seen: list[tuple[str, int, int | None]] = []
    ran = pipeline.run(db_path, filled, SETTINGS, models, pipeline.Plan(n_workers=2), board(seen))
    verdicts = filled.execute("SELECT p_yes + p_no + p_undecided FROM verdicts").fetchall()
    assert [p for (p,) in verdicts] == pytest.approx([1.0] * N_ROWS)
    assert {done.stage: done.tally.total for done in ran.stages}["s0_3"] == N_ROWS
    assert ("s0_3", N_ROWS, N_ROWS) in seen
    assert {total for stage, _, total in seen if stage == "s0_3"} == {N_ROWS}
    meter = models.meter
    assert meter is not None
    assert meter.counts.n_calls == filled.execute("SELECT count(*) FROM llm_calls").fetchone()[0] >= N_ROWS
    assert 0 < meter.busy_s < ran.seconds
    models.close()
    stored = filled.execute("SELECT n_calls, busy_s, ended_at_s IS NOT NULL, n_prompt FROM model_runs").fetchall()
    assert stored == [(meter.counts.n_calls, meter.busy_s, 1, meter.counts.n_prompt)]
    assert claims.owners(filled) == []


def test_a_killed_worker_is_replaced_and_its_rows_are_done(
    filled: sqlite3.Connection, db_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pipeline.Models(filled, SETTINGS)
    killed: list[int] = []
    real = models.get()[0].submit

    def submit(ticket: int, request: Request) -> None:
        if not killed:  # the first worker that asks dies with its rows in hand
            owners = [owner for owner in claims.owners(filled) if identities.is_alive(owner)]
            killed.append(int(owners[0].rsplit(":", 3)[1]))
            os.kill(killed[0], signal.SIGKILL)
        real(ticket, request)

    monkeypatch.setattr(models.get()[0], "submit", submit)
    pipeline.run(db_path, filled, SETTINGS, models, pipeline.Plan(n_workers=2), board([]))
    models.close()
    assert killed
    counts = queries.funnel(filled)
    assert counts["s0_3"].passed + sum(counts["s0_3"].rejected.values()) == N_ROWS
    assert filled.execute("SELECT count(*) FROM verdicts").fetchone() == (N_ROWS,)
    assert claims.owners(filled) == []


def test_prompts_that_do_not_fit_the_context_reject_their_rows(filled: sqlite3.Connection, db_path: Path) -> None:
    settings = replace(SETTINGS, n_ctx=256)
    models = pipeline.Models(filled, settings)
    pipeline.run(db_path, filled, settings, models, pipeline.Plan(n_workers=2), board([]))
    models.close()
    assert queries.funnel(filled)["s0_3"].rejected == {worker.CONTEXT_OVERFLOW: N_ROWS}


class Odd(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")


def test_an_error_that_cannot_be_sent_to_a_worker_still_fails_its_row_with_its_words(
    filled: sqlite3.Connection, db_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pipeline.Models(filled, SETTINGS)

    def submit(ticket: int, request: Request) -> None:
        raise Odd("no tokens", "the end")

    monkeypatch.setattr(models.get()[0], "submit", submit)
    pipeline.run(db_path, filled, SETTINGS, models, pipeline.Plan(n_workers=2), board([]))
    models.close()
    errors = filled.execute("SELECT DISTINCT error FROM failures").fetchall()
    assert errors == [("RuntimeError: Odd: no tokens at the end",)]
    assert filled.execute("SELECT count(*) FROM commits WHERE outcome = 'failed'").fetchone() == (N_ROWS,)


@pytest.mark.parametrize("error", [Odd("a", "b"), RuntimeError(threading.Lock())])
def test_errors_that_cannot_be_sent_become_ones_that_say_the_same(error: Exception) -> None:
    error.add_note("the traceback")
    there = pickle.loads(pickle.dumps(crew._sendable(error)))
    assert str(there) == f"{type(error).__name__}: {error}"
    assert there.__notes__ == ["the traceback"]


def test_rows_that_come_while_it_runs_are_worked_on(conn: sqlite3.Connection, db_path: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "demo")
    source = ingest.find(str(tmp_path / "demo"))
    feed = ingest.steps(conn, source, ingest.register(conn, source, "demo"))
    plan = pipeline.Plan(Scope(is_labelled=False, end=40), n_workers=2)
    settings = Settings(keywords=("no such word",))  # no row gets to the model
    models = pipeline.Models(conn, settings)
    ran = pipeline.run(db_path, conn, settings, models, plan, board([]), feed)
    assert ran.ingested is not None
    assert (ran.ingested.n_new, models.meter) == (76, None)
    assert {done.stage: done.tally for done in ran.stages} == {"s0_1": Tally(rejected=39)}
