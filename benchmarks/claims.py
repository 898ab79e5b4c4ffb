"""Whether a claim stays as quick at a million pending rows as at a thousand, and how many rows a stage could finish.

    python benchmarks/claims.py [--rows 1000000] [--finished 200000]

Fills a temporary database with rows that wait for s0_3, with priorities as
s0_2 gives them (few different values, so many equals) and the last tenth of
them in a second repository. Times claims alone; the rows claimed are moved on between
them, as finished rows are. A claim of one row is what a worker that asks a
model makes; one of many, what a git or CPU worker makes. Processor time is
counted, so that other programs do not matter much.

Then rows are claimed and finished, with a step each, by two processes whose
stage does nothing, with the default batch, once alone and once while a reader
asks what pages of datasette ask, every other time in a transaction that it
leaves open for a second. One process writes at a time, so the rows divided by
the processor time of both are what two quiet cores can do; on a machine with
other work the clock says less.

Promises: at the large size each order claims at least half as many rows per
second as at a thousand; 20,000 rows per second are claimed and finished.
"""

import argparse
import multiprocessing
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import machine, table

from trustmine.config import Settings
from trustmine.db import claims, identities, recipes
from trustmine.db.claims import Scope
from trustmine.db.connect import connect, transaction
from trustmine.records import Advance

SMALL = 1_000
N_CLAIMS = 60
BATCHES = (1, 50)
PROMISED = 20_000  # rows claimed and finished per second
N_PROCESSES = 2
LONGEST_S = 3_600  # a process that has not answered by then has died
SCOPES = (("all rows", Scope()), ("--repo", Scope(repo_id=2)))


def fill(conn: sqlite3.Connection, n: int) -> None:
    """`n` rows that wait for s0_3."""
    chance = random.Random(1)
    with transaction(conn):
        for repo_id in (1, 2):
            conn.execute("INSERT INTO repos VALUES (?, ?, ?, NULL, 0, 0)", (repo_id, f"r{repo_id}", f"/r{repo_id}"))
        for i in range(1, n + 1):
            conn.execute(
                """INSERT INTO commits (id, repo_id, sha, parents, author_time_s, commit_time_s, status)
                   VALUES (?, ?, ?, '', 0, 0, 's0_2')""",
                (i, 1 + (i > 0.9 * n), f"{i:040x}"),
            )
            conn.execute("INSERT INTO messages VALUES (?, 'fix', 'utf-8')", (i,))
            points = chance.randrange(-10, 30) / 2
            conn.execute("INSERT INTO priorities VALUES (?, ?, 0, ?, 0, 0, 0, '[]')", (i, points, points))


