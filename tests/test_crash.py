"""A row that kills its worker in native code: every other row finishes, and it ends as failed."""

import subprocess
import sys
from pathlib import Path

import pytest
import verify_helpers as helpers
from verify_helpers import show

from trustmine import ingest, verify, worker
from trustmine.config import Settings
from trustmine.db import claims, recipes
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
    helpers.write_repo(tmp_path / "repo")
    decided = {}
    for name in ("quiet", "deadly"):
        db = tmp_path / f"{name}.db"
        conn = connect(db, create=True)
        ingest.ingest(conn, ingest.find(str(tmp_path / "repo")), name="toy")
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
