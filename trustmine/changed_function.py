"""The one function that a hunk changes, before and after, or why there is none.

Pure: outlines and a hunk in, spans out. Which commits are asked about at all, and what
becomes of the two functions, is left to s1_1.
"""

from trustmine import patches
from trustmine.cparse import Function, Outline, function_at
from trustmine.lines import LineRange
from trustmine.patches import Hunk

# Why there is no function: the parser had trouble with these lines, or they are in none.
UNPARSED, NOT_IN_FUNCTION = "function_unparsed", "not_in_function"


def patched(pre: bytes, patch: bytes) -> tuple[Hunk, bytes]:
    """The one hunk of a patch of one file, and the file after it. Raises PatchError."""
    (file_patch,) = patches.parse(patch)
    (hunk,) = file_patch.hunks
    return hunk, patches.apply(pre, file_patch)


def function_pair(old: Outline, new: Outline, hunk: Hunk) -> tuple[Function, Function] | str:
    """The same function before and after, or the reason why the hunk does not lie in one.

    `old` and `new` are the outlines of pre-image and post-image. Only changed
    lines count: a hunk's context may reach into neighbours. A hunk that only
    adds lines lies where it adds them.
    """
    deleted, added = patches.deleted_lines(hunk), patches.added_lines(hunk)
    old_lines, new_lines = _lines(hunk.old_start, hunk.old_lines), _lines(hunk.new_start, hunk.new_lines)
    if not deleted:
        if not added:
            return NOT_IN_FUNCTION
        after = function_at(new.functions, added[0], added[-1])
        if after is None:
            return _why_none(new, LineRange(added[0], added[-1]))
        before = _counterpart(after, new_lines, old, old_lines, deleted)
        return _why_none(old, old_lines) if before is None else (before, after)
    before = function_at(old.functions, deleted[0], deleted[-1])
    if before is None:
        return _why_none(old, LineRange(deleted[0], deleted[-1]))
    after = _counterpart(before, old_lines, new, new_lines, added)
    return _why_none(new, new_lines) if after is None else (before, after)


def _counterpart(
    one: Function, own: LineRange, other: Outline, others: LineRange, changed: tuple[int, ...]
) -> Function | None:
    """The same function on the other side: it holds what changed there, begins and ends where it did.

    `own` and `others` are the hunk's lines on the two sides; the lines around
    the hunk are the same on both.
    """
    growth = len(others) - len(own)
    for function in other.functions:
        holds = not changed or (function.first_line <= changed[0] and changed[-1] <= function.last_line)
        if one.first_line < own.first_line:
            starts = function.first_line == one.first_line
        else:
            starts = others.first_line <= function.first_line <= others.last_line
        if one.last_line > own.last_line:
            ends = function.last_line == one.last_line + growth
        else:
            ends = others.first_line <= function.last_line <= others.last_line
        if holds and starts and ends:
            return function
    return None


def _lines(start: int, count: int) -> LineRange:
    """The lines of one side of a hunk; "N,0" in its header means after line N."""
    first = start if count else start + 1
    return LineRange(first, first + count - 1)


def _why_none(outline: Outline, lines: LineRange) -> str:
    last = max(lines.last_line, lines.first_line)
    in_doubt = any(d.first_line <= last and lines.first_line <= d.last_line for d in outline.doubtful)
    return UNPARSED if outline.is_too_complex or in_doubt else NOT_IN_FUNCTION
