"""A change of a sample's function that has nothing to do with its weakness, for candidates that must be seen through.

A local gets another name throughout, or two declarations that do not depend
on each other change places; where neither can be done safely, a comment that
claims safety is added. Which one is decided by the commit's SHA. The same
change is made to the fixed function where it can be, so that the change
itself says nothing about the weakness.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from trustmine import cparse, text, wording
from trustmine.lines import split_lines
from trustmine.samples import Sample

_INDENT = re.compile(r"[ \t]*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_SUFFIXES = ("_value", "_local", "_2", "_now")


@dataclass(frozen=True, slots=True)
class Change:
    """The function with the change, before and after the fix."""

    kind: str  # rename, swap, comment
    pre_text: str
    post_text: str | None  # None: it cannot be made there
    what: str  # "renames `len` to `len_2`"


def change(sample: Sample) -> Change | None:
    """The change that this commit gets, now and always; None if there is none."""
    seed = int(sample.commit.sha[8:16], 16)
    ways: tuple[Callable[[Sample, int], Change | None], ...] = (_renamed, _swapped)
    for way in (*ways[seed % 2 :], *ways[: seed % 2], _commented):
        made = way(sample, seed // 2)
        if made is not None:
            return made
    return None


def _renamed(sample: Sample, seed: int) -> Change | None:
    function = sample.function
    pre, post = _bytes(sample, function.pre_text), _bytes(sample, function.post_text)
    # A macro may name a local of its caller.
    elsewhere = set(_WORD.findall("\n".join(element.definition or "" for element in sample.elements)))
    found = [one for one in cparse.renameable(pre, function.old_path) if one.name.decode() not in elsewhere]
    if not found:
        return None
    local = found[seed % len(found)]
    name = local.name.decode()
    taken = elsewhere | set(_WORD.findall(function.pre_text)) | set(_WORD.findall(function.post_text))
    new = next((f"{name}{suffix}" for suffix in _SUFFIXES if f"{name}{suffix}" not in taken), None)
    if new is None:
        return None
    twin = next((one for one in cparse.renameable(post, function.path) if one.name == local.name), None)
    return Change(
        "rename",
        _text(sample, cparse.rename(pre, local, new.encode())),
        None if twin is None else _text(sample, cparse.rename(post, twin, new.encode())),
        f"renames `{name}` to `{new}`",
    )


def _swapped(sample: Sample, seed: int) -> Change | None:
    function = sample.function
    told = {line for segment, _ in sample.segments for line in range(segment.first_line, segment.last_line + 1)}
    told |= {*function.fix_lines, *range(sample.mask.first_line, sample.mask.last_line + 1)}
    found = [
        line
        for line in cparse.swappable(_bytes(sample, function.pre_text), function.old_path)
        if not told & {line, line + 1}
    ]
    if not found:
        return None
    line = found[seed % len(found)]
    lines = split_lines(function.pre_text)
    pair = lines[line - 1 : line + 1]
    after = split_lines(function.post_text)
    twins = [
        one
        for one in cparse.swappable(_bytes(sample, function.post_text), function.path)
        if after[one - 1 : one + 1] == pair
    ]
    return Change(
        "swap",
        _with_swap(lines, line),
        _with_swap(after, twins[0]) if len(twins) == 1 else None,
        "declares two variables in another order",
    )


def _with_swap(lines: list[str], line: int) -> str:
    return "".join([*lines[: line - 1], lines[line], lines[line - 1], *lines[line + 1 :]])


def _commented(sample: Sample, seed: int) -> Change | None:
    comment = wording.CLAIMS[seed % len(wording.CLAIMS)]
    pre = _with_comment(sample.function.pre_text, sample.mask.first_line, comment)
    if pre is None:
        return None
    post = _with_comment(sample.function.post_text, sample.merged.post_first_line, comment)
    return Change("comment", pre, post, "adds a comment")


def _with_comment(function: str, line: int, comment: str) -> str | None:
    """The function with a comment before a line of it; none goes into a line that continues the one before."""
    lines = split_lines(function)
    if not 1 < line <= len(lines) or lines[line - 2].rstrip("\r\n").endswith("\\"):
        return None
    indent = _INDENT.match(lines[line - 1])
    assert indent is not None, "the pattern matches the empty string"
    end = "\r\n" if lines[line - 1].endswith("\r\n") else "\n"
    return "".join([*lines[: line - 1], f"{indent[0]}/* {comment} */{end}", *lines[line - 1 :]])


def _bytes(sample: Sample, function: str) -> bytes:
    return text.encode(function, sample.function.encoding)


def _text(sample: Sample, function: bytes) -> str:
    return function.decode(sample.function.encoding)
