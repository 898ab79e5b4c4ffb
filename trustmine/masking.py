"""Masks in a function's text: put in, taken out again, and found in the fixed text.

Pure functions on text. A mask stands for a run of whole lines; it is a line
of its own, `<MASK_1>` at the indentation of what it replaces, and everything
else stays as it is. Which lines may be masked is the parser's business.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from trustmine.lines import LineRange, split_lines

_MASK = re.compile(r"<MASK_\d+>")
_MASK_LINE = re.compile(r"[ \t]*<MASK_(\d+)>\r?\n?")


def holds_mask(text: str) -> bool:
    """Whether the text holds something like a mask: then none can be put into it."""
    return _MASK.search(text) is not None


def mask(text: str, ranges: Sequence[LineRange], indentation: str | None = None) -> str:
    """The text with each range replaced by a line `<MASK_n>`, n from 1.

    Ranges are in order and apart. An empty range gets its mask inserted before
    its first line. A mask takes the indentation of the first line that it
    replaces, unless one is given. Raises ValueError for ranges that overlap or
    leave the text, and for text that already holds something like a mask.
    """
    if holds_mask(text):
        raise ValueError("the text already holds a mask")
    lines = split_lines(text)
    for before, after in pairwise(ranges):
        if before.last_line >= after.first_line:
            raise ValueError("ranges overlap or are out of order")
    parts: list[str] = []
    at = 0
    for number, lines_out in enumerate(ranges, 1):
        if not (1 <= lines_out.first_line <= lines_out.last_line + 1 <= len(lines) + 1):
            raise ValueError(f"no lines {lines_out.first_line}..{lines_out.last_line} in a text of {len(lines)}")
        removed = lines[lines_out.first_line - 1 : lines_out.last_line]
        model = removed or lines[lines_out.first_line - 1 :][:1] or lines[-1:]
        if not removed and lines_out.first_line > 1 and not lines[lines_out.first_line - 2].endswith("\n"):
            raise ValueError("nothing can follow a last line without an ending")
        first, ending = model[0] if model else "\n", _ending(model[-1] if model else "\n")
        if not removed:
            ending = ending or "\n"
        own = first[: len(first) - len(first.lstrip(" \t"))] if indentation is None else indentation
        parts += [*lines[at : lines_out.first_line - 1], f"{own}<MASK_{number}>{ending}"]
        at = lines_out.last_line
    return "".join(parts + lines[at:])


def unmask(masked: str, removed: Sequence[str]) -> str:
    """The text before `mask`, given what each mask stands for.

    Raises ValueError unless the masks are exactly 1..len(removed).
    """
    parts: list[str] = []
    found: list[int] = []
    for line in split_lines(masked):
        match = _MASK_LINE.fullmatch(line)
        if match is None:
            parts.append(line)
            continue
        found.append(int(match[1]))
        if found[-1] != len(found) or len(found) > len(removed):
            raise ValueError(f"mask {found[-1]} is not expected here")
        parts.append(removed[len(found) - 1])
    if len(found) != len(removed):
        raise ValueError(f"{len(removed)} masks expected, {len(found)} found")
    return "".join(parts)


def post_region(
    pre_text: str, post_text: str, lines: LineRange, deleted: Sequence[int], added: Sequence[int]
) -> LineRange:
    """The lines of the fixed text that stand where `lines` of the text before stood.

    `deleted` are lines of `pre_text`, `added` lines of `post_text`; the others
    are the same in both. The region is what replaces the lines, and whatever
    was inserted at their borders; it is empty if nothing is left. Lines next
    to it that were deleted and came back the same, white space aside, are
    outside of it. Raises ValueError if the line numbers do not fit the texts.
    """
    pre, post = split_lines(pre_text), split_lines(post_text)
    kept_pre = [n for n in range(1, len(pre) + 1) if n not in set(deleted)]
    kept_post = [n for n in range(1, len(post) + 1) if n not in set(added)]
    if len(kept_pre) != len(kept_post):
        raise ValueError("deleted and added lines do not belong to these texts")
    twin = dict(zip(kept_pre, kept_post, strict=True))
    below = max((n for n in kept_pre if n < lines.first_line), default=0)
    above = min((n for n in kept_pre if n > lines.last_line), default=len(pre) + 1)
    first, last = twin.get(below, 0) + 1, twin.get(above, len(post) + 1) - 1
    for n in range(above - 1, lines.last_line, -1):
        if last < first or post[last - 1].strip() != pre[n - 1].strip():
            break
        last -= 1
    for n in range(below + 1, lines.first_line):
        if last < first or post[first - 1].strip() != pre[n - 1].strip():
            break
        first += 1
    return LineRange(first, last)


def with_insertions(region: LineRange, code: Sequence[bool], deleted: Sequence[int], added: Sequence[int]) -> LineRange:
    """The region of the fixed text with code that is inserted before or after it, comments and blank lines between.

    `code` says of each line of the fixed text whether it holds code. Lines
    that replace others are no insertion. Raises nothing: numbers that do not
    fit the text find nothing.
    """
    inserted = _inserted(len(code), deleted, added)
    first, last = region.first_line, region.last_line
    above = next((n for n in range(first - 1, 0, -1) if code[n - 1]), 0)
    if above in inserted:
        first = next(n for n in range(above, -1, -1) if n - 1 not in inserted)
    below = next((n for n in range(last + 1, len(code) + 1) if code[n - 1]), 0)
    if below in inserted:
        last = next(n for n in range(below, len(code) + 1) if n + 1 not in inserted)
    return LineRange(first, last)


def _inserted(n_lines: int, deleted: Sequence[int], added: Sequence[int]) -> set[int]:
    """Lines of the fixed text that stand where nothing was taken away."""
    gone, new = set(deleted), set(added)
    found: set[int] = set()
    run: list[int] = []
    at = 1  # line of the text before that comes next
    for number in range(1, n_lines + 2):
        if number in new:
            run.append(number)
            continue
        is_replaced = at in gone
        while at in gone:
            at += 1
        if not is_replaced:
            found.update(run)
        run, at = [], at + 1
    return found


def without_blank_borders(text: str, region: LineRange) -> LineRange:
    """The region without blank lines at its beginning and end; as it is if all of it is blank."""
    lines = split_lines(text)
    filled = [n for n in range(region.first_line, region.last_line + 1) if lines[n - 1].strip()]
    return LineRange(filled[0], filled[-1]) if filled else region


def indentation_of(text: str, line: int) -> str:
    """The white space at the beginning of a line."""
    content = split_lines(text)[line - 1]
    return content[: len(content) - len(content.lstrip(" \t"))]


def _ending(line: str) -> str:
    return "\r\n" if line.endswith("\r\n") else "\n" if line.endswith("\n") else ""
