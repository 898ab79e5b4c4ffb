"""The text of patches as git writes it: headers, quoted paths, counts.

Pure functions over bytes; where the content comes from is gitrepo's business.
The rules are those of git's diff.c and quote.c.
"""

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass

from trustmine import text
from trustmine.records import DiffFile

NO_OID = "0" * 40
SUBMODULE = 0o160000
FIRST_HUNK = b"\n@@ -"
_SLICE = 1 << 20  # bytes decoded at once, to count characters

_ESCAPES = {7: b"\\a", 8: b"\\b", 9: b"\\t", 10: b"\\n", 11: b"\\v", 12: b"\\f", 13: b"\\r", 34: b'\\"', 92: b"\\\\"}
_UNESCAPES = {escape[1:2]: bytes([byte]) for byte, escape in _ESCAPES.items()}
_NEEDS_QUOTES = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_ESCAPED = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
# A context line that git cuts at 80 bytes loses the white space before the cut; libgit2 keeps it.
_LOOSE_CONTEXT = re.compile(rb"^(@@ -[0-9,]+ \+[0-9,]+ @@ [^\n]*?)[ \t\r]+\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a changed file; mode 0 if it is not there."""

    path: bytes
    oid: str
    mode: int


@dataclass(frozen=True, slots=True)
class Patch:
    """The patch of one commit and the files in it."""

    patch: bytes | None  # None if it has as many characters as the limit, or more
    n_chars: int  # of the whole patch
    files: tuple[DiffFile, ...]


class PatchBuilder:
    """Collects a patch piece by piece; lets go of it once it is too long, and goes on counting.

    Characters are those of the text that `text.decode` makes: code points if
    the whole is UTF-8, else bytes.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
        self._n_points = 0
        self._n_bytes = 0
        self._pieces: list[bytes] | None = []
        self.files: list[DiffFile] = []

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

    def build(self) -> Patch:
        if self._decoder is not None:
            try:
                self._decoder.decode(b"", True)
            except UnicodeDecodeError:
                self._decoder = None
        n_chars = self._count()
        kept = self._pieces if n_chars < self._max_chars else None
        return Patch(None if kept is None else b"".join(kept), n_chars, tuple(self.files))


def quoted(prefix: bytes, path: bytes) -> bytes:
    """A path as git prints it: in quotes with C escapes where it holds special bytes."""
    if not _NEEDS_QUOTES.search(path):
        return prefix + path
    escaped = _NEEDS_QUOTES.sub(lambda m: _ESCAPES.get(m[0][0]) or b"\\%03o" % m[0][0], path)
    return b'"' + prefix + escaped + b'"'


def unquoted(path: bytes) -> bytes:
    """The path that `quoted` got, without prefix."""
    if not path.startswith(b'"'):
        return path
    return _ESCAPED.sub(lambda m: bytes([int(m[1], 8)]) if len(m[1]) == 3 else _UNESCAPES[m[1]], path[1:-1])


def file_patch(old: Side, new: Side, abbreviated: tuple[str, str], hunks: bytes, is_binary: bool) -> bytes:
    """The part of a patch about one file that is added, deleted or modified in place.

    `hunks` from the first "@@" on, empty if there are none.
    """
    name_a, name_b = quoted(b"a/", old.path), quoted(b"b/", new.path)
    label_a, label_b = name_a if old.mode else b"/dev/null", name_b if new.mode else b"/dev/null"
    parts = [b"diff --git %s %s\n" % (name_a, name_b)]
    if not old.mode:
        parts.append(b"new file mode %06o\n" % new.mode)
    elif not new.mode:
        parts.append(b"deleted file mode %06o\n" % old.mode)
    elif old.mode != new.mode:
        parts.append(b"old mode %06o\nnew mode %06o\n" % (old.mode, new.mode))
    if old.oid != new.oid:
        parts.append(b"index %s..%s" % (abbreviated[0].encode(), abbreviated[1].encode()))
        parts.append(b" %06o\n" % new.mode if old.mode == new.mode else b"\n")
    if is_binary:
        parts.append(b"Binary files %s and %s differ\n" % (label_a, label_b))
    elif hunks:
        # The tab keeps patch(1) from taking a part of the name for a date.
        tab_a, tab_b = (b"\t" if b" " in label else b"" for label in (label_a, label_b))
        parts.append(b"--- %s%s\n+++ %s%s\n" % (label_a, tab_a, label_b, tab_b))
        parts.append(_LOOSE_CONTEXT.sub(rb"\1\n", hunks))
    return b"".join(parts)


def facts(number: int, change: str, old: Side, new: Side, is_binary: bool, counts: tuple[int, int, int]) -> DiffFile:
    """What is stored about a file; `counts` are hunks, added lines, deleted lines."""
    n_hunks, n_added, n_deleted = counts
    return DiffFile(
        file_no=number,
        change=change,
        old_path=text.decode(old.path)[0],
        new_path=text.decode(new.path)[0],
        old_oid=old.oid,
        new_oid=new.oid,
        is_binary=is_binary,
        is_submodule=SUBMODULE in (old.mode, new.mode),
        n_hunks=n_hunks,
        n_added=n_added,
        n_deleted=n_deleted,
    )


def counted(hunks: bytes) -> tuple[int, int, int]:
    """Hunks, added lines and deleted lines; every line of a hunk starts with its mark."""
    return hunks.startswith(b"@@ -") + hunks.count(FIRST_HUNK), hunks.count(b"\n+"), hunks.count(b"\n-")


_CHANGES = {b"A": "added", b"D": "deleted", b"M": "modified", b"R": "renamed", b"C": "copied", b"T": "typechange"}


def read_git(lines: Iterable[bytes], builder: PatchBuilder) -> None:
    """Take over the raw list and the patch that `git diff-tree --raw --patch` prints."""
    raw: list[tuple[str, Side, Side]] = []
    sections: list[list[int]] = []  # binary, hunks, added, deleted; one per "diff --git"
    in_patch, in_hunks, starts = False, False, True
    pending = b""
    for line in lines:
        if not in_patch:
            pending += line  # a path can be longer than one piece
            if not pending.endswith(b"\n"):
                continue
            line, pending = pending, b""
            if line == b"\n":
                in_patch = True
            else:
                raw.append(_raw_entry(line))
            continue
        builder.add(line)
        if starts:
            mark = line[:1]
            if mark == b"d" and line.startswith(b"diff --git "):
                sections.append([0, 0, 0, 0])
                in_hunks = False
            elif mark == b"@":
                sections[-1][1] += 1
                in_hunks = True
            elif in_hunks and mark == b"+":
                sections[-1][2] += 1
            elif in_hunks and mark == b"-":
                sections[-1][3] += 1
            elif mark == b"B":
                sections[-1][0] = 1
        starts = line.endswith(b"\n")
    left = iter(sections)
    for change, old, new in raw:
        # A file that turns into a symbolic link is printed as deleted and added.
        own = [next(left) for _ in range(2 if change == "typechange" else 1)]
        is_binary, n_hunks, n_added, n_deleted = (sum(numbers) for numbers in zip(*own, strict=True))
        counts = (n_hunks, n_added, n_deleted)
        builder.files.append(facts(len(builder.files) + 1, change, old, new, bool(is_binary), counts))


def _raw_entry(line: bytes) -> tuple[str, Side, Side]:
    """(change, before, after) of a line like ":100644 100644 OID OID M\\tpath"."""
    head, *paths = line[1:].rstrip(b"\n").split(b"\t")
    old_mode, new_mode, old_oid, new_oid, status = head.split(b" ")
    old = Side(unquoted(paths[0]), old_oid.decode(), int(old_mode, 8))
    new = Side(unquoted(paths[-1]), new_oid.decode(), int(new_mode, 8))
    return _CHANGES[status[:1]], old, new
