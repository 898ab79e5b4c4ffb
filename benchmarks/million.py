"""Do time per commit, memory, claims and `status` stay flat as a history grows?

    python benchmarks/million.py [--small 100000] [--large 1000000] [--workers 2] [--keep FOLDER]

Makes two histories by `git fast-import` (a commit changes one of 500 C files in
50 folders; half of the messages hold a keyword) and takes each through ingest,
s0_1 and s0_2. The exit code is 1 where the large one takes over 15 % more wall
time per commit than the small one, a process over 400 MB, `status` over a
second, or where claiming grows slower.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import ROOT, machine, table, timed, trustmine

sys.path.insert(0, str(ROOT))
from trustmine.db import claims, identities
from trustmine.db.connect import connect

N_FILES, N_LINES = 500, 60
MAX_GROWTH, MAX_BYTES, MAX_STATUS_S = 1.15, 400 << 20, 1.0
WORDS = ("parser", "list", "buffer", "option", "session", "header", "cookie", "the", "a", "when", "is", "of", "for")
VERBS = ("fix overflow in", "add", "rename", "speed up", "document", "check", "drop", "tidy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="make histories and databases here and leave them")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        results = [_measure(n, folder, args.workers) for n in (args.small, args.large)]
    finally:
        if args.keep is None:
            shutil.rmtree(folder)
    small, large = results
    print(machine() + "\n")
    names = list(small)
    print(
        table(("what", f"{args.small:,} commits", f"{args.large:,} commits"), [(n, small[n], large[n]) for n in names])
    )
    total = "all three, wall us per commit"
    growth = float(large[total]) / float(small[total])
    print(f"growth of time per commit: {growth:.2f}")
    broken = [
        promise
        for promise, holds in (
            ("time per commit", growth <= MAX_GROWTH),
            ("memory", float(large["peak MB of a process"]) * (1 << 20) <= MAX_BYTES),
            ("status", float(large["status, s"]) <= MAX_STATUS_S),
            ("claims", float(large["claim of 200 rows, ms"]) <= 2 * float(small["claim of 200 rows, ms"])),
        )
        if not holds
    ]
    if broken:
        sys.exit("not kept: " + ", ".join(broken))


def _measure(n: int, folder: Path, workers: int) -> dict[str, str | int]:
    repo, db = folder / f"{n}.git", folder / f"{n}.db"
    if not repo.exists():
        _make(repo, n)
    for path in folder.glob(db.name + "*"):
        path.unlink()
    found: dict[str, str | int] = {}
    wall = cpu = 0.0
    peak = 0
    steps = {
        "ingest": trustmine("ingest", str(repo), "--db", str(db)),
        "s0_1": trustmine("advance", "--stage", "s0_1", "--workers", str(workers), "--db", str(db)),
        "s0_2": trustmine("advance", "--stage", "s0_2", "--workers", str(workers), "--db", str(db)),
    }
    claim_ms = 0.0
    for name, command in steps.items():
        if name == "s0_1":
            claim_ms = _claim_ms(db)
        took = timed(command)
        found[f"{name}, wall us per commit"] = f"{1e6 * took.wall_s / n:.0f}"
        wall, cpu, peak = wall + took.wall_s, cpu + took.cpu_s, max(peak, took.peak_bytes)
    found["all three, wall us per commit"] = f"{1e6 * wall / n:.1f}"
    found["all three, CPU us per commit"] = f"{1e6 * cpu / n:.1f}"
    found["peak MB of a process"] = f"{peak / (1 << 20):.0f}"
    found["claim of 200 rows, ms"] = f"{claim_ms:.2f}"
    found["status, s"] = f"{min(timed(trustmine('status', '--db', str(db))).wall_s for _ in range(3)):.2f}"
    found["ingest again, s"] = f"{timed(trustmine('ingest', str(repo), '--db', str(db))).wall_s:.2f}"
    found["database bytes per commit"] = db.stat().st_size // n
    return found


def _claim_ms(db: Path) -> float:
    """The median time of a claim and release while every row is pending."""
    conn = connect(db)
    worker, took = identities.worker_name(), []
    for _ in range(50):
        started = time.perf_counter()
        claims.claim(conn, "s0_1", "ingested", worker, limit=200, lease_s=60)
        took.append(time.perf_counter() - started)
    claims.release(conn, worker)
    conn.close()
    return 1e3 * sorted(took)[len(took) // 2]


def _make(repo: Path, n: int) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(repo)], check=True)
    git = subprocess.Popen(["git", "-C", str(repo), "fast-import", "--quiet"], stdin=subprocess.PIPE)
    assert git.stdin is not None
    for piece in _stream(n):
        git.stdin.write(piece)
    git.stdin.close()
    if git.wait():
        sys.exit("git fast-import failed")
    subprocess.run(["git", "-C", str(repo), "symbolic-ref", "HEAD", "refs/heads/main"], check=True)


def _stream(n: int) -> Iterator[bytes]:
    """A history for git fast-import, the same for the same n."""
    rng = random.Random(n)
    files = [[f"int value_{i}_{line} = {line};\n" for line in range(N_LINES)] for i in range(N_FILES)]
    for number in range(n):
        which = rng.randrange(N_FILES)
        lines = files[which]
        lines[rng.randrange(N_LINES)] = f"int value_{which}_{rng.randrange(10**6)} = {number};\n"
        content = "".join(lines).encode()
        message = f"{rng.choice(VERBS)} {' '.join(rng.choices(WORDS, k=rng.randint(3, 30)))} {number}\n".encode()
        yield b"commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata %d\n%s" % (
            1_000_000_000 + number * 60,
            len(message),
            message,
        )
        yield b"M 100644 inline dir%d/file%d.c\ndata %d\n%s\n" % (which % 50, which, len(content), content)


if __name__ == "__main__":
    main()
