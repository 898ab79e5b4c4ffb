"""What training and evaluation data have in common: commits, CVEs, functions, near-copies of functions.

Reads exports of trustmine and data sets of others: JSON Lines, JSON arrays
and Parquet, with code in fields of its own (`func`, `code`,
`func_src_before`, ...) or in fenced blocks of texts and chats. Only what lies
on two sides is a finding; what is alike on one side is not looked for.

Code of fewer than MIN_TOKENS tokens is passed over: `return NULL;` proves
nothing. So are the definitions that an instruction gives as context.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from trustmine import fences, minhash, samples
from trustmine.cparse import strip_comments_and_space
from trustmine.errors import TrustmineError
from trustmine.progress import Progress, quiet

KINDS = ("commit", "cve", "function", "function_normalised", "near_copy")
THRESHOLD = 0.8
MIN_TOKENS = 30

_CODE_FIELDS = (
    *("func", "code", "source", "func_src_before", "func_src_after", "func_before", "func_after"),
    *("function_before", "function_after", "masked_function", "vul_func", "fixed_func"),
)
_TEXT_FIELDS = (
    *("instruction", "input", "output", "prompt", "completion", "chosen", "rejected", "text", "response"),
    *("messages", "conversations"),
)
_COMMIT_FIELDS = ("commit", "commit_id", "commit_hash", "sha", "fix_commit")
_LINK_FIELDS = ("commit_link", "commit_url")
_CVE_FIELDS = ("cve", "cves", "cve_id", "CVE", "CVE_ID", "CVE ID")

_SHA = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")
_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}", re.IGNORECASE)
_NUMBERED = re.compile(r"^ *[0-9]+(?:\t|\| ?)", re.MULTILINE)  # `12| code` in exports of before
_SIDE = re.compile(r"(?<![a-z])(train|valid|validation|val|dev|test|bench)(?![a-z])")
_ALIASES = {"valid": "val", "validation": "val", "dev": "val"}
_LFS = b"version https://git-lfs.github.com/spec/"
_SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rows: how it is called, and where it is."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that lies on two sides."""

    kind: str  # one of KINDS
    what: str  # the commit, the CVE, or the beginning of the function
    sides: tuple[str, str]
    places: tuple[str, str]  # file:row, rows from 1; the first on each side
    similarity: float  # 1 but for near-copies


@dataclass(frozen=True)
class Report:
    """What was compared, and what was found."""

    threshold: float
    rows: dict[str, int]  # by side
    functions: dict[str, int]  # different pieces of code looked at, by side
    findings: tuple[Finding, ...]

    def counts(self) -> dict[str, int]:
        """Findings by kind, every kind."""
        return {kind: sum(finding.kind == kind for finding in self.findings) for kind in KINDS}

    def as_json(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "rows": self.rows,
            "functions": self.functions,
            "counts": self.counts(),
            "findings": [asdict(finding) for finding in self.findings],
        }


def sides(folder: Path) -> dict[str, list[Source]]:
    """The data files below a folder by side: train, val, test, bench by their names, else each file for itself."""
    if not folder.exists():
        raise TrustmineError("There is nothing to check", str(folder), "Give a folder of an export, or a file")
    if folder.is_file():
        return {folder.stem: [Source(folder.name, folder)]}
    found: dict[str, list[Source]] = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder)).decode("utf-8", "replace")
        if path.suffix in _SUFFIXES and path.is_file() and path.name not in ("manifest.json", "dataset_infos.json"):
            found.setdefault(side_of(name), []).append(Source(name, path))
    if not found:
        raise TrustmineError("There are no data files", str(folder), f"Known: {', '.join(_SUFFIXES)}")
    return found


def compare(data: Path, against: Path | None, threshold: float, progress: Progress = quiet) -> Report:
    """Compare the sides of a data set with each other, and with another one. Raises TrustmineError."""
    found: dict[str, Sequence[Source]] = dict(sides(data))
    if against is not None:
        other = [Source(f"{against.name}/{one.name}", one.path) for files in sides(against).values() for one in files]
        found[f"against {against.name}"] = other
    if len(found) < 2:
        raise TrustmineError(
            "There is only one side", f"{data}: {', '.join(found)}", "Name another data set with --against"
        )
    return check(found, threshold, progress)