def rows_per_s(conn: sqlite3.Connection, order: str, scope: Scope, limit: int) -> float:
    """Rows claimed per second of processor time, by the median claim."""
    speeds = []
    for number in range(N_CLAIMS):
        started = time.process_time()
        commits = claims.claim(conn, "s0_3", "s0_2", "w", limit=limit, lease_s=60, scope=scope, order=order)
        speeds.append(len(commits) / (time.process_time() - started))
        _move(conn, "s0_3")
        if (number + 1) * limit % (SMALL // 20) == 0:  # a thousand rows must not run out
            _move_back(conn)
    _move_back(conn)
    return statistics.median(speeds)


def _move(conn: sqlite3.Connection, status: str) -> None:
    conn.execute(
        "UPDATE commits SET status = ?, claim_owner = NULL, claim_until_s = NULL WHERE claim_owner = 'w'", (status,)
    )


def _move_back(conn: sqlite3.Connection) -> None:
    conn.execute("UPDATE commits SET status = 's0_2' WHERE status = 's0_3' AND outcome = 'open'")


def measure(folder: Path, n: int) -> dict[tuple[str, str, int], float]:
    conn = connect(folder / f"{n}.db", create=True)
    fill(conn, n)
    found = {}
    for order in claims.ORDERS:
        for name, scope in SCOPES:
            for limit in BATCHES:
                found[order, name, limit] = rows_per_s(conn, order, scope, limit)
    conn.close()
    return found


# ------------------------------------------------------------------ claimed and finished


@dataclass(frozen=True, slots=True)
class Worked:
    """What a process did, from the signal to begin until nothing was pending."""

    n: int  # rows, or a reader's queries
    wall_s: float
    cpu_s: float
    longest_s: float  # the longest claim or finish, or query, by the clock


def _finish_all(db: Path, start: "multiprocessing.synchronize.Event", out: "multiprocessing.Queue[Worked]") -> None:
    """A stage that does nothing."""
    conn, worker = connect(db), identities.worker_name()
    settings = Settings()
    recipe = recipes.ensure(conn, "s0_1", {"stage": "s0_1"}, None)
    claims.enter(conn, worker, "s0_1")
    out.put(Worked(0, 0, 0, 0))
    start.wait()
    began, cpu, n, longest = time.perf_counter(), time.process_time(), 0, 0.0
    while True:
        before = time.perf_counter()
        commits = claims.claim(conn, "s0_1", "ingested", worker, limit=settings.batch_size, lease_s=settings.lease_s)
        between = time.perf_counter()
        if not commits:
            break
        results = [(commit, Advance()) for commit in commits]
        n += claims.finish(conn, "s0_1", worker, recipe, results, max_attempts=3).advanced
        longest = max(longest, between - before, time.perf_counter() - between)
    out.put(Worked(n, time.perf_counter() - began, time.process_time() - cpu, longest))
    conn.close()


PAGES = (
    "SELECT * FROM funnel",
    "SELECT * FROM rejects_by_reason",
    "SELECT count(*) FROM commits",
    "SELECT * FROM commit_log LIMIT 100",
    "SELECT status, count(*) FROM commits GROUP BY status",
)


def _read_on(
    db: Path,
    start: "multiprocessing.synchronize.Event",
    stop: "multiprocessing.synchronize.Event",
    out: "multiprocessing.Queue[Worked]",
) -> None:
    """A reader who is refused nothing: any error ends the benchmark."""
    conn = connect(db, read_only=True)
    start.wait()
    began, cpu, n, longest = time.perf_counter(), time.process_time(), 0, 0.0
    while not stop.is_set():
        if n % 2:
            conn.execute("BEGIN")
        before = time.perf_counter()
        conn.execute(PAGES[n % len(PAGES)]).fetchall()
        longest = max(longest, time.perf_counter() - before)
        if n % 2:
            stop.wait(1)
            conn.execute("ROLLBACK")
        n += 1
    out.put(Worked(n, time.perf_counter() - began, time.process_time() - cpu, longest))
    conn.close()


def finished(db: Path, n: int, *, is_read: bool) -> tuple[list[Worked], Worked | None]:
    """What each process did with `n` pending rows, and the reader."""
    conn = connect(db, create=True)
    fill(conn, n)
    conn.execute("UPDATE commits SET status = 'ingested'")
    conn.execute("DELETE FROM priorities")
    conn.close()
    spawn = multiprocessing.get_context("spawn")
    start, stop = spawn.Event(), spawn.Event()
    out: multiprocessing.Queue[Worked] = spawn.Queue()
    read: multiprocessing.Queue[Worked] = spawn.Queue()
    workers = [spawn.Process(target=_finish_all, args=(db, start, out)) for _ in range(N_PROCESSES)]
    reader = spawn.Process(target=_read_on, args=(db, start, stop, read))
    for process in (*workers, *([reader] if is_read else [])):
        process.start()
    for _ in workers:
        out.get(timeout=60)
    start.set()
    found = [out.get(timeout=LONGEST_S) for _ in workers]
    stop.set()
    asked = read.get(timeout=60) if is_read else None
    for process in (*workers, *([reader] if is_read else [])):
        process.join()
    return found, asked


def _report_finished(folder: Path, n: int) -> bool:
    """Print how many rows were claimed and finished per second; whether it is less than promised."""
    rows = []
    for is_read in (False, True):
        workers, reader = finished(folder / f"finished{is_read}.db", n, is_read=is_read)
        assert sum(one.n for one in workers) == n
        per_cpu = round(n / sum(one.cpu_s for one in workers))
        longest_ms = round(1000 * max(one.longest_s for one in workers))
        by_clock = round(n / max(one.wall_s for one in workers))
        rows.append(("with a reader" if reader else "alone", per_cpu, by_clock, longest_ms, reader.n if reader else 0))
    print(f"\n{n:,} rows claimed and finished by {N_PROCESSES} processes\n")
    print(table(("", "rows per CPU s", "rows per s", "longest write, ms", "queries read"), rows), end="")
    return min(row[1] for row in rows) < PROMISED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--finished", type=int, default=200_000, help="rows that are claimed and finished")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(machine())
        is_slow = _report_finished(Path(folder), args.finished)
        small, large = (measure(Path(folder), n) for n in (SMALL, args.rows))
    print("\nRows claimed per second of processor time\n")
    columns = ("order", "scope", "rows a claim", f"at {SMALL:,} pending", f"at {args.rows:,} pending")
    print(table(columns, [(*key, round(small[key]), round(large[key])) for key in small]), end="")
    slow = [key for key in small if large[key] < small[key] / 2]
    for key in slow:
        print(f"Less than half as quick: {key}", file=sys.stderr)
    if is_slow:
        print(f"Fewer than {PROMISED:,} rows claimed and finished per second", file=sys.stderr)
    return int(bool(slow) or is_slow)


if __name__ == "__main__":
    sys.exit(main())
