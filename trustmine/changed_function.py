"""The one function that a fix changes, before and after, or why there is none; and what it was called before.

Pure: outlines and edits in, functions out. Which commits are asked about at
all, and what becomes of the two functions, is left to s1_1.
"""

from collections.abc import Sequence

from trustmine.cparse import Function, Outline, function_at, name_in
from trustmine.fixes import Edit, around
from trustmine.lines import LineRange

# Why there is no function: the parser had trouble with these lines, they are in none, or in several.
UNPARSED, NOT_IN_FUNCTION, MULTI_FUNCTION = "function_unparsed", "not_in_function", "multi_function"


def function_pair(
    old: Outline, new: Outline, edits: Sequence[Edit], fix: Sequence[Edit], *, is_one_place: bool
) -> tuple[Function, Function] | str:
    """The same function before and after, or the reason why the fix does not lie in one.

    `old` and `new` are the outlines of pre-image and post-image, `edits` all
    that happens between them, `fix` those that have to lie in the function. A
    fix that deletes lines lies where it deletes them, one that only adds where
    it adds them; on the other side the function has to hold what changed
    there. `is_one_place`: the fix is looked at as a whole, as of one hunk, so
    that it never lies in several functions.
    """
    deleted, added = (
        [lines for lines in side if len(lines)] for side in zip(*((e.old, e.new) for e in fix), strict=True)
    )
    if deleted:
        own, other, places, counterparts = old, new, deleted, added
        pairs = [(edit.old, edit.new) for edit in edits]
    else:
        own, other, places, counterparts = new, old, added, []
        pairs = [(edit.new, edit.old) for edit in edits]
    one = function_at(own.functions, places[0].first_line, places[-1].last_line)
    if one is None:
        return _why(own, places, is_one_place)
    two = _counterpart(one, pairs, other, counterparts)
    if two is None:
        sides = [edit.new if deleted else edit.old for edit in fix]
        return _why(other, [around(lines) for lines in sides], is_one_place)
    return (one, two) if deleted else (two, one)


def old_name(name: str, old_path: str, pre: bytes, path: str, post: bytes) -> str:
    """What a function was called in the pre-image, where `name` is what it is called in the post-image.

    The same unless the fix renames it. `pre` and `post` are the function's text in both.
    """
    if pre.partition(b"{")[0] == post.partition(b"{")[0]:
        return name
    old, new = name_in(pre, old_path), name_in(post, path)
    if old is None or new is None or old == new:
        return name
    # Namespaces and classes around it stand outside of its text.
    return name.removesuffix(new) + old if name.endswith(new) else old


def _counterpart(
    one: Function, pairs: Sequence[tuple[LineRange, LineRange]], other: Outline, changed: Sequence[LineRange]
) -> Function | None:
    """The same function on the other side: it holds what changed there, begins and ends where it did."""
    starts, _ = _images(one.first_line, pairs)
    _, ends = _images(one.last_line, pairs)
    found = [
        function
        for function in other.functions
        if starts.first_line <= function.first_line <= starts.last_line
        and ends.first_line <= function.last_line <= ends.last_line
        and (
            not changed
            or (function.first_line <= changed[0].first_line and changed[-1].last_line <= function.last_line)
        )
    ]
    return min(found, key=lambda f: (f.name != one.name, f.last_line - f.first_line), default=None)


def _images(line: int, pairs: Sequence[tuple[LineRange, LineRange]]) -> tuple[LineRange, LineRange]:
    """Where on the other side a function that starts at this line may start, and where one that ends there may end.

    An unchanged line stays what it is, but a signature may have got lines
    before it and a body after it. What was changed may start (or end) in what
    took its place, or with the unchanged line that follows (or goes before).
    """
    starts: LineRange | None = None
    ends: LineRange | None = None
    growth = 0
    for own, other in pairs:
        may_start = LineRange(other.first_line, other.last_line + 1)
        may_end = LineRange(other.first_line - 1, other.last_line)
        if own.first_line <= line <= own.last_line:
            return may_start, may_end
        if line == own.last_line + 1:
            starts = may_start
        if line == own.first_line - 1:
            ends = may_end
        if own.last_line < line:
            growth += len(other) - len(own)
    same = LineRange(line + growth, line + growth)
    return same if starts is None else starts, same if ends is None else ends


def _why(outline: Outline, places: Sequence[LineRange], is_one_place: bool) -> str:
    """Why these places do not lie in one function."""
    if is_one_place:
        places = [LineRange(places[0].first_line, places[-1].last_line)]
    around = [function_at(outline.functions, place.first_line, place.last_line) for place in places]
    if len({function for function in around if function is not None}) > 1:
        return MULTI_FUNCTION
    lost = [place for place, function in zip(places, around, strict=True) if function is None]
    return max((_why_none(outline, place) for place in lost), key=UNPARSED.__eq__, default=NOT_IN_FUNCTION)


def _why_none(outline: Outline, lines: LineRange) -> str:
    in_doubt = any(d.first_line <= lines.last_line and lines.first_line <= d.last_line for d in outline.doubtful)
    return UNPARSED if outline.is_too_complex or in_doubt else NOT_IN_FUNCTION
