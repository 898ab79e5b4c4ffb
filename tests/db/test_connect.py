import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trustmine import cli
from trustmine.db import connect as connecting
from trustmine.db.connect import connect, schema_version, transaction
from trustmine.errors import DatabaseError


def _bytes(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def test_a_fresh_database_is_ours_and_in_wal_mode(db_path: Path) -> None:
    conn = connect(db_path, create=True)
    assert conn.execute("PRAGMA user_version").fetchone()[0] == schema_version()
    assert conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert conn.execute("SELECT count(*) FROM stages").fetchone()[0] == 12
    conn.close()
    again = connect(db_path)
    assert again.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    again.close()


def test_there_must_be_a_database(db_path: Path) -> None:
    with pytest.raises(DatabaseError, match="There is no database"):
        connect(db_path)
    assert not db_path.exists()


def test_a_database_of_another_program_is_refused_and_untouched(db_path: Path) -> None:
    other = sqlite3.connect(db_path)
    other.execute("CREATE TABLE songs (title TEXT)")
    other.commit()
    other.close()
    before = _bytes(db_path)
    with pytest.raises(DatabaseError, match="another program"):
        connect(db_path, create=True)
    assert _bytes(db_path) == before


def test_a_newer_database_is_refused_and_untouched(db_path: Path) -> None:
    conn = connect(db_path, create=True)
    conn.execute(f"PRAGMA user_version = {schema_version() + 1}")
    conn.close()
    before = _bytes(db_path)
    with pytest.raises(DatabaseError, match="newer trustmine"):
        connect(db_path)
    assert _bytes(db_path) == before


def test_a_newer_database_in_use_is_refused_too(db_path: Path) -> None:
    conn = connect(db_path, create=True)
    conn.execute(f"PRAGMA user_version = {schema_version() + 1}")  # still in the write-ahead log
    assert db_path.with_name(db_path.name + "-wal").exists()
    with pytest.raises(DatabaseError, match="newer trustmine"):
        connect(db_path)
    conn.close()


def test_a_text_file_is_no_database(db_path: Path) -> None:
    db_path.write_text("hello\n" * 100)
    with pytest.raises(DatabaseError, match="not an SQLite database"):
        connect(db_path, create=True)
    assert db_path.read_text() == "hello\n" * 100


def test_an_empty_file_becomes_a_database_only_if_one_is_to_be_made(db_path: Path) -> None:
    db_path.touch()
    with pytest.raises(DatabaseError, match="not an SQLite database"):
        connect(db_path, read_only=True)
    connect(db_path, create=True).close()
    connect(db_path, read_only=True).close()


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="folder"):
        connect(tmp_path, create=True)


def test_a_read_only_connection_cannot_write(db_path: Path) -> None:
    connect(db_path, create=True).close()
    conn = connect(db_path, read_only=True)
    with pytest.raises(sqlite3.OperationalError):
        conn.execute("DELETE FROM stages")
    conn.close()


def test_the_log_that_grew_behind_a_long_reader_is_cut_when_it_has_gone(
    db_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "LOG_BYTES", 1 << 20)
    writer, log = connect(db_path, create=True), db_path.with_name(db_path.name + "-wal")
    reader = connect(db_path, read_only=True)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM repos").fetchone()
    for n in range(40):
        writer.execute(
            "INSERT INTO repos (name, path, ingested_at_s) VALUES (?, ?, 0)", (str(n), f"{n}" + "x" * 200_000)
        )
    assert log.stat().st_size > 8_000_000
    reader.execute("ROLLBACK")
    for n in range(2):  # folds the log back; begins it anew
        writer.execute("DELETE FROM repos WHERE name = ?", (str(n),))
    assert log.stat().st_size <= 1 << 20
    reader.close()
    writer.close()


def test_a_transaction_is_undone_when_anything_is_raised(conn: sqlite3.Connection) -> None:
    with pytest.raises(KeyboardInterrupt), transaction(conn):
        conn.execute("INSERT INTO repos (name, path, ingested_at_s) VALUES ('a', 'b', 0)")
        raise KeyboardInterrupt
    assert not conn.in_transaction
    assert conn.execute("SELECT count(*) FROM repos").fetchone()[0] == 0