def side_of(name: str) -> str:
    """The side that a file's path stands for."""
    parts = name.lower().replace("_", "-").split("/")
    for part in parts:
        match = _SIDE.search(part)
        if match is not None:
            return _ALIASES.get(match[1], match[1])
    return name


def check(found: Mapping[str, Sequence[Source]], threshold: float = THRESHOLD, progress: Progress = quiet) -> Report:
    """Compare each two sides. Raises TrustmineError for a file that cannot be read."""
    rows: dict[str, int] = {}
    keys: dict[tuple[str, str], dict[str, str]] = {}  # (kind, commit or CVE) -> side -> where
    codes: dict[str, _Code] = {}  # by hash of the normalised text
    for side, sources in found.items():
        rows[side] = 0
        for source in sources:
            for number, row in enumerate(read_rows(source), 1):
                rows[side] += 1
                progress("rows read", sum(rows.values()), None)
                where = f"{source.name}:{number}"
                for key in _keys(row):
                    keys.setdefault(key, {}).setdefault(side, where)
                for text in _codes(row):
                    _add(codes, text, side, where)
    findings = [
        Finding(kind, what, pair, (at[pair[0]], at[pair[1]]), 1.0)
        for (kind, what), at in keys.items()
        for pair in combinations(sorted(at), 2)
    ]
    findings += _same(codes.values())
    findings += _near(list(codes.values()), threshold, progress)
    findings.sort(key=lambda one: (KINDS.index(one.kind), -one.similarity, one.what, one.sides, one.places))
    counted = {side: sum(side in code.places for code in codes.values()) for side in rows}
    return Report(threshold, rows, counted, tuple(findings))


# --------------------------------------------------------------------------- reading


def read_rows(source: Source) -> Iterator[dict[str, Any]]:
    """The rows of a file. Raises TrustmineError, with the line, for what is none."""
    try:
        _refuse_pointer(source)
        if source.name.endswith(".parquet"):
            yield from _read_parquet(source)
        elif source.name.endswith(".json") and not _holds_lines(source.path):
            yield from _read_array(source)
        else:
            yield from _read_lines(source)
    except OSError as error:
        raise TrustmineError(f"Cannot read the data: {error.strerror or error}", source.name) from error


def _refuse_pointer(source: Source) -> None:
    """Raise TrustmineError for what stands in a checkout in place of a large file."""
    with source.path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise TrustmineError("This is a pointer of Git LFS and not the data", source.name, "Try: git lfs pull")


def _holds_lines(path: Path) -> bool:
    """Whether a .json file has an object per line, like DiverseVul's."""
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        return first.lstrip().startswith(b"{") and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False  # an object that goes on in the next line, or no JSON


def _read_lines(source: Source) -> Iterator[dict[str, Any]]:
    with source.path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _row(_parsed(line, f"{source.name}:{number}"), f"{source.name}:{number}")


def _read_array(source: Source) -> Iterator[dict[str, Any]]:
    found = _parsed(source.path.read_bytes(), source.name)
    for number, row in enumerate(found if isinstance(found, list) else [found], 1):
        yield _row(row, f"{source.name}:{number}")


