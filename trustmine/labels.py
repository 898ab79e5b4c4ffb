"""Verdicts from outside: lists of known fixes, and where each of them got lost.

A list is a CSV file with a column `commit` or `sha` (7 digits or more) and
optionally `repo`, `cve` or `id`, `cwe`, `severity`, `introduced_in` and `label`
(yes, no). A label of a quality that the setting `trusted_labels` names outranks
the model's verdict at s0_3; rows that s0_3 decided otherwise go back before it,
and rows that s1_1 found too new to be without a CVE go back before s1_1 when
they get one. Labels from advisories come from `advisories`.
"""

import csv
import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from trustmine import cwe
from trustmine.config import Settings
from trustmine.db import queries, recipes
from trustmine.errors import TrustmineError

_SHA = re.compile(r"^[0-9a-f]{7,64}$")
_SHAS = re.compile(r"(?<![0-9a-f])[0-9a-f]{7,40}(?![0-9a-f])")
LIST = "list"  # the quality of what somebody put together
SECTION = "s0_3"  # where labels count


@dataclass(frozen=True, slots=True)
class Known:
    """One line of a list."""

    line: int
    sha: str  # maybe abbreviated
    repo: str  # '' where the list names none
    identifier: str  # CVE, GHSA, ... or ''
    cwe: str | None
    label: str | None  # yes, no; None where the list has no such column
    severity: str | None
    introduced_by: tuple[str, ...]  # SHAs, maybe abbreviated


@dataclass(frozen=True, slots=True)
class Labelled:
    """What `label` did."""

    n_labels: int
    n_commits: int
    n_unknown: int  # lines whose commit is not in the database
    n_sent_back: int  # rows that s0_3 had decided otherwise, or s1_1 for want of a CVE


@dataclass(frozen=True, slots=True)
class Audited:
    """Where the commits of a list are now; each commit once."""

    n_commits: int  # in the list
    n_unknown: int  # not in the database
    reached: dict[str, int]  # stage -> commits of the list that passed it
    lost: dict[tuple[str, str], list[str]]  # (stage, reason) -> SHAs
    waiting: dict[str, int]  # stage -> pending there


