"""Runs under fire compared with one that is left alone; for test_kill.py and benchmarks/kill.py."""

import filecmp
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from trustmine.db import identities
from trustmine.records import FACTS
from trustmine.stages import STAGES

ROOT = Path(__file__).resolve().parent.parent

# ------------------------------------------------------------------------------ the run

# Workers beside a model are nice, which on a machine with other work can mean that they never start.
PROGRAM = "import sys; from trustmine import cli, pipeline; pipeline.NICENESS = 0; cli.main(sys.argv[1:])"
# A row is blamed for the death of its worker after max_attempts of them, which here would be unjust.
ENV = {"PYTHONPATH": str(ROOT), "TRUSTMINE_MAX_ATTEMPTS": "100000", "TRUSTMINE_BATCH_SIZE": "5"}


def trustmine(*args: str) -> list[str]:
    """The command line of this checkout's trustmine."""
    return [sys.executable, "-c", PROGRAM, *args]


def call(*args: str, env: Mapping[str, str] = {}) -> str:
    """Run a command to its end; what it printed. Raises CalledProcessError with what it said."""
    done = subprocess.run(
        trustmine(*args), env={**os.environ, **ENV, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, args, done.stdout, done.stderr)
    return done.stdout


# --------------------------------------------------------------------------- the killer

LOOK_S = 0.001  # between two looks at who holds what
AIM_S = 0.01  # from the sight of a victim to the kill, at most
IDLE = "no row"  # what a worker holds that starts, looks for rows, or has just finished some


@dataclass(slots=True)
class Fire:
    """Kills processes of a run at random moments, as often as wanted in every stage."""

    quota: Counter[str]  # kills still to come of processes that have rows of a stage in hand
    chance: random.Random
    parents: float = 0.1  # the share of kills that hit the parent, which holds the model, in place of a worker
    idle: float = 0.1  # the share of kills that hit any worker, whatever it does
    mean_s: float = 0.2  # from a kill to the wish for the next one
    workers: Counter[str] = field(default_factory=Counter)  # workers killed, by the stage of the rows that they held
    models: Counter[str] = field(default_factory=Counter)  # parents killed, by that of a worker of theirs
    n_starts: int = 0
    seen: dict[int, str] = field(default_factory=dict)  # worker processes, with when they started

    @property
    def n_kills(self) -> int:
        return self.workers.total() + self.models.total()

    def open_on(self, command: list[str], env: Mapping[str, str], db: Path) -> None:
        """Start the command again and again until it comes to its end; it is left alone when the quota is used up.

        Raises CalledProcessError if it ends in another way, AssertionError if a worker is left behind.
        """
        code = None
        while code != 0:
            self.n_starts += 1
            with tempfile.TemporaryFile() as errors:  # nobody reads while it runs, and a pipe would fill
                run = subprocess.Popen(
                    command, env={**os.environ, **ENV, **env}, stdout=subprocess.DEVNULL, stderr=errors
                )
                with run, closing(sqlite3.connect(db, timeout=60, isolation_level=None)) as conn:
                    while run.poll() is None and +self.quota:
                        time.sleep(self.chance.expovariate(1 / self.mean_s))
                        self._kill_one(run, conn)
                    code = run.wait()
                errors.seek(0)
                said = errors.read().decode(errors="replace")
            if code not in (0, -signal.SIGKILL) and "workers died one after the other" not in said:
                raise subprocess.CalledProcessError(code, command, stderr=said)
        gives_up = time.monotonic() + 60
        while orphans := [pid for pid, started in self.seen.items() if identities.started(pid) == started]:
            assert time.monotonic() < gives_up, f"workers without a parent are left: {orphans}"
            time.sleep(0.05)
        # A worker whose parent was killed gives its rows back when it notices, and that may be after the last run.
        subprocess.run(command, env={**os.environ, **ENV, **env}, stdout=subprocess.DEVNULL, check=True)

    def _kill_one(self, run: "subprocess.Popen[bytes]", conn: sqlite3.Connection) -> None:
        """Wait for somebody who is wanted, and shoot.

        Some stages hold a row for a few milliseconds, so half of the time
        other writers are held up meanwhile: who has a row then keeps it.
        """
        is_any = self.chance.random() < self.idle or not +(self.quota - Counter({IDLE: self.quota[IDLE]}))
        holds_up = self.chance.random() < 0.5
        while run.poll() is None:
            pids = children(run.pid)
            self.seen |= {pid: identities.started(pid) for pid in pids if pid not in self.seen}
            if is_any and pids:
                self._shoot(run, conn, self.chance.choice(pids))
                return
            if holds_up:
                conn.execute("BEGIN IMMEDIATE")
            held = held_by(conn, pids)
            wanted = [pid for pid, stage in held.items() if self.quota[stage] > 0]
            if wanted:
                time.sleep(self.chance.uniform(0, AIM_S))
                self._shoot(run, conn, self.chance.choice(wanted))
            if holds_up:
                conn.execute("ROLLBACK")
            if wanted:
                return
            time.sleep(LOOK_S)

    def _shoot(self, run: "subprocess.Popen[bytes]", conn: sqlite3.Connection, worker: int) -> None:
        """SIGKILL to a worker or its parent; what it held is looked up while it is stopped, and so is exact."""
        is_parent = self.chance.random() < self.parents
        victim = run.pid if is_parent else worker
        if run.poll() is not None or identities.started(worker) != self.seen[worker]:
            return
        os.kill(victim, signal.SIGSTOP)
        stage = held_by(conn, [worker]).get(worker, IDLE)
        os.kill(victim, signal.SIGKILL)
        (self.models if is_parent else self.workers)[stage] += 1
        self.quota[stage] -= 1
        if is_parent:
            run.wait()


def children(parent: int) -> list[int]:
    """Worker processes of a run: all its children but the one that looks after semaphores."""
    try:
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
        return [int(pid) for pid in listed if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:
        return []


def held_by(conn: sqlite3.Connection, pids: Sequence[int]) -> dict[int, str]:
    """The stage at which each of these processes has rows in hand, if it has."""
    names = list(STAGES)
    held = {}
    for owner, status, outcome in conn.execute(
        "SELECT claim_owner, status, outcome FROM commits WHERE claim_owner IS NOT NULL ORDER BY id"
    ):
        pid = int(owner.rsplit(":", 3)[1])
        if pid in pids:  # a rejected row is taken by the last stage alone
            place = 0 if status == "ingested" else names.index(status) + 1
            held[pid] = names[place] if outcome == "open" else names[-1]
    return held


# ----------------------------------------------------------------- what must be the same

TABLES = [fact.TABLE for fact in FACTS] + ["calibrations", "labels", "messages"]
SAME = {
    "commits": "SELECT id, sha, status, outcome, reject_stage, reject_reason, attempts, crashes, priority FROM commits",
    "steps": "SELECT commit_id, steps.stage, hash FROM steps JOIN recipes ON id = recipe_id",
    "llm_calls": """SELECT commit_id, stage, request_hash, task, prompt_hash, rendered_hash, sampling, completion,
                    finish_reason, label_logprobs, n_prompt, n_completion FROM llm_calls""",
    "failures": "SELECT commit_id, stage, attempt, error FROM failures",
}
# Every row that a stage has decided has one step; every finish counts in the table of workers.
TWICE = """SELECT stage, n_finished, n_steps FROM
    (SELECT stage, sum(n_advanced + n_rejected) AS n_finished FROM workers GROUP BY stage)
    LEFT JOIN (SELECT stage, count(*) AS n_steps FROM steps GROUP BY stage) USING (stage) WHERE n_finished <> n_steps"""


def differences(quiet: Path, killed: Path) -> Iterator[str]:
    """What a run under fire has left that one left alone has not, in words; times and names of workers do not count."""
    with closing(sqlite3.connect(quiet)) as a, closing(sqlite3.connect(killed)) as b:
        for table in TABLES:
            columns = [row[1] for row in a.execute(f"PRAGMA table_info({table})") if not row[1].endswith("at_s")]
            yield from _unlike(a, b, table, f"SELECT {', '.join(columns)} FROM {table}")
        for table, sql in SAME.items():
            yield from _unlike(a, b, table, sql)
        for stage, n_finished, n_steps in b.execute(TWICE):
            yield f"{stage}: {n_finished} rows were finished, and {n_steps} are decided"
        if (n := b.execute("SELECT count(*) FROM commits WHERE claim_owner IS NOT NULL").fetchone()[0]) > 0:
            yield f"{n} claims are left"
    for db in (quiet, killed):
        if db.with_suffix(".out").exists():
            continue
        try:
            call("verify", "--db", str(db))
            call("export", str(db.with_suffix(".out")), "--db", str(db))
        except subprocess.CalledProcessError as error:
            yield f"{error.cmd[0]} of {db.name}: {error.stdout}{error.stderr}"
    one, other = ({path.name for path in db.with_suffix(".out").glob("*")} for db in (quiet, killed))
    _, unlike, _ = filecmp.cmpfiles(quiet.with_suffix(".out"), killed.with_suffix(".out"), one & other, shallow=False)
    yield from (f"export: {name} differs" for name in sorted({*unlike, *(one ^ other)}))


def _unlike(a: sqlite3.Connection, b: sqlite3.Connection, table: str, sql: str) -> Iterator[str]:
    one, other = (sorted(db.execute(sql).fetchall(), key=repr) for db in (a, b))
    if one != other:
        yield f"{table}: {len(one)} rows alone, {len(other)} under fire, {len(set(one) ^ set(other))} differ"
