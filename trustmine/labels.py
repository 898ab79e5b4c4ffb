"""Verdicts from outside: lists of known fixes, and where each of them got lost.

A list is a CSV file with a column `commit` or `sha` (7 digits or more) and
optionally `repo`, `cve` or `id`, `cwe`, `severity`, `introduced_in` and `label`
(yes, no). A cell may hold several identifiers: the commit gets a label for each
CVE. `repo` is a name or an address; where it is none of a repository that is
here, only a full SHA counts. A label of a quality that the setting `trusted_labels` names outranks
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

from trustmine import cwe, osv
from trustmine.config import Settings
from trustmine.db import queries, recipes
from trustmine.errors import TrustmineError

_SHA = re.compile(r"^[0-9a-f]{7,64}$")
_SHAS = re.compile(r"(?<![0-9a-f])[0-9a-f]{7,40}(?![0-9a-f])")
# What databases give to vulnerabilities: CVE-2020-1234, GHSA-xxxx-xxxx-xxxx, OSV-2020-1234, TALOS-2017-0001, ...
_IDENTIFIER = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:CVE-[0-9]{4}-[0-9]+|GHSA(?:-[0-9a-z]+){3})(?![A-Za-z0-9])"
    r"|[a-z][a-z0-9]*-[0-9]{2,4}-[0-9]+(?!-?[A-Za-z0-9]))",
    re.IGNORECASE,
)
# What stands in a cell that says nothing. NVD has NVD-CWE-noinfo and -Other: https://nvd.nist.gov/vuln/categories
_NOTHING = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:NVD[-_ ])?(?:CWE|CVE)[-_ ])?(?:n/?a|nan|none|null|nil|other|unknown|undefined|unassigned|"
    r"pending|tbd|no[-_ ]?(?:info|cwe|cve)|no|insufficient[-_ ]info(?:rmation)?|"
    r"not[-_ ](?:available|applicable|assigned|known)|0+)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
FULL = 40  # digits of a SHA
LIST = "list"  # the quality of what somebody put together
SECTION = "s0_3"  # where labels count


@dataclass(frozen=True, slots=True)
class Known:
    """One line of a list."""

    line: int
    sha: str  # maybe abbreviated
    repo: str  # '' where the list names none
    given: str  # the cell with the identifiers
    identifiers: tuple[str, ...]  # CVEs; else GHSA, ...; ('',) where the list gives none
    aliases: tuple[str, ...]  # what stands beside CVEs
    cwes: tuple[str, ...]
    label: str | None  # yes, no; None where the list has no such column
    severity: str | None
    introduced_by: tuple[str, ...]  # SHAs, maybe abbreviated


@dataclass(frozen=True, slots=True)
class Labelled:
    """What `label` did."""

    n_labels: int
    n_commits: int
    n_unknown: int  # lines whose commit is not in the database, or not in the repository that was given
    n_sent_back: int  # rows that s0_3 had decided otherwise, or s1_1 for want of a CVE


@dataclass(frozen=True, slots=True)
class Audited:
    """Where the commits of a list are now; each commit once."""

    n_commits: int  # in the list
    n_unknown: int  # not in the database, or not in the repository that was given
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
                    cell(row, "cve"),
                    cell(row, "id"),
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
    cve: str,
    other_id: str,
    weakness: str,
    label: str,
    severity: str,
    introduced_by: str,
) -> Known:
    where = f"{file}, line {line}"
    if not _SHA.match(sha):
        raise TrustmineError(f"This is no commit: {sha!r}", where, "Give 7 hexadecimal digits or more")
    if label not in ("", "yes", "no"):
        raise TrustmineError(f"A label is yes or no, not {label!r}", where, "Mend the list")
    cwes = cwe.read_all(weakness)
    if not cwes and not _says_nothing(weakness):
        raise TrustmineError(
            f"This is no CWE: {weakness!r}",
            where,
            "Write CWE-787, or CWE-787, CWE-125 for several; leave the cell empty where it is not known",
        )
    found = _identifiers(cve)
    if not found and not _says_nothing(cve):
        raise TrustmineError(
            f"This is no CVE: {cve!r}",
            where,
            "Write CVE-2020-1234; leave the cell empty where there is none; a column 'id' takes any other name",
        )
    if not found and not _says_nothing(other_id):
        found = _identifiers(other_id) or (other_id,)  # a list may have names of its own
    cves = tuple(one for one in found if one.startswith("CVE-"))
    return Known(
        line,
        sha,
        repo,
        cve or other_id,
        cves or found or ("",),
        tuple(one for one in found if one not in cves) if cves else (),
        cwes,
        label or None,
        severity or None,
        tuple(_SHAS.findall(introduced_by.lower())),
    )


def _identifiers(cell: str) -> tuple[str, ...]:
    """Those of a cell, each once, as they come."""
    found = (one.upper() if one[:4].upper() == "CVE-" else one for one in _IDENTIFIER.findall(cell))
    return tuple(dict.fromkeys(found))


def _says_nothing(cell: str) -> bool:
    return not re.search(r"[^\W_]", _NOTHING.sub("", cell))


class _Finder:
    """Finds the commits that the lines of a list name; with a repository's id, only those of that one."""

    def __init__(self, conn: sqlite3.Connection, file: Path, repo_id: int | None) -> None:
        self._conn, self._file, self._repo_id = conn, file, repo_id
        self._names = {
            repo.id: osv.repo_names(repo.name, repo.url) for repo in queries.repos(conn) if repo_id in (None, repo.id)
        }
        self._known: dict[str, list[int]] = {"": []}  # what a list calls a repository -> ids

    def ids(self, known: Known) -> list[int]:
        """Ids of the commits of a line: in the repository it names if that is here, else wherever a full SHA is.

        A few digits that meant one commit there mean nothing elsewhere. Raises TrustmineError if they mean several.
        """
        named = self._named(known.repo)
        if known.repo and not named and len(known.sha) < FULL:
            return []
        places: list[int | None] = [*named] or [self._repo_id]
        ids = [i for place in places for i in queries.commits_by_sha(self._conn, known.sha, place)]
        if len({row[0] for i in ids for row in self._conn.execute("SELECT sha FROM commits WHERE id = ?", (i,))}) > 1:
            where = f"{self._file}, line {known.line}"
            raise TrustmineError(f"Several commits begin with {known.sha}", where, "Give more digits, or --repo")
        return ids

    def _named(self, repo: str) -> list[int]:
        """Repositories that have this name or address, or whose name or address ends in it, as curl/curl in curl."""
        if repo not in self._known:
            key = osv.repo_key(repo)
            self._known[repo] = [
                i
                for i, names in self._names.items()
                if osv.is_one_of(key, names) or any(name.endswith(f"/{key}") for name in names)
            ]
        return self._known[repo]


