"""What braces and the words before them tell of functions, where the grammar does not.

Works on the text of one configuration: comments are spaces in it, and every
brace is code. Everything here takes time in proportion to the text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from trustmine.cparse.tree import Parsed

_CALLED = re.compile(rb"(?<![\w.:~])([A-Za-z_~][\w:~]*+)\s*+\(")
_SCOPE_HEAD = re.compile(rb"\s*+(?:[^(){};=]*\b(?:namespace|class|struct|union)\b[^(){};=]*|extern\s*\"_*\"\s*)")
_AFTER_PARAMETERS = re.compile(rb"[\w\s:]*+")
# What ends before a signature, besides another declaration: an access specifier, a gap, a directive that is no #if.
_LABEL = re.compile(rb"(?<!:):(?!:)")
_GAP = re.compile(rb"\n[ \t\r\f\v]*(?:(?=\n)|(?:\#|%:)[ \t]*(?!if|el|endif)\w[^\n]*)")
_MAX_SIGNATURE = 1_000  # bytes that are looked through for the beginning of one
_BRACE = re.compile(rb"[{};]")
# What stands before parameters or a brace, but is no function's name.
STATEMENT_WORDS = frozenset((b"if", b"while", b"for", b"switch", b"else", b"do", b"return", b"case", b"catch"))
STATEMENT_WORDS |= {b"class", b"struct", b"union", b"enum", b"namespace"}


@dataclass(frozen=True, slots=True)
class Block:
    """A pair of braces with what reads as a signature before it; bytes, 0-based."""

    name: bytes
    start: int  # of the signature
    opening: int  # the brace
    end: int  # after the closing brace


def blocks(parsed: Parsed) -> Iterator[Block]:
    """Functions as far as braces show them, outermost or in namespaces and classes.

    Takes over where one macro, `GET_STATE` without a semicolon say, keeps the
    grammar from seeing a function at all.
    """
    text = parsed.text
    begin, depth, opening = 0, 0, 0
    for match in _BRACE.finditer(text):
        at = match.start()
        if match[0] == b"{":
            if depth == 0 and opens_scope(text, begin, at):
                begin = at + 1
                continue  # its closing brace finds no depth to take away
            if depth == 0:
                opening = at
            depth += 1
        elif match[0] == b"}" and depth > 0:
            depth -= 1
            called = _signed(text, begin, opening) if depth == 0 else None
            if called is not None and called[1] not in STATEMENT_WORDS:
                yield Block(called[1], signature_start(parsed, called.start(1)), opening, at + 1)
        if depth == 0:
            begin = at + 1


def opens_scope(text: bytes, begin: int, opening: int) -> bool:
    """Whether this brace is a namespace's or a type's, as the words before it say; the grammar may be led astray."""
    begin = max(begin, opening - _MAX_SIGNATURE)
    begin = max(begin, *(text.rfind(end, begin, opening) + 1 for end in (b";", b"{", b"}")))
    return _SCOPE_HEAD.fullmatch(text, begin, opening) is not None


def _signed(text: bytes, begin: int, opening: int) -> re.Match[bytes] | None:
    """The name in what may be a signature as far as it can be told without a grammar: name(...) up to the brace."""
    last = text.rfind(b")", begin, opening)
    if last < 0 or not _AFTER_PARAMETERS.fullmatch(text, last + 1, opening):
        return None
    initialiser = text.rfind(b"=", begin, last)
    called = list(_CALLED.finditer(text, max(begin, initialiser + 1), last))
    # `FOO(x) f(int a) BAR(y) {`
    return next((match for match in called if not match[1].isupper()), called[0] if called else None)


def signature_start(parsed: Parsed, start: int) -> int:
    """Where the signature begins of which the grammar saw the rest: `int FOO` of `int FOO BAR f(void)`."""
    text = parsed.text
    begin = max(0, start - _MAX_SIGNATURE)
    begin = max(begin, text.rfind(b"{", begin, start) + 1, text.rfind(b"}", begin, start) + 1)
    end = text.rfind(b";", begin, start)
    while end >= 0 and parsed.lexis.source[end] != text[end]:
        end = text.rfind(b";", begin, end)  # that one was put in for a macro
    begin = max(begin, end + 1)
    for pattern, where in ((_LABEL, text), (_GAP, parsed.lexis.source)):
        begin = max((match.end() for match in pattern.finditer(where, begin, start)), default=begin)
    own = text[begin:start]
    return start - len(own.lstrip()) if own.strip() else start


class Closing:
    """Where the block that opens at a byte ends, worked out when first asked for."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    @cached_property
    def _ends(self) -> dict[int, int]:
        ends: dict[int, int] = {}
        opened: list[int] = []
        for match in _BRACE.finditer(self._text):
            if match[0] == b"{":
                opened.append(match.start())
            elif match[0] == b"}" and opened:
                ends[opened.pop()] = match.end()
        return ends

    def of(self, opening: int) -> int | None:
        return self._ends.get(opening)
