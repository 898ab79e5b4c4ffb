"""The loop: what is complete is kept, what is not is given back, trouble stays where it belongs."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trustmine import calibration, console, ingest, labels, pipeline, tools, worker
from trustmine.config import Settings
from trustmine.db import claims, identities, queries, recipes
from trustmine.db.claims import Scope
from trustmine.demo import write_demo, write_known_fixes
from trustmine.errors import RepositoryError
from trustmine.llm.base import Engine, NoAnswer
from trustmine.records import Advance, Commit, Completion, Outcome, Request
from trustmine.stages import s0_1_match
from trustmine.stages.base import Context


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "repo"
    write_demo(path)
    return path


@pytest.fixture
def filled(conn: sqlite3.Connection, demo: Path) -> Iterator[sqlite3.Connection]:
    ingest.ingest(conn, ingest.find(str(demo)), name="demo")
    yield conn


class NoModels(pipeline.Models):
    """Models that must not be needed."""

    def get(self) -> tuple[Engine, int]:
        raise AssertionError("a model is loaded")


def facts_of(conn: sqlite3.Connection) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for table in ("keyword_matches", "identifiers", "diffs", "diff_files", "commit_sizes", "priorities", "steps"):
        rows += conn.execute(f"SELECT '{table}', * FROM {table}").fetchall()
    rows += conn.execute(
        "SELECT sha, status, outcome, reject_stage, reject_reason, claim_owner FROM commits"
    ).fetchall()
    return sorted(rows, key=repr)


def test_a_stage_works_until_nothing_is_pending(filled: sqlite3.Connection) -> None:
    tally = worker.advance(filled, "s0_1", Settings())
    counts = queries.funnel(filled)["s0_1"]
    assert tally.total == 76
    assert (counts.pending, counts.claimed, counts.passed) == (0, 0, tally.advanced)
    assert worker.advance(filled, "s0_1", Settings()).total == 0


def test_a_limit_is_kept(filled: sqlite3.Connection) -> None:
    assert worker.advance(filled, "s0_1", Settings(), allowance=worker.Allowance(10)).total == 10
    assert queries.funnel(filled)["s0_1"].pending == 66


def test_several_processes_leave_what_one_leaves(
    filled: sqlite3.Connection, db_path: Path, demo: Path, tmp_path: Path
) -> None:
    from trustmine.db.connect import connect

    alone = connect(tmp_path / "alone.db", create=True)
    ingest.ingest(alone, ingest.find(str(demo)), name="demo")
    settings = Settings(batch_size=5)
    for stage in ("s0_1", "s0_2"):
        worker.advance(alone, stage, settings)
        plan = pipeline.Plan(n_workers=3)
        done = pipeline.advance(db_path, filled, stage, settings, NoModels(filled, settings), plan, console.progress)
        assert done.tally.total > 0
    assert facts_of(filled) == facts_of(alone)
    alone.close()


def test_a_shared_limit_is_kept_by_several_processes(filled: sqlite3.Connection, db_path: Path) -> None:
    settings, plan = Settings(batch_size=4), pipeline.Plan(limit=21, n_workers=2)
    done = pipeline.advance(db_path, filled, "s0_1", settings, NoModels(filled, settings), plan, console.progress)
    assert done.tally.total == 21


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_limit_takes_the_most_promising_rows_also_when_workers_share_it(
    filled: sqlite3.Connection, db_path: Path, n_workers: int
) -> None:
    for stage in ("s0_1", "s0_2"):
        worker.advance(filled, stage, Settings())
    filled.execute("UPDATE commits SET status = 's0_3' WHERE status = 's0_2' AND outcome = 'open'")
    in_order = [row[0] for row in filled.execute("SELECT id FROM commits WHERE status = 's0_3' AND outcome = 'open'"
                                                 " ORDER BY priority DESC, id")]  # fmt: skip
    assert in_order != sorted(in_order)
    settings, plan = Settings(batch_size=2, max_attempts=1), pipeline.Plan(limit=9, n_workers=n_workers)
    done = pipeline.advance(db_path, filled, "s1_1", settings, NoModels(filled, settings), plan, console.progress)
    assert done.tally.total == 9
    worked = {row[0] for row in filled.execute("SELECT commit_id FROM steps WHERE stage = 's1_1'")}
    assert worked == set(in_order[:9])


def test_the_order_is_a_setting(filled: sqlite3.Connection) -> None:
    worker.advance(filled, "s0_1", Settings(order="newest"), allowance=worker.Allowance(5))
    assert [row[0] for row in filled.execute("SELECT commit_id FROM steps ORDER BY 1")] == [72, 73, 74, 75, 76]


def test_sending_rows_back_takes_their_priority_away(filled: sqlite3.Connection) -> None:
    from trustmine.db import recipes

    for stage in ("s0_1", "s0_2"):
        worker.advance(filled, stage, Settings())
    ranked = "SELECT count(*) FROM commits WHERE priority IS NOT NULL"
    assert filled.execute(ranked).fetchone() == filled.execute("SELECT count(*) FROM priorities").fetchone()
    assert filled.execute(ranked).fetchone()[0] > 10
    recipes.send_back(filled, "s0_2")
    assert filled.execute(ranked).fetchone() == (0,)
    assert filled.execute("SELECT count(*) FROM priorities").fetchone() == (0,)


def test_trouble_of_a_worker_process_reaches_the_parent(filled: sqlite3.Connection, db_path: Path) -> None:
    filled.execute("UPDATE repos SET path = '/nowhere'")
    with pytest.raises(RepositoryError, match="cannot be read any more"):
        plan, models = pipeline.Plan(n_workers=2), NoModels(filled, Settings())
        pipeline.advance(db_path, filled, "s0_1", Settings(), models, plan, console.progress)
    assert claims.owners(filled) == []
    assert queries.funnel(filled)["s0_1"].pending == 76


def test_an_exception_fails_its_row_alone(filled: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    real = s0_1_match.run

    def run(commit: Commit, ctx: Context) -> Outcome:
        if commit.id == 7:
            raise ValueError("no luck\nat all")
        return real(commit, ctx)

    monkeypatch.setattr(s0_1_match, "run", run)
    tally = worker.advance(filled, "s0_1", Settings(max_attempts=2))
    assert (tally.failed, tally.advanced + tally.rejected) == (2, 75)
    assert filled.execute("SELECT outcome FROM commits WHERE id = 7").fetchone() == ("failed",)
    errors = filled.execute("SELECT attempt, error, traceback FROM failures ORDER BY attempt").fetchall()
    assert [(row[0], row[1]) for row in errors] == [
        (1, "ValueError: no luck at all"),
        (2, "ValueError: no luck at all"),
    ]
    assert "in run" in errors[0][2]


def test_trouble_of_the_run_stops_it_and_keeps_what_is_done(
    filled: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(commit: Commit, ctx: Context) -> Outcome:
        if commit.id == 7:
            raise RepositoryError("gone")
        return Advance()

    monkeypatch.setattr(s0_1_match, "run", run)
    with pytest.raises(RepositoryError):
        worker.advance(filled, "s0_1", Settings())
    counts = queries.funnel(filled)["s0_1"]
    assert (counts.passed, counts.pending, counts.claimed, counts.failed) == (6, 70, 0, 0)
    assert filled.execute("SELECT sum(attempts) FROM commits").fetchone() == (0,)


def test_ctrl_c_keeps_what_is_complete(filled: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(commit: Commit, ctx: Context) -> Outcome:
        if commit.id == 20:
            raise KeyboardInterrupt
        return Advance()

    monkeypatch.setattr(s0_1_match, "run", run)
    with pytest.raises(KeyboardInterrupt):
        worker.advance(filled, "s0_1", Settings())
    assert queries.funnel(filled)["s0_1"].passed == 19
    assert claims.owners(filled) == []


def test_a_missing_object_fails_its_row_not_the_run(conn: sqlite3.Connection, demo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    write_demo(broken)
    tip = subprocess.run(
        ["git", "-C", str(broken), "rev-parse", "HEAD~3^{tree}"], check=True, capture_output=True, text=True
    ).stdout.strip()
    packs = list((broken / ".git/objects/pack").glob("*.pack"))
    for pack in packs:  # loose objects can be taken away one by one
        moved = pack.rename(tmp_path / pack.name)
        for other in pack.parent.glob(pack.stem + ".*"):
            other.unlink()
        with moved.open("rb") as file:
            subprocess.run(["git", "-C", str(broken), "unpack-objects", "-q"], stdin=file, check=True)
    (broken / ".git/objects" / tip[:2] / tip[2:]).unlink()
    ingest.ingest(conn, ingest.find(str(broken)))
    tally = worker.advance(conn, "s0_1", Settings(max_attempts=1))
    assert 1 <= tally.failed <= 2, "the commit of that tree, and the next one"
    assert tally.total == 76
    assert "Cannot read" in conn.execute("SELECT error FROM failures").fetchone()[0]


def test_a_killed_worker_leaves_nothing_half_done(filled: sqlite3.Connection, db_path: Path) -> None:
    """SIGKILL a real command in mid-stage, run it again: the facts are those of an undisturbed run."""
    command = [sys.executable, "-m", "trustmine.cli", "advance", "--stage", "s0_1", "--db", str(db_path)]
    env = {**os.environ, "TRUSTMINE_BATCH_SIZE": "2"}
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while queries.funnel(filled)["s0_1"].passed < 3 and time.monotonic() < deadline:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    counts = queries.funnel(filled)["s0_1"]
    assert counts.claimed == 0, "status knows that the process is gone"
    assert counts.passed >= 3
    assert filled.execute("SELECT count(*) FROM commits WHERE status = 's0_1' AND id NOT IN "
                          "(SELECT commit_id FROM diffs)").fetchone() == (0,)  # fmt: skip
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    after = facts_of(filled)
    from trustmine.db import recipes

    assert recipes.send_back(filled, "s0_1") == 76
    worker.advance(filled, "s0_1", Settings())
    assert [row for row in facts_of(filled) if row[0] != "steps"] == [row for row in after if row[0] != "steps"]


def test_stages_run_one_after_the_other(filled: sqlite3.Connection, db_path: Path) -> None:
    models = pipeline.Models(filled, Settings())
    from trustmine import console

    for stage in ("s0_1", "s0_2"):
        done = pipeline.advance(db_path, filled, stage, Settings(), models, pipeline.Plan(), console.progress)
        assert done.tally.total > 0
    assert pipeline.count_stale(filled, Settings(), Scope()) == {"s0_1": 0, "s0_2": 0, "s1_1": 0, "s2_0": 0,
                                                                "s2_2": 0, "s4": 0}  # fmt: skip
    changed = Settings(max_commit_tokens=100)
    assert pipeline.count_stale(filled, changed, Scope())["s0_2"] == queries.funnel(filled)["s0_1"].passed
    sent = pipeline.send_stale_back(filled, changed, models, Scope(), None)
    assert {stage: len(ids) for stage, ids in sent.items()} == {"s0_2": queries.funnel(filled)["s0_2"].pending}
    pipeline.advance(db_path, filled, "s0_2", changed, models, pipeline.Plan(), console.progress)
    assert queries.funnel(filled)["s0_2"].rejected["too_many_tokens"] > 10


def test_many_rows_are_done_again_part_by_part_and_no_others(
    filled: sqlite3.Connection, db_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "LISTED_ROWS", 7)
    models, plan = NoModels(filled, Settings()), pipeline.Plan(limit=5)
    ids = [row[0] for row in filled.execute("SELECT id FROM commits ORDER BY id DESC LIMIT 17")]
    done = pipeline.redo(db_path, filled, "s0_1", Settings(), models, plan, ids, console.progress)
    assert done.tally.total == 17
    assert [row[0] for row in filled.execute("SELECT commit_id FROM steps ORDER BY 1 DESC")] == ids
    assert pipeline.redo(db_path, filled, "s0_1", Settings(), models, plan, ids, console.progress).tally.total == 0


def test_prompts_that_do_not_fit_the_context_reject_their_rows(filled: sqlite3.Connection) -> None:
    settings = Settings(n_ctx=256, calibration_rows=0)
    for stage in ("s0_1", "s0_2"):
        worker.advance(filled, stage, settings)
    engine = tools.open_engine(filled, settings)
    tally = worker.advance(filled, "s0_3", settings, engine=engine)
    engine[0].close()
    assert tally.total == tally.rejected > 10
    assert queries.funnel(filled)["s0_3"].rejected == {worker.CONTEXT_OVERFLOW: tally.total}


class Late:
    """An engine that answers when it is told to."""

    capacity = 2
    info = SimpleNamespace(name="late", sha256="0", engine="none", n_ctx=4096)

    def __init__(self) -> None:
        self.asked: list[tuple[int, Request]] = []
        self.waiting: dict[int, Request] = {}
        self.answers: list[tuple[int, Completion | NoAnswer]] = []
        self.timeouts: list[float | None] = []

    @staticmethod
    def request_hash(request: Request) -> str:
        return hashlib.sha256(repr(request).encode()).hexdigest()

    def submit(self, ticket: int, request: Request) -> None:
        self.asked.append((ticket, request))
        self.waiting[ticket] = request

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
        self.timeouts.append(timeout_s)
        answers, self.answers = self.answers, []
        return answers

    def answer(self, *tickets: int) -> None:
        logprobs = {spelling: -float(n) for n, spelling in enumerate(calibration.SPELLINGS)}
        for ticket in tickets:
            digest = self.request_hash(self.waiting.pop(ticket))
            self.answers.append((ticket, Completion("yes", "label", logprobs, 9, 0, 0, 1.0, digest, "rendered")))


@pytest.fixture
def late(filled: sqlite3.Connection) -> tuple[Late, worker.Line]:
    """An engine, and a line at s0_3 that asks it."""
    settings = Settings(calibration_rows=0, rationale="none", lease_s=60)
    for stage in ("s0_1", "s0_2"):
        worker.advance(filled, stage, settings)
    model_id = filled.execute(
        "INSERT INTO models (sha256, name, path, size_bytes, mtime_ns, architecture, n_params, n_ctx_train, engine) "
        "VALUES ('0', 'late', '', 0, 0, '', 0, 0, 'none') RETURNING id"
    ).fetchone()[0]
    engine = Late()
    here = worker.post(filled, "s0_3", settings, identities.worker_name(), model=(cast(Any, engine), model_id))
    return engine, worker.Line({"s0_3": here}.get)


def test_a_row_whose_lease_ran_out_while_its_machine_slept_is_asked_about_once(
    filled: sqlite3.Connection, late: tuple[Late, worker.Line]
) -> None:
    engine, line = late
    line.fill(["s0_3"])
    (_, other), (slow, question) = engine.asked
    filled.execute("UPDATE commits SET claim_until_s = 1 WHERE claim_owner IS NOT NULL")
    while len(line.rows) == 2:  # the other row is answered, too late
        engine.answer(*(ticket for ticket in engine.waiting if ticket != slow))
        line.take_answers(0.0)
    while line.fill(["s0_3"]) or line.rows:
        engine.answer(*([ticket for ticket in engine.waiting if ticket != slow] or engine.waiting))
        line.take_answers(0.0)
    asked = [request for _, request in engine.asked]
    assert (asked.count(other), asked.count(question)) == (2, 1)
    counts = queries.funnel(filled)["s0_3"]
    assert (counts.pending, counts.claimed, counts.failed) == (0, 0, 0)
    assert filled.execute("SELECT count(*) FROM verdicts").fetchone() == (counts.passed,)


def test_a_question_that_the_engine_does_not_take_fails_its_row_and_holds_up_no_other(
    filled: sqlite3.Connection, late: tuple[Late, worker.Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, line = late
    submit = engine.submit
    refused: list[Request] = []

    def odd(ticket: int, request: Request) -> None:
        if not refused:
            refused.append(request)
        if request == refused[0]:
            raise ValueError("no such token")
        submit(ticket, request)

    monkeypatch.setattr(engine, "submit", odd)
    for _ in range(200):
        if not line.fill(["s0_3"]) and not line.rows:
            break
        engine.answer(*engine.waiting)
        line.take_answers(0.0)
    counts = queries.funnel(filled)["s0_3"]
    assert (counts.pending, counts.claimed, counts.failed, line.rows) == (0, 0, 1, {})


def test_leases_are_seen_to_while_the_model_is_slow(filled: sqlite3.Connection, late: tuple[Late, worker.Line]) -> None:
    engine = late[0]
    settings = Settings(calibration_rows=0, rationale="none")
    poll = engine.poll

    def slow(timeout_s: float | None = None) -> list[tuple[int, Completion | NoAnswer]]:
        if len(engine.timeouts) > 2:
            engine.answer(*engine.waiting)
        return poll(timeout_s)

    engine.poll = slow  # type: ignore[method-assign]
    model_id = filled.execute("SELECT max(id) FROM models").fetchone()[0]
    worker.advance(filled, "s0_3", settings, engine=(cast(Any, engine), model_id), allowance=worker.Allowance(1))
    assert all(timeout_s is not None and timeout_s < settings.lease_s / 3 for timeout_s in engine.timeouts)
    assert filled.execute("SELECT count(*) FROM verdicts").fetchone() == (1,)


def test_rows_that_a_list_has_judged_load_no_model_and_are_not_stale_for_want_of_one(
    filled: sqlite3.Connection, tmp_path: Path
) -> None:
    settings, labelled = Settings(), pipeline.Plan(Scope(is_labelled=True))
    models = NoModels(filled, settings)
    for stage in ("s0_1", "s0_2"):
        pipeline.advance(tmp_path, filled, stage, settings, models, pipeline.Plan(n_workers=1), console.progress)
    with pytest.raises(AssertionError, match="a model is loaded"):
        pipeline.advance(tmp_path, filled, "s0_3", settings, models, pipeline.Plan(), console.progress)
    write_known_fixes(tmp_path / "known.csv")
    labels.label(filled, tmp_path / "known.csv")
    done = pipeline.advance(tmp_path, filled, "s0_3", settings, models, labelled, console.progress)
    assert done.tally.advanced == queries.funnel(filled)["s0_3"].passed > 5
    ids = [row[0] for row in filled.execute("SELECT commit_id FROM verdicts WHERE source = 'known' ORDER BY 1")]
    assert len(ids) == done.tally.advanced
    also = [tools.label_recipe(filled, settings)]
    assert recipes.stale(filled, {"s0_3": "that of a model"}, also=also)["s0_3"] == []
    assert recipes.stale(filled, {"s0_3": "that of a model"})["s0_3"] == ids
    assert pipeline.send_stale_back(filled, settings, models, Scope(), None) == {}


@pytest.mark.parametrize(("n_waiting", "room"), [(0, worker.WITHOUT_MODEL), (10, 6), (15, 1), (16, 0)])
def test_rows_that_ask_nothing_leave_the_model_all_that_it_can_hold(n_waiting: int, room: int) -> None:
    line = worker.Line(lambda _: None)
    asking: Any = SimpleNamespace(model=(SimpleNamespace(capacity=16), 1))
    line.rows = {n: cast(Any, SimpleNamespace(post=asking)) for n in range(n_waiting)}
    assert line._room(cast(Any, SimpleNamespace(model=None))) == room
    assert line._room(asking) == 16 - n_waiting
