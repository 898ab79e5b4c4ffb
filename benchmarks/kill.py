"""Kills workers at random moments and compares what they leave with an undisturbed run.

    python benchmarks/kill.py                          # the demo repository, 200 kills, 3 workers
    python benchmarks/kill.py REPO --end 40            # your own, rows with lower ids alone

Runs the whole pipeline twice, with --deterministic: once left alone, once while a killer sends SIGKILL to a random
worker of the run, or every tenth time to its parent with the model, after which it is started again. In the end every
table of facts, the state of every row and the files of an export must be the same, byte for byte but for times and
names of workers; no row may be finished twice, no claim may be left, and `trustmine verify` finds nothing.

A row is blamed for the death of its worker after `max_attempts` of them, which here would be unjust: it is set high.
"""

import argparse
import filecmp
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import ROOT, machine, timed, trustmine

from trustmine.records import FACTS

TABLES = [fact.TABLE for fact in FACTS] + ["calibrations", "labels"]
STEPS = "SELECT commit_id, steps.stage, hash FROM steps JOIN recipes ON id = recipe_id ORDER BY 1, 2"
ROWS = "SELECT sha, status, outcome, reject_stage, reject_reason, claim_owner FROM commits ORDER BY sha"
# A killed run spends its time on starting again; without a kill for so long it is let finish.
MEAN_S = 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--end", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for both databases")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trustmine-kill-") as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        quiet, killed = folder / "quiet.db", folder / "killed.db"
        repo = given.repo
        if repo is None:
            repo = folder / "repo"
            timed(trustmine("demo", str(repo), "--known-fixes", str(folder / "known.csv")))
        for db in (quiet, killed):
            timed(trustmine("ingest", str(repo), "--db", str(db), "--name", "repo"))
            if given.repo is None:
                timed(trustmine("label", str(folder / "known.csv"), "--db", str(db)))
        rows = [] if given.end is None else ["--end", str(given.end)]
        command = ["run", "--deterministic", "--workers", str(given.workers), *rows, "--db"]
        env = {"TRUSTMINE_MAX_ATTEMPTS": "100000", "TRUSTMINE_BATCH_SIZE": "5"}
        alone = timed(trustmine(*command, str(quiet)), env=env)
        began = time.monotonic()
        n_kills, n_runs = _disturbed(trustmine(*command, str(killed)), env, given.kills, random.Random(given.seed))
        wall_s = time.monotonic() - began
        wrong = _differences(quiet, killed, folder)
    print(f"{machine()}\n{n_kills} kills, {n_runs} starts of the run; {wall_s:.0f} s, undisturbed {alone.wall_s:.0f} s")
    print("\n".join(wrong) or "Same facts, same rows, same export; nothing finished twice, no claim left.")
    sys.exit(bool(wrong) or n_kills < given.kills)


def _disturbed(command: list[str], env: dict[str, str], n_kills: int, chance: random.Random) -> tuple[int, int]:
    """Run until it ends by itself, after so many kills if it lasts that long; kills and starts."""
    killed = starts = 0
    while True:
        starts += 1
        run = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while run.poll() is None:
            time.sleep(chance.expovariate(1 / MEAN_S))
            if killed >= n_kills:
                run.wait()
            elif run.poll() is None:
                workers = _children(run.pid)
                victim = run.pid if chance.random() < 0.1 else chance.choice(workers) if workers else None
                if victim is not None:
                    os.kill(victim, signal.SIGKILL)
                    killed += 1
        assert run.stderr is not None
        said = run.stderr.read().decode(errors="replace")
        if run.returncode == 0:
            return killed, starts
        if run.returncode != -signal.SIGKILL and "workers died one after the other" not in said:
            raise subprocess.CalledProcessError(run.returncode, command, stderr=said)


def _children(parent: int) -> list[int]:
    """Worker processes of a run: all its children but the one that looks after semaphores."""
    try:
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
        return [int(pid) for pid in listed if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:
        return []


def _differences(quiet: Path, killed: Path, folder: Path) -> list[str]:
    """What is not the same, in words."""
    a, b = sqlite3.connect(quiet), sqlite3.connect(killed)
    wrong = []
    for table in TABLES:
        columns = [row[1] for row in a.execute(f"PRAGMA table_info({table})") if not row[1].endswith("at_s")]
        sql = f"SELECT {', '.join(columns)} FROM {table}"
        one, other = (sorted(db.execute(sql).fetchall(), key=repr) for db in (a, b))
        if one != other:
            wrong.append(f"{table}: {len(one)} rows alone, {len(other)} disturbed, {len(set(one) ^ set(other))} differ")
    if a.execute(STEPS).fetchall() != b.execute(STEPS).fetchall():
        wrong.append("steps: rows were decided elsewhere, or by other recipes")
    if a.execute(ROWS).fetchall() != b.execute(ROWS).fetchall():
        wrong.append("commits: rows ended elsewhere")
    if (left := b.execute("SELECT count(*) FROM commits WHERE claim_owner IS NOT NULL").fetchone()[0]) > 0:
        wrong.append(f"{left} claims are left")
    for db, name in ((quiet, "quiet"), (killed, "killed")):
        if subprocess.run(trustmine("verify", "--db", str(db)), capture_output=True, check=False).returncode:
            wrong.append(f"verify finds damage in {db}")
        (folder / name).mkdir(exist_ok=True)
        if a.execute("SELECT 1 FROM instructions").fetchone():
            timed(trustmine("export", str(folder / name), "--db", str(db)))
    names = sorted(path.name for path in (folder / "quiet").iterdir())
    _, differ, missing = filecmp.cmpfiles(folder / "quiet", folder / "killed", names, shallow=False)
    wrong += [f"export: {name} differs" for name in (*differ, *missing)]
    return wrong


if __name__ == "__main__":
    main()
