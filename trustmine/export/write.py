"""Writes an export: each file under a temporary name, all renamed at the end.

The manifest is renamed first. Killed in between, the folder has a manifest
whose SHA-256 do not fit some files, and the next export still knows the
folder as its own.
"""

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from trustmine import leakage, plots
from trustmine.db import queries
from trustmine.errors import TrustmineError
from trustmine.export import (
    alpaca,
    bench,
    detection,
    dpo,
    kto,
    manifest,
    messages,
    parquet,
    rows,
    safecoder,
    sharegpt,
    splits,
    sven,
)
from trustmine.export.card import CARD_NAME, PLOTS, card
from trustmine.export.files import DataFile
from trustmine.export.manifest import File, Manifest
from trustmine.export.preferences import preferences
from trustmine.export.splits import SPLIT_BY, SPLITS, LeftOut, Plan
from trustmine.progress import Progress, quiet

# A format is a module: NAME; SOURCE, what it takes; COLUMNS of its own; place, the file that a record goes to; rows,
# what it becomes there; open_file, how files are written; maybe EXPECTED, files that are there even if empty,
# and TYPES of columns that are no text, for readers that would guess (a file that says them itself needs none).
FORMATS: dict[str, ModuleType] = {
    form.NAME: form for form in (alpaca, messages, sharegpt, parquet, dpo, kto, sven, safecoder, detection, bench)
}
TASKS = ("locate", "locate_explain", "infill", "refine", "calibrate", "abstain", "benign")

_SPLIT = f"(?:{'|'.join(SPLITS)})"
# Every name that an export may give a file. Nothing else in a folder is ever removed.
_OURS = re.compile(
    rf"{re.escape(manifest.FILE_NAME)}|{re.escape(CARD_NAME)}|{_SPLIT}\.jsonl?|data/{_SPLIT}-00000-of-00001\.parquet"
    rf"|{_SPLIT}/(?:cwe-\d{{3,6}}|cwe-unknown|sec-desc|sec-new-desc)\.jsonl"
    rf"|plots/(?:{'|'.join(PLOTS)})\.png"
)
_FOLDERS = {"data", "plots", *SPLITS}
MAX_BARS = 30  # names that a picture has room for
_PART = ".part"  # behind the name of a file that is being written


def export(
    conn: sqlite3.Connection,
    out_dir: Path,
    format: str,
    tasks: Sequence[str] = (),
    split: str | None = None,
    split_by: str | None = None,
    repo: str | None = None,
    pictures: bool = False,
    progress: Progress = quiet,
) -> Manifest:
    """Write what is in the database to `out_dir`; no tasks, no split, no repository: all of them.

    Pairs of functions are split by date if nothing else is said, for their
    readers look for a validation split. With `pictures`, plots of what the
    rows are about are drawn beside them. `progress` is told commits planned, and records read and compared.
    Replaces an earlier export. Raises TrustmineError for a format, task, split
    or repository that does not exist, a folder with other things in it, or
    nothing to export.
    """
    form = FORMATS[_one_of("format", format, FORMATS)]
    for task in tasks:
        _one_of("task", task, TASKS)
    if split is not None:
        _one_of("split", split, SPLITS)
    if split_by is not None:
        _one_of("way to split", split_by, SPLIT_BY)
    is_of_code = form.SOURCE in rows.OF_CODE
    if is_of_code and tasks:
        raise TrustmineError(f"The format {format} has no tasks", ", ".join(tasks), "Leave out --task")
    if form.SOURCE in ("pairs", "functions"):
        split_by = split_by or "date"
    if form.SOURCE == "gaps":
        if split not in (None, "bench") or split_by is not None:
            raise TrustmineError("The format bench has one split, bench", "", "Leave out --split and --split-by")
        split = "bench"
    if pictures:
        plots.require()
    with _snapshot(conn):
        repo = None if repo is None else queries.repo_name(conn, queries.repo_id(conn, repo))
        planned = splits.of_functions if form.SOURCE == "functions" else splits.of_pairs
        plan = (planned if is_of_code else splits.of_instructions)(conn, split_by, repo, progress)
        plan = plan if split is None else plan.only(split)
        if not (plan.split and (is_of_code or rows.has_examples(conn, tasks, plan))):
            what = "pairs of functions" if is_of_code else "instructions"
            where = ", ".join([*tasks, *(one for one in (split, repo) if one is not None)])
            raise TrustmineError(
                f"There are no {what} to export", where, "See how far the commits are: trustmine status"
            )
        try:
            _refuse_foreign(out_dir)
            out_dir.mkdir(parents=True, exist_ok=True)
            made = _write(conn, out_dir, form, tasks, plan, split_by, repo, pictures, progress)
            _put_in_place(out_dir, made, _draw(out_dir, made) if pictures else ())
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