def test_every_table_and_column_is_explained_in_the_schema() -> None:
    from trustmine import resources

    lines = resources.schema().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("CREATE TABLE"):
            assert lines[number - 1].startswith("-- "), f"no comment above: {line}"


@pytest.mark.parametrize("version", range(1, schema_version()))
def test_a_database_of_an_earlier_version_becomes_like_a_fresh_one(tmp_path: Path, version: int) -> None:
    old = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    old.executescript((Path(__file__).parent / "schemas" / f"v{version}.sql").read_text(encoding="utf-8"))
    assert old.execute("PRAGMA user_version").fetchone()[0] == version
    old.close()
    upgraded = connect(tmp_path / "old.db")
    fresh = connect(tmp_path / "fresh.db", create=True)
    assert _layout(upgraded) == _layout(fresh)
    assert upgraded.execute("PRAGMA user_version").fetchone()[0] == schema_version()
    upgraded.close()
    fresh.close()


def _old(path: Path) -> sqlite3.Connection:
    """A database of version 1 with a commit in it, in use."""
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("PRAGMA journal_mode = WAL")
    old.executescript((Path(__file__).parent / "schemas" / "v1.sql").read_text(encoding="utf-8"))
    old.execute("INSERT INTO repos (id, name, path, ingested_at_s) VALUES (1, 'toy', '/toy', 0)")
    old.execute(
        """INSERT INTO commits (id, repo_id, sha, parents, author_time_s, commit_time_s, status, attempts)
           VALUES (7, 1, ?, '', 1, 2, 's0_2', 1)""",
        ("a" * 40,),
    )
    old.execute("INSERT INTO messages VALUES (7, 'Fix the overflow', 'utf-8')")
    old.execute("INSERT INTO diffs VALUES (7, 'patch', 'utf-8', 5)")
    old.execute("INSERT INTO commit_sizes VALUES (7, 12)")
    old.execute("INSERT INTO priorities VALUES (7, 1.5, 0, 1, 0.5, 0, 0, '[]')")
    old.execute("INSERT INTO recipes VALUES (1, 's0_1', 'h', '{}', NULL, 0)")
    old.execute("INSERT INTO steps VALUES (7, 's0_1', 1)")
    old.execute("INSERT INTO failures VALUES (7, 's0_3', 1, 'error', 'traceback', 'w', 0)")
    return old


def _content(conn: sqlite3.Connection) -> dict[str, list[dict[str, object]]]:
    """Tables that hold rows, each row by the names of its columns."""
    found = {}
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%_fts%' ORDER BY name"
    for (name,) in conn.execute(tables).fetchall():
        cursor = conn.execute(f"SELECT * FROM {name}")
        names = [column[0] for column in cursor.description]
        found[name] = [dict(zip(names, row, strict=True)) for row in cursor]
    return {name: rows for name, rows in found.items() if rows}


def test_an_upgrade_keeps_all_data_and_a_copy_of_the_database_as_it_was(db_path: Path) -> None:
    old = _old(db_path)
    before = _content(old)
    old.close()
    said: list[str] = []
    conn = connect(db_path, say=said.append)
    after = _content(conn)
    for name, rows in before.items():
        assert [{column: row[column] for column in rows[0]} for row in after[name]] == rows, name
    assert conn.execute("SELECT rowid FROM messages_fts WHERE messages_fts MATCH 'overflow'").fetchall() == [(7,)]
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
    conn.close()
    kept = db_path.with_name("trustmine.db.v1.bak")
    assert said == [f"{db_path} is upgraded from schema 1 to {schema_version()}; a copy of it as it was: {kept}"]
    copy = sqlite3.connect(kept)
    assert _content(copy) == before
    assert copy.execute("PRAGMA user_version").fetchone() == (1,)
    copy.close()
    said.clear()
    connect(db_path, say=said.append).close()
    assert said == [], "once"


def test_an_older_copy_is_not_overwritten(db_path: Path) -> None:
    _old(db_path).close()
    db_path.with_name("trustmine.db.v1.bak").write_text("mine")
    connect(db_path).close()
    assert db_path.with_name("trustmine.db.v1.bak").read_text() == "mine"
    assert db_path.with_name("trustmine.db.v1.2.bak").exists()


