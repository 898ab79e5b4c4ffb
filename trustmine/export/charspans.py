"""Which characters and lines differ between two versions of a function, as SVEN writes them.

Characters are compared by diff_match_patch with its semantic clean-up, which
is what SVEN's own tool does. Its time limit is lifted, so that the answer
does not depend on the machine; texts that would take too long are refused.
"""

from collections.abc import Iterable

from diff_match_patch import diff_match_patch

from trustmine.export.splits import LeftOut
from trustmine.lines import split_lines

MAX_CHANGED_CHARS = 5_000  # between what both versions begin and end with; 4 s where nothing is alike (2026-11)

Span = dict[str, int | str]


TOO_DIFFERENT = "versions_too_different"


def char_changes(before: str, after: str) -> dict[str, list[Span]]:
    """`deleted` of `before`, `added` of `after`: char_start, char_end (half-open), chars. Raises LeftOut.

    Both sides come from one comparison, so what is left of them is the same text.
    """
    differ = diff_match_patch()
    differ.Diff_Timeout = 1e9  # seconds. Not 0, which also takes another, slower way
    common = differ.diff_commonPrefix(before, after)
    common += differ.diff_commonSuffix(before[common:], after[common:])
    if max(len(before), len(after)) - common > MAX_CHANGED_CHARS:
        raise LeftOut(TOO_DIFFERENT)
    diffs = differ.diff_main(before, after)
    differ.diff_cleanupSemantic(diffs)
    return {"deleted": _spans(diffs, differ.DIFF_DELETE), "added": _spans(diffs, differ.DIFF_INSERT)}


def line_changes(before: str, after: str, deleted: Iterable[int], added: Iterable[int]) -> dict[str, list[Span]]:
    """The same for whole lines, by their numbers from 1: line_no, char_start, char_end, line (with its end)."""
    return {"deleted": _lines(before, deleted), "added": _lines(after, added)}


def _spans(diffs: Iterable[tuple[int, str]], wanted: int) -> list[Span]:
    """Where the text that has the runs of this kind, and those that are equal, has the former."""
    at = 0
    found: list[Span] = []
    for kind, chars in diffs:
        if kind == wanted and chars:
            found.append({"char_start": at, "char_end": at + len(chars), "chars": chars})
        at += len(chars) if kind in (wanted, diff_match_patch.DIFF_EQUAL) else 0
    return found


def _lines(source: str, numbers: Iterable[int]) -> list[Span]:
    lines = split_lines(source)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    return [
        {"line_no": number, "char_start": starts[number - 1], "char_end": starts[number], "line": lines[number - 1]}
        for number in numbers
        if number <= len(lines)  # empty lines at the end, which the function is written without
    ]