def read(file: Path) -> list[Known]:
    """The lines of a list. Raises TrustmineError that names the line."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
            column = names.get("commit") or names.get("sha")
            if column is None:
                raise TrustmineError(
                    "The list has no column 'commit' or 'sha'",
                    f"{file}: {', '.join(names) or 'no columns'}",
                    "The first line of the file names the columns",
                )

            def cell(row: dict[str, str | None], name: str) -> str:
                return (row.get(names[name]) or "").strip() if name in names else ""

            return [
                _known(
                    file,
                    reader.line_num,
                    (row.get(column) or "").strip().lower(),
                    cell(row, "repo"),
                    cell(row, "cve") or cell(row, "id"),
                    cell(row, "cwe"),
                    cell(row, "label").lower(),
                    cell(row, "severity"),
                    cell(row, "introduced_in") or cell(row, "introduced_by"),
                )
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrustmineError("Cannot read the list", f"{file}: {error}", "Give a CSV file in UTF-8") from error


def _known(
    file: Path,
    line: int,
    sha: str,
    repo: str,
    identifier: str,
    weakness: str,
    label: str,
    severity: str,
    introduced_by: str,
) -> Known:
    if not _SHA.match(sha):
        raise TrustmineError(f"This is no commit: {sha!r}", f"{file}, line {line}", "Give 7 hexadecimal digits or more")
    if label not in ("", "yes", "no"):
        raise TrustmineError(f"A label is yes or no, not {label!r}", f"{file}, line {line}", "Mend the list")
    return Known(
        line,
        sha,
        repo,
        identifier.upper() if identifier[:4].upper() == "CVE-" else identifier,
        cwe.read(weakness),
        label or None,
        severity or None,
        tuple(_SHAS.findall(introduced_by.lower())),
    )


def _matches(conn: sqlite3.Connection, known: Known, repo_ids: dict[str, int]) -> list[int]:
    """Commit ids of a line: in the repository it names if that is here, else wherever the SHA is."""
    ids = queries.commits_by_sha(conn, known.sha, repo_ids.get(known.repo))
    if len({row[0] for i in ids for row in conn.execute("SELECT sha FROM commits WHERE id = ?", (i,))}) > 1:
        raise TrustmineError(f"Several commits begin with {known.sha}", f"line {known.line}", "Give more digits")
    return ids


def fixes(conn: sqlite3.Connection, file: Path) -> tuple[set[int], int]:
    """Ids of the commits that a list says are fixes, and how many commits it names. Raises TrustmineError."""
    known = [line for line in read(file) if line.label != "no"]
    repo_ids = {repo.name: repo.id for repo in queries.repos(conn)}
    return {i for line in known for i in _matches(conn, line, repo_ids)}, len({line.sha for line in known})


def label(
    conn: sqlite3.Connection,
    file: Path,
    *,
    source: str | None = None,
    default: str = "yes",
    trusted: Sequence[str] = Settings.trusted_labels,
) -> Labelled:
    """Store the verdicts of a list; `default` where it has no column `label`. Raises TrustmineError.

    `trusted`: qualities of labels that outrank the model.
    """
    known = read(file)
    source = source or file.stem
    repo_ids = {repo.name: repo.id for repo in queries.repos(conn)}
    rows: list[dict[str, object]] = []
    n_unknown = 0
    now = time.time()
    for line in known:
        ids = _matches(conn, line, repo_ids)
        n_unknown += not ids
        rows += [
            {
                "commit_id": i,
                "source": source,
                "identifier": line.identifier,
                "label": line.label or default,
                "cwe": line.cwe,
                "severity": line.severity,
                "quality": LIST,
                "introduced_by": " ".join(line.introduced_by),
                "labelled_at_s": now,
            }
            for i in ids
        ]
    Database(conn, execute_plugins=False).table("labels").upsert_all(rows, pk=("commit_id", "source", "identifier"))
    commit_ids = {int(str(row["commit_id"])) for row in rows}
    return Labelled(len(rows), len(commit_ids), n_unknown, send_back(conn, sorted(commit_ids), trusted))


def send_back(conn: sqlite3.Connection, ids: Sequence[int], trusted: Sequence[str]) -> int:
    """Rows that s0_3 decided by something else than what their labels now say; how many there were."""
    other = [
        row[0]
        for row in conn.execute(
            """SELECT commit_id FROM (
                   SELECT commit_id, label, source <> 'model' AS is_labelled, (
                       SELECT max(l.label) FROM labels AS l WHERE l.commit_id = verdicts.commit_id
                       AND l.quality IN (SELECT value FROM json_each(?2))) AS wanted
                   FROM verdicts WHERE commit_id IN (SELECT value FROM json_each(?1)))
               WHERE iif(is_labelled, wanted IS NULL OR wanted <> label, wanted IS NOT NULL)""",
            (json.dumps(list(ids)), json.dumps(list(trusted))),
        )
    ]
    # A CVE lets a commit of after the cutoff into the split bench.
    too_new = [
        row[0]
        for row in conn.execute(
            """SELECT id FROM commits WHERE id IN (SELECT value FROM json_each(?)) AND reject_reason = 'after_cutoff'
               AND id IN (SELECT commit_id FROM labels WHERE label = 'yes' AND identifier LIKE 'CVE-%')""",
            (json.dumps(list(ids)),),
        )
        if row[0] not in set(other)
    ]
    return sum(recipes.send_back(conn, stage, back) for stage, back in ((SECTION, other), ("s1_1", too_new)) if back)


def audit(conn: sqlite3.Connection, file: Path) -> Audited:
    """Where each commit of a list is: passed stages, losses by stage and reason."""
    repo_ids = {repo.name: repo.id for repo in queries.repos(conn)}
    places = recipes.stage_places(conn)
    stages = list(places)
    reached: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    lost: dict[tuple[str, str], list[str]] = {}
    seen: set[str] = set()
    n_unknown = 0
    for known in read(file):
        ids = _matches(conn, known, repo_ids)
        if known.sha in seen:
            continue  # one commit may fix several CVEs
        seen.add(known.sha)
        if not ids:
            n_unknown += 1
            continue
        # A fork may have the commit too: the copy that got furthest counts.
        rows = conn.execute(
            """SELECT sha, status, outcome, reject_stage, reject_reason FROM commits
               WHERE id IN (SELECT value FROM json_each(?))""",
            (str(ids),),
        ).fetchall()
        sha, status, outcome, stage, reason = max(rows, key=lambda row: places[row[1]])
        reached.update(stages[1 : places[status] + 1])
        if outcome == "rejected":
            lost.setdefault((stage, reason), []).append(sha)
        elif outcome == "failed":
            lost.setdefault((stages[places[status] + 1], "failed"), []).append(sha)
        elif outcome == "open":
            waiting[stages[places[status] + 1]] += 1
    order = sorted(lost, key=lambda key: (places[key[0]], -len(lost[key]), key[1]))
    return Audited(
        len(seen), n_unknown, {s: reached[s] for s in stages[1:]}, {k: sorted(lost[k]) for k in order}, dict(waiting)
    )