@pytest.mark.parametrize("wrong", ["CREATE TABLE commits (id)", KeyboardInterrupt])
def test_an_upgrade_that_fails_in_the_middle_leaves_the_old_database(
    db_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: object
) -> None:
    old = _old(db_path)
    before = _layout(old), _content(old)

    def statements() -> Iterator[str]:
        yield "CREATE TABLE half (x)"
        yield "UPDATE commits SET status = 'ingested'"
        if not isinstance(wrong, str):
            raise KeyboardInterrupt
        yield wrong

    monkeypatch.setattr(connecting, "UPGRADES", {1: statements()})
    with pytest.raises((DatabaseError, KeyboardInterrupt)) as caught:
        connect(db_path)
    if isinstance(caught.value, DatabaseError):
        assert "table commits already exists" in caught.value.what
        assert "It is as it was" in caught.value.hint
    assert (_layout(old), _content(old)) == before
    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    assert not list(db_path.parent.glob("*.bak"))
    old.close()


def test_without_room_for_the_copy_nothing_is_upgraded(db_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _old(db_path).close()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 4096}))
    with pytest.raises(DatabaseError, match="cannot be upgraded: There is no room for a copy") as caught:
        connect(db_path)
    assert "Nothing was changed" in caught.value.hint
    conn = sqlite3.connect(db_path)
    assert conn.execute("PRAGMA user_version").fetchone() == (1,)
    conn.close()


def test_an_old_database_opened_to_be_read_says_what_to_do_and_is_untouched(db_path: Path) -> None:
    _old(db_path).close()
    before = _bytes(db_path)
    with pytest.raises(DatabaseError, match="older trustmine") as caught:
        connect(db_path, read_only=True)
    assert f"trustmine upgrade --db {db_path}" in caught.value.hint
    assert _bytes(db_path)[db_path.name] == before[db_path.name]


def test_two_processes_that_upgrade_at_once_make_one_copy(db_path: Path) -> None:
    _old(db_path).close()
    program = (
        "import sys; from pathlib import Path; from trustmine.db.connect import connect; connect(Path(sys.argv[1]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(db_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert [path.name for path in db_path.parent.glob("*.bak")] == ["trustmine.db.v1.bak"]


def test_the_commands_upgrade_aloud_and_read_not_at_all(db_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _old(db_path).close()

    def run(*args: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([*args, "--db", str(db_path)])
        return int(ended.value.code or 0), capsys.readouterr().err

    code, err = run("status")
    assert code == 1
    assert "trustmine upgrade --db" in err
    code, err = run("upgrade")
    assert code == 0
    assert "is upgraded from schema 1" in err
    assert run("status")[0] == 0


def _layout(conn: sqlite3.Connection) -> dict[str, object]:
    """Tables with their columns in any order; the text of everything else."""
    found: dict[str, object] = {}
    for kind, name, sql in conn.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"):
        if kind == "table":
            columns = conn.execute(f"SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_xinfo('{name}')")
            found[name] = sorted(columns.fetchall())
        else:
            found[name] = " ".join(sql.split())
    return found


def test_opening_a_second_time_keeps_the_locks_of_the_first_connection(conn: sqlite3.Connection, db_path: Path) -> None:
    """POSIX locks of a process on a file are gone when it closes any descriptor of that file."""
    conn.execute("INSERT INTO repos (name, path, ingested_at_s) VALUES ('a', 'b', 0)")
    connect(db_path).close()
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('DELETE FROM repos'); c.commit(); c.close()"
    )
    subprocess.run([sys.executable, "-c", program, str(db_path)], check=True)
    # The other process believes to be the last one if it does not see our lock, and takes the log away under us.
    assert db_path.with_name(db_path.name + "-wal").exists()
    conn.execute("INSERT INTO repos (name, path, ingested_at_s) VALUES ('c', 'd', 0)")
    other = sqlite3.connect(db_path)
    assert other.execute("SELECT name FROM repos").fetchall() == [("c",)]
    other.close()
