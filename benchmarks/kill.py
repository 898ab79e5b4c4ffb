"""Kills workers at random moments and compares what they leave with an undisturbed run.

    python benchmarks/kill.py                          # the demo repository, 220 kills, 3 workers
    python benchmarks/kill.py REPO --end 300           # your own, rows with lower ids alone

Runs the whole pipeline, with --deterministic: once left alone, then in rounds while a killer sends SIGKILL to its
workers, or every tenth time to their parent with the model, and starts it again, until there were enough kills in every
stage that has rows. After each round every table of facts, the state of every row, the calls of the model and the files
of an export must be those of the first run, byte for byte but for times and names of workers; no row may be finished
twice, no claim and no process may be left, and `trustmine verify` finds nothing. The code is that of
tests/kill_helpers.py; the model is a small one with random weights unless --model names another.
"""

import argparse
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from common import machine, table
from kill_helpers import IDLE, Fire, call, differences, trustmine
from model_helpers import write_small_model

from trustmine.stages import STAGES

# Of the small model: rows for every stage, and no second thread, which would wait for the cores more than it helps.
SMALL = {
    "TRUSTMINE_N_THREADS": "1",
    "TRUSTMINE_MAX_MASKS": "1",
    "TRUSTMINE_CALIBRATION_ROWS": "16",
    "TRUSTMINE_UNDECIDED_SHARE": "0.5",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=220, help="over all stages")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--end", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=40, help="at most")
    parser.add_argument("--model", type=Path, help="a GGUF file")
    parser.add_argument("--keep", type=Path, help="an empty folder for all databases")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trustmine-kill-") as scratch:
        return _measure(given, given.keep or Path(scratch))


def _measure(given: argparse.Namespace, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    quiet, fresh, known = folder / "quiet.db", folder / "fresh.db", folder / "known.csv"
    env = {"TRUSTMINE_MODEL": str(given.model)}
    if given.model is None:
        write_small_model(folder / "small.gguf")
        env = {**SMALL, "TRUSTMINE_MODEL": str(folder / "small.gguf")}
    repo = given.repo or folder / "repo"
    if given.repo is None:
        call("demo", str(repo), "--known-fixes", str(known))
    call("ingest", str(repo), "--db", str(fresh), "--name", "repo")
    if given.repo is None:
        call("label", str(known), "--db", str(fresh))
    shutil.copy(fresh, quiet)
    rows = [] if given.end is None else ["--end", str(given.end)]
    command = ["run", "--deterministic", "--workers", str(given.workers), *rows, "--db"]
    began = time.monotonic()
    call(*command, str(quiet), env=env)
    alone_s = time.monotonic() - began
    with closing(sqlite3.connect(quiet)) as conn:
        decided = dict(conn.execute("SELECT stage, count(*) FROM steps GROUP BY stage").fetchall())
    share = -(-given.kills // len(decided))
    fire = Fire(Counter(dict.fromkeys(decided, share)), random.Random(given.seed), mean_s=0.1)
    wrong: list[str] = []
    n_rounds = 0
    began = time.monotonic()
    while +fire.quota and n_rounds < given.rounds and not wrong:
        killed = Path(shutil.copy(fresh, folder / f"killed{n_rounds}.db"))
        fire.open_on(trustmine(*command, str(killed)), env, killed)
        wrong = list(differences(quiet, killed))
        n_rounds += 1
        print(f"round {n_rounds}: {fire.n_kills} kills, {fire.n_starts} starts", file=sys.stderr, flush=True)
        print(_table(fire, decided), file=sys.stderr, flush=True)
    print(
        f"{machine()}\n{fire.n_kills} kills in {n_rounds} rounds with {fire.n_starts} starts, "
        f"{time.monotonic() - began:.0f} s; one run alone {alone_s:.0f} s\n\n{_table(fire, decided)}"
    )
    print("\n".join(wrong) or "Same facts, same rows, same export; nothing finished twice, no claim left.")
    return int(bool(wrong) or fire.n_kills < given.kills)


def _table(fire: Fire, decided: dict[str, int]) -> str:
    lines = [(stage, decided.get(stage, 0), fire.workers[stage], fire.models[stage]) for stage in (*STAGES, IDLE)]
    lines.append(("all", sum(decided.values()), fire.workers.total(), fire.models.total()))
    return table(("rows in hand of", "decided a run", "workers killed", "parents killed"), lines)


if __name__ == "__main__":
    sys.exit(main())
