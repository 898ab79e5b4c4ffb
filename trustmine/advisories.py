"""Labels from advisories: which commits of the database do OSV records name?

Records that are aliases of each other are one vulnerability; it goes by its
CVEs, else its GHSA, else its own identifier. A commit is found by its full
SHA in any repository, by an abbreviated one only in the repository that the
record names. Where no advisory names a fix that is here, commits whose message
names the vulnerability get a label of the weakest quality, `message`: they
may also mention it in passing.

Reading the same records again changes nothing; what a record does not say any
more (it was withdrawn, its fix is another commit) goes.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trustmine import cwe, labels, osv
from trustmine.config import Settings
from trustmine.db import queries
from trustmine.db.connect import transaction
from trustmine.osv import Advisory, Fix, Malformed

MESSAGE = "message"
# The more it can be relied on, the earlier.
QUALITIES = (labels.LIST, osv.ADVISORY, osv.BISECTED, osv.BISECTED_RANGE, MESSAGE)
_KINDS = ("CVE", "GHSA", "OSV", "OSS-Fuzz")  # of identifiers in messages


@dataclass(frozen=True, slots=True)
class Labelled:
    """What `label --osv` did."""

    n_records: int
    malformed: tuple[Malformed, ...]
    n_withdrawn: int
    n_releases: int  # commits that stand for a release, not for a fix
    n_unknown: int  # fixes that are not in the database
    n_labels: int
    n_commits: int
    by_quality: Mapping[str, int]  # labels
    n_sent_back: int


@dataclass(slots=True)
class _Vulnerability:
    """Records that are aliases of each other."""

    records: list[Advisory] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """All identifiers, CVEs first, then GHSA."""
        found = {one for record in self.records for one in (record.id, *record.aliases)}
        return sorted(found, key=lambda one: (not one.startswith("CVE-"), not one.startswith("GHSA-"), one))

    @property
    def names(self) -> list[str]:
        """What it goes by: its CVEs, or one other identifier."""
        return [one for one in self.ids if one.startswith("CVE-")] or self.ids[:1]


def label(
    conn: sqlite3.Connection,
    folder: Path,
    *,
    source: str | None = None,
    trusted: Sequence[str] = Settings.trusted_labels,
    progress: Callable[[int], object] = lambda done: None,
) -> Labelled:
    """Store what the records below a folder say of commits in the database. Raises TrustmineError.

    `source`: name it so instead of by the database that a record comes from. `trusted`: qualities of labels that
    outrank the model. `progress` is told the files read.
    """
    records: list[Advisory] = []
    malformed: list[Malformed] = []
    for read in osv.read(folder, progress):
        if isinstance(read, Malformed):
            malformed.append(read)
        else:
            records.append(read)
    found = _Found(conn, source)
    for vulnerability in _joined(records):
        found.add(vulnerability)
    changed = _replace(conn, found.rows, records, {found.source(record) for record in records} | {MESSAGE})
    return Labelled(
        n_records=len(records),
        malformed=tuple(malformed),
        n_withdrawn=sum(record.is_withdrawn for record in records),
        n_releases=sum(record.n_releases for record in records),
        n_unknown=len(found.unknown),
        n_labels=len(found.rows),
        n_commits=len({commit_id for commit_id, _, _ in found.rows}),
        by_quality={name: n for name in QUALITIES if (n := found.count(name))},
        n_sent_back=labels.send_back(conn, changed, trusted),
    )


def _joined(records: Iterable[Advisory]) -> list[_Vulnerability]:
    """Records that still stand, those with an identifier in common together, in the order of the first ones."""
    by_id: dict[str, _Vulnerability] = {}
    for record in records:
        if record.is_withdrawn:
            continue
        known = {id(one): one for name in (record.id, *record.aliases) if (one := by_id.get(name))}
        first, *others = known.values() or [_Vulnerability()]
        for other in others:
            first.records += other.records
        first.records.append(record)
        by_id |= dict.fromkeys(first.ids, first)
    return list({id(one): one for one in by_id.values()}.values())


class _Found:
    """The labels, as vulnerabilities are looked up one after the other."""

    def __init__(self, conn: sqlite3.Connection, source: str | None) -> None:
        self.rows: dict[tuple[int, str, str], dict[str, object]] = {}  # by key
        self.unknown: set[str] = set()  # fixes that are not in the database
        self._conn, self._source = conn, source
        self._names = {repo.id: osv.repo_names(repo.name, repo.url) for repo in queries.repos(conn)}
        self._mentions: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for kind, value, commit_id, repo_id in conn.execute(
            """SELECT kind, value, commit_id, repo_id FROM identifiers JOIN commits ON id = commit_id
               WHERE kind IN (SELECT value FROM json_each(?)) ORDER BY commit_id""",
            (json.dumps(_KINDS),),
        ):
            self._mentions.setdefault((kind, value), []).append((commit_id, repo_id))

    def source(self, record: Advisory) -> str:
        return self._source or record.source

    def count(self, quality: str) -> int:
        return sum(row["quality"] == quality for row in self.rows.values())

    def add(self, vulnerability: _Vulnerability) -> None:
        """The labels of one vulnerability."""
        known: set[int] = set()
        is_advised = False
        for record in vulnerability.records:
            for fix in record.fixes:
                ids = self._commits(fix)
                if not ids:
                    self.unknown.add(fix.sha)
                is_advised = is_advised or (bool(ids) and fix.quality == osv.ADVISORY)
                known |= set(ids)
                for commit_id in ids:
                    self._put(commit_id, self.source(record), fix.quality, vulnerability, fix.introduced_by)
        if not is_advised:
            for commit_id in self._mentioned(vulnerability):
                self._put(commit_id, MESSAGE, MESSAGE, vulnerability, ())

    def _commits(self, fix: Fix) -> list[int]:
        if len(fix.sha) == 40:
            return [i for (i,) in self._conn.execute("SELECT id FROM commits WHERE sha = ? ORDER BY id", (fix.sha,))]
        found = [
            queries.commits_by_sha(self._conn, fix.sha, repo_id)
            for repo_id, names in self._names.items()
            if osv.is_one_of(fix.repo, names)
        ]
        return [ids[0] for ids in found if len(ids) == 1]

    def _mentioned(self, vulnerability: _Vulnerability) -> list[int]:
        """Commits whose message names it, in the repositories that the records are about."""
        repos = {repo for record in vulnerability.records for repo in record.repos}
        packages = {package for record in vulnerability.records for package in record.packages}
        keys = [(one.partition("-")[0].upper(), one) for one in vulnerability.ids]
        keys += [("OSS-Fuzz", number) for record in vulnerability.records for number in record.oss_fuzz]
        return sorted(
            {
                commit_id
                for key in keys
                for commit_id, repo_id in self._mentions.get(key, ())
                if any(osv.is_one_of(repo, self._names[repo_id]) for repo in repos)
                or any(name.rpartition("/")[2] in packages for name in self._names[repo_id])
            }
        )

    def _put(
        self,
        commit_id: int,
        source: str,
        quality: str,
        vulnerability: _Vulnerability,
        introduced_by: Iterable[str],
    ) -> None:
        records = vulnerability.records
        weaknesses = list(dict.fromkeys(one for record in records for one in record.cwes))
        weaknesses.sort(key=lambda one: -len(cwe.ancestors(one)))  # the most specific first
        for name in vulnerability.names:
            row = self.rows.setdefault(
                (commit_id, source, name),
                {
                    "commit_id": commit_id,
                    "source": source,
                    "identifier": name,
                    "label": "yes",
                    "cwe": next(iter(weaknesses), None),
                    "other_cwes": " ".join(weaknesses[1:]),
                    "severity": next((record.severity for record in records if record.severity), None),
                    "quality": quality,
                    "introduced_by": "",
                    "aliases": " ".join(one for one in vulnerability.ids if one != name),
                },
            )
            row["quality"] = min(str(row["quality"]), quality, key=QUALITIES.index)
            row["introduced_by"] = " ".join(dict.fromkeys([*str(row["introduced_by"]).split(), *introduced_by]))


def _replace(
    conn: sqlite3.Connection,
    rows: Mapping[tuple[int, str, str], Mapping[str, object]],
    records: Collection[Advisory],
    sources: Collection[str],
) -> list[int]:
    """Store the labels in place of those that these sources gave for these records; the commits of both.

    A record's earlier labels go by what it is called now, or by what it was called then and have it as an alias.
    """
    now = time.time()
    own = {record.id for record in records}
    names = own.union(*(record.aliases for record in records))
    with transaction(conn):
        given = conn.execute(
            """SELECT commit_id, source, identifier, aliases FROM labels
               WHERE source IN (SELECT value FROM json_each(?))""",
            (json.dumps(sorted(sources)),),
        )
        old = [
            (commit_id, source, identifier)
            for commit_id, source, identifier, aliases in given
            if identifier in names or not own.isdisjoint(aliases.split())
        ]
        conn.executemany("DELETE FROM labels WHERE commit_id = ? AND source = ? AND identifier = ?", old)
        conn.executemany(
            """INSERT INTO labels (commit_id, source, identifier, label, cwe, other_cwes, severity, quality,
                                   introduced_by, aliases, labelled_at_s)
               VALUES (:commit_id, :source, :identifier, :label, :cwe, :other_cwes, :severity, :quality,
                       :introduced_by, :aliases, :labelled_at_s)""",
            [{**row, "labelled_at_s": now} for row in rows.values()],
        )
    return sorted({commit_id for commit_id, _, _ in (*old, *rows)})
