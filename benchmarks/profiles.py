"""What each profile keeps of a list of known fixes, and how many commits it sends to the model.

    python benchmarks/profiles.py REPO LIST.csv [--json] [--set NAME=VALUE ...] [--keep FOLDER]

REPO is a git repository, LIST.csv as for `trustmine label`. Each profile works
in a temporary database of its own: ingest, s0_1 and s0_2 on all commits, then
the listed fixes alone go through s0_3, where their labels count and no model
is asked, and s1_1. `--set` changes settings of the last profile, to try
variants; `--keep` leaves the databases in a folder, for a look with SQL.

Prints one Markdown table with the profiles side by side. Exits with 1 where
`wide` keeps fewer known fixes than `paper` after s0_2 or s1_1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import common

PROFILES = ("paper", "wide")
STAGES = ("s0_1", "s0_2", "s1_1")  # those that lose known fixes without asking a model


@dataclass(frozen=True, slots=True)
class Kept:
    """What one profile does to a project."""

    profile: str
    commits: dict[str, int]  # stage -> commits that passed it
    known: dict[str, int]  # stage -> known fixes that passed it
    lost: dict[str, dict[str, int]]  # stage -> reason -> known fixes


def measure(profile: str, repo: Path, known: Path, folder: Path, env: dict[str, str]) -> Kept:
    """Run the stages in a new database. Raises CalledProcessError."""
    db = str(folder / f"{profile}.db")

    def trustmine(*args: str) -> str:
        command = [*common.trustmine(*args), "--db", db]
        inherited = {**os.environ, "PYTHONPATH": str(common.ROOT), **env}
        # In the folder of the databases no settings file lies about.
        done = subprocess.run(command, env=inherited, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout

    trustmine("ingest", str(repo))
    trustmine("advance", "--stage", "s0_1", "--profile", profile)
    trustmine("advance", "--stage", "s0_2", "--profile", profile)
    trustmine("label", str(known))
    for stage in ("s0_3", "s1_1"):
        trustmine("advance", "--stage", stage, "--labelled", "--profile", profile)
    status = json.loads(trustmine("status", "--json", "--profile", profile))["stages"]
    audit = json.loads(trustmine("audit", str(known), "--json"))["stages"]
    return Kept(
        profile,
        {stage: status[stage]["passed"] for stage in STAGES[:2]},
        {stage: audit[stage]["passed"] for stage in STAGES},
        {stage: {reason: len(shas) for reason, shas in audit[stage]["lost"].items()} for stage in STAGES},
    )


def rows(kept: list[Kept]) -> list[list[object]]:
    """The table: per stage commits, known fixes, and the known fixes lost by reason."""
    found: list[list[object]] = []
    for stage in STAGES:
        if stage in kept[0].commits:
            what = "sent to the model" if stage == "s0_2" else "passed"
            found.append([stage, f"commits {what}", *(one.commits[stage] for one in kept)])
        found.append([stage, "known fixes kept", *(one.known[stage] for one in kept)])
        reasons = sorted({reason for one in kept for reason in one.lost[stage]})
        for reason in reasons:
            found.append([stage, f"known fixes lost: `{reason}`", *(one.lost[stage].get(reason, 0) for one in kept)])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("repo", type=Path)
    parser.add_argument("list", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    env = {f"TRUSTMINE_{name.upper()}": value for name, _, value in (one.partition("=") for one in given.set)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kept = [
            measure(profile, given.repo.resolve(), given.list.resolve(), folder, env if profile == PROFILES[-1] else {})
            for profile in PROFILES
        ]
    paper, wide = kept
    if given.json:
        print(json.dumps([asdict(one) for one in kept], indent=2))
    else:
        print(f"{given.repo.name}, {given.list.name}; {common.machine()}\n")
        print(common.table(("stage", "", *(one.profile for one in kept)), rows(kept)))
        for what, more, less in (
            ("commits sent to the model", wide.commits["s0_2"], paper.commits["s0_2"]),
            ("known fixes after s0_2", wide.known["s0_2"], paper.known["s0_2"]),
            ("known fixes after s1_1", wide.known["s1_1"], paper.known["s1_1"]),
        ):
            print(f"- {what}: {more / less:.2f} times those of paper" if less else f"- {what}: {more}, paper none")
    return int(any(wide.known[stage] < paper.known[stage] for stage in STAGES[1:]))


if __name__ == "__main__":
    sys.exit(main())
