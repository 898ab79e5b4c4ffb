"""Lifespans kept in the database: stopped and gone on with, brought up to date, shared by processes."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from trustmine import hands, ingest, lifespan, lifespans
from trustmine.gitrepo import GitRepo
from trustmine.lifespan import Life
from trustmine.lifespans import Lived
from trustmine.lineage import Lineage

Git = Callable[..., str]


def body(name: str, version: int) -> str:
    return f"int {name}(int a)\n{{\n    return a + {version};\n}}\n\n"


@pytest.fixture
def folder(git: Git, tmp_path: Path) -> Path:
    git("status")
    return tmp_path / "repo"


def commit(git: Git, folder: Path, number: int) -> None:
    """Files a.c to e.c with functions of which each commit changes, lays out anew, adds or moves some."""
    for place, file in enumerate("abcde"):
        functions = [body(f"{file}{n}", number // (n + 2 + place)) for n in range(6 + number // 4)]
        if number % 3 == 2:
            functions[0] = functions[0].replace("    ", "\t").replace("(int a)", "( int a ) /* why */")
        if number % 4 == 3:
            functions.reverse()
        (folder / f"{file}.c").write_text("".join(functions))
    if number == 5:
        (folder / "e.c").rename(folder / "f.c")
    if number > 5:
        (folder / "e.c").unlink()
        (folder / "f.c").write_text(body("f", number // 3))
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", str(number))


def find(conn: sqlite3.Connection, folder: Path, tip: str = "HEAD", **more: Any) -> list[Lived]:
    ingest.ingest(conn, ingest.find(str(folder)), name="toy")
    repo = GitRepo.open(folder)
    chain = repo.first_parents(repo.resolve(tip))
    return lifespans.lifespans(conn, repo, 1, chain, lambda path: path.endswith(".c"), **more)[0]


def test_a_run_for_a_newer_tip_finds_what_a_fresh_one_finds(conn: sqlite3.Connection, git: Git, folder: Path) -> None:
    for number in range(12):
        commit(git, folder, number)
    fresh = find(conn, folder)
    conn.execute("DELETE FROM file_lifespans")
    find(conn, folder, "HEAD~9")
    find(conn, folder, "HEAD~3")
    assert find(conn, folder) == fresh
    assert {sha for (sha,) in conn.execute("SELECT tree_sha FROM file_lifespans")} == {git("rev-parse", "HEAD")}
    assert len({one.n_commits for one in fresh}) > 4, "they have lived for several times"


def test_what_is_known_is_not_walked_again(
    conn: sqlite3.Connection, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        commit(git, folder, number)
    first = find(conn, folder)
    walked: list[bytes] = []
    lives = lifespan.lives

    def walk(repo: GitRepo, chain: Sequence[str], lineage: Lineage, known: Any) -> list[Life]:
        walked.append(lineage.path)
        return lives(repo, chain, lineage, known)

    monkeypatch.setattr(lifespan, "lives", walk)
    assert find(conn, folder) == first and not walked
    (folder / "a.c").write_text((folder / "a.c").read_text() + body("last", 1))
    git("commit", "-q", "-am", "one file")
    again = find(conn, folder)
    assert walked == [b"a.c"]
    assert {one.life.name: one.n_commits for one in again if one.life.name != "last"} == {
        one.life.name: one.n_commits + 1 for one in first
    }
    monkeypatch.setattr(lifespans, "RULES", "other rules")
    find(conn, folder)
    assert len(walked) == 6, "another parser sees other functions"


def test_a_run_that_was_stopped_goes_on_where_it_was(
    conn: sqlite3.Connection, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(git, folder, 0)
    monkeypatch.setattr(lifespans, "WRITE_S", 0.0)

    def stop(what: str, done: int, total: int) -> None:
        if what == "versions of files" and done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find(conn, folder, progress=stop)
    assert conn.execute("SELECT count(*) FROM file_lifespans").fetchone() == (2,)
    totals: list[int] = []
    find(conn, folder, progress=lambda what, done, total: totals.append(total) if what != "history" else None)
    assert set(totals) == {6}, "three files, of two versions each"


def test_processes_share_the_files(
    conn: sqlite3.Connection, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        commit(git, folder, number)
    alone = find(conn, folder)
    conn.execute("DELETE FROM file_lifespans")
    monkeypatch.setattr(lifespans, "MIN_STEPS", 1)
    assert find(conn, folder, n_processes=2) == alone


def test_where_a_shallow_clone_ends_a_function_may_be_older(conn: sqlite3.Connection, git: Git, folder: Path) -> None:
    for number in range(3):
        commit(git, folder, number)
    shallow = folder.parent / "shallow"
    subprocess.run(["git", "clone", "-q", "--bare", "--depth=2", f"file://{folder}", str(shallow)], check=True)
    cut = {one.life.name: one.is_cut for one in find(conn, shallow)}
    assert cut["a4"] and not cut["a0"]


def test_what_a_shallow_clone_knew_is_not_believed_once_it_is_deeper(
    conn: sqlite3.Connection, git: Git, folder: Path
) -> None:
    for number in range(3):
        commit(git, folder, number)
    shallow = folder.parent / "shallow"
    subprocess.run(["git", "clone", "-q", "--bare", "--depth=2", f"file://{folder}", str(shallow)], check=True)
    find(conn, shallow)
    subprocess.run(["git", "fetch", "-q", "--unshallow"], check=True, cwd=shallow)
    deeper = find(conn, shallow)
    conn.execute("DELETE FROM file_lifespans")
    assert deeper == find(conn, shallow)
    assert {one.n_commits for one in deeper if one.life.name == "a4"} == {2}


def test_of_two_functions_that_are_alike_each_keeps_its_own_history(
    conn: sqlite3.Connection, git: Git, folder: Path
) -> None:
    twin = body("twin", 1)
    tabs = twin.replace("    ", "\t")
    for text in (
        f"#if A\n{twin}#endif\n",
        f"#if A\n{tabs}#endif\n#if B\n{twin}#endif\n",
        f"#if A\n{tabs}#endif\n#if B\n{twin}#endif\n\n\n",
    ):
        (folder / "a.c").write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", "more")
    fresh = find(conn, folder)
    conn.execute("DELETE FROM file_lifespans")
    find(conn, folder, "HEAD~1")
    assert find(conn, folder) == fresh
    assert len({one.life.touched for one in fresh}) == 2


def _double(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if item < 0:
        raise ValueError(f"{item} is too small")
    return 2 * item


def test_a_thing_that_kills_its_processes_is_given_up_and_the_others_are_done() -> None:
    results = dict(hands.share(_double, range(8), 2))
    assert isinstance(results.pop(3), hands.GivenUp)
    assert results == {item: 2 * item for item in range(8) if item != 3}


def test_what_goes_wrong_in_a_process_is_raised_here() -> None:
    with pytest.raises(ValueError, match="-1 is too small"):
        list(hands.share(_double, [1, -1, 2], 2))
