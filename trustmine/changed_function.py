"""The one function that a hunk changes, before and after, or why there is none.

Pure: outlines and a hunk in, spans out. Which commits are asked about at all, and what
becomes of the two functions, is left to s1_1.
"""

from itertools import groupby
from typing import TypeAlias

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
        before = _counterpart(after, _places(hunk, b"+"), new_lines, old, len(deleted) - len(added), deleted)
        return _why_none(old, old_lines) if before is None else (before, after)
    before = function_at(old.functions, deleted[0], deleted[-1])
    if before is None:
        return _why_none(old, LineRange(deleted[0], deleted[-1]))
    after = _counterpart(before, _places(hunk, b"-"), old_lines, new, len(added) - len(deleted), added)
    return _why_none(new, new_lines) if after is None else (before, after)


# For a line of one side of a hunk, where on the other side a function that starts there may start now, and
# where one that ends there may end now.
_Places: TypeAlias = dict[int, tuple[LineRange, LineRange]]


def _places(hunk: Hunk, marker: bytes) -> _Places:
    """The places of all lines of the side whose changed lines have this marker.

    An unchanged line stays what it is, but a signature may have got lines
    before it and a body after it. What was changed may start (or end) in what
    took its place, or with the unchanged line that follows (or goes before).
    """
    own, other = hunk.old_start + (hunk.old_lines == 0), hunk.new_start + (hunk.new_lines == 0)
    if marker == b"+":
        own, other = other, own
    places: _Places = {}
    starts: LineRange | None = None  # for the line after a run of changes
    kinds = [line[:1] for line in hunk.lines if line[:1] in (b" ", b"-", b"+")]
    for is_same, group in groupby(kinds, key=b" ".__eq__):
        run = list(group)
        n_own = len(run) if is_same else run.count(marker)
        n_other = len(run) if is_same else len(run) - n_own
        if is_same:
            places |= {own + n: (LineRange(other + n, other + n),) * 2 for n in range(n_own)}
            if starts is not None:
                places[own] = (starts, places[own][1])
        else:
            starts, ends = LineRange(other, other + n_other), LineRange(other - 1, other + n_other - 1)
            places |= {own + n: (starts, ends) for n in range(n_own)}
            if own - 1 in places:
                places[own - 1] = (places[own - 1][0], ends)
        own, other = own + n_own, other + n_other
    return places


def _counterpart(
    one: Function, places: _Places, own: LineRange, other: Outline, growth: int, changed: tuple[int, ...]
) -> Function | None:
    """The same function on the other side: it holds what changed there, begins and ends where it did."""
    starts, _ = places.get(one.first_line, (LineRange(one.first_line, one.first_line), None))
    last = one.last_line + growth * (one.last_line > own.last_line)
    _, ends = places.get(one.last_line, (None, LineRange(last, last)))
    found = [
        function
        for function in other.functions
        if starts.first_line <= function.first_line <= starts.last_line
        and ends.first_line <= function.last_line <= ends.last_line
        and (not changed or (function.first_line <= changed[0] and changed[-1] <= function.last_line))
    ]
    return min(found, key=lambda f: (f.name != one.name, f.last_line - f.first_line), default=None)


def _lines(start: int, count: int) -> LineRange:
    """The lines of one side of a hunk; "N,0" in its header means after line N."""
    first = start if count else start + 1
    return LineRange(first, first + count - 1)


def _why_none(outline: Outline, lines: LineRange) -> str:
    last = max(lines.last_line, lines.first_line)
    in_doubt = any(d.first_line <= last and lines.first_line <= d.last_line for d in outline.doubtful)
    return UNPARSED if outline.is_too_complex or in_doubt else NOT_IN_FUNCTION
