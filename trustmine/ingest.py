"""Ingest: a repository's commits become rows.

One row per commit reachable from the chosen refs, parents before children.
Again means: only commits not seen yet. Interrupted at any instant, the next
ingest adds what is missing: tips are noted only once all their rows are in.
Where a shallow clone has been deepened, the older commits are added, and those
at which it ended go back to s0_1.
"""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from trustmine import gitcli, gitrepo
from trustmine.db import recipes
from trustmine.db.connect import transaction
from trustmine.db.facts import as_json
from trustmine.errors import RepositoryError
from trustmine.gitrepo import GitRepo
from trustmine.records import CommitHeader

BATCH = 5_000  # rows per transaction: long enough to be fast, short enough not to block others
_URL = re.compile(r"^(?:[a-z][a-z0-9+.-]*://|[^/\s]+@[^/\s]+:)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did."""

    repo: str
    path: str
    n_new: int
    n_commits: int  # of this repository, now
    is_shallow: bool


def is_url(repo: str) -> bool:
    """True for what git would clone over a transport: scheme://... or user@host:path."""
    return bool(_URL.match(repo))


def cache_folder(setting: str | None) -> Path:
    """Where URLs are cloned to: the setting, else trustmine/ in the user's cache folder."""
    if setting is not None:
        return Path(setting).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trustmine" / "repos"


def name_of_url(url: str) -> str:
    """owner/name, or as much of it as the URL has."""
    parts = re.sub(r"^[a-z][a-z0-9+.-]*://[^/]*/|^[^/\s]+@[^/\s]+:", "", url, flags=re.IGNORECASE).strip("/").split("/")
    return "/".join(parts[-2:]).removesuffix(".git") or url


@dataclass(frozen=True, slots=True)
class Source:
    """A repository that can be read, and the commits to walk from."""

    repo: GitRepo
    url: str | None  # without name and password
    tips: Mapping[str, str]  # ref -> SHA


def find(repo: str, *, refs: Sequence[str] = ("HEAD",), cache: str | None = None) -> Source:
    """The repository at a path or URL, before any database is touched. Raises RepositoryError.

    A URL is cloned bare into the cache folder, or fetched if it is there. A name
    and a password in it are for git alone.
    """
    url = gitcli.without_password(repo) if is_url(repo) else None
    opened = GitRepo.open(_cloned(repo, cache_folder(cache)) if url else repo)
    return Source(opened, url, {ref: opened.resolve(ref) for ref in refs})


def ingest(
    conn: sqlite3.Connection,
    source: Source,
    *,
    name: str | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> Ingested:
    """Add the commits of a repository. `progress` is told the number of commits walked so far."""
    walking = steps(conn, source, register(conn, source, name))
    while True:
        try:
            progress(next(walking))
        except StopIteration as stop:
            done: Ingested = stop.value
            return done


def register(conn: sqlite3.Connection, source: Source, name: str | None = None) -> int:
    """The id of the repository's row, made if there is none. Raises RepositoryError."""
    name = name or (name_of_url(source.url) if source.url else source.repo.default_name)
    return _repo_row(conn, source.repo, source.url, name)


def steps(conn: sqlite3.Connection, source: Source, repo_id: int) -> Generator[int, None, Ingested]:
    """Add the commits batch by batch; yields the number walked so far after each."""
    repo = source.repo
    deepened = _deepened(conn, repo, repo_id)
    known = [row[0] for row in conn.execute("SELECT sha FROM refs WHERE repo_id = ?", (repo_id,))]
    if deepened:
        known = []  # what is new is older than all that is known
    n_walked = n_new = 0
    headers = repo.walk(tuple(source.tips.values()), known)
    while batch := list(islice(headers, BATCH)):
        n_new += _store(conn, repo_id, batch)
        n_walked += len(batch)
        yield n_walked
    if deepened:
        recipes.send_back(conn, "s0_1", deepened)
    with transaction(conn):
        conn.executemany(
            "INSERT OR REPLACE INTO refs (repo_id, ref, sha) VALUES (?, ?, ?)",
            [(repo_id, ref, sha) for ref, sha in source.tips.items()],
        )
        conn.execute(
            "UPDATE repos SET is_shallow = ?, ingested_at_s = ? WHERE id = ?", (repo.is_shallow, time.time(), repo_id)
        )
        conn.executemany("UPDATE commits SET is_boundary = 0 WHERE id = ?", [(i,) for i in deepened])
    n_commits = conn.execute("SELECT count(*) FROM commits WHERE repo_id = ?", (repo_id,)).fetchone()[0]
    row_name = conn.execute("SELECT name FROM repos WHERE id = ?", (repo_id,)).fetchone()[0]
    return Ingested(row_name, repo.path, n_new, n_commits, repo.is_shallow)


def _cloned(url: str, folder: Path) -> Path:
    """The bare clone of a URL in the cache, fetched anew if it was there."""
    target = folder / _folder_name(gitcli.address(url))
    former = folder / _folder_name(re.sub(r"^[a-z][a-z0-9+.-]*://", "", url))
    if former.exists() and not target.exists():  # its name holds a name and a password: so it was before
        former.rename(target)
    if target.exists():
        gitrepo.fetch(target, url)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        gitrepo.clone_bare(url, target)
    return target


def _folder_name(address: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", address).strip("-.") + ".git"


def _repo_row(conn: sqlite3.Connection, repo: GitRepo, url: str | None, name: str) -> int:
    with transaction(conn):
        found = conn.execute("SELECT id, url FROM repos WHERE path = ?", (repo.path,)).fetchone()
        found = found or _row_with_password(conn, url)
        if found is None:
            taken = conn.execute("SELECT path FROM repos WHERE name = ?", (name,)).fetchone()
            if taken is not None:
                raise RepositoryError(
                    f"Another repository in this database is called {name!r}", taken[0], "Give this one a --name"
                )
            cursor = conn.execute(
                "INSERT INTO repos (name, path, url, is_shallow, ingested_at_s) VALUES (?, ?, ?, ?, ?)",
                (name, repo.path, url, repo.is_shallow, time.time()),
            )
            return int(cursor.lastrowid or 0)
        row_id, stored = found
        url = url or (gitcli.without_password(stored) if stored else None)
        conn.execute("UPDATE repos SET path = ?, url = ? WHERE id = ?", (repo.path, url, row_id))
    return int(row_id)


def _row_with_password(conn: sqlite3.Connection, url: str | None) -> tuple[int, str] | None:
    """Id and URL of a row of the same URL that was stored with name and password, which its path then holds as well."""
    rows = conn.execute("SELECT id, url FROM repos WHERE url <> ? ORDER BY id", (url,))
    return next(((row_id, stored) for row_id, stored in rows if gitcli.without_password(stored) == url), None)


def _deepened(conn: sqlite3.Connection, repo: GitRepo, repo_id: int) -> list[int]:
    """Commits at which the clone was cut off when they were ingested, and is no more."""
    (was_shallow,) = conn.execute("SELECT is_shallow FROM repos WHERE id = ?", (repo_id,)).fetchone()
    if not was_shallow:
        return []
    cut = conn.execute("SELECT id, sha FROM commits WHERE repo_id = ? AND is_boundary = 1", (repo_id,))
    return [commit_id for commit_id, sha in cut if repo.has(sha) and not repo.is_cut_off(sha)]


def _store(conn: sqlite3.Connection, repo_id: int, headers: Sequence[CommitHeader]) -> int:
    """Insert the commits not there yet; how many those were."""
    with transaction(conn):
        shas = as_json([header.sha for header in headers])
        there = {
            row[0]
            for row in conn.execute(
                "SELECT sha FROM commits WHERE repo_id = ? AND sha IN (SELECT value FROM json_each(?))", (repo_id, shas)
            )
        }
        first = conn.execute("SELECT coalesce(max(id), 0) + 1 FROM commits").fetchone()[0]
        new = list(enumerate((header for header in headers if header.sha not in there), first))
        conn.executemany(
            """INSERT INTO commits (id, repo_id, sha, parents, author_time_s, commit_time_s, is_boundary)
               VALUES (?, ?, ?, ?, ?, ?, ?)""",
            [(i, repo_id, h.sha, " ".join(h.parents), h.author_time_s, h.commit_time_s, h.is_boundary) for i, h in new],
        )
        conn.executemany(
            "INSERT INTO messages (commit_id, message, encoding) VALUES (?, ?, ?)",
            [(i, h.message, h.encoding) for i, h in new],
        )
    return len(new)