def _records(
    conn: sqlite3.Connection, form: ModuleType, tasks: Sequence[str], plan: Plan, recipes: rows.Recipes
) -> Iterator[Any]:
    if form.SOURCE in rows.OF_CODE:
        read = {"pairs": rows.pairs, "functions": rows.functions, "gaps": bench.gaps}[form.SOURCE]
        return read(conn, plan, recipes)
    return (preferences if form.SOURCE == "preferences" else rows.examples)(conn, tasks, plan, recipes)


def _write(
    conn: sqlite3.Connection,
    out_dir: Path,
    form: ModuleType,
    tasks: Sequence[str],
    plan: Plan,
    split_by: str | None,
    repo: str | None,
    has_pictures: bool,
    progress: Progress,
) -> Manifest:
    """Write every file of the export under its temporary name."""
    recipes: rows.Recipes = {}
    used: set[str] = set()  # keys of recipes
    tally = _Tally()
    n_rows: Counter[str] = Counter()  # by file
    dropped = dict(plan.dropped)
    with ExitStack() as stack:
        files: dict[str, DataFile] = {}

        def file(name: str) -> DataFile:
            if name not in files:
                _part(out_dir, name).parent.mkdir(exist_ok=True)
                files[name] = stack.enter_context(closing(form.open_file(_part(out_dir, name))))
            return files[name]

        for name in getattr(form, "EXPECTED", ()):
            file(name)
        for done, record in enumerate(_records(conn, form, tasks, plan, recipes), start=1):
            try:
                found = list(form.rows(record))
            except LeftOut as reason:
                dropped[str(reason)] = dropped.get(str(reason), 0) + 1
                found = []
            for row in found:
                file(form.place(record)).add(row)
                n_rows[form.place(record)] += 1
                tally.add(record, row)
                used.add(record.source.made_by)
            progress("records", done, None)
    if not n_rows:
        raise TrustmineError(
            f"Nothing in the database can be written as {form.NAME}", "", "See docs/FORMATS.md for what it needs"
        )
    written = {name: _described(out_dir, name, n_rows[name]) for name in sorted(files, key=_by_split)}
    made = manifest.describe(
        conn,
        manifest.Written(
            format=form.NAME,
            split_by=split_by,
            repo=repo,
            counts=tally.by_split(),
            dropped=dropped,
            leakage=_leakage(out_dir, written, progress),
            stats=tally.stats(),
            licences=tally.licences(),
            files=written,
            made_by={key: recipes[key] for key in recipes if key in used},
        ),
    )
    _part(out_dir, manifest.FILE_NAME).write_text(made.to_json(), encoding="ascii")
    _part(out_dir, CARD_NAME).write_text(card(made, form, has_pictures), encoding="utf-8")
    return made


class _Tally:
    """Counts of rows, by what they are about."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()  # what, name, split
        self._licences: dict[tuple[str, str], set[str]] = {}  # of the files of a commit, by repository and SHA

    def add(self, record: Any, row: Mapping[str, object]) -> None:
        """One row of a record."""
        length = 1 << max(record.n_chars - 1, 0).bit_length()  # the power of two that is not exceeded
        names = {
            "kind": record.kind,
            "cwe": record.source.cwe.split(" ")[0] or ("benign" if record.kind == "benign" else "unknown"),
            "year": record.source.date[:4] or "unknown",
            "project": record.source.repo,
            "length": str(length),
        }
        if "target" in row:
            names["target"] = "vulnerable" if row["target"] else "not vulnerable"
        for what, name in names.items():
            self._counts[what, name, record.split] += 1
        self._licences.setdefault((record.source.repo, record.source.commit), set()).add(record.source.licence)

    def by_split(self) -> manifest.Counts:
        found = self._counted("kind")
        return {
            split: {name: by_split[split] for name, by_split in found.items() if split in by_split}
            for split in SPLITS
            if any(split in by_split for by_split in found.values())
        }

    def stats(self) -> dict[str, manifest.Counts]:
        found = {what: self._counted(what) for what in ("target", "cwe", "year", "project", "length")}
        return {what: counts for what, counts in found.items() if counts}

    def licences(self) -> manifest.Counts:
        counted: dict[str, Counter[str]] = {}
        for repo, commit in sorted(self._licences):
            counted.setdefault(repo, Counter()).update(self._licences[repo, commit])
        return {repo: dict(sorted(by_licence.items())) for repo, by_licence in counted.items()}

    def _counted(self, what: str) -> manifest.Counts:
        """Name -> split -> rows; numbers in their order."""
        names = sorted({name for one, name, _ in self._counts if one == what}, key=_in_order)
        return {
            name: {split: self._counts[what, name, split] for split in SPLITS if self._counts[what, name, split]}
            for name in names
        }


def _in_order(name: str) -> tuple[str, int, str]:
    """CWE-20 before CWE-121, 1024 before 2048."""
    digits = name[len(name.rstrip("0123456789")) :]
    return name.removesuffix(digits), int(digits[:18] or 0), name


def _leakage(out_dir: Path, written: Mapping[str, File], progress: Progress) -> dict[str, Any]:
    """What the sides of the export have in common, as `trustmine leakage` counts it."""
    sides: dict[str, list[leakage.Source]] = {}
    for name, file in written.items():
        sides.setdefault(file.split, []).append(leakage.Source(name, _part(out_dir, name)))
    report = leakage.check(sides, progress=progress)
    return {"threshold": report.threshold, "functions": report.functions, "counts": report.counts()}


def _by_split(name: str) -> tuple[int, str]:
    return SPLITS.index(_split_of(name)), name


def _split_of(name: str) -> str:
    """The side that a file's name stands for."""
    (split,) = (split for split in SPLITS if re.match(rf"(?:data/)?{split}\b", name))
    return split


