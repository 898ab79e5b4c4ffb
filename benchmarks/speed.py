"""How long the stages before the first model call take, beside other ways to the same diffs.

    python benchmarks/speed.py REPO [--rounds 3] [--sample 1500] [--workers 2]

In every round, one after the other on the same machine: trustmine (ingest,
s0_1, s0_2, three commands, start-up included), one pass of `git log -p
--no-merges`, PyDriller reading diffs, and the procedure that asks git once per
keyword (`git log -i -F --grep=K`) and runs one `git show` per hit, with as many
processes as cores. PyDriller and `git show` are run on an evenly spaced sample
of the commits that have a keyword and scaled to all of them; everything else
is run whole. Ratios are taken within a round; the median is given.
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import Timed, machine, table, timed, trustmine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from trustmine.config import KEYWORDS

# The peers shall read the repository whoever owns it, as trustmine does.
os.environ |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=1500, help="commits for PyDriller and for git show")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # All of them read the same bare clone, which borrows the objects: PyDriller needs a usual configuration.
        clone = Path(folder) / "clone.git"
        subprocess.run(["git", "clone", "-q", "--bare", "--shared", str(args.repo), str(clone)], check=True)
        rounds = [_round(clone, args, Path(folder) / f"{number}.db") for number in range(args.rounds)]
        facts = _facts(clone, Path(folder) / "0.db")
    names, n_commits = list(rounds[0]), int(facts["commits"])
    ours = [r["trustmine"][0] for r in rounds]
    rows = []
    for name in names:
        seconds = statistics.median(r[name][0] for r in rounds)
        ratio = statistics.median(r[name][0] / own for r, own in zip(rounds, ours, strict=True))
        cpu = statistics.median(r[name][1] for r in rounds)
        rows.append((name, f"{seconds:.1f}", f"{cpu:.1f}", f"{1e3 * seconds / n_commits:.3f}", f"{ratio:.2f}"))
    print(f"{machine()}; {args.repo.name}, median of {args.rounds} rounds, {args.workers} workers\n")
    columns = ("what", "wall s", "CPU s", "wall ms per commit of the history", "times trustmine")
    print(table(columns, rows))
    print(table(("fact", "value"), list(facts.items())))
    if args.json:
        args.json.write_text(json.dumps({"rounds": rounds, "facts": facts}, indent=2), encoding="utf-8")


def _round(clone: Path, args: argparse.Namespace, db: Path) -> dict[str, tuple[float, float, int]]:
    """Seconds of wall and CPU and peak bytes of each way, in one round."""
    repo, workers = str(clone), str(args.workers)
    steps = {
        "ingest": timed(trustmine("ingest", repo, "--db", str(db), "--name", "bench")),
        "s0_1": timed(trustmine("advance", "--stage", "s0_1", "--workers", workers, "--db", str(db))),
        "s0_2": timed(trustmine("advance", "--stage", "s0_2", "--workers", workers, "--db", str(db))),
    }
    found: dict[str, tuple[float, float, int]] = {
        "trustmine": (
            sum(t.wall_s for t in steps.values()),
            sum(t.cpu_s for t in steps.values()),
            max(t.peak_bytes for t in steps.values()),
        )
    }
    found |= {f"- {name}": (t.wall_s, t.cpu_s, t.peak_bytes) for name, t in steps.items()}
    log = timed(["git", "-C", repo, "log", "-p", "--no-merges", "HEAD"])
    found["git log -p --no-merges"] = (log.wall_s, log.cpu_s, log.peak_bytes)
    with sqlite3.connect(db) as conn:
        hits = [row[0] for row in conn.execute("SELECT sha FROM commits JOIN diffs ON commit_id = id ORDER BY id")]
        n_commits = conn.execute("SELECT count(*) FROM commits").fetchone()[0]
    sample = hits[:: max(1, len(hits) // args.sample)]
    wall, cpu = _clocked(lambda: _pydriller(repo, sample))
    scale = n_commits / len(sample)
    found["PyDriller, as many diffs as commits (scaled)"] = (wall * scale, cpu * scale, 0)
    wall, cpu = _clocked(
        lambda: _git_each(["-C", repo, "log", "-i", "-F", "--format=%H"], [f"--grep={k}" for k in KEYWORDS])
    )
    n_hits = sum(len(lines) for lines in _hits(repo))
    show_wall, show_cpu = _clocked(lambda: _git_each(["-C", repo, "show", "--format="], sample))
    scale = n_hits / len(sample)
    found[f"git log per keyword, git show per hit ({n_hits:,}, scaled)"] = (
        wall + show_wall * scale,
        cpu + show_cpu * scale,
        0,
    )
    return found


def _clocked(work: Callable[[], object]) -> tuple[float, float]:
    times = os.times()
    started = time.perf_counter()
    work()
    wall, after = time.perf_counter() - started, os.times()
    return wall, sum(after[:4]) - sum(times[:4])


def _pydriller(repo: str, shas: Sequence[str]) -> int:
    """Read the diffs of these commits as PyDriller gives them."""
    from pydriller import Git

    git = Git(repo)
    return sum(len(file.diff) for sha in shas for file in git.get_commit(sha).modified_files)


def _git_each(command: Sequence[str], lasts: Sequence[str]) -> None:
    """Run git once for each last argument, as many processes as cores."""

    def run(last: str) -> None:
        subprocess.run(["git", *command, last], stdout=subprocess.DEVNULL, check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, lasts))


_HITS: list[list[str]] = []


def _hits(repo: str) -> list[list[str]]:
    """Commits per keyword; asked once, outside of what is timed."""
    if not _HITS:

        def grep(keyword: str) -> list[str]:
            command = ["git", "-C", repo, "log", "-i", "-F", "--format=%H", f"--grep={keyword}"]
            return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            _HITS.extend(pool.map(grep, KEYWORDS))
    return _HITS


def _facts(repo: Path, db: Path) -> dict[str, str | int]:
    """Sizes of the database, and what it costs to ingest again."""
    again = timed(trustmine("ingest", str(repo), "--db", str(db)))
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "one.db"
        timed(trustmine("ingest", str(repo), "--db", str(other), "--ref", "HEAD~1"))
        one_more = timed(trustmine("ingest", str(repo), "--db", str(other)))
    with sqlite3.connect(db) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        n_commits = conn.execute("SELECT count(*) FROM commits").fetchone()[0]
        n_diffs, text_chars = conn.execute("SELECT count(patch), sum(length(patch)) FROM diffs").fetchone()
        status: Timed = timed(trustmine("status", "--db", str(db)))
        size = db.stat().st_size
        diff_bytes = _table_bytes(conn, ("diffs", "diff_files"))
    facts: dict[str, str | int] = {
        "commits": n_commits,
        "kept diffs": n_diffs,
        "database bytes": size,
        "bytes per commit, diffs aside": round((size - (diff_bytes or 0)) / n_commits) if diff_bytes else "unknown",
        "bytes per kept diff with its list of files": round(diff_bytes / n_diffs) if diff_bytes else "unknown",
        "characters per kept diff": round(text_chars / n_diffs),
        "ingest again, nothing new, wall s": f"{again.wall_s:.2f}",
        "ingest one commit more, wall s": f"{one_more.wall_s:.2f}",
        "status, wall s": f"{status.wall_s:.2f}",
    }
    return facts


def _table_bytes(conn: sqlite3.Connection, tables: Sequence[str]) -> int | None:
    """Bytes of the pages of some tables; None where SQLite was built without dbstat."""
    try:
        marks = ", ".join("?" * len(tables))
        found = conn.execute(f"SELECT sum(pgsize) FROM dbstat WHERE name IN ({marks})", tables).fetchone()
    except sqlite3.OperationalError:
        return None
    return int(found[0])


if __name__ == "__main__":
    main()