def fixes(conn: sqlite3.Connection, file: Path, repo_id: int | None = None) -> tuple[set[int], int]:
    """Ids of the commits that a list says are fixes, and how many commits it names; of one repository, if given.

    Raises TrustmineError.
    """
    known = [line for line in read(file) if line.label != "no"]
    finder = _Finder(conn, file, repo_id)
    return {i for line in known for i in finder.ids(line)}, len({line.sha for line in known})


def label(
    conn: sqlite3.Connection,
    file: Path,
    *,
    repo_id: int | None = None,
    source: str | None = None,
    default: str = "yes",
    trusted: Sequence[str] = Settings.trusted_labels,
) -> Labelled:
    """Store the verdicts of a list; `default` where it has no column `label`. Raises TrustmineError.

    `repo_id`: on commits of this repository alone. `trusted`: qualities of labels that outrank the model.
    """
    known = read(file)
    source = source or file.stem
    finder = _Finder(conn, file, repo_id)
    rows: list[dict[str, object]] = []
    former: list[tuple[int, str, str]] = []
    n_unknown = 0
    now = time.time()
    for line in known:
        ids = finder.ids(line)
        n_unknown += not ids
        rows += [
            {
                "commit_id": i,
                "source": source,
                "identifier": identifier,
                "label": line.label or default,
                "cwe": next(iter(line.cwes), None),
                "other_cwes": " ".join(line.cwes[1:]),
                "severity": line.severity,
                "quality": LIST,
                "introduced_by": " ".join(line.introduced_by),
                "aliases": " ".join(line.aliases),
                "labelled_at_s": now,
            }
            for i in ids
            for identifier in line.identifiers
        ]
        # Before, the whole cell was taken for one identifier.
        wrong = {line.given, line.given.upper()} - {*line.identifiers, ""}
        former += [(i, source, name) for i in ids for name in wrong]
    conn.executemany("DELETE FROM labels WHERE commit_id = ? AND source = ? AND identifier = ?", former)
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


def audit(conn: sqlite3.Connection, file: Path, repo_id: int | None = None) -> Audited:
    """Where each commit of a list is, in one repository if given: passed stages, losses by stage and reason."""
    finder = _Finder(conn, file, repo_id)
    places = recipes.stage_places(conn)
    stages = list(places)
    reached: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    lost: dict[tuple[str, str], list[str]] = {}
    seen: set[str] = set()
    n_unknown = 0
    for known in read(file):
        ids = finder.ids(known)
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