def _described(out_dir: Path, name: str, n_rows: int) -> File:
    with _part(out_dir, name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(_split_of(name), n_rows, _part(out_dir, name).stat().st_size, digest)


def _part(out_dir: Path, name: str) -> Path:
    return out_dir / (name + _PART)


def _draw(out_dir: Path, made: Manifest) -> list[str]:
    """Pictures of the counts, under their temporary names; their names."""
    for what, counts in made.stats.items():
        (out_dir / "plots").mkdir(exist_ok=True)
        plots.bars(_part(out_dir, f"plots/{what}.png"), PLOTS[what], _commonest(counts), SPLITS)
    return [f"plots/{what}.png" for what in made.stats]


def _commonest(counts: manifest.Counts) -> manifest.Counts:
    """Of many names those with the most rows, in their order, and all others as one."""
    size = {name: sum(by_split.values()) for name, by_split in counts.items()}
    shown = set(sorted(size, key=lambda name: -size[name])[:MAX_BARS])
    rest: Counter[str] = Counter()
    for name in counts.keys() - shown:
        rest.update(counts[name])
    return {**{name: n for name, n in counts.items() if name in shown}, **({"others": dict(rest)} if rest else {})}


def _put_in_place(out_dir: Path, made: Manifest, pictures: Sequence[str]) -> None:
    """Give every file its name, and remove those of an earlier export that this one does not have."""
    names = [manifest.FILE_NAME, *made.files, *pictures, CARD_NAME]
    for name in names:
        _part(out_dir, name).replace(out_dir / name)
    for path in sorted(out_dir.rglob("*"), reverse=True):  # files before the folders they are in
        name = path.relative_to(out_dir).as_posix()
        if path.is_dir() and not path.is_symlink():
            if name in _FOLDERS and not any(path.iterdir()):
                path.rmdir()
        elif name not in names and _OURS.fullmatch(name.removesuffix(_PART)):
            path.unlink()


def _refuse_foreign(out_dir: Path) -> None:
    """Raise TrustmineError unless the folder holds an earlier export, its leftovers, or nothing."""
    if not out_dir.exists():
        return
    if not out_dir.is_dir():
        raise TrustmineError("The export needs a folder, and this is none", str(out_dir), "Give another folder")
    known: set[str] = set()
    try:
        earlier = json.loads((out_dir / manifest.FILE_NAME).read_bytes())
        if isinstance(earlier, dict) and earlier.get("kind") == manifest.KIND:
            known = {manifest.FILE_NAME, CARD_NAME, *earlier.get("files", ()), *(f"plots/{what}.png" for what in PLOTS)}
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError, TypeError):
        pass  # not ours: then it is foreign itself
    foreign = sorted(name for name, path in _contents(out_dir) if not _is_ours(name, path, known))
    if foreign:
        shown = ", ".join(foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        raise TrustmineError(
            "The folder holds files that are not of an earlier export", f"{out_dir}: {shown}", "Give an empty folder"
        )


def _contents(out_dir: Path) -> Iterator[tuple[str, Path]]:
    """Everything in the folder and in those of its folders that an export may make."""
    for path in out_dir.iterdir():
        yield path.name, path
        if path.name in _FOLDERS and path.is_dir() and not path.is_symlink():
            yield from ((f"{path.name}/{inner.name}", inner) for inner in path.iterdir())


def _is_ours(name: str, path: Path, known: Collection[str]) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        return name in _FOLDERS and any(path.iterdir())
    is_part = name.endswith(_PART)
    return _OURS.fullmatch(name.removesuffix(_PART)) is not None and (is_part or name in known)
