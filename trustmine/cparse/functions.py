"""The functions of a C or C++ file: names, lines, bodies.

Sees every branch of every #if: functions in an #else are found by parsing
again with that branch chosen. What a function's text is, the caller cuts
from the original by line or byte.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tree_sitter import Node

from trustmine.cparse.tree import Parsed, TooComplex, errors, outer_nodes, parse, text_of
from trustmine.lines import LineRange

_SCOPES = frozenset(("namespace_definition", "class_specifier", "struct_specifier", "union_specifier"))
_BODIES = ("compound_statement", "try_statement", "constructor_try_statement")
_NAMES = frozenset(("identifier", "field_identifier", "type_identifier", "operator_name", "destructor_name"))
_NAMES |= {"qualified_identifier", "template_function", "template_method", "operator_cast", "dependent_name"}
_CALLED = re.compile(rb"(?<![\w.:~])([A-Za-z_~][\w:~]*+)\s*+\(")
_SCOPE_HEAD = re.compile(rb"\s*+(?:[^(){};=]*\b(?:namespace|class|struct|union)\b[^(){};=]*|extern\s*\"_*\"\s*)")
_AFTER_PARAMETERS = re.compile(rb"[\w\s:]*+")
# What ends before a signature, besides another declaration: an access specifier, a gap, a directive that is no #if.
_LABEL = re.compile(rb"(?<!:):(?!:)")
_GAP = re.compile(rb"\n[ \t\r\f\v]*(?:(?=\n)|(?:\#|%:)[ \t]*(?!if|el|endif)\w[^\n]*)")
_MAX_SIGNATURE = 1_000  # bytes that are looked through for the beginning of one
_BRACE = re.compile(rb"[{};]")
_STATEMENT_WORDS = frozenset((b"if", b"while", b"for", b"switch", b"else", b"do", b"return", b"case", b"catch"))
_STATEMENT_WORDS |= {b"class", b"struct", b"union", b"enum", b"namespace"}
_SCOPE_SPACE = re.compile(rb" ?:: ?")
_SPACE = re.compile(rb"\s+")


@dataclass(frozen=True, slots=True)
class Function:
    """A function definition. Lines from 1, inclusive; bytes 0-based, half-open."""

    name: str  # as written; qualified in C++: ns::Cls::run; bytes that are no UTF-8 are U+FFFD
    first_line: int  # of the whole signature, with a return type on a line of its own
    last_line: int
    start_byte: int
    end_byte: int
    body_first_line: int  # of the braces
    body_last_line: int
    has_error: bool  # the parser did not understand all of the body


@dataclass(frozen=True, slots=True)
class Outline:
    """The functions of a file, and where its outline is in doubt."""

    functions: tuple[Function, ...]
    doubtful: tuple[LineRange, ...]  # lines outside of functions that the parser did not understand
    is_too_complex: bool  # the parser gave up: nothing is known


def functions(source: bytes, path: str) -> tuple[Function, ...]:
    """All function definitions in the order of the text; none if the parser gave up."""
    return outline(source, path).functions


def outline(source: bytes, path: str) -> Outline:
    """The functions of a file with what the parser did not understand. Never raises."""
    try:
        return outline_of(tuple(parse(source, path)))
    except TooComplex:
        return Outline((), (), True)


def outline_of(configurations: Sequence[Parsed]) -> Outline:
    """The outline of a file that was parsed already."""
    usual = configurations[0]
    found = _functions_of(usual)
    taken = _Spans((f.start_byte, f.end_byte) for f in found)
    found += [f for f in _by_braces(usual) if not taken.touch(f.start_byte, f.end_byte)]
    for parsed in configurations[1:]:
        # New is only what lies in a branch that the usual configuration leaves out.
        taken = _Spans((f.start_byte, f.end_byte) for f in found)
        if not _may_define(parsed.text, [span for span in usual.left_out if not taken.hold(*span)]):
            continue
        left_out = _Spans(usual.left_out)
        own = [f for f in _functions_of(parsed) if left_out.touch(f.start_byte, f.start_byte + 1)]
        found += [f for f in own if not taken.touch(f.start_byte, f.end_byte)]
    found.sort(key=lambda f: (f.start_byte, -f.end_byte))
    doubtful = sorted(LineRange(e.start_point.row + 1, e.end_point.row + 1) for e in errors(usual.root))
    lines = _Spans((f.first_line, f.last_line + 1) for f in found)
    outside = [d for d in doubtful if not lines.hold(d.first_line, d.last_line + 1)]
    return Outline(tuple(found), tuple(outside), False)


class _Spans:
    """Half-open spans, merged where they overlap, to be asked in logarithmic time."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(spans):
            if self._ends and start < self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def touch(self, start: int, end: int) -> bool:
        """Whether one of the spans overlaps with this one."""
        at = bisect_left(self._starts, end) - 1
        return at >= 0 and self._ends[at] > start

    def hold(self, start: int, end: int) -> bool:
        """Whether this span lies in one of them."""
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and end <= self._ends[at]


