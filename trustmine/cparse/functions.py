"""The functions of a C or C++ file: names, lines, bodies.

Sees every branch of every #if: functions in an #else are found by parsing
again with that branch chosen. What a function's text is, the caller cuts
from the original by line or byte.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tree_sitter import Node

from trustmine.cparse.tree import Parsed, TooComplex, errors, outer_nodes, parse, text_of
from trustmine.lines import LineRange

_SCOPES = frozenset(("namespace_definition", "class_specifier", "struct_specifier", "union_specifier"))
_BODIES = ("compound_statement", "try_statement", "constructor_try_statement")
_NAMES = frozenset(("identifier", "field_identifier", "type_identifier", "operator_name", "destructor_name"))
_NAMES |= {"qualified_identifier", "template_function", "template_method", "operator_cast", "dependent_name"}
# A signature as far as it can be told without a grammar: name(...) up to the brace, no initialiser.
_SIGNATURE = re.compile(rb"(?<![\w.])([A-Za-z_~][\w:~]*)\s*\([^{};=]*\)[\w\s:()]*\Z")
_BRACE = re.compile(rb"[{};]")
_STATEMENT_WORDS = frozenset((b"if", b"while", b"for", b"switch", b"else", b"do", b"return", b"case", b"catch"))
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
    found += [f for f in _by_braces(usual) if not any(_overlap(f, g) for g in found)]
    for parsed in configurations[1:]:
        # New is only what lies in a branch that the usual configuration leaves out.
        if not _may_define(parsed.text, [span for span in usual.left_out if not _is_inside(span, found)]):
            continue
        own = [f for f in _functions_of(parsed) if _is_within(f, usual.left_out)]
        found += [f for f in own if not any(_overlap(f, g) for g in found)]
    found.sort(key=lambda f: (f.start_byte, -f.end_byte))
    doubtful = sorted(LineRange(e.start_point.row + 1, e.end_point.row + 1) for e in errors(usual.root))
    outside = [
        d for d in doubtful if not any(f.first_line <= d.first_line and d.last_line <= f.last_line for f in found)
    ]
    return Outline(tuple(found), tuple(outside), False)


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
    nodes = list(outer_nodes(parsed))
    templates = [node for node in nodes if node.type == "template_declaration" and node.named_children]
    template_start = {template.named_children[-1].id: template for template in templates}
    scopes = [
        (node, node.child_by_field_name("body"), node.child_by_field_name("name"))
        for node in nodes
        if node.type in _SCOPES and parsed.cpp
    ]
    broken = [(e.start_byte, e.end_byte) for e in errors(parsed.root)]
    result: list[Function] = []
    outer_end, outer_body = 0, 0
    for node in (node for node in nodes if node.type == "function_definition"):
        body, name = body_of(node), name_of(node, parsed.text)
        if body is None or name is None:
            continue
        start = template_start.get(node.id, node)
        within = [(s, n) for s, b, n in scopes if b and b.start_byte <= node.start_byte and node.end_byte <= b.end_byte]
        is_method = any(s.type != "namespace_definition" and s.start_byte >= outer_body for s, _ in within)
        # A macro with a block, `foreach(x) { }`, reads as a function inside of one. A true one
        # found there at the left margin is the next function, after a brace that never closed.
        if node.start_byte < outer_end and not is_method and node.start_point.column > 0:
            continue
        end_byte, body_error = node.end_byte, any(body.start_byte <= s and e <= body.end_byte for s, e in broken)
        if body_error and body.type == "compound_statement":
            # Recovery may run on into the next functions; braces tell the end.
            end_byte = _closing_brace(parsed.text, body.start_byte) or node.end_byte
        last_line = parsed.lexis.line_of(end_byte - 1)
        if end_byte > outer_end:
            outer_end, outer_body = end_byte, body.start_byte
        scope = [_SPACE.sub(b"", text_of(n, parsed.text)) for s, n in within if n is not None]
        result.append(
            Function(
                name=b"::".join([*scope, name]).decode("utf-8", "replace"),
                first_line=start.start_point.row + 1,
                last_line=last_line,
                start_byte=start.start_byte,
                end_byte=end_byte,
                body_first_line=body.start_point.row + 1,
                body_last_line=last_line,
                has_error=body_error,
            )
        )
    return result


def _by_braces(parsed: Parsed) -> list[Function]:
    """Functions as far as braces at the outermost level show them.

    Takes over where one macro, `GET_STATE` without a semicolon say, keeps the
    grammar from seeing a function at all. Their bodies count as not understood.
    """
    text, lexis = parsed.text, parsed.lexis
    result: list[Function] = []
    begin, depth, opening = 0, 0, 0
    for match in _BRACE.finditer(text):
        at = match.start()
        if match[0] == b"{":
            if depth == 0:
                opening = at
            depth += 1
        elif match[0] == b"}" and depth > 0:
            depth -= 1
            signature = _SIGNATURE.search(text, begin, opening) if depth == 0 else None
            if signature and signature[1] not in _STATEMENT_WORDS:
                start = begin + len(text[begin:opening]) - len(text[begin:opening].lstrip())
                lines = [lexis.line_of(byte) for byte in (start, at, opening)]
                name = signature[1].decode("utf-8", "replace")
                result.append(Function(name, lines[0], lines[1], start, at + 1, lines[2], lines[1], True))
        if depth == 0:
            begin = at + 1
    return result


def _closing_brace(text: bytes, opening: int) -> int | None:
    """Where the block that opens at this byte ends."""
    depth = 0
    for match in _BRACE.finditer(text, opening):
        depth += {b"{": 1, b"}": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return None


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
            called = inner
        node = inner
    if node is None:
        return None
    if node.type == "operator_cast":
        kind = node.child_by_field_name("type")
        return b"operator " + text_of(kind, text) if kind is not None else b"operator"
    name = _SPACE.sub(b" ", text_of(node, text)).strip()
    if called is None and node.type == "identifier":
        # `TYPE(name) { }`: a macro that makes the signature.
        kind = definition.child_by_field_name("type")
        name = text_of(kind, text) if kind is not None else name
    return None if name in _STATEMENT_WORDS or not name else name


def _may_define(text: bytes, spans: Iterable[tuple[int, int]]) -> bool:
    """Whether a definition may begin in one of these spans: a cheap look before a parse."""
    pieces = (text[start:end] for start, end in spans)
    return any(b"(" in piece and (b"{" in piece or not piece.rstrip().endswith(b";")) for piece in pieces)


def _is_inside(span: tuple[int, int], found: Sequence[Function]) -> bool:
    return any(f.start_byte <= span[0] and span[1] <= f.end_byte for f in found)


def _is_within(function: Function, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= function.start_byte < end for start, end in spans)


def _overlap(one: Function, other: Function) -> bool:
    return one.start_byte < other.end_byte and other.start_byte < one.end_byte
