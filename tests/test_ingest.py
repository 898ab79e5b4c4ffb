"""Histories become rows: all commits once, parents first, new ones only the next time."""

import base64
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from trustmine import ingest, worker
from trustmine.cli import main
from trustmine.config import Settings
from trustmine.db.connect import connect
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


class _Guarded(SimpleHTTPRequestHandler):
    """Hands out files to whoever comes with the user's name and the token of the server."""

    def do_GET(self) -> None:
        wanted = base64.b64encode(self.server.user.encode()).decode()  # type: ignore[attr-defined]
        if self.headers.get("Authorization") == f"Basic {wanted}":
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def guarded(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A web server with tmp_path/served/owner/toy.git, a copy of the repository of `git`, for `user` alone."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("TRUSTMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Guarded, directory=str(tmp_path / "served")))
    server.user = "me:s3cr3t"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def serve(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "served", ignore_errors=True)
    served = tmp_path / "served" / "owner" / "toy.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(tmp_path / "repo"), str(served)], check=True)
    subprocess.run(["git", "update-server-info"], check=True, cwd=served)


def ingested(url: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["ingest", url])
    return int(end.value.code or 0)


def files_with(word: str, folder: Path) -> list[Path]:
    """What holds the word in its name or its bytes."""
    return [
        path
        for path in folder.rglob("*")
        if word in path.name or (path.is_file() and word.encode() in path.read_bytes())
    ]


