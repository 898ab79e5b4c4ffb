"""All benchmarks on one repository, as one page of Markdown.

    python benchmarks/run.py REPO [--known LIST.csv] [--out FILE.md] [--quick] [--only NAME ...]

REPO is a path, or a URL that is cloned into trustmine's cache. What needs a
list of known fixes runs only where one is given. --quick takes small samples
and leaves the synthetic history of a million commits out. Each benchmark is a
script of its own in this folder. The exit code is 1 if one of them found a
promise not kept.
"""

import argparse
import datetime
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, machine

sys.path.insert(0, str(ROOT))
from trustmine import __version__, config, ingest

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", help="path or URL of a git repository")
    parser.add_argument("--known", type=Path, help="CSV of known fixes, as for trustmine label")
    parser.add_argument("--out", type=Path, default=Path("bench.md"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", default=[], help="only this benchmark; may be given several times")
    args = parser.parse_args()
    repo = ingest.find(args.repo, cache=config.load().settings.cache).repo.path
    failed = []
    with args.out.open("w", encoding="utf-8") as page:
        page.write(f"# trustmine {__version__}, benchmarks of {datetime.date.today()}\n\n{machine()}; {args.repo}\n")
        for name, arguments in _benchmarks(repo, args.known, args.quick):
            if args.only and name not in args.only:
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            started = time.monotonic()
            command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            page.write(f"\n## {name}\n\n{done.stdout}\n({time.monotonic() - started:.0f} s)\n")
            page.flush()
            if done.returncode:
                failed.append(name)
    print(args.out.read_text(encoding="utf-8"))
    if failed:
        sys.exit("a promise is not kept, or the benchmark failed: " + ", ".join(failed))


def _benchmarks(repo: str, known: Path | None, quick: bool) -> list[tuple[str, list[str]]]:
    """Names of scripts with their arguments."""
    found = [
        ("speed", [repo, *(["--rounds", "1", "--sample", "200"] if quick else [])]),
        ("patches", [repo, *(["--commits", "500"] if quick else [])]),
        ("functions", [repo, *(["--limit", "300"] if quick else [])]),
        ("definitions", [repo, *(["--commits", "3"] if quick else [])]),
    ]
    if known is not None:
        found += [("profiles", [repo, str(known)]), ("ranking", [repo, str(known)])]
    return found if quick else [*found, ("claims", []), ("million", [])]


if __name__ == "__main__":
    main()
