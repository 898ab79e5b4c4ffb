"""A row that kills its worker in native code: every other row finishes, and it ends as failed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import verify_helpers as helpers
from verify_helpers import show

from trustmine import verify, worker
from trustmine.config import Settings
from trustmine.db import claims, queries, recipes
from trustmine.db.connect import connect

KILLER = 7
PROGRAM = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from trustmine import worker
from trustmine.config import Settings
from trustmine.db import recipes
from trustmine.db.connect import connect
from trustmine.stages import STAGES
import verify_helpers as helpers

stage = STAGES[sys.argv[2]]
real = stage.run

def run(commit, ctx):
    if commit.id == {killer}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(commit, ctx)

def ask(commit, ctx):
    if commit.id == {killer}:
        os.kill(os.getpid(), signal.SIGKILL)
    return (yield from real(commit, ctx))

conn = connect(Path(sys.argv[1]))
is_llm = stage.KIND == "llm"
stage.run = ask if is_llm else run
engine = helpers.GoodEngine()
model_id = recipes.ensure_model(conn, engine.info)
worker.advance(conn, stage.NAME, Settings(batch_size=20), engine=(engine, model_id) if is_llm else None)
conn.close()
"""


def starts(db: Path, stage: str) -> int:
    """How often a worker must be started until one comes to its end."""
    program = PROGRAM.format(killer=KILLER)
    paths = [str(Path(__file__).parent), str(Path(__file__).parent / "stages")]
    for n in range(1, 20):
        done = subprocess.run([sys.executable, "-c", program, str(db), stage, *paths], check=False)
        if done.returncode == 0:
            return n
        assert done.returncode == -9
    raise AssertionError("it never ends")


@pytest.mark.parametrize("stage", ["s0_1", "s0_3"])
def test_a_row_that_kills_its_worker_is_set_aside_and_all_others_finish(tmp_path: Path, stage: str) -> None:
    decided = {}
    for name in ("quiet", "deadly"):
        db = helpers.ingested(tmp_path, f"{name}.db")
        conn = connect(db)
        for earlier in () if stage == "s0_1" else ("s0_1", "s0_2"):
            worker.advance(conn, earlier, Settings())
        if name == "quiet":
            engine = helpers.GoodEngine()
            model_id = recipes.ensure_model(conn, engine.info)
            worker.advance(conn, stage, Settings(), engine=(engine, model_id) if stage == "s0_3" else None)
        else:
            # It dies with the row among others, then alone as often as any row may fail; then it comes to the end.
            assert starts(db, stage) <= 1 + claims.MAX_ATTEMPTS + 1
            row = conn.execute("SELECT outcome, attempts FROM commits WHERE id = ?", (KILLER,)).fetchone()
            assert row == ("failed", claims.MAX_ATTEMPTS)
            failures = conn.execute("SELECT commit_id, stage, error FROM failures").fetchall()
            assert failures == [(KILLER, stage, claims.DIED)] * claims.MAX_ATTEMPTS
            assert conn.execute("SELECT id FROM commits WHERE crashes > 0 OR claim_owner IS NOT NULL").fetchall() == [
                (KILLER,)
            ]
        others = "SELECT * FROM {} WHERE commit_id <> ?"
        decided[name] = [
            conn.execute(others.format(table), (KILLER,)).fetchall()
            for table in ("steps", "keyword_matches", "verdicts")
        ]
        assert {r.check.name for r in verify.verify(conn, Settings(), show, is_quick=True) if r.n_found} == set()
        conn.close()
    assert decided["quiet"] == decided["deadly"]
    assert len(decided["deadly"][0]) >= 14


MODEL = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import verify_helpers as helpers
from trustmine.config import Settings
from trustmine.crew import Crew, Task
from trustmine.db import recipes
from trustmine.db.claims import Scope
from trustmine.db.connect import connect

real = helpers.GoodEngine._answer

def answer(self, request):
    if any("Fix warning 4" in message.content for message in request.messages):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, request)

helpers.GoodEngine._answer = answer
conn = connect(Path(sys.argv[1]))
engine = helpers.GoodEngine()
model_id = recipes.ensure_model(conn, engine.info)
conn.close()
task = Task(Path(sys.argv[1]), Settings(), Scope())
Crew(task, 2, None, lambda stage: (engine, model_id), lambda stage, tally: None).run([["s0_3"]])
"""


def test_a_question_that_kills_the_model_that_workers_share_is_found_and_set_aside(tmp_path: Path) -> None:
    conn = connect(helpers.ingested(tmp_path, "t.db"))
    for stage in ("s0_1", "s0_2"):
        worker.advance(conn, stage, Settings())
    paths = [str(Path(__file__).parent), str(Path(__file__).parent / "stages")]
    command = [sys.executable, "-c", MODEL, str(tmp_path / "t.db"), *paths]
    n_deaths = 0
    while (code := subprocess.run(command, check=False).returncode) != 0:
        n_deaths += 1
        assert (code, n_deaths) <= (-9, 1 + claims.MAX_ATTEMPTS)
    assert conn.execute("SELECT id, attempts FROM commits WHERE outcome = 'failed'").fetchall() == [(KILLER, 3)]
    assert conn.execute("SELECT DISTINCT commit_id FROM failures").fetchall() == [(KILLER,)], "no other was blamed"
    assert queries.funnel(conn)["s0_3"].pending == 0
    conn.close()


KILLS = f"""
import os, signal, sys
if "multiprocessing" in " ".join(sys.orig_argv):
    from trustmine.stages import s0_1_match
    real = s0_1_match.run
    def run(commit, ctx):
        if commit.id == {KILLER}:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(commit, ctx)
    s0_1_match.run = run
"""


def test_workers_that_a_row_kills_are_replaced_and_one_command_finishes_all_others(tmp_path: Path) -> None:
    conn = connect(helpers.ingested(tmp_path, "t.db"))
    (tmp_path / "sitecustomize.py").write_text(KILLS)
    command = ["advance", "--stage", "s0_1", "--workers", "2", "--db", str(tmp_path / "t.db")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-m", "trustmine.cli", *command], capture_output=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert conn.execute("SELECT id FROM commits WHERE outcome = 'failed'").fetchall() == [(KILLER,)]
    assert conn.execute("SELECT error FROM failures").fetchall() == [(claims.DIED,)] * 3
    assert queries.funnel(conn)["s0_1"].pending == 0
    conn.close()
