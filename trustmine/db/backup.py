"""A whole copy of a database, made while workers write.

Promises: the copy is one snapshot; it appears under its name only when it is
complete, checked and on the disk; a file that is there is never overwritten.
"""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from trustmine.errors import DatabaseError

PAGES = 2_000  # copied between two looks at the progress: 8 MB

Progress = Callable[[int, int], None]  # pages done, pages in all


def backup(conn: sqlite3.Connection, target: Path, progress: Progress = lambda done, total: None) -> int:
    """Copy the database of `conn` to a new file; its size in bytes. Raises DatabaseError."""
    if target.exists() or target.is_symlink():
        raise DatabaseError("There is a file of that name", str(target), "Give another name; nothing was overwritten")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise DatabaseError("There is no such folder", str(folder), "Make it first")
    _need_room(conn, folder)
    part = folder / f".{target.name}.{os.getpid()}.part"
    try:
        try:
            _copy(conn, part, progress)
        except (sqlite3.Error, OSError) as error:
            raise DatabaseError(f"Cannot make a copy: {error}", str(target), "Check room and rights there") from error
        _publish(part, target)
    finally:
        for left in (part, *(part.with_name(part.name + end) for end in ("-journal", "-wal", "-shm"))):
            left.unlink(missing_ok=True)
    return target.stat().st_size


def _need_room(conn: sqlite3.Connection, folder: Path) -> None:
    needed = conn.execute("PRAGMA page_count").fetchone()[0] * conn.execute("PRAGMA page_size").fetchone()[0]
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DatabaseError(
            "There is no room for a copy",
            f"{folder} has {free >> 20:,} MiB, the database takes {needed >> 20:,} MiB",
            "Make room there, or give a file on another disk",
        )


def _copy(conn: sqlite3.Connection, part: Path, progress: Progress) -> None:
    copy = sqlite3.connect(part, isolation_level=None)
    try:
        # A transaction holds the snapshot: without it the copy would begin anew whenever a worker has written.
        conn.execute("BEGIN")
        try:
            conn.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            conn.backup(copy, pages=PAGES, progress=lambda _, left, total: progress(total - left, total))
        finally:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged ({found}); see: trustmine verify")
    finally:
        copy.close()
    with part.open("rb") as file:
        os.fsync(file.fileno())


def _publish(part: Path, target: Path) -> None:
    """Give the finished copy its name, which nobody may have taken meanwhile."""
    try:
        target.hardlink_to(part)
    except FileExistsError as error:
        raise DatabaseError("There is a file of that name now", str(target), "Give another name") from error
    except OSError:  # a file system without links
        if target.exists():
            raise DatabaseError("There is a file of that name now", str(target), "Give another name") from None
        part.rename(target)
    with contextlib.suppress(OSError):  # not every file system lets a folder be flushed
        folder = os.open(target.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
