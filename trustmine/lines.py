"""Ranges of whole lines, counted as git counts them.

A line ends with "\\n" and nothing else: a carriage return, a form feed or a
Unicode separator stays inside its line. Works on bytes and on text alike.
"""

from dataclasses import dataclass
from typing import AnyStr


@dataclass(frozen=True, slots=True, order=True)
class LineRange:
    """Lines first_line..last_line, from 1, inclusive; empty if last_line is first_line - 1."""

    first_line: int
    last_line: int

    def __len__(self) -> int:
        return self.last_line - self.first_line + 1


def split_lines(text: AnyStr) -> list[AnyStr]:
    """The lines with their endings; joined they are the text again."""
    newline = b"\n" if isinstance(text, bytes) else "\n"
    lines = text.split(newline)
    last = lines.pop()
    lines = [line + newline for line in lines]
    if last:
        lines.append(last)
    return lines


def cut_lines(text: AnyStr, lines: LineRange) -> AnyStr:
    """Exactly these lines of the text, with their endings."""
    empty = b"" if isinstance(text, bytes) else ""
    return empty.join(split_lines(text)[lines.first_line - 1 : lines.last_line])
