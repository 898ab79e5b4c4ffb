"""Ingest: a repository's commits become rows.

One row per commit reachable from the chosen refs, parents before children.
Again means: only commits not seen yet. Interrupted at any instant, the next
ingest adds what is missing: tips are noted only once all their rows are in.
Where a shallow clone has been deepened, the older commits are added, and those
at which it ended go back to s0_1.

A repository that was read from another place before keeps its rows; only its
path is noted anew. It is told by its URL or its name, and by commits.
"""

import os
import re
import shlex
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
# Commits by which a repository is known again, first and last ones each: a forced push may have taken the newest, and
# a shallow clone leaves out the oldest.
N_TELLING = 100
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


def _quiet(line: str) -> None:
    pass


def ingest(
    conn: sqlite3.Connection,
    source: Source,
    *,
    name: str | None = None,
    progress: Callable[[int], None] = lambda n: None,
    say: Callable[[str], None] = _quiet,
) -> Ingested:
    """Add the commits of a repository. `progress` is told the number of commits walked so far; `say`: see register."""
    walking = steps(conn, source, register(conn, source, name, say))
    while True:
        try:
            progress(next(walking))
        except StopIteration as stop:
            done: Ingested = stop.value
            return done


def register(
    conn: sqlite3.Connection, source: Source, name: str | None = None, say: Callable[[str], None] = _quiet
) -> int:
    """The id of the repository's row, made if there is none. Raises RepositoryError.

    The row of one that has moved (see _moved) gets its new path, and with
    another `name` than it has a repository is renamed; `say` is told of both
    in one line each.
    """
    repo, wanted = source.repo, name or (name_of_url(source.url) if source.url else source.repo.default_name)
    is_known = conn.execute("SELECT 1 FROM repos WHERE path = ?", (repo.path,)).fetchone() is not None
    moved = None if is_known else _moved(conn, source, wanted, is_named=name is not None)
    with transaction(conn):
        # By the path first: another process may have been here since.
        row = conn.execute(
            "SELECT id, name, path, url FROM repos WHERE path = ? OR id = ? ORDER BY path <> ? LIMIT 1",
            (repo.path, moved, repo.path),
        ).fetchone()
        row_id, was_called, was_at, stored = row or (None, None, None, None)
        wanted = name or was_called or wanted
        url = source.url or (gitcli.without_password(stored) if stored else None)
        taken = conn.execute("SELECT id, path FROM repos WHERE name = ? AND id IS NOT ?", (wanted, row_id)).fetchone()
        if taken is None and row_id is None:
            cursor = conn.execute(
                "INSERT INTO repos (name, path, url, is_shallow, ingested_at_s) VALUES (?, ?, ?, ?, ?)",
                (wanted, repo.path, url, repo.is_shallow, time.time()),
            )
            row_id = cursor.lastrowid
        elif taken is None:
            conn.execute("UPDATE repos SET name = ?, path = ?, url = ? WHERE id = ?", (wanted, repo.path, url, row_id))
    if taken is not None:
        raise _is_taken(conn, repo, wanted, taken, was_called)
    # A path that changed with a URL's password was a folder named after it: it is not to be shown.
    had_password = stored is not None and gitcli.without_password(stored) != stored
    if was_at not in (None, repo.path) and not had_password:
        say(f"{was_called} has moved from {was_at} to {repo.path}")
    if was_called not in (None, wanted):
        say(f"{was_called} is now called {wanted}")
    return int(row_id or 0)


def _is_taken(
    conn: sqlite3.Connection, repo: GitRepo, name: str, other: tuple[int, str], was_called: str | None
) -> RepositoryError:
    hint = "Give this one a --name of its own"
    if was_called is not None:
        hint = f"This one is known as {was_called}: leave --name out, or give another"
    elif _has_any(repo, _telling(conn, other[0])):
        hint += "; or, if it takes the place of the other one, move that away first"
    return RepositoryError(f"Another repository in this database is called {name!r}", other[1], hint)


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


def _moved(conn: sqlite3.Connection, source: Source, name: str, *, is_named: bool) -> int | None:
    """The id of the row that was read from another path and has this URL, or this name and nothing at its path now.

    Only if one of its commits is here, or it has none yet. Of the same URL the
    former clone may be there still (another cache folder): both are clones of
    one address, and the newer one is read. Raises RepositoryError where another
    one may have moved here, and no name says so.
    """
    repo, address = source.repo, gitcli.address(source.url) if source.url else None
    rows = conn.execute("SELECT id, name, path, url FROM repos ORDER BY name <> ?, id", (name,)).fetchall()
    of_address = [row for row in rows if address and row[3] and gitcli.address(row[3]) == address]
    of_name = [row for row in rows if row[1] == name and _is_gone(conn, row[0], row[2], repo)]
    for row_id, *_ in (*of_address, *of_name):
        telling = _telling(conn, row_id)
        if not telling or _has_any(repo, telling):
            return int(row_id)
    for row_id, called, path, url in () if is_named else rows:
        is_elsewhere = bool(address and url)  # a fork has commits in common, and its own address
        if not is_elsewhere and _has_any(repo, _telling(conn, row_id)) and _is_gone(conn, row_id, path, repo):
            raise RepositoryError(
                f"This repository has commits of {called}, which is not in its place any more",
                f"{repo.path}, and not {path}",
                f"If it has moved here, add --name {shlex.quote(called)}; else give this one a --name of its own",
            )
    return None


def _telling(conn: sqlite3.Connection, repo_id: int) -> list[str]:
    """SHAs by which the repository of a row is known again; none if it has no commits."""
    found = conn.execute(
        """SELECT sha FROM refs WHERE repo_id = :id
           UNION SELECT * FROM (SELECT sha FROM commits WHERE repo_id = :id ORDER BY id LIMIT :n)
           UNION SELECT * FROM (SELECT sha FROM commits WHERE repo_id = :id ORDER BY id DESC LIMIT :n)""",
        {"id": repo_id, "n": N_TELLING},
    )
    return [sha for (sha,) in found]


def _has_any(repo: GitRepo, shas: Sequence[str]) -> bool:
    return any(repo.has(sha) for sha in shas)


def _is_gone(conn: sqlite3.Connection, repo_id: int, path: str, repo: GitRepo) -> bool:
    """Whether the repository of a row is no longer at its path: nothing is, or another one, or a link to `repo`."""
    try:
        there = GitRepo.open(path)
    except RepositoryError:
        return True
    telling = _telling(conn, repo_id)
    return there.path == repo.path or (bool(telling) and not _has_any(there, telling))


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
