"""Whether a claim stays as quick at a million pending rows as at a thousand, in each order.

    python benchmarks/claims.py [--rows 1000000]

Fills a temporary database with rows that wait for s0_3, with priorities as
s0_2 gives them (few different values, so many equals) and the last tenth of
them in a second repository. Times claims alone; the rows claimed are moved on between
them, as finished rows are. A claim of one row is what a worker that asks a
model makes; one of many, what a git or CPU worker makes. Processor time is
counted, so that other programs do not matter much.

Promise: at the large size each order claims at least half as many rows per
second as at a thousand.
"""

import argparse
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import machine, table

from trustmine.db import claims
from trustmine.db.claims import Scope
from trustmine.db.connect import connect, transaction

SMALL = 1_000
N_CLAIMS = 60
BATCHES = (1, 50)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small, large = (measure(Path(folder), n) for n in (SMALL, args.rows))
    print(f"{machine()}\n\nRows claimed per second of processor time\n")
    columns = ("order", "scope", "rows a claim", f"at {SMALL:,} pending", f"at {args.rows:,} pending")
    print(table(columns, [(*key, round(small[key]), round(large[key])) for key in small]), end="")
    slow = [key for key in small if large[key] < small[key] / 2]
    for key in slow:
        print(f"Less than half as quick: {key}", file=sys.stderr)
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
