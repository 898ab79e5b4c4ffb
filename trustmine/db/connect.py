"""Opens a trustmine database: created, checked, upgraded, with the right pragmas.

Promises: a file that is not ours, or newer than this code, is refused and left
as it is; one of an older version is copied before it is upgraded, in one
transaction. Every connection is in autocommit mode: whoever writes says BEGIN
IMMEDIATE (see `transaction`), so no transaction is ever open by accident.
"""

import itertools
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from trustmine import resources
from trustmine.db.backup import backup
from trustmine.db.upgrades import UPGRADES
from trustmine.errors import DatabaseError

BUSY_TIMEOUT_S = 60.0  # how long a writer waits for another one
# What is left of the write-ahead log once a long reader (backup, verify) has let go of it: it grows behind one.
LOG_BYTES = 64 << 20


def schema_version() -> int:
    """The user_version that schema.sql makes."""
    return _pragma("user_version")


def application_id() -> int:
    """The application_id that schema.sql makes: marks a file as ours."""
    return _pragma("application_id")


def _pragma(name: str) -> int:
    found = re.search(rf"^PRAGMA {name} = (\w+);", resources.schema(), re.MULTILINE)
    if found is None:
        raise AssertionError(f"schema.sql sets no {name}")
    return int(found[1], 0)


Say = Callable[[str], object]


def connect(
    path: Path, *, create: bool = False, read_only: bool = False, say: Say = lambda line: None
) -> sqlite3.Connection:
    """A connection to the database at `path`.

    `create`: make it if there is none. `read_only`: nothing can be written
    through this connection. `say` is told of an upgrade. Raises DatabaseError.
    """
    if not path.exists() and not create:
        raise DatabaseError("There is no database", str(path), f"Try: trustmine ingest REPO --db {path}")
    if path.is_dir():
        raise DatabaseError("The database is a folder", str(path), "Give a file with --db")
    if path.exists():
        _check_ours(path, create)
        if not read_only and not os.access(path, os.W_OK):  # SQLite would say so at the first write
            raise DatabaseError("The database may only be read", str(path), f"Check the rights on it. {_hint(path)}")
    try:
        conn = sqlite3.connect(uri(path, read_only), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            _prepare(conn, path, read_only, say)
        except BaseException:
            conn.close()
            raise
    except sqlite3.Error as error:
        raise DatabaseError(f"Cannot open the database: {error}", str(path), _hint(path)) from error
    except UnicodeDecodeError as error:  # SQLite quotes what it cannot read, and Python cannot read that either
        hint = "Restore a backup, or try: sqlite3 FILE .recover"
        raise DatabaseError("Cannot open the database: its layout is damaged", str(path), hint) from error
    return conn


def uri(path: Path, read_only: bool) -> str:
    """What SQLite is told to open, with the mode that the rights on the folder allow."""
    address = f"file:{quote(str(path.absolute()))}"
    if not read_only:
        return f"{address}?mode=rwc"
    # A reader keeps its place in files beside the database. Where it can make none, and whoever writes has none there
    # either, it reads the file as one that does not change.
    has_log = path.with_name(path.name + "-wal").exists()
    may_write = os.access(path.absolute().parent, os.W_OK)
    return f"{address}?mode=ro{'' if has_log or may_write else '&immutable=1'}"


def _hint(path: Path) -> str:
    return f"Check that {path.absolute().parent} exists, is writable and has room"


def _check_ours(path: Path, create: bool) -> None:
    """Refuse what is not ours before anything could change it."""
    # Never by opening the file ourselves: closing it would drop the locks that other connections of this process hold
    # on it (https://www.sqlite.org/howtocorrupt.html). As immutable, nothing beside it is read or made. A database
    # just created may still have its pages in the write-ahead log: then that is read too.
    has_log = path.with_name(path.name + "-wal").exists()
    address = f"file:{quote(str(path.absolute()))}?mode=ro{'' if has_log else '&immutable=1'}"
    try:
        if path.stat().st_size == 0:
            if create:
                return  # an empty file is an empty database
            raise sqlite3.DatabaseError("file is not a database")
        conn = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S)
        try:
            mine = conn.execute("PRAGMA application_id").fetchone()[0] == application_id()
            version = conn.execute("PRAGMA user_version").fetchone()[0]
        finally:
            conn.close()
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise DatabaseError("This is not an SQLite database", str(path), "Give another file with --db") from error
        raise DatabaseError(f"Cannot read the database: {error}", str(path), _hint(path)) from error
    if not mine:
        raise DatabaseError(
            "This database belongs to another program", str(path), "Give another file with --db; nothing was changed"
        )
    if version > schema_version():
        raise DatabaseError(
            f"This database was made by a newer trustmine (schema {version}, this one knows {schema_version()})",
            str(path),
            "Upgrade trustmine; nothing was changed",
        )


def _prepare(conn: sqlite3.Connection, path: Path, read_only: bool, say: Say) -> None:
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute("PRAGMA cache_size = -65536")  # KiB
    if read_only:
        conn.execute("PRAGMA query_only = ON")
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        if version < schema_version():
            raise DatabaseError(
                f"This database was made by an older trustmine (schema {version}, this one needs {schema_version()})",
                str(path),
                f"Upgrade it (a copy is made before): trustmine upgrade --db {path}",
            )
        return
    conn.execute("PRAGMA journal_mode = WAL")
    # In WAL mode NORMAL cannot corrupt; a power cut may undo the last rows,
    # which are then simply pending again (https://www.sqlite.org/pragma.html#pragma_synchronous).
    conn.execute("PRAGMA synchronous = NORMAL")
    conn.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    with transaction(conn):
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not conn.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            for statement in _statements(resources.schema()):
                conn.execute(statement)
        elif version < schema_version():
            _upgrade(conn, path, version, say)


def _upgrade(conn: sqlite3.Connection, path: Path, version: int, say: Say) -> None:
    """Bring an older database up to date inside the caller's transaction, which keeps others from writing meanwhile."""
    kept = _free_name(path, version)
    say(f"{path} is upgraded from schema {version} to {schema_version()}; a copy of it as it was: {kept}")
    source = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
    try:
        backup(source, kept)
    except DatabaseError as error:
        hint = f"{error.hint}. Nothing was changed"
        raise DatabaseError(f"The database cannot be upgraded: {error.what}", error.where, hint) from error
    finally:
        source.close()
    try:
        for step in range(version, schema_version()):
            for statement in UPGRADES[step]:
                conn.execute(statement)
            conn.execute(f"PRAGMA user_version = {step + 1}")
    except BaseException as error:
        kept.unlink()
        if isinstance(error, sqlite3.Error):
            what = f"The database cannot be upgraded: {error}"
            raise DatabaseError(what, str(path), f"It is as it was, of schema {version}. {_hint(path)}") from error
        raise


def _free_name(path: Path, version: int) -> Path:
    """For the copy beside the database: FILE.v1.bak, FILE.v1.2.bak, ..."""
    names = itertools.chain(
        [f"{path.name}.v{version}.bak"], (f"{path.name}.v{version}.{n}.bak" for n in itertools.count(2))
    )
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def _statements(script: str) -> Iterator[str]:
    """The statements of a script (executescript would commit our transaction)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if ";" in line and sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def transaction(conn: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: committed at the end, rolled back on any exception."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:  # a full disk may have rolled back already
            conn.execute("ROLLBACK")
        raise
