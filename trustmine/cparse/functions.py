"""The functions of a C or C++ file: names, lines, bodies.

Sees every branch of every #if: functions in an #else are found by parsing
again with that branch chosen. What a function's text is, the caller cuts
from the original by line or byte.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tree_sitter import Node

from trustmine.cparse.tree import Parsed, TooComplex, captures, errors, parse, query, text_of
from trustmine.lines import LineRange

_DEFINITIONS = query(
    "(function_definition) @function",
    """
    (template_declaration (function_definition) @templated) @template
    (namespace_definition) @scope (class_specifier) @scope (struct_specifier) @scope (union_specifier) @scope
    """,
)
_BODIES = ("compound_statement", "try_statement", "constructor_try_statement")
_NAMES = frozenset(
    ("identifier", "field_identifier", "type_identifier", "operator_name", "destructor_name", "qualified_identifier")
    + ("template_function", "template_method", "operator_cast", "dependent_name")
)
_STATEMENT_WORDS = frozenset((b"if", b"while", b"for", b"switch", b"else", b"do", b"return", b"case", b"catch"))
_SPACE = re.compile(rb"\s+")


@dataclass(frozen=True, slots=True)
class Function:
    """A function definition. Lines from 1, inclusive; bytes 0-based, half-open."""

    name: str  # as written; qualified in C++: ns::Cls::run
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
    found: list[Function] = []
    doubtful: list[LineRange] = []
    try:
        for number, parsed in enumerate(parse(source, path)):
            own = _functions_of(parsed)
            if number == 0:
                seen_in = parsed.left_out
                found = own
                doubtful = [LineRange(e.start_point.row + 1, e.end_point.row + 1) for e in errors(parsed)]
            else:
                # New is only what lies in a branch that the usual configuration leaves out.
                found += [f for f in own if _is_within(f, seen_in) and not any(_overlap(f, g) for g in found)]
    except TooComplex:
        return Outline((), (), True)
    found.sort(key=lambda f: (f.start_byte, -f.end_byte))
    outside = [d for d in doubtful if not any(f.first_line <= d.first_line and d.last_line <= f.last_line for f in found)]
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


def _functions_of(parsed: Parsed) -> list[Function]:
    found = captures(parsed, _DEFINITIONS)
    template_start = {t.named_children[-1].id: t for t in found.get("template", [])}
    scopes = [(s, s.child_by_field_name("body"), s.child_by_field_name("name")) for s in found.get("scope", [])]
    broken = [(e.start_byte, e.end_byte) for e in errors(parsed)]
    result: list[Function] = []
    outer_end, outer_body = 0, 0
    for node in sorted(found.get("function", []), key=lambda n: (n.start_byte, -n.end_byte)):
        body, name = body_of(node), _name(node)
        if body is None or name is None:
            continue
        start = template_start.get(node.id, node)
        within = [(s, n) for s, b, n in scopes if b and b.start_byte <= node.start_byte and node.end_byte <= b.end_byte]
        is_method = any(s.type != "namespace_definition" and s.start_byte >= outer_body for s, _ in within)
        # A macro with a block, `foreach(x) { }`, reads as a function inside of one. A true one
        # found there at the left margin is the next function, after a brace that never closed.
        if node.start_byte < outer_end and not is_method and node.start_point.column > 0:
            continue
        if node.end_byte > outer_end:
            outer_end, outer_body = node.end_byte, body.start_byte
        scope = [_SPACE.sub(b"", text_of(n)) for s, n in within if n is not None]
        result.append(
            Function(
                name=b"::".join([*scope, name]).decode("utf-8", "replace"),
                first_line=start.start_point.row + 1,
                last_line=node.end_point.row + 1,
                start_byte=start.start_byte,
                end_byte=node.end_byte,
                body_first_line=body.start_point.row + 1,
                body_last_line=body.end_point.row + 1,
                has_error=body.has_error and any(body.start_byte <= s and e <= body.end_byte for s, e in broken),
            )
        )
    return result


def _name(definition: Node) -> bytes | None:
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
        return b"operator " + text_of(kind) if kind is not None else b"operator"
    name = _SPACE.sub(b" ", text_of(node)).strip()
    if called is None and node.type == "identifier":
        # `TYPE(name) { }`: a macro that makes the signature.
        kind = definition.child_by_field_name("type")
        name = text_of(kind) if kind is not None else name
    return None if name in _STATEMENT_WORDS or not name else name


def _is_within(function: Function, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= function.start_byte < end for start, end in spans)


def _overlap(one: Function, other: Function) -> bool:
    return one.start_byte < other.end_byte and other.start_byte < one.end_byte