def function_at(functions: Sequence[Function], first_line: int, last_line: int) -> Function | None:
    """The innermost function that holds all of these lines."""
    around = [f for f in functions if f.first_line <= first_line and last_line <= f.last_line]
    return min(around, key=lambda f: (f.last_line - f.first_line, -f.start_byte), default=None)


def body_of(definition: Node) -> Node | None:
    """The braces of a function definition; None for `= default` and the like."""
    body = definition.child_by_field_name("body")
    if body is None:
        body = next((child for child in definition.children if child.type in _BODIES), None)
    return body if body is not None and body.type in _BODIES else None


def largest_definition(parsed: Parsed) -> Node | None:
    """The function definition that a function's text consists of."""
    found = [node for node in outer_nodes(parsed) if node.type == "function_definition" and body_of(node) is not None]
    return max(found, key=lambda node: (node.end_byte - node.start_byte, -node.start_byte), default=None)


def _functions_of(parsed: Parsed) -> list[Function]:
    closing = _Closing(parsed.text)
    templates: dict[int, Node] = {}  # by id of what they are templates of
    scopes: list[tuple[Node, Node]] = []  # around the present node, with their bodies
    result: list[Function] = []
    outer_end, outer_body = 0, 0
    for node in outer_nodes(parsed):
        while scopes and scopes[-1][1].end_byte <= node.start_byte:
            scopes.pop()
        if node.type == "template_declaration" and node.named_children:
            templates[node.named_children[-1].id] = node
        elif node.type in _SCOPES and parsed.cpp:
            block = node.child_by_field_name("body")
            if block is not None:
                scopes.append((node, block))
        if node.type != "function_definition":
            continue
        body, name = body_of(node), name_of(node, parsed.text)
        if body is None or name is None or _opens_scope(parsed.text, node.start_byte, body.start_byte):
            continue
        within = [s for s, block in scopes if block.start_byte <= node.start_byte and node.end_byte <= block.end_byte]
        is_method = any(s.type != "namespace_definition" and s.start_byte >= outer_body for s in within)
        # A macro with a block, `foreach(x) { }`, reads as a function inside of one. A true one
        # found there at the left margin is the next function, after a brace that never closed.
        if node.start_byte < outer_end and not is_method and node.start_point.column > 0:
            continue
        end_byte, body_error = node.end_byte, body.has_error
        if body_error and body.type == "compound_statement":
            # Recovery may run on into the next functions; braces tell the end.
            end_byte = closing.of(body.start_byte) or node.end_byte
        last_line = parsed.lexis.line_of(end_byte - 1)
        if end_byte > outer_end:
            outer_end, outer_body = end_byte, body.start_byte
        scope_names = (s.child_by_field_name("name") for s in within)
        scope = [_SPACE.sub(b"", text_of(n, parsed.text)) for n in scope_names if n is not None]
        start_byte = templates.get(node.id, node).start_byte
        declarator = node.child_by_field_name("declarator")
        if declarator is not None:
            head = parsed.text[start_byte : declarator.start_byte]
            # Recovery may take whole declarations for the type; `static struct { int a; } f(void)` is true.
            start_byte = declarator.start_byte if b";" in head and b"(" in head else start_byte
        start_byte = _signature_start(parsed, start_byte)
        result.append(
            Function(
                name=b"::".join([*scope, name]).decode("utf-8", "replace"),
                first_line=parsed.lexis.line_of(start_byte),
                last_line=last_line,
                start_byte=start_byte,
                end_byte=end_byte,
                body_first_line=body.start_point.row + 1,
                body_last_line=last_line,
                has_error=body_error,
            )
        )
    return result


