"""What can be known of C without a grammar: comments, literals, directives, conditional branches.

Scans bytes once. `Lexis.skeleton` is the source with comments as spaces and
the insides of literals as underscores: same length, same lines, and every
bracket and `#` left in it is code. `configuration` keeps one branch of each
#if, as a compiler would, and blanks the others: preprocessor branches often
open a brace twice and close it once, which no grammar of C can read.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from trustmine.cparse.repair import blank, repaired
from trustmine.lines import LineRange

CPP_SUFFIXES = (".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".inl", ".tcc")

# What is never closed is read once: a comment and a raw string go on to the end, a literal is none and its line goes on
# behind the quote, where an escaped quote opens no other.
_COMMENT = rb"(?P<comment> /\*.*?(?:\*/|\Z) | //(?:\\\r?\n|[^\n])*+ )"
_RAW = rb"""(?P<literal> \b(?:u8|[uUL])?R"(?P<fence>[^()\\\s]{0,16})\(.*?(?:\)(?P=fence)"|\Z)"""
_STRING = rb'''"(?:\\\r?\n|\\.|[^"\\\n])*+"'''
_CHARACTER = rb"'(?:\\\r?\n|\\.|[^'\\\n])*+'"
_ESCAPED = rb"""(?:\\[\\"'])++"""
_TOKEN_C = re.compile(
    rb"%b | (?P<literal> %b | %b ) | %b" % (_COMMENT, _STRING, _CHARACTER, _ESCAPED), re.VERBOSE | re.DOTALL
)
# In C++ an apostrophe inside of a number groups digits; in C, 0x1F'a' cannot occur.
_TOKEN = re.compile(
    rb"%b | %b | %b | (?<![0-9A-Fa-f])%b ) | %b" % (_COMMENT, _RAW, _STRING, _CHARACTER, _ESCAPED),
    re.VERBOSE | re.DOTALL,
)
_DIRECTIVE = re.compile(rb"^[ \t\f\v\r]*(?:\#|%:)[ \t\f\v]*(\w*)(?:\\\r?\n|[^\n])*+", re.MULTILINE)
_IS_FALSE = re.compile(rb"\s*(?:0|\(\s*0\s*\)|FALSE|false)\s*")
_SPACE = re.compile(rb"\s+|\\\r?\n")
# Characters that would read as another token if white space between two of them went away.
_GLUE = frozenset(b"+-&|<=/*_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_WORD = re.compile(rb"\w")


def is_cpp(path: str) -> bool:
    """Whether the file's name says C++; .h may be either."""
    return path.lower().endswith(CPP_SUFFIXES) or path.endswith(".C")


@dataclass(frozen=True, slots=True)
class Directive:
    """A preprocessor directive with its continuation lines, in bytes of the source."""

    word: bytes  # if, ifdef, else, define, ...; '' for a lone #
    start: int
    end: int  # without the newline


@dataclass(frozen=True, slots=True)
class Branch:
    """The source between a conditional directive and the next one of the same #if."""

    group: int  # which #if
    place: int  # 0 for the branch right after #if
    start: int
    end: int
    is_dead: bool  # its condition is false as written: #if 0
    parent: tuple[int, int] | None  # group and place of the branch around it


class Lexis:
    """The comments, literals, directives and branches of one source."""

    def __init__(self, source: bytes, cpp: bool, is_fragment: bool = False) -> None:
        """A fragment may begin or end inside of an #if; a whole file may not."""
        self.source = source
        self._is_fragment = is_fragment
        self._cpp = cpp
        self.comments: list[tuple[int, int]] = []
        self.literals: list[tuple[int, int]] = []
        for match in (_TOKEN if cpp else _TOKEN_C).finditer(source):
            if match["comment"] is not None:
                self.comments.append(match.span())
            elif match["literal"] is not None:
                self.literals.append(match.span())

    @cached_property
    def skeleton(self) -> bytes:
        """The source with comments as spaces and the insides of literals as underscores."""
        out = bytearray(self.source)
        for start, end in self.comments:
            out[start:end] = blank(self.source[start:end])
        for start, end in self.literals:
            if b"\n" in self.source[start:end]:  # no grammar takes it without its own syntax
                out[start:end] = b'""' + blank(self.source[start + 2 : end])
            else:
                quote = self.source[end - 1 : end]  # a raw string begins with its prefix
                out[start:end] = quote + b"_" * (end - start - 2) + quote
        return bytes(out)

    @cached_property
    def directives(self) -> tuple[Directive, ...]:
        """All preprocessor directives in their order."""
        # A newline inside of a comment or literal does not end a directive.
        out = bytearray(self.skeleton)
        for start, end in (*self.comments, *self.literals):
            out[start:end] = out[start:end].replace(b"\n", b" ")
        return tuple(Directive(match[1], *match.span()) for match in _DIRECTIVE.finditer(bytes(out)))

    @cached_property
    def branches(self) -> tuple[Branch, ...] | None:
        """The branches of every conditional, or None where #if and #endif do not balance."""
        found: list[Branch] = []
        opened: list[Branch] = []  # their ends are not known yet
        group = 0

        def open_branch(number: int, place: int, start: int, is_dead: bool) -> None:
            parent = (opened[-1].group, opened[-1].place) if opened else None
            opened.append(Branch(number, place, start, len(self.source), is_dead, parent))

        for directive in self.directives:
            word = directive.word
            if word.startswith(b"if"):
                group += 1
                open_branch(group, 0, directive.end, self._is_false(directive))
            elif word.startswith(b"el") or word == b"endif":
                if not opened:
                    if not self._is_fragment:
                        return None
                    group += 1
                    open_branch(group, 0, 0, False)
                branch = opened.pop()
                found.append(replace(branch, end=directive.start))
                if word != b"endif":
                    open_branch(branch.group, branch.place + 1, directive.end, False)
        if opened and not self._is_fragment:
            return None
        return tuple(sorted([*found, *opened], key=lambda branch: (branch.group, branch.place)))

    def configurations(self) -> Iterator[tuple[bytes, tuple[tuple[int, int], ...]]]:
        """The source as choices of branches leave it, each with the spans of the branches left out.

        Of each #if one branch is kept: in the first configuration the first
        that is not dead as written, in further ones a branch not shown yet,
        until all were shown. Comments, directives and other branches are
        spaces, and what the grammar has no rule for is rewritten. Where
        directives do not balance there is one configuration, of all branches.
        """
        plain = bytearray(self.skeleton)
        if self.branches is None:
            yield repaired(bytes(plain), self._cpp), ()
            return
        for directive in self.directives:
            plain[directive.start : directive.end] = blank(self.source[directive.start : directive.end])
        unseen = set(self._reachable())
        while True:
            shown = self._choose(unseen)
            unseen -= shown
            left_out = [(b.start, b.end) for b in self.branches if b not in shown and self._is_shown(b.parent, shown)]
            out = plain[:]
            for start, end in left_out:
                out[start:end] = blank(self.source[start:end])
            yield repaired(bytes(out), self._cpp), tuple(sorted(left_out))
            if not unseen:
                return

    @cached_property
    def _by_key(self) -> dict[tuple[int, int], Branch]:
        return {(branch.group, branch.place): branch for branch in self.branches or ()}

    def _is_shown(self, key: tuple[int, int] | None, shown: set[Branch]) -> bool:
        return key is None or self._by_key[key] in shown

    def _reachable(self) -> Iterator[Branch]:
        """The branches that some choice shows: neither they nor what holds them is dead as written."""
        alive: set[tuple[int, int]] = set()
        for branch in self.branches or ():
            if not branch.is_dead and (branch.parent is None or branch.parent in alive):
                alive.add((branch.group, branch.place))
                yield branch

    def _choose(self, unseen: set[Branch]) -> set[Branch]:
        """One branch of each #if that is reached; where any are unseen, at least one of them."""
        leads_to_unseen: set[tuple[int, int]] = set()
        for branch in unseen:
            key: tuple[int, int] | None = (branch.group, branch.place)
            while key is not None and key not in leads_to_unseen:
                leads_to_unseen.add(key)
                key = self._by_key[key].parent
        shown: set[Branch] = set()
        for _, group in groupby(self.branches or (), key=lambda branch: branch.group):
            alive = [branch for branch in group if not branch.is_dead]
            if alive and self._is_shown(alive[0].parent, shown):
                shown.add(next((b for b in alive if (b.group, b.place) in leads_to_unseen), alive[0]))
        return shown

    @cached_property
    def line_starts(self) -> list[int]:
        """Byte at which each line starts, and one more for the end."""
        return [0, *(match.end() for match in re.finditer(rb"\n", self.source))]

    def line_of(self, byte: int) -> int:
        """The line, from 1, that holds this byte."""
        return bisect_left(self.line_starts, byte + 1)

    @cached_property
    def branch_of_line(self) -> list[int]:
        """For each border between lines (0: before line 1), a number for the branch it lies in.

        Two borders with the same number enclose whole conditionals only.
        """
        changes: dict[int, list[Directive]] = {}
        for directive in self.directives:
            if directive.word.startswith((b"if", b"el")) or directive.word == b"endif":
                changes.setdefault(self.line_of(max(directive.end - 1, directive.start)), []).append(directive)
        numbers, stack, fresh = [0], [0], 0
        for line in range(1, len(self.line_starts) + 1):
            for directive in changes.get(line, ()):
                if not directive.word.startswith(b"if") and len(stack) > 1:
                    stack.pop()
                elif not directive.word.startswith(b"if"):
                    stack[-1] = -1 - fresh  # a fragment that began inside of an #if
                    fresh += 1
                if directive.word != b"endif":
                    fresh += 1
                    stack.append(fresh)
            numbers.append(stack[-1])
        return numbers

    def cuts_token(self, lines: LineRange) -> bool:
        """Whether a comment, literal or directive crosses the first or last border of these lines."""
        borders = [self.line_starts[lines.first_line - 1]]
        if lines.last_line < len(self.line_starts):
            borders.append(self.line_starts[lines.last_line])
        return any(start < border < end for border in borders for start, end in self.long_tokens)

    @cached_property
    def long_tokens(self) -> list[tuple[int, int]]:
        """Comments, literals and directives that take more than one line."""
        spans = [*self.comments, *self.literals, *((d.start, d.end) for d in self.directives)]
        return [(start, end) for start, end in spans if b"\n" in self.source[start:end]]

    def _is_false(self, directive: Directive) -> bool:
        text = self.skeleton[directive.start : directive.end].replace(b"\\", b" ").strip(b" \t\r\n#%:")
        word, _, condition = text.partition(b" ") if b" " in text else (text[:2], b"", text[2:])
        if word == b"if":
            return _IS_FALSE.fullmatch(condition) is not None
        names_cpp = condition.strip() == b"__cplusplus"
        return names_cpp and word == (b"ifndef" if self._cpp else b"ifdef")


def strip_comments_and_space(source: bytes, path: str) -> bytes:
    """The source without comments and white space, for telling whether only the format differs.

    Literals stay as they are. A space is left where two tokens would become
    one, and a newline where a directive ends. Which of C and C++ it is only
    matters for raw strings and digit separators.
    """
    lexis = Lexis(source, is_cpp(path), is_fragment=True)
    comments = dict(lexis.comments)
    literals = dict(lexis.literals)
    ends = {directive.end for directive in lexis.directives}
    pieces: list[bytes] = []
    last = b""

    def add(piece: bytes, after_space: bool) -> None:
        nonlocal last
        if after_space and last and _would_glue(last[-1], piece[0]):
            pieces.append(b" ")
        pieces.append(piece)
        last = piece

    at, gap = 0, False
    stops = sorted([*comments, *literals, *ends, len(source)])
    for stop in stops:
        # Code up to the next comment, literal or end of a directive.
        while at < stop:
            match = _SPACE.search(source, at, stop)
            end = match.start() if match else stop
            if end > at:
                add(source[at:end], gap)
            gap = match is not None or (gap and end == at)
            at = match.end() if match else stop
        if stop in ends and last != b"\n":
            pieces.append(b"\n")
            last, gap = b"\n", False
        if stop in comments and stop >= at:
            at, gap = comments[stop], True
        elif stop in literals and stop >= at:
            add(source[stop : literals[stop]], gap)
            at, gap = literals[stop], False
    return b"".join(pieces)


def _would_glue(left: int, right: int) -> bool:
    if left not in _GLUE or right not in _GLUE:
        return False
    both_words = [_WORD.match(bytes([byte])) is not None for byte in (left, right)]
    return both_words[0] == both_words[1]


def code_lines(source: bytes, path: str, *, keep_directives: bool = True) -> list[bytes]:
    """The lines without their endings; comments and #include lines are spaces, or all directives are."""
    lexis = Lexis(source, is_cpp(path), is_fragment=True)
    out = bytearray(source)
    for start, end in lexis.comments:
        out[start:end] = blank(source[start:end])
    for directive in lexis.directives:
        if not keep_directives or directive.word in (b"include", b"include_next", b"import"):
            out[directive.start : directive.end] = blank(source[directive.start : directive.end])
    return bytes(out).split(b"\n")


def widen(source: bytes, lines: LineRange, path: str) -> LineRange:
    """The lines, and as many around them as it takes to cut no comment, literal or directive in two.

    An empty range that lies in one of these moves behind it.
    """
    lexis = Lexis(source, is_cpp(path), is_fragment=True)
    spans = [(lexis.line_of(start), lexis.line_of(end - 1)) for start, end in sorted(lexis.long_tokens)]
    first, last = lines.first_line, lines.last_line
    if last < first:
        for top, bottom in spans:
            if top < first <= bottom:
                first = bottom + 1
        return LineRange(first, first - 1)
    for top, bottom in spans:
        if top <= last and first <= bottom:
            last = max(last, bottom)
    # Upwards in a second pass from below: one token may end on the line where the next begins.
    for top, bottom in reversed(spans):
        if top < first <= bottom:
            first = top
    return LineRange(first, last)
