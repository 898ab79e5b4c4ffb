import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_database_of_version_1_becomes_like_a_fresh_one(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    old.executescript((Path(__file__).parent / "schemas" / "v1.sql").read_text(encoding="utf-8"))
    old.close()
    upgraded = connect(tmp_path / "old.db")
    fresh = connect(tmp_path / "fresh.db", create=True)
    assert _layout(upgraded) == _layout(fresh)
    assert upgraded.execute("PRAGMA user_version").fetchone()[0] == schema_version()
    upgraded.close()
    fresh.close()


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
