"""A copy is one snapshot, complete, and never in place of another file."""

import multiprocessing
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from trustmine import cli
from trustmine.db import backup as backups
from trustmine.db.backup import backup
from trustmine.db.connect import connect, transaction
from trustmine.errors import DatabaseError

Add = Callable[..., list[int]]


def _write(db: Path, started: "multiprocessing.synchronize.Event", stop: "multiprocessing.synchronize.Event") -> None:
    """Two tables that always say the same, in one transaction after the other."""
    conn = connect(db)
    n = 0
    while not stop.is_set():
        n += 1
        with transaction(conn):
            conn.execute("UPDATE commits SET author_time_s = ?", (n,))
            conn.execute("UPDATE messages SET message = 'fix ' || ?", (n,))
        started.set()
    conn.close()


def test_a_copy_made_while_a_worker_writes_is_one_snapshot(
    conn: sqlite3.Connection, db_path: Path, add_commits: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "PAGES", 2)
    add_commits(300, message="fix " + "x" * 3_000)
    spawn = multiprocessing.get_context("spawn")
    started, stop = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_write, args=(db_path, started, stop))
    process.start()
    try:
        assert started.wait(60)
        seen: list[tuple[int, int]] = []
        source = connect(db_path, read_only=True)
        size_bytes = backup(source, tmp_path / "copy.db", lambda done, total: seen.append((done, total)))
        before, after = (source.execute("SELECT max(author_time_s) FROM commits").fetchone()[0] for _ in range(2))
        source.close()
        assert process.is_alive()
    finally:
        stop.set()
        process.join()
    assert process.exitcode == 0
    assert before <= after
    assert len(seen) > 20, "in steps"
    assert seen[-1][0] == seen[-1][1], "to the end"
    assert (tmp_path / "copy.db").stat().st_size == size_bytes
    copy = connect(tmp_path / "copy.db")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    [(n,)] = copy.execute("SELECT DISTINCT author_time_s FROM commits").fetchall()
    assert copy.execute("SELECT DISTINCT message FROM messages").fetchall() == [(f"fix {n}",)]
    copy.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "trustmine.db", "trustmine.db-shm",
                                                                "trustmine.db-wal"]  # fmt: skip


def test_nothing_is_overwritten(conn: sqlite3.Connection, tmp_path: Path, db_path: Path) -> None:
    (tmp_path / "there.db").write_text("mine")
    (tmp_path / "link.db").symlink_to(tmp_path / "nowhere")
    for name in ("there.db", "link.db", db_path.name):
        with pytest.raises(DatabaseError, match="There is a file of that name"):
            backup(conn, tmp_path / name)
    assert (tmp_path / "there.db").read_text() == "mine"
    assert (tmp_path / "link.db").is_symlink()


def test_a_file_that_appears_meanwhile_is_not_overwritten(conn: sqlite3.Connection, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"

    def put_another(done: int, total: int) -> None:
        target.write_text("theirs")

    with pytest.raises(DatabaseError, match="There is a file of that name now"):
        backup(conn, target, put_another)
    assert target.read_text() == "theirs"
    assert not list(tmp_path.glob(".copy*"))


def test_an_interrupted_copy_leaves_nothing(conn: sqlite3.Connection, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(conn, tmp_path / "copy.db", stop)
    assert not list(tmp_path.glob("*copy*"))
    assert not conn.in_transaction


def test_want_of_room_is_said_before_anything_is_written(
    conn: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 4096})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DatabaseError, match="no room for a copy"):
        backup(conn, tmp_path / "copy.db")


def test_there_must_be_a_folder(conn: sqlite3.Connection, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="no such folder"):
        backup(conn, tmp_path / "nowhere" / "copy.db")


def test_a_damaged_database_gives_no_copy(
    conn: sqlite3.Connection, db_path: Path, add_commits: Add, tmp_path: Path
) -> None:
    add_commits(2_000)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    page = 4096
    with db_path.open("r+b") as file:
        size = db_path.stat().st_size
        for place in range(size // page // 2, size // page - 2):  # some of these are pages of tables
            file.seek(place * page)
            file.write(b"\xff" * 100)
    damaged = connect(db_path, read_only=True)
    with pytest.raises(DatabaseError, match="trustmine verify"):
        backup(damaged, tmp_path / "copy.db")
    damaged.close()
    assert not list(tmp_path.glob("*copy*"))


def test_the_command_says_what_it_wrote(
    conn: sqlite3.Connection, db_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["backup", str(tmp_path / "copy.db"), "--db", str(db_path)])
    assert not ended.value.code
    assert f"{tmp_path / 'copy.db'}: a whole copy of {db_path}" in capsys.readouterr().err
    connect(tmp_path / "copy.db", read_only=True).close()
