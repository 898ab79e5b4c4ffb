"""What git prints about a commit, read: the patch as text, and the facts about its files.

Pure functions over what `git diff-tree --raw --patch` writes; who asks git is
gitcli's business. The rules are those of git's diff.c.
"""

import codecs
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trustmine import text
from trustmine.patches import unquote
from trustmine.records import DiffFile

_SUBMODULE = b"160000"
_SLICE = 1 << 20  # bytes decoded at once, to count characters
_LINES = 1_000  # of a long patch, taken at once: each has gitcli.CHUNK bytes at most
_CHANGES = {b"A": "added", b"D": "deleted", b"M": "modified", b"R": "renamed", b"C": "copied", b"T": "typechange"}


@dataclass(frozen=True, slots=True)
class Patch:
    """The patch of one commit and the files in it."""

    text: str | None  # None if it has as many characters as the limit, or more
    encoding: str  # codec that turns the text back into git's bytes
    n_chars: int  # of the whole patch
    files: tuple[DiffFile, ...]


EMPTY = Patch("", text.UTF_8, 0, ())


# Of one "diff --git" part: whether it is binary, its hunks, added lines and deleted lines.
_Counts = tuple[bool, int, int, int]


def read(answer: bytes, max_chars: int) -> Patch:
    """The patch in a whole answer: a line that names what was asked, the raw list, an empty line, the patch."""
    raw_at = answer.index(b"\n") + 1
    if raw_at == len(answer):
        return EMPTY
    raw_end = answer.index(b"\n\n", raw_at)
    patch = answer[raw_end + 2 :]
    parts = patch.split(b"\ndiff --git ")  # every line of a hunk starts with its mark
    files = _files(answer[raw_at:raw_end].split(b"\n"), map(_counts, parts))
    decoded, encoding = text.decode(patch)
    return Patch(decoded if len(decoded) < max_chars else None, encoding, len(decoded), files)


def read_lines(lines: Iterable[bytes], max_chars: int) -> Patch:
    """The same, of an answer too long to be held: lines, those that are very long in pieces.

    Characters are those of the text that `text.decode` makes: code points if
    the whole is UTF-8, else bytes.
    """
    patch = _Long(max_chars)
    held: list[bytes] = []  # lines not added to it yet
    raw: list[bytes] = []
    counts: list[list[int]] = []  # binary, hunks, added, deleted; one per "diff --git"
    in_patch, in_hunks, starts = False, False, True
    pending = b""
    for line in itertools.islice(lines, 1, None):
        if not in_patch:
            pending += line  # a path can be longer than one piece
            if not pending.endswith(b"\n"):
                continue
            line, pending = pending, b""
            if line == b"\n":
                in_patch = True
            else:
                raw.append(line[:-1])
            continue
        held.append(line)
        if len(held) == _LINES:
            patch.add(b"".join(held))
            held.clear()
        if starts:
            mark = line[:1]
            if mark == b"d" and line.startswith(b"diff --git "):
                counts.append([0, 0, 0, 0])
                in_hunks = False
            elif mark == b"@":
                counts[-1][1] += 1
                in_hunks = True
            elif in_hunks and mark == b"+":
                counts[-1][2] += 1
            elif in_hunks and mark == b"-":
                counts[-1][3] += 1
            elif mark == b"B":
                counts[-1][0] = 1
        starts = line.endswith(b"\n")
    patch.add(b"".join(held))
    files = _files(raw, ((bool(binary), n_hunks, added, deleted) for binary, n_hunks, added, deleted in counts))
    kept, encoding, n_chars = patch.end()
    return Patch(kept, encoding, n_chars, files)


class _Long:
    """Collects a patch piece by piece; lets go of it once it is too long, and goes on counting."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
        self._n_points = 0
        self._n_bytes = 0
        self._pieces: list[bytes] | None = []

    def add(self, piece: bytes) -> None:
        self._n_bytes += len(piece)
        for start in range(0, len(piece), _SLICE):
            if self._decoder is None:
                break
            try:
                self._n_points += len(self._decoder.decode(piece[start : start + _SLICE]))
            except UnicodeDecodeError:
                self._decoder = None
        if self._pieces is not None:
            self._pieces.append(piece)
            # Code points never outnumber bytes: past the limit is past it for good.
            if self._count() >= self._max_chars:
                self._pieces = None

    def _count(self) -> int:
        return self._n_bytes if self._decoder is None else self._n_points

    def end(self) -> tuple[str | None, str, int]:
        """The text if it is short enough, its codec, and its length."""
        if self._decoder is not None:
            try:
                self._decoder.decode(b"", True)
            except UnicodeDecodeError:
                self._decoder = None
        encoding = text.LATIN_1 if self._decoder is None else text.UTF_8
        n_chars = self._count()
        if self._pieces is None or n_chars >= self._max_chars:
            return None, encoding, n_chars
        return b"".join(self._pieces).decode(encoding), encoding, n_chars


def _counts(part: bytes) -> _Counts:
    start = part.find(b"\n@@ -")
    if start < 0:
        return b"\nBinary files " in part, 0, 0, 0
    # Headers have "+++" and "---" too: count from the first hunk on.
    return (False, part.count(b"\n@@ -", start), part.count(b"\n+", start), part.count(b"\n-", start))


def _files(raw: Iterable[bytes], counts: Iterable[_Counts]) -> tuple[DiffFile, ...]:
    left = iter(counts)
    return tuple(_file(number, line, left) for number, line in enumerate(raw, 1))


def _file(number: int, line: bytes, counts: Iterator[_Counts]) -> DiffFile:
    """The facts in a line like ":100644 100644 OID OID M\tpath", with those of its part of the patch."""
    head, *paths = line.split(b"\t")
    old_mode, new_mode, old_oid, new_oid, status = head.split(b" ")
    change = _CHANGES[status[:1]]
    # A file that turns into a symbolic link is printed as deleted and added.
    is_binary, n_hunks, n_added, n_deleted = next(counts)
    if change == "typechange":
        more = next(counts)
        is_binary, n_hunks = is_binary or more[0], n_hunks + more[1]
        n_added, n_deleted = n_added + more[2], n_deleted + more[3]
    old_path = text.decode(unquote(paths[0]))[0]
    return DiffFile(
        file_no=number,
        change=change,
        old_path=old_path,
        new_path=old_path if len(paths) == 1 else text.decode(unquote(paths[1]))[0],
        old_oid=old_oid.decode(),
        new_oid=new_oid.decode(),
        is_binary=is_binary,
        is_submodule=_SUBMODULE in (old_mode[1:], new_mode),
        n_hunks=n_hunks,
        n_added=n_added,
        n_deleted=n_deleted,
    )
