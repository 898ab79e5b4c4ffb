"""Patches as git prints them, byte for byte: parse, apply, and which lines they change.

Understands what `git show` and `git diff` print by default: one `diff --git`
part per file, extended headers, unified hunks, "\\ No newline at end of file".
`apply` checks every context and deleted line, so a patch that does not belong
to a pre-image is an error, never a guess. Binary patches are recognised but
carry no hunks; combined diffs of merges are refused.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from trustmine.lines import split_lines

_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@([^\n]*)\n?")
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}


class PatchError(ValueError):
    """A patch that cannot be read, or does not belong to this pre-image."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """One @@ part. Each of `lines` begins with its marker and ends as in the patch."""

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    lines: tuple[bytes, ...]
    heading: bytes = b""  # what git prints after the second @@, with its space

    def text(self) -> bytes:
        """The hunk from its @@ line on, as git printed it."""
        old = _position(self.old_start, self.old_lines)
        new = _position(self.new_start, self.new_lines)
        return b"@@ -%b +%b @@%b\n" % (old, new, self.heading) + b"".join(self.lines)


@dataclass(frozen=True, slots=True)
class FilePatch:
    """What a patch does to one file. A path is None where there is no file."""

    old_path: bytes | None
    new_path: bytes | None
    hunks: tuple[Hunk, ...]
    is_binary: bool = False


def parse(patch: bytes) -> tuple[FilePatch, ...]:
    """The files of a patch in its order; raises PatchError."""
    lines = split_lines(patch)
    files: list[FilePatch] = []
    at = 0
    while at < len(lines):
        if lines[at].startswith((b"diff --cc ", b"diff --combined ")):
            raise PatchError("a combined diff of a merge has no single pre-image")
        if lines[at].startswith(b"diff --git "):
            file, at = _parse_file(lines, at)
            files.append(file)
        else:
            at += 1
    return tuple(files)


def apply(pre: bytes, file_patch: FilePatch) -> bytes:
    """The post-image; raises PatchError if the patch does not fit `pre` exactly."""
    if file_patch.is_binary:
        raise PatchError("a binary patch carries no hunks")
    source = split_lines(pre)
    result: list[bytes] = []
    at = 0  # lines of the pre-image used up
    for hunk in file_patch.hunks:
        # "-N,0" means after line N; otherwise N is the first line itself.
        start = hunk.old_start if hunk.old_lines == 0 else hunk.old_start - 1
        if not at <= start <= len(source):
            raise PatchError(f"hunk at line {hunk.old_start} lies outside of the pre-image")
        result += source[at:start]
        at = start
        for marker, content in _contents(hunk):
            if marker == b"+":
                result.append(content)
                continue
            if at >= len(source) or source[at] != content:
                raise PatchError(f"line {at + 1} of the pre-image is not what the patch says")
            if marker == b" ":
                result.append(content)
            at += 1
    return b"".join(result + source[at:])


def unquote(text: bytes) -> bytes:
    """The path in what git prints for it: in quotes with C escapes where it holds special bytes."""
    if len(text) < 2 or not (text.startswith(b'"') and text.endswith(b'"')):
        return text

    def plain(match: re.Match[bytes]) -> bytes:
        escape = match[1]
        # Three octal digits may exceed a byte only in a made-up patch.
        return bytes([int(escape, 8) & 0xFF]) if len(escape) == 3 else _ESCAPED.get(escape, escape)

    return _ESCAPE.sub(plain, text[1:-1])


def deleted_lines(hunk: Hunk) -> tuple[int, ...]:
    """Lines of the pre-image that the hunk deletes."""
    return _changed(hunk, b"-", hunk.old_start)


def added_lines(hunk: Hunk) -> tuple[int, ...]:
    """Lines of the post-image that the hunk adds."""
    return _changed(hunk, b"+", hunk.new_start)


def _changed(hunk: Hunk, marker: bytes, start: int) -> tuple[int, ...]:
    own = [line[:1] for line in hunk.lines if line[:1] in (b" ", marker)]
    return tuple(start + i for i, kind in enumerate(own) if kind == marker)


def _contents(hunk: Hunk) -> list[tuple[bytes, bytes]]:
    """(marker, line as it is in the file) for each body line."""
    contents: list[tuple[bytes, bytes]] = []
    for line, after in pairwise((*hunk.lines, b"")):
        if not line.startswith(b"\\"):
            content = line[1:-1] if after.startswith(b"\\") else line[1:]
            contents.append((line[:1], content))
    return contents


def _parse_file(lines: list[bytes], at: int) -> tuple[FilePatch, int]:
    old, new = _paths_of_header(lines[at])
    at += 1
    is_binary = False
    hunks: list[Hunk] = []
    while at < len(lines) and not lines[at].startswith(b"diff --"):
        line = lines[at]
        if line.startswith(b"@@ "):
            hunk, at = _parse_hunk(lines, at)
            hunks.append(hunk)
            continue
        head, _, rest = line.rstrip(b"\n").partition(b" ")
        if head == b"---":
            old = _path(rest, b"a/")
        elif head == b"+++":
            new = _path(rest, b"b/")
        elif head in (b"rename", b"copy") and rest.startswith(b"from "):
            old = unquote(rest[5:])
        elif head in (b"rename", b"copy") and rest.startswith(b"to "):
            new = unquote(rest[3:])
        elif line.startswith(b"new file mode "):
            old = None
        elif line.startswith(b"deleted file mode "):
            new = None
        elif line.startswith((b"Binary files ", b"GIT binary patch")):
            is_binary = True
        at += 1
    return FilePatch(old, new, tuple(hunks), is_binary), at


def _parse_hunk(lines: list[bytes], at: int) -> tuple[Hunk, int]:
    match = _HUNK.fullmatch(lines[at])
    if match is None:
        raise PatchError(f"line {at + 1} of the patch is not a hunk header")
    old_start, new_start = int(match[1]), int(match[3])
    old_lines = 1 if match[2] is None else int(match[2])
    new_lines = 1 if match[4] is None else int(match[4])
    at += 1
    body: list[bytes] = []
    n_old = n_new = 0
    while n_old < old_lines or n_new < new_lines or (at < len(lines) and lines[at].startswith(b"\\")):
        marker = lines[at][:1] if at < len(lines) else b""
        if marker not in (b" ", b"+", b"-", b"\\"):
            raise PatchError(f"the hunk ends early at line {at + 1} of the patch")
        n_old += marker in (b" ", b"-")
        n_new += marker in (b" ", b"+")
        body.append(lines[at])
        at += 1
    if (n_old, n_new) != (old_lines, new_lines):
        raise PatchError(f"the hunk before line {at + 1} of the patch has more lines than it says")
    return Hunk(old_start, old_lines, new_start, new_lines, tuple(body), match[5]), at


def _paths_of_header(line: bytes) -> tuple[bytes | None, bytes | None]:
    """Paths of a `diff --git` line: only used where no other line names them, hence equal paths."""
    rest = line.rstrip(b"\n")[len(b"diff --git ") :]
    if rest.startswith(b'"'):
        half = rest[: (len(rest) - 1) // 2]
        return _path(half, b"a/"), _path(half, b"a/")
    half = rest[(len(rest) + 1) // 2 :]
    return _path(half, b"b/"), _path(half, b"b/")


def _path(text: bytes, prefix: bytes) -> bytes | None:
    text = text.removesuffix(b"\t")  # git ends a path that holds spaces with a tab
    if text == b"/dev/null":
        return None
    return unquote(text).removeprefix(prefix)


def _position(start: int, count: int) -> bytes:
    return b"%d" % start if count == 1 else b"%d,%d" % (start, count)
