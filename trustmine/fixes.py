"""What of a file's patch is its fix, and which lines of the text before it the fix is about.

An edit is a run of changed lines. One that changes only comments, white space
or #include lines is no part of a fix. A line that is only added has no line
of its own in the text before; there the fix is about the statement line at
the place where it was put: the one that follows, which a forgotten check
would have guarded, or the one before where the block ends.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trustmine.cparse import code_lines, strip_comments_and_space
from trustmine.lines import LineRange
from trustmine.patches import Hunk

# Lines that are passed over in the search for a statement: an opening brace, else, and goto's labels.
_NO_STATEMENT = re.compile(rb"\s*(?:\{|(?:else|do)\s*\{?|(?!case\b|default\b)[A-Za-z_]\w*\s*:)\s*")
# Where a block, or the statements of a case, end.
_BLOCK_ENDS = re.compile(rb"\s*(?:\}|case\b|default\s*:|(?:public|private|protected)\s*:)")


@dataclass(frozen=True, slots=True)
class Edit:
    """A run of changed lines: `old` of the text before are replaced by `new` of the text after.

    Either may be empty: old.last_line is then the line that `new` follows.
    """

    old: LineRange
    new: LineRange

    @property
    def place(self) -> LineRange:
        """Its lines in the text before; of an insertion the lines on both sides, 0 before the first."""
        return around(self.old)


def around(lines: LineRange) -> LineRange:
    """The lines; of none the lines on both sides of where they would be."""
    return lines if len(lines) else LineRange(lines.last_line, lines.first_line)


def edits(hunks: Iterable[Hunk]) -> tuple[Edit, ...]:
    """The edits of a file's hunks, in their order."""
    return tuple(edit for hunk in hunks for edit in _edits_of(hunk))


def _edits_of(hunk: Hunk) -> Iterator[Edit]:
    # "-N,0" means after line N; otherwise N is the first line itself.
    old = hunk.old_start + (hunk.old_lines == 0)
    new = hunk.new_start + (hunk.new_lines == 0)
    n_old = n_new = 0
    for mark in [*(line[:1] for line in hunk.lines), b" "]:
        if mark == b"-":
            n_old += 1
        elif mark == b"+":
            n_new += 1
        elif mark != b"\\":
            if n_old or n_new:
                yield Edit(LineRange(old, old + n_old - 1), LineRange(new, new + n_new - 1))
            old, new, n_old, n_new = old + n_old + 1, new + n_new + 1, 0, 0


def of_code(found: Sequence[Edit], pre: bytes, post: bytes, old_path: str, new_path: str) -> tuple[Edit, ...]:
    """The edits that change more than comments, white space and #include lines."""
    before, after = code_lines(pre, old_path), code_lines(post, new_path)

    def stripped(lines: list[bytes], part: LineRange, path: str) -> bytes:
        return strip_comments_and_space(b"\n".join(lines[part.first_line - 1 : part.last_line]), path).strip()

    return tuple(edit for edit in found if stripped(before, edit.old, old_path) != stripped(after, edit.new, new_path))


def insertion_lines(found: Iterable[Edit], function: LineRange, pre: bytes, path: str) -> tuple[int, ...]:
    """The statement line at each edit that only adds: lines of the file before, inside of the function."""
    inserted = [edit for edit in found if not len(edit.old)]
    if not inserted:
        return ()
    lines = code_lines(pre, path, keep_directives=False)
    places = (_statement_line(lines, edit.old.last_line, function) for edit in inserted)
    return tuple(sorted({line for line in places if line is not None}))


def _statement_line(lines: Sequence[bytes], after: int, function: LineRange) -> int | None:
    for line in range(after + 1, function.last_line + 1):
        code = lines[line - 1]
        if _BLOCK_ENDS.match(code):
            break
        if code.strip() and not _NO_STATEMENT.fullmatch(code):
            return line
    for line in range(min(after, function.last_line), function.first_line - 1, -1):
        code = lines[line - 1]
        if code.strip() and not _NO_STATEMENT.fullmatch(code):
            return line
    return None