def test_a_password_in_a_url_is_for_git_alone(
    guarded: ThreadingHTTPServer, git: Git, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(git, 2)
    serve(tmp_path)
    place = f"127.0.0.1:{guarded.server_port}/owner/toy.git"
    assert ingested(f"http://me:s3cr3t@{place}") == 0
    commit(git, 1, "later")
    serve(tmp_path)
    assert ingested(f"http://me:s3cr3t@{place}") == 0
    guarded.user = "me:n3w"  # type: ignore[attr-defined]
    commit(git, 1, "again")
    serve(tmp_path)
    assert ingested(f"http://me:s3cr3t@{place}") == 1, "the old one is refused"
    assert ingested(f"http://s3cr3t@{place}") == 1, "git asks for the password of a user"
    assert ingested(f"http://me:n3w@{place}") == 0
    said = "".join(capsys.readouterr())
    assert f"Cloning or fetching http://{place}" in said and "owner/toy: 1 new commits, 4 in all" in said
    assert "s3cr3t" not in said and "n3w" not in said
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [
        f"127.0.0.1-{guarded.server_port}-owner-toy.git.git"
    ]
    for word in ("s3cr3t", "n3w"):
        assert files_with(word, tmp_path) == []
    conn = connect(tmp_path / "trustmine.db", read_only=True)
    assert conn.execute("SELECT name, url FROM repos").fetchall() == [("owner/toy", f"http://{place}")]
    conn.close()


def test_a_password_that_was_stored_before_goes_with_the_next_ingest(
    guarded: ThreadingHTTPServer, conn: sqlite3.Connection, git: Git, tmp_path: Path
) -> None:
    commit(git, 2)
    serve(tmp_path)
    place = f"127.0.0.1:{guarded.server_port}/owner/toy.git"
    url, cache = f"http://me:s3cr3t@{place}", tmp_path / "cache"
    folder = cache / f"me-s3cr3t-127.0.0.1-{guarded.server_port}-owner-toy.git.git"
    subprocess.run(["git", "clone", "-q", "--bare", "--template=", url, str(folder)], check=True)
    assert files_with("s3cr3t", cache) == [folder, folder / "config"]
    before = ingest.ingest(conn, ingest.find(str(folder)), name="mine")
    conn.execute("UPDATE repos SET url = ?", (url,))
    commit(git, 1, "later")
    serve(tmp_path)
    done, _, said = again(conn, url, cache=str(cache))
    assert (done.repo, done.n_new, done.n_commits, said) == ("mine", 1, 3, [])
    assert files_with("s3cr3t", cache) == []
    [(path, stored)] = conn.execute("SELECT path, url FROM repos").fetchall()
    assert (path, stored) == (done.path, f"http://{place}") != (before.path, url)


def test_a_clone_of_another_address_is_not_fetched_into(git: Git, tmp_path: Path) -> None:
    commit(git, 1)
    cache = str(tmp_path / "cache")
    subprocess.run(["git", "clone", "-q", str(tmp_path / "repo"), str(tmp_path / "re-po")], check=True)
    (tmp_path / "re").mkdir()
    subprocess.run(["git", "clone", "-q", str(tmp_path / "repo"), str(tmp_path / "re" / "po")], check=True)
    ingest.find(f"file://{tmp_path}/re-po", cache=cache)
    ingest.find(f"file://{tmp_path}/re-po/", cache=cache)
    with pytest.raises(RepositoryError, match=r"it is a clone of file://.*re-po, not of file://.*re/po"):
        ingest.find(f"file://{tmp_path}/re/po", cache=cache)


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
    with pytest.raises(RepositoryError, match="Another repository") as error:
        ingest.ingest(conn, ingest.find(str(tmp_path / "other")), name="x")
    assert "move that away first" in error.value.hint


def again(conn: sqlite3.Connection, repo: Path | str, **options: Any) -> tuple[ingest.Ingested, list[int], list[str]]:
    """What an ingest did, the numbers of commits walked, and what it said."""
    walked: list[int] = []
    said: list[str] = []
    cache, name = options.get("cache"), options.get("name")
    source = ingest.find(str(repo), cache=cache)
    return ingest.ingest(conn, source, name=name, progress=walked.append, say=said.append), walked, said


def places(conn: sqlite3.Connection) -> list[tuple[str, str, str | None]]:
    return conn.execute("SELECT name, path, url FROM repos ORDER BY id").fetchall()


def test_a_repository_that_moved_keeps_its_rows_and_only_new_commits_are_walked(
    conn: sqlite3.Connection, git: Git, tmp_path: Path
) -> None:
    commit(git, 3)
    again(conn, tmp_path / "repo", name="demo/demo")
    before = shas(conn)
    commit(git, 2, "later")
    moved = (tmp_path / "repo").rename(tmp_path / "moved")
    done, walked, said = again(conn, moved, name="demo/demo")
    assert (done.repo, done.n_new, done.n_commits, walked) == ("demo/demo", 2, 5, [2])
    assert said == [f"demo/demo has moved from {tmp_path}/repo/.git to {moved}/.git"]
    assert shas(conn)[:3] == before
    assert places(conn) == [("demo/demo", f"{moved}/.git", None)]
    assert again(conn, moved)[1:] == ([], []), "no name is needed any more"


def test_a_folder_of_the_same_name_in_a_new_place_needs_no_name(
    conn: sqlite3.Connection, git: Git, tmp_path: Path
) -> None:
    commit(git, 2)
    again(conn, tmp_path / "repo")
    (tmp_path / "disk").mkdir()
    moved = (tmp_path / "repo").rename(tmp_path / "disk" / "repo")
    done, _, said = again(conn, moved)
    assert (done.repo, done.n_new, done.n_commits, len(said)) == ("repo", 0, 2, 1)


def test_a_repository_is_known_again_after_a_forced_push(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 3)
    again(conn, tmp_path / "repo", name="x")
    git("reset", "-q", "--hard", "HEAD~2")
    commit(git, 1, "rewritten")
    git("reflog", "expire", "--expire=now", "--all")
    git("gc", "-q", "--prune=now")
    done, _, _ = again(conn, (tmp_path / "repo").rename(tmp_path / "moved"), name="x")
    assert (done.n_new, done.n_commits) == (1, 4)


def test_one_that_left_a_link_or_another_repository_behind_has_moved(
    conn: sqlite3.Connection, git: Git, tmp_path: Path
) -> None:
    commit(git, 2)
    again(conn, tmp_path / "repo", name="x")
    moved = (tmp_path / "repo").rename(tmp_path / "moved")
    (tmp_path / "repo").symlink_to(moved)
    done, _, said = again(conn, moved, name="x")
    assert (done.n_new, done.n_commits, len(said)) == (0, 2, 1)
    (tmp_path / "repo").unlink()
    moved = moved.rename(tmp_path / "further")
    commit(git, 1, "another project")
    (tmp_path / "repo").rename(tmp_path / "moved")
    done, _, said = again(conn, moved, name="x")
    assert (done.n_new, done.n_commits, len(said)) == (0, 2, 1)


def test_one_that_may_have_moved_is_not_ingested_twice_unasked(
    conn: sqlite3.Connection, git: Git, tmp_path: Path
) -> None:
    commit(git, 2)
    again(conn, tmp_path / "repo", name="demo/demo")
    moved = (tmp_path / "repo").rename(tmp_path / "moved")
    with pytest.raises(RepositoryError, match="commits of demo/demo, which is not in its place") as error:
        again(conn, moved)
    assert "--name demo/demo;" in error.value.hint
    assert places(conn) == [("demo/demo", f"{tmp_path}/repo/.git", None)]
    assert again(conn, moved, name="fork")[0].n_new == 2, "it is another one where the user says so"


def test_what_has_none_of_its_commits_does_not_take_the_place_of_one_that_is_gone(
    conn: sqlite3.Connection, git: Git, tmp_path: Path
) -> None:
    commit(git, 2)
    again(conn, tmp_path / "repo", name="x")
    (tmp_path / "repo").rename(tmp_path / "moved")
    commit(git, 2, "another project")
    other = (tmp_path / "repo").rename(tmp_path / "other")
    with pytest.raises(RepositoryError, match="Another repository in this database is called 'x'") as error:
        again(conn, other, name="x")
    assert error.value.hint == "Give this one a --name of its own"
    assert again(conn, other)[0].n_new == 2
    assert again(conn, tmp_path / "moved", name="x")[0].n_new == 0


def test_a_repository_without_rows_yet_can_move(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 2)
    ingest.register(conn, ingest.find(str(tmp_path / "repo")), "x")  # and then the power went off
    done, _, said = again(conn, (tmp_path / "repo").rename(tmp_path / "moved"), name="x")
    assert (done.n_new, len(said), len(places(conn))) == (2, 1, 1)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_url_that_is_cloned_into_another_cache_is_the_same_repository(
    conn: sqlite3.Connection, git: Git, tmp_path: Path, is_there: bool
) -> None:
    commit(git, 2)
    url = f"file://{tmp_path}/repo"
    first, _, _ = again(conn, url, cache=str(tmp_path / "home"), name="demo/demo")
    commit(git, 1, "later")
    if not is_there:
        shutil.rmtree(tmp_path / "home")
    done, walked, said = again(conn, f"{url}/", cache=str(tmp_path / "other"))
    assert (done.repo, done.n_new, done.n_commits, walked) == ("demo/demo", 1, 3, [1])
    assert said == [f"demo/demo has moved from {first.path} to {done.path}"]
    assert places(conn) == [("demo/demo", done.path, f"{url}/")]
    assert (tmp_path / "other") in Path(done.path).parents


def test_a_repository_that_is_at_another_url_now_has_that_one(
    conn: sqlite3.Connection, git: Git, tmp_path: Path
) -> None:
    commit(git, 2)
    cache = tmp_path / "cache"
    again(conn, f"file://{tmp_path}/repo", cache=str(cache), name="x")
    shutil.rmtree(cache)
    (tmp_path / "repo").rename(tmp_path / "moved")
    done, _, _ = again(conn, f"file://{tmp_path}/moved", cache=str(cache), name="x")
    assert done.n_new == 0
    assert places(conn) == [("x", done.path, f"file://{tmp_path}/moved")]


def test_a_fork_at_a_url_of_its_own_is_another_repository(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 2)
    subprocess.run(["git", "clone", "-q", "--bare", str(tmp_path / "repo"), str(tmp_path / "fork")], check=True)
    cache = tmp_path / "cache"
    again(conn, f"file://{tmp_path}/repo", cache=str(cache))
    shutil.rmtree(cache)
    assert again(conn, f"file://{tmp_path}/fork", cache=str(cache))[0].n_new == 2
    assert len(places(conn)) == 2


def test_another_name_renames_and_says_so(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git, 2)
    again(conn, tmp_path / "repo", name="x")
    done, _, said = again(conn, tmp_path / "repo", name="owner/x")
    assert (done.repo, done.n_new, said) == ("owner/x", 0, ["x is now called owner/x"])
    assert again(conn, tmp_path / "repo")[0].repo == "owner/x"
    assert again(conn, tmp_path / "repo", name="owner/x")[2] == []


def test_a_name_that_another_repository_has_renames_none(conn: sqlite3.Connection, git: Git, tmp_path: Path) -> None:
    commit(git)
    subprocess.run(["git", "clone", "-q", str(tmp_path / "repo"), str(tmp_path / "other")], check=True)
    again(conn, tmp_path / "repo", name="x")
    again(conn, tmp_path / "other", name="y")
    before = places(conn)
    with pytest.raises(RepositoryError, match="Another repository in this database is called 'x'") as error:
        again(conn, tmp_path / "other", name="x")
    assert "known as y" in error.value.hint
    assert places(conn) == before


def test_what_is_no_repository_is_said_before_a_database_is_made(tmp_path: Path, git: Git) -> None:
    with pytest.raises(RepositoryError, match="not a git repository"):
        ingest.find(str(tmp_path))
    with pytest.raises(RepositoryError, match="no such folder"):
        ingest.find(str(tmp_path / "none"))
    git("status")
    with pytest.raises(RepositoryError, match="no commits"):
        ingest.find(str(tmp_path / "repo"))