def _by_braces(parsed: Parsed) -> list[Function]:
    """Functions as far as braces show them, outermost or in namespaces and classes.

    Takes over where one macro, `GET_STATE` without a semicolon say, keeps the
    grammar from seeing a function at all. Their bodies count as not understood.
    """
    text, lexis = parsed.text, parsed.lexis
    result: list[Function] = []
    begin, depth, opening = 0, 0, 0
    for match in _BRACE.finditer(text):
        at = match.start()
        if match[0] == b"{":
            if depth == 0 and _opens_scope(text, begin, at):
                begin = at + 1
                continue  # its closing brace finds no depth to take away
            if depth == 0:
                opening = at
            depth += 1
        elif match[0] == b"}" and depth > 0:
            depth -= 1
            called = _signed(text, begin, opening) if depth == 0 else None
            if called is not None and called[1] not in _STATEMENT_WORDS:
                start = _signature_start(parsed, called.start(1))
                lines = [lexis.line_of(byte) for byte in (start, at, opening)]
                name = called[1].decode("utf-8", "replace")
                result.append(Function(name, lines[0], lines[1], start, at + 1, lines[2], lines[1], True))
        if depth == 0:
            begin = at + 1
    return result


def _opens_scope(text: bytes, begin: int, opening: int) -> bool:
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


class _Closing:
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


def name_of(definition: Node, text: bytes) -> bytes | None:
    """The name as written, without white space; None if this is no function."""
    node = definition.child_by_field_name("declarator")
    called: Node | None = None  # what stands before the parameters
    while node is not None and node.type not in _NAMES:
        inner = node.child_by_field_name("declarator")
        if inner is None:
            inner = next((child for child in node.named_children if child.type.endswith("declarator")), None)
        if inner is None:
            inner = next((child for child in node.named_children if child.type in _NAMES), None)
        if node.type == "function_declarator":
            # `BOOL APIENTRY f(...)`: the last word before the parameters is the name.
            odd = next((child for child in node.children if child.is_error and child.named_child_count == 1), None)
            inner = called = (
                odd.named_children[0] if odd is not None and odd.named_children[0].type in _NAMES else inner
            )
        node = inner
    if node is None:
        return None
    if node.type == "operator_cast":
        kind = node.child_by_field_name("type")
        return b"operator " + text_of(kind, text) if kind is not None else b"operator"
    name = _SCOPE_SPACE.sub(b"::", _SPACE.sub(b" ", text_of(node, text)).strip())
    if b" " in name and b"operator" not in name and b"~" not in name:
        name = name.rpartition(b" ")[2]  # `typename A<x>::type f`: the grammar took the type for a part of the name
    if called is None and node.type == "identifier":
        name = _name_before_macro(definition, text)
    return None if name in _STATEMENT_WORDS or not name else name


def _name_before_macro(definition: Node, text: bytes) -> bytes:
    """What is called where the grammar took a macro for the name; empty if nothing is."""
    for odd in (child for child in definition.children if child.is_error):
        for declarator in (child for child in odd.named_children if child.type == "function_declarator"):
            # `f(int a) NOEXCEPT { }`
            name = declarator.child_by_field_name("declarator")
            return _SPACE.sub(b" ", text_of(name, text)) if name is not None and name.type in _NAMES else b""
    # `TYPE(name) { }`: a macro that makes the signature.
    kind = definition.child_by_field_name("type")
    return text_of(kind, text) if kind is not None and kind.type == "type_identifier" else b""


def _signature_start(parsed: Parsed, start: int) -> int:
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


def _may_define(text: bytes, spans: Iterable[tuple[int, int]]) -> bool:
    """Whether a definition may begin in one of these spans: a cheap look before a parse."""
    pieces = (text[start:end] for start, end in spans)
    return any(b"(" in piece and (b"{" in piece or not piece.rstrip().endswith(b";")) for piece in pieces)
