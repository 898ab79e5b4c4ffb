"""The lifespans of all functions in a repository's tree, kept in the database.

What is stored is of one file as a whole, so that a run can be stopped at any
time and goes on there; a later run, for a newer tip, follows a file back to
the commit at which its functions are known already. Several processes share
the files.
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

from trustmine import cparse, hands, lifespan
from trustmine.db.connect import transaction
from trustmine.gitrepo import GitRepo
from trustmine.lifespan import Life
from trustmine.lineage import Lineage, lineages
from trustmine.progress import Progress, quiet
from trustmine.text import decode

RULES = f"{lifespan.VERSION} {cparse.PARSER}"
WRITE_S = 2.0  # how often files are stored
MIN_STEPS = 2_000  # versions of files that are worth another process, which takes a second to start

Known = tuple[int, dict[str, Life]]  # place in the history, and the lives there by body


@dataclass(frozen=True, slots=True)
class Lived:
    """A function of the tree, and since when it is as it is."""

    path: str
    oid: str  # git blob of the file
    life: Life
    n_commits: int  # of the first-parent history since then, that one not counted
    is_cut: bool  # the history was cut off there: it may be older


def lifespans(
    conn: sqlite3.Connection,
    repo: GitRepo,
    repo_id: int,
    chain: Sequence[str],
    is_wanted: Callable[[str], bool],
    n_processes: int = 1,
    progress: Progress = quiet,
) -> tuple[list[Lived], list[str]]:
    """The functions of the tree of chain[0] in files that are wanted by their path, in the order of path and line.

    And the paths of files that no process survived. `chain`: the first-parent history, the newest commit first.
    Functions that the parser did not understand are left out. Raises RepositoryError, MissingObject.
    """
    files = lineages(repo, chain, is_wanted, lambda done: progress("history", done, len(chain)))
    jobs = _to_do(conn, repo_id, chain, files)
    jobs.sort(key=lambda job: -len(job[0].steps))
    total = sum(len(lineage.steps) + 1 for lineage, _ in jobs)
    given_up, done = [], 0
    n_processes = max(1, min(n_processes, total // MIN_STEPS))
    store = _Store(conn, repo_id, chain)
    with closing(store), closing(hands.share(_Walk(repo.path, chain), jobs, n_processes)) as results:
        for (lineage, _), found in results:
            if isinstance(found, hands.GivenUp):
                given_up.append(decode(lineage.path)[0])
            else:
                store.add(lineage, found)
            done += len(lineage.steps) + 1
            progress("versions of files", done, total)
    with transaction(conn):  # nothing leads there any more
        conn.execute("DELETE FROM file_lifespans WHERE repo_id = ? AND tree_sha <> ?", (repo_id, chain[0]))
    return list(_stored(conn, repo, repo_id, chain, {one.path: one.oid for one in files})), sorted(given_up)


class _Walk:
    """What each process does with a file."""

    def __init__(self, path: str, chain: Sequence[str]) -> None:
        self._path, self._chain = path, chain
        self._repo: GitRepo | None = None

    def __call__(self, job: tuple[Lineage, Known | None]) -> list[Life]:
        if self._repo is None:
            self._repo = GitRepo.open(self._path)
        return lifespan.lives(self._repo, self._chain, *job)


def _to_do(
    conn: sqlite3.Connection, repo_id: int, chain: Sequence[str], files: Iterable[Lineage]
) -> list[tuple[Lineage, Known | None]]:
    """The files that are to be walked, each with what is known; stored are those that have not changed since then."""
    place = {sha: number for number, sha in enumerate(chain)}
    with transaction(conn):
        conn.execute("DELETE FROM file_lifespans WHERE repo_id = ? AND rules <> ?", (repo_id, _rules(chain)))
    oids = {
        (place[sha], path): oid
        for sha, path, oid in conn.execute(
            "SELECT tree_sha, path, oid FROM file_lifespans WHERE repo_id = ?", (repo_id,)
        )
        if sha in place
    }
    places = sorted({number for number, _ in oids})
    jobs: list[tuple[Lineage, Known | None]] = []
    same: list[tuple[str, int, str, bytes, str]] = []
    for lineage in files:
        known: Known | None = None
        for number in places:
            n_newer, path, oid = lineage.at(number)
            if path is not None and oids.get((number, path)) == oid:
                if n_newer == 0:
                    same.append((chain[0], repo_id, chain[number], path, oid or ""))
                else:
                    known = number, _by_body(_lives(conn, repo_id, chain[number], path))
                break
        else:
            number, n_newer = -1, 1
        if n_newer:
            jobs.append((lineage, known))
    with transaction(conn):
        conn.executemany(
            """INSERT OR IGNORE INTO file_lifespans (repo_id, tree_sha, path, oid, rules, functions)
               SELECT repo_id, ?, path, oid, rules, functions FROM file_lifespans
               WHERE repo_id = ? AND tree_sha = ? AND path = ? AND oid = ?""",
            same,
        )
    return jobs


def _rules(chain: Sequence[str]) -> str:
    """What else than the file lifespans depend on: where the history ends, for a clone may be deepened, is of it."""
    return f"{RULES} {chain[-1]}"


def _by_body(found: Sequence[Life]) -> dict[str, Life]:
    """Those that the file has once: which of two that are alike is meant, only their places in every version tell."""
    n = Counter(life.body for life in found)
    return {life.body: life for life in found if n[life.body] == 1}


def _lives(conn: sqlite3.Connection, repo_id: int, sha: str, path: bytes) -> list[Life]:
    (functions,) = conn.execute(
        "SELECT functions FROM file_lifespans WHERE repo_id = ? AND tree_sha = ? AND path = ?", (repo_id, sha, path)
    ).fetchone()
    return _read(functions)


def _read(functions: str) -> list[Life]:
    return [Life(**{**one, "touched": tuple(one["touched"])}) for one in json.loads(functions)]


class _Store:
    """Stores files some at a time, so that little is lost when a run is stopped."""

    def __init__(self, conn: sqlite3.Connection, repo_id: int, chain: Sequence[str]) -> None:
        self._conn, self._repo_id, self._tip, self._rules = conn, repo_id, chain[0], _rules(chain)
        self._waiting: list[tuple[int, str, bytes, str, str, str]] = []
        self._written_at = time.monotonic()

    def add(self, lineage: Lineage, found: Sequence[Life]) -> None:
        functions = json.dumps([asdict(life) for life in found], separators=(",", ":"))
        self._waiting.append((self._repo_id, self._tip, lineage.path, lineage.oid, self._rules, functions))
        if time.monotonic() > self._written_at + WRITE_S:
            self.close()

    def close(self) -> None:
        with transaction(self._conn):
            self._conn.executemany("INSERT OR REPLACE INTO file_lifespans VALUES (?, ?, ?, ?, ?, ?)", self._waiting)
        self._waiting.clear()
        self._written_at = time.monotonic()


def _stored(
    conn: sqlite3.Connection, repo: GitRepo, repo_id: int, chain: Sequence[str], oids: Mapping[bytes, str]
) -> Iterable[Lived]:
    place = {sha: number for number, sha in enumerate(chain)}
    for path, oid, functions in conn.execute(
        "SELECT path, oid, functions FROM file_lifespans WHERE repo_id = ? AND tree_sha = ? ORDER BY path",
        (repo_id, chain[0]),
    ):
        if oids.get(path) == oid:
            for life in _read(functions):
                yield Lived(decode(path)[0], oid, life, place[life.since], repo.is_cut_off(life.since))