def _read_parquet(source: Source) -> Iterator[dict[str, Any]]:
    from trustmine.export.files import arrow, parquet

    try:
        with parquet().ParquetFile(source.path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except arrow().ArrowException as error:
        raise TrustmineError(
            "This is no Parquet file, or a damaged one", f"{source.name}: {error}", "Get it again"
        ) from error


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TrustmineError("This is no JSON", f"{where}: {error}", "One object per line, or an array") from error


def _row(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TrustmineError("A row must be an object", where, 'Like {"func": "int f(void) { ... }"}')
    return value


# ------------------------------------------------------------------ what a row is about


def _keys(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in _COMMIT_FIELDS + _LINK_FIELDS:
        for text in _strings(row.get(field)):
            yield from (("commit", sha) for sha in _SHA.findall(text.lower()))
    for field in _CVE_FIELDS:
        for text in _strings(row.get(field)):
            yield from (("cve", cve.upper()) for cve in _CVE.findall(text))


def _codes(row: Mapping[str, Any]) -> Iterator[str]:
    """The pieces of code in a row."""
    for field in _CODE_FIELDS:
        yield from _strings(row.get(field))
    for field in _TEXT_FIELDS:
        for text in _strings(row.get(field)):
            yield from code_of(text)


def code_of(text: str) -> list[str]:
    """The fenced blocks of a text, without line numbers and without context; the text itself if it looks like code."""
    blocks = fences.blocks(text)
    if not blocks:
        return [text] if all(sign in text for sign in "{;}") else []
    found = []
    for block in blocks:
        if not text[: block.start].rstrip().endswith(samples.CONTEXT_TITLE):
            is_numbered = len(_NUMBERED.findall(block.code)) == block.code.count("\n")
            found.append(_NUMBERED.sub("", block.code) if is_numbered else block.code)
    return found


def _strings(value: Any) -> Iterator[str]:
    """The texts in a field: itself, or those of a list; of a chat's turns what was said."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            if isinstance(one, dict):
                yield from (said for key in ("content", "value") if isinstance(said := one.get(key), str))
            elif isinstance(one, str):
                yield one


# -------------------------------------------------------------------------- comparing


@dataclass(slots=True)
class _Code:
    """A piece of code, white space and comments aside."""

    begin: str  # its first line, for people
    shingles: minhash.Hashes
    places: dict[str, str]  # side -> where it is first
    texts: dict[str, dict[str, str]]  # hash of the text as it is -> side -> where


def _add(codes: dict[str, _Code], text: str, side: str, where: str) -> None:
    stripped = strip_comments_and_space(text.encode("utf-8", "replace"), "x.c")
    words = minhash.tokens(stripped)
    if len(words) < MIN_TOKENS:
        return
    key = hashlib.sha256(stripped).hexdigest()
    if key not in codes:
        begin = text.strip().split("\n")[0][:80].encode("utf-8", "replace").decode()
        codes[key] = _Code(begin, minhash.shingles(words), {}, {})
    exact = hashlib.sha256(text.strip().encode("utf-8", "replace")).hexdigest()
    codes[key].places.setdefault(side, where)
    codes[key].texts.setdefault(exact, {}).setdefault(side, where)


def _same(codes: Iterable[_Code]) -> Iterator[Finding]:
    for code in codes:
        for pair in combinations(sorted(code.places), 2):
            exact = next((at for at in code.texts.values() if pair[0] in at and pair[1] in at), None)
            at = code.places if exact is None else exact
            kind = "function_normalised" if exact is None else "function"
            yield Finding(kind, code.begin, pair, (at[pair[0]], at[pair[1]]), 1.0)


def _near(codes: Sequence[_Code], threshold: float, progress: Progress) -> Iterator[Finding]:
    """For each piece of code and each other side its nearest copy there, each pair once."""
    best: dict[
        tuple[int, str], tuple[float, int, str]
    ] = {}  # (code, the other side) -> similarity, code there, own side
    for i, j, similarity in minhash.near(
        [code.shingles for code in codes],
        threshold,
        [code.places.keys() for code in codes],
        lambda done, total: progress("functions compared", done, total),
    ):
        for one, other in ((i, j), (j, i)):
            for own in codes[one].places:
                for there in codes[other].places:
                    known = best.get((one, there))
                    if own != there and (known is None or similarity > known[0]):
                        best[one, there] = (similarity, other, own)
    seen = set()
    for (one, there), (similarity, other, own) in best.items():
        pair = frozenset(((one, own), (other, there)))
        if pair not in seen:
            seen.add(pair)
            (a, left), (b, right) = sorted(((one, own), (other, there)), key=lambda at: (at[1], at[0]))
            places = codes[a].places[left], codes[b].places[right]
            yield Finding("near_copy", codes[a].begin, (left, right), places, round(similarity, 4))
