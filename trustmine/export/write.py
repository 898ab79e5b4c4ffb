"""Writes an export: each file under a temporary name, all renamed at the end.

The manifest is renamed first. Killed in between, the folder has a manifest
whose SHA-256 do not fit some files, and the next export still knows the
folder as its own.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from trustmine.errors import TrustmineError
from trustmine.export import alpaca, manifest, messages, rows
from trustmine.export.card import CARD_NAME, card
from trustmine.export.manifest import File, Manifest

FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (alpaca, messages)}
SPLITS = ("train", "bench")
TASKS = ("locate", "locate_explain", "infill", "refine", "calibrate", "abstain", "benign")

_OURS = {manifest.FILE_NAME, CARD_NAME, *(split + form.FILE_SUFFIX for split in SPLITS for form in FORMATS.values())}
_PART = ".part"  # behind the name of a file that is being written

# Legal in JSON, but some readers of JSON Lines take them for the end of a line.
_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def export(
    conn: sqlite3.Connection,
    out_dir: Path,
    format: str,
    tasks: Sequence[str] = (),
    split: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Manifest:
    """Write the instructions in the database to `out_dir`; no tasks: all, no split: both.

    `progress` is told rows written and rows in all. Replaces an earlier
    export. Raises TrustmineError for a format, task or split that does not
    exist, a folder with other things in it, or nothing to export.
    """
    form = FORMATS[_one_of("format", format, FORMATS)]
    for task in tasks:
        _one_of("task", task, TASKS)
    if split is not None:
        _one_of("split", split, SPLITS)
    with _snapshot(conn):
        n_rows = rows.count(conn, tasks, split)
        if n_rows == 0:
            raise TrustmineError(
                "There are no instructions to export",
                ", ".join([*tasks, *([split] if split else [])]),
                "See how far the commits are: trustmine status",
            )
        try:
            _refuse_foreign(out_dir)
            out_dir.mkdir(parents=True, exist_ok=True)
            made = _write(conn, out_dir, form, tasks, split, lambda done: progress and progress(done, n_rows))
            _put_in_place(out_dir, made)
        except OSError as error:
            raise TrustmineError(
                f"Cannot write the export: {error.strerror}", str(out_dir), "Check that there is room, and permission"
            ) from error
    return made


def _one_of(what: str, given: str, known: Collection[str]) -> str:
    if given not in known:
        raise TrustmineError(f"There is no {what} {given!r}", "", f"Known: {', '.join(known)}")
    return given


@contextmanager
def _snapshot(conn: sqlite3.Connection) -> Iterator[None]:
    """All reads inside see the database as it is now, whatever workers do."""
    if conn.in_transaction:
        yield
        return
    conn.execute("BEGIN")
    try:
        yield
    finally:
        conn.execute("ROLLBACK")


def _write(
    conn: sqlite3.Connection,
    out_dir: Path,
    form: ModuleType,
    tasks: Sequence[str],
    split: str | None,
    progress: Callable[[int], object],
) -> Manifest:
    """Write every file of the export under its temporary name."""
    made_by: dict[str, dict[str, str]] = {}
    counts: dict[str, Counter[str]] = {}
    repos: set[str] = set()
    with ExitStack() as stack:
        files: dict[str, _DataFile] = {}
        for done, example in enumerate(rows.examples(conn, tasks, split, made_by), start=1):
            if example.split not in files:
                name = example.split + form.FILE_SUFFIX
                files[example.split] = _DataFile(stack.enter_context(_part(out_dir, name).open("wb")), form)
            files[example.split].add(form.row(example))
            counts.setdefault(example.split, Counter())[example.task] += 1
            repos.add(example.source.repo)
            progress(done)
        written = {
            part + form.FILE_SUFFIX: File(part, counts[part].total(), *files[part].finish())
            for part in SPLITS
            if part in files
        }
    counted = {part: dict(sorted(counts[part].items())) for part in SPLITS if part in counts}
    made = manifest.describe(conn, form.NAME, counted, written, repos, made_by)
    _part(out_dir, manifest.FILE_NAME).write_text(made.to_json(), encoding="ascii")
    _part(out_dir, CARD_NAME).write_text(card(made), encoding="utf-8")
    return made


class _DataFile:
    """One file of rows, written as they come; knows its size and hash at the end."""

    def __init__(self, file: BinaryIO, form: ModuleType) -> None:
        self._file, self._form = file, form
        self._hash, self._size, self._is_empty = hashlib.sha256(), 0, True

    def add(self, row: dict[str, object]) -> None:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS)
        self._put((self._form.BEFORE if self._is_empty else self._form.BETWEEN) + text)
        self._is_empty = False

    def finish(self) -> tuple[int, str]:
        """Size in bytes and SHA-256."""
        self._put(self._form.AFTER)
        return self._size, self._hash.hexdigest()

    def _put(self, text: str) -> None:
        data = text.encode("utf-8")
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)


def _part(out_dir: Path, name: str) -> Path:
    return out_dir / (name + _PART)


def _put_in_place(out_dir: Path, made: Manifest) -> None:
    """Give every file its name, and remove those of an earlier export that this one does not have."""
    names = [manifest.FILE_NAME, *made.files, CARD_NAME]
    for name in names:
        _part(out_dir, name).replace(out_dir / name)
    for name in _OURS.difference(names):
        (out_dir / name).unlink(missing_ok=True)
        _part(out_dir, name).unlink(missing_ok=True)


def _refuse_foreign(out_dir: Path) -> None:
    """Raise TrustmineError unless the folder holds an earlier export, its leftovers, or nothing."""
    if not out_dir.exists():
        return
    if not out_dir.is_dir():
        raise TrustmineError("The export needs a folder, and this is none", str(out_dir), "Give another folder")
    known = {name + _PART for name in _OURS}
    try:
        earlier = json.loads((out_dir / manifest.FILE_NAME).read_bytes())
        if isinstance(earlier, dict) and earlier.get("kind") == manifest.KIND:
            known |= _OURS & {manifest.FILE_NAME, CARD_NAME, *earlier.get("files", ())}
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError, TypeError):
        pass  # not ours: then it is foreign itself
    foreign = sorted(path.name for path in out_dir.iterdir() if path.name not in known or path.is_dir())
    if foreign:
        shown = ", ".join(foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        raise TrustmineError(
            "The folder holds files that are not of an earlier export", f"{out_dir}: {shown}", "Give an empty folder"
        )
