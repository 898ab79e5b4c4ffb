"""Histories become rows: all commits once, parents first, new ones only the next time."""

import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from trustmine import ingest, worker
from trustmine.config import Settings
from trustmine.errors import RepositoryError
from trustmine.text import encode

Git = Callable[..., str]


def shas(conn: sqlite3.Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT sha FROM commits ORDER BY id")]


def commit(git: Git, n: int = 1, message: str = "fix overflow") -> None:
    for i in range(n):
        git("commit", "-q", "--allow-empty", "-m", f"{message} {i}")


def test_every_commit_is_a_row_parents_before_children(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 3)
    git("checkout", "-q", "-b", "side", "HEAD~1")
    commit(git, 2, "side")
    git("checkout", "-q", "main")
    git("merge", "-q", "--no-ff", "-m", "Merge side", "side")
    done = ingest.ingest(conn, ingest.find(str(tmp_path / "repo")))
    assert (done.n_new, done.n_commits, done.is_shallow) == (6, 6, False)
    found = shas(conn)
    assert sorted(found) == sorted(git("rev-list", "--all").split())
    for sha, parents in conn.execute("SELECT sha, parents FROM commits"):
        assert parents == git("show", "-s", "--format=%P", sha)
        assert all(found.index(parent) < found.index(sha) for parent in parents.split())


def test_again_adds_only_what_is_new(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 3)
    ingest.ingest(conn, ingest.find(str(tmp_path / "repo")))
    before = shas(conn)
    assert ingest.ingest(conn, ingest.find(str(tmp_path / "repo"))).n_new == 0
    commit(git, 2, "later")
    walked: list[int] = []
    assert ingest.ingest(conn, ingest.find(str(tmp_path / "repo")), progress=walked.append).n_new == 2
    assert walked == [2], "known commits are not walked again"
    assert shas(conn)[:3] == before


def test_another_ref_adds_its_commits(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 2)
    git("checkout", "-q", "-b", "side")
    commit(git, 1, "side")
    git("checkout", "-q", "main")
    assert ingest.ingest(conn, ingest.find(str(tmp_path / "repo"))).n_new == 2
    assert ingest.ingest(conn, ingest.find(str(tmp_path / "repo"), refs=("main", "side"))).n_new == 1


def test_a_forced_push_keeps_old_rows_and_adds_new_ones(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 3)
    ingest.ingest(conn, ingest.find(str(tmp_path / "repo")))
    git("reset", "-q", "--hard", "HEAD~2")
    commit(git, 1, "rewritten")
    git("reflog", "expire", "--expire=now", "--all")
    git("gc", "-q", "--prune=now")
    done = ingest.ingest(conn, ingest.find(str(tmp_path / "repo")))
    assert (done.n_new, done.n_commits) == (1, 4)


def test_an_ingest_that_was_cut_off_is_completed(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 5)
    ingest.ingest(conn, ingest.find(str(tmp_path / "repo")))
    whole = shas(conn)
    conn.execute("DELETE FROM messages WHERE commit_id > 3")
    conn.execute("DELETE FROM commits WHERE id > 3")
    conn.execute("DELETE FROM refs")
    assert ingest.ingest(conn, ingest.find(str(tmp_path / "repo"))).n_new == 2
    assert shas(conn) == whole


def test_messages_keep_their_bytes(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    latin_1 = "fix Müller's crash\n".encode("latin-1")
    (tmp_path / "message").write_bytes(latin_1)
    git("-c", "i18n.commitEncoding=ISO-8859-1", "commit", "-q", "--allow-empty", "-F", str(tmp_path / "message"))
    undeclared = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 9 +0000\ncommitter A <a@b> 9 +0000\n\n"
    (tmp_path / "commit").write_bytes(undeclared + latin_1 + b"and \xfe\xff\n")
    git("tag", "broken", git("hash-object", "-t", "commit", "-w", str(tmp_path / "commit")))
    ingest.ingest(conn, ingest.find(str(tmp_path / "repo"), refs=("main", "broken")))
    stored = {encode(message, encoding) for message, encoding in conn.execute("SELECT message, encoding FROM messages")}
    assert stored == {latin_1, latin_1 + b"and \xfe\xff\n"}
    assert conn.execute("SELECT count(*) FROM messages WHERE message LIKE '%Müller%'").fetchone()[0] == 2


def test_messages_can_be_searched(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 2)
    commit(git, 1, "tidy")
    ingest.ingest(conn, ingest.find(str(tmp_path / "repo")))
    found = conn.execute("SELECT count(*) FROM messages_fts WHERE messages_fts MATCH 'overflow'").fetchone()[0]
    assert found == 2


def test_a_shallow_clone_works_and_its_boundary_is_marked(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 5)
    subprocess.run(
        ["git", "clone", "-q", "--depth=2", f"file://{tmp_path}/repo", str(tmp_path / "shallow")], check=True
    )
    done = ingest.ingest(conn, ingest.find(str(tmp_path / "shallow")))
    assert (done.n_new, done.is_shallow) == (2, True)
    assert conn.execute("SELECT is_boundary FROM commits ORDER BY id").fetchall() == [(1,), (0,)]


def test_the_older_commits_of_a_deepened_clone_are_added_and_its_old_end_is_looked_at_again(
    conn: sqlite3.Connection, git: Git, tmp_path: Path
) -> None:
    commit(git, 5)
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth=2", f"file://{tmp_path}/repo", str(shallow)], check=True)
    ingest.ingest(conn, ingest.find(str(shallow)))
    worker.advance(conn, "s0_1", Settings())
    assert conn.execute("SELECT reject_reason FROM commits WHERE is_boundary").fetchall() == [("shallow_boundary",)]
    subprocess.run(["git", "fetch", "-q", "--depth=4"], check=True, cwd=shallow)
    done = ingest.ingest(conn, ingest.find(str(shallow)))
    assert (done.n_new, done.n_commits, done.is_shallow) == (2, 4, True)
    subprocess.run(["git", "fetch", "-q", "--unshallow"], check=True, cwd=shallow)
    done = ingest.ingest(conn, ingest.find(str(shallow)))
    assert (done.n_new, done.n_commits, done.is_shallow) == (1, 5, False)
    assert ingest.ingest(conn, ingest.find(str(shallow))).n_new == 0
    worker.advance(conn, "s0_1", Settings())
    assert conn.execute("SELECT DISTINCT reject_reason, is_boundary FROM commits").fetchall() == [("empty_diff", 0)]


def test_a_url_is_cloned_once_and_fetched_then(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 2)
    url, cache = f"file://{tmp_path}/repo", str(tmp_path / "cache")
    done = ingest.ingest(conn, ingest.find(url, cache=cache))
    assert done.n_new == 2
    assert Path(done.path).parent == tmp_path / "cache"
    commit(git, 1, "later")
    assert ingest.ingest(conn, ingest.find(url, cache=cache)).n_new == 1
    assert conn.execute("SELECT url FROM repos").fetchall() == [(url,)]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/curl/curl", "curl/curl"),
        ("https://github.com/curl/curl.git/", "curl/curl"),
        ("git@github.com:curl/curl.git", "curl/curl"),
        ("ssh://git@host:22/a/b/c.git", "b/c"),
        ("file:///srv/x.git", "srv/x"),
    ],
)
def test_a_url_names_its_repository(url: str, name: str) -> None:
    assert ingest.is_url(url)
    assert ingest.name_of_url(url) == name


def test_two_repositories_cannot_have_one_name(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git)
    subprocess.run(["git", "clone", "-q", str(tmp_path / "repo"), str(tmp_path / "other")], check=True)
    ingest.ingest(conn, ingest.find(str(tmp_path / "repo")), name="x")
    with pytest.raises(RepositoryError, match="Another repository"):
        ingest.ingest(conn, ingest.find(str(tmp_path / "other")), name="x")


def test_what_is_no_repository_is_said_before_a_database_is_made(tmp_path: Path, git: Git) -> None:
    with pytest.raises(RepositoryError, match="not a git repository"):
        ingest.find(str(tmp_path))
    with pytest.raises(RepositoryError, match="no such folder"):
        ingest.find(str(tmp_path / "none"))
    git("status")
    with pytest.raises(RepositoryError, match="no commits"):
        ingest.find(str(tmp_path / "repo"))
