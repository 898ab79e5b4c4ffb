"""A block of a function with what stands next to it, and the names in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trustmine import cparse
from trustmine.cnames import KEYWORDS
from trustmine.cparse.lexis import Lexis, is_cpp
from trustmine.lines import LineRange, cut_lines, split_lines
from trustmine.text import encode

_WORD = re.compile(rb"(?<!\w)_*[A-Za-z0-9]\w*")  # underscores alone may be the inside of a literal


@dataclass(frozen=True, slots=True)
class Margins:
    """How many lines before and after a block are shown with it."""

    before: int
    after: int

    @classmethod
    def of(cls, text: str, encoding: str, path: str, block: LineRange) -> "Margins":
        """As many as the statements before and after the block take."""
        around = cparse.neighbours(encode(text, encoding), block, path)
        first = min([block.first_line, *(lines.first_line for lines in around)])
        last = max([block.last_line, *(lines.last_line for lines in around)])
        return cls(block.first_line - first, last - block.last_line)


@dataclass(frozen=True, slots=True)
class Snippet:
    """Lines of a function and what they mention."""

    text: str
    names: Mapping[str, cparse.Name]  # as the parser sees them, labels aside
    words: frozenset[str]  # whatever reads as an identifier, comments and literals aside
    block_words: frozenset[str]  # those of the block alone

    @classmethod
    def of(cls, text: str, encoding: str, path: str, block: LineRange, margins: Margins) -> "Snippet":
        """The block and the lines around it in a function's text; the block may be empty."""
        source = encode(text, encoding)
        first = max(block.first_line - margins.before, 1)
        last = min(block.last_line + margins.after, len(split_lines(text)))
        used = cparse.names(source, first, last, path)
        names = {name.name: name for name in used if name.kind != "label"}
        code = Lexis(source, is_cpp(path), is_fragment=True).skeleton
        return cls(
            text=cut_lines(text, LineRange(first, last)),
            names=names,
            words=_words(cut_lines(code, LineRange(first, last))) | names.keys(),
            block_words=_words(cut_lines(code, block)),
        )


def declaring_line(name: str, text: str, encoding: str, path: str) -> int | None:
    """The line of a function's text that declares one of its parameters or local variables.

    C wants a declaration before any use, so it is the first line that uses
    the name as something other than a member or a label.
    """
    source = encode(text, encoding)
    for number, line in enumerate(split_lines(source), 1):
        if name.encode() in line and any(
            used.name == name and used.kind not in ("member", "label")
            for used in cparse.names(source, number, number, path)
        ):
            return number
    return None


def _words(code: bytes) -> frozenset[str]:
    found = {word.decode("ascii", "replace") for word in _WORD.findall(code)}
    return frozenset(word for word in found if not word[0].isdigit()) - KEYWORDS
