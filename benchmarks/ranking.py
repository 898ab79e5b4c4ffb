"""How early the queue comes to known fixes: by priority, against newest first and a random order.

    python benchmarks/ranking.py REPO LIST.csv         # a list of known fixes, as for `trustmine label`
    python benchmarks/ranking.py REPO --from-messages  # commits whose message names a CVE are the list

Ingests the repository and works on s0_1 and s0_2 in a temporary database (or
in --db, which may be there already), then looks at the rows that s0_2 kept:
which share of the known fixes among them lies within the first 1, 5, 10 and
25 % of an order, and the ROC AUC (how often a fix comes before another row).
With --from-messages the part `identifiers` is left out, or it would find what
it was given. Known fixes that nobody listed count as others, so all figures
are lower than the truth.

Promise: where ten rows or more, and a tenth of them or fewer, are known fixes,
the first 10 % by priority hold twice as many as a random 10 % would.
"""

import argparse
import json
import sqlite3
import sys
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import machine, table, timed, trustmine

from trustmine import labels
from trustmine.db import queries
from trustmine.db.connect import connect

SHARES = (1, 5, 10, 25)  # % of the rows
MIN_KNOWN = 10  # fewer known fixes say nothing


@dataclass(frozen=True, slots=True)
class Row:
    """A row that s0_2 kept."""

    id: int
    is_known: bool
    priority: float
    identifiers: float
    vocabulary: float
    shape: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """How an order does: share of the known fixes (0 to 1) within the first n % of the rows."""

    order: str
    within: dict[int, float]
    auc: float


def fill(repo: Path, db: Path) -> None:
    """The database after s0_2."""
    timed(trustmine("ingest", str(repo), "--db", str(db)))
    for stage in ("s0_1", "s0_2"):
        timed(trustmine("advance", "--stage", stage, "--db", str(db)))


def read(conn: sqlite3.Connection, known: set[int]) -> list[Row]:
    return [
        Row(commit_id, commit_id in known, *parts)
        for commit_id, *parts in conn.execute(
            "SELECT commit_id, priority, identifiers, vocabulary, shape FROM priorities ORDER BY commit_id"
        )
    ]


def listed(conn: sqlite3.Connection, file: Path) -> set[int]:
    """Commits that the list says are fixes."""
    lines = [line for line in labels.read(file) if line.label != "no"]
    return {commit_id for line in lines for commit_id in queries.commits_by_sha(conn, line.sha)}


def named(conn: sqlite3.Connection) -> set[int]:
    """Commits whose message names a CVE."""
    return {row[0] for row in conn.execute("SELECT commit_id FROM identifiers WHERE kind = 'CVE'")}


def ranked(order: str, rows: Sequence[Row], score: Callable[[Row], float]) -> Ranked:
    """Rows in the order of the queue: the higher score first, then the older row."""
    first = sorted(rows, key=lambda row: (-score(row), row.id))
    n_known = sum(row.is_known for row in rows)
    within = {share: sum(row.is_known for row in first[: round(len(rows) * share / 100)]) / n_known for share in SHARES}
    others = sorted(score(row) for row in rows if not row.is_known)
    ahead = sum(
        (bisect_left(others, score(row)) + bisect_right(others, score(row))) / 2 for row in rows if row.is_known
    )
    return Ranked(order, within, ahead / n_known / len(others))


def orders(rows: Sequence[Row], with_identifiers: bool) -> list[Ranked]:
    found = [ranked("priority", rows, lambda row: row.priority)] if with_identifiers else []
    return [
        *found,
        ranked("priority without identifiers", rows, lambda row: row.priority - row.identifiers),
        ranked("vocabulary alone", rows, lambda row: row.vocabulary),
        ranked("shape alone", rows, lambda row: row.shape),
        ranked("newest first", rows, lambda row: row.id),
        Ranked("random (expected)", {share: share / 100 for share in SHARES}, 0.5),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("list", type=Path, nargs="?", help="CSV of known fixes, as for `trustmine label`")
    parser.add_argument("--from-messages", action="store_true", help="commits that name a CVE are the list")
    parser.add_argument("--db", type=Path, help="keep the database here; one that is there is read as it is")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if (args.list is None) != args.from_messages:
        parser.error("give a list, or --from-messages")
    with tempfile.TemporaryDirectory() as folder:
        db = args.db or Path(folder) / "trustmine.db"
        if not db.exists():
            fill(args.repo, db)
        conn = connect(db, read_only=True)
        rows = read(conn, named(conn) if args.from_messages else listed(conn, args.list))
        conn.close()
    n_known = sum(row.is_known for row in rows)
    if not 0 < n_known < len(rows):
        print(f"{n_known} known fixes among the {len(rows):,} rows that s0_2 kept: nothing to rank", file=sys.stderr)
        return 1
    found = orders(rows, with_identifiers=not args.from_messages)
    if args.json:
        print(json.dumps({"rows": len(rows), "known": n_known, "orders": [asdict(order) for order in found]}))
    else:
        print(f"{args.repo}: {n_known} known fixes among {len(rows):,} rows that s0_2 kept\n\n{machine()}\n")
        columns = ("order", *(f"first {share} %" for share in SHARES), "ROC AUC")
        print(
            table(columns, [(o.order, *(f"{o.within[s]:.0%}" for s in SHARES), round(o.auc, 3)) for o in found]), end=""
        )
    return int(MIN_KNOWN <= n_known <= len(rows) / 10 and found[0].within[10] < 0.2)


if __name__ == "__main__":
    sys.exit(main())
