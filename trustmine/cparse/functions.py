"""The functions of a C or C++ file: names, lines, bodies.

Sees every branch of every #if: functions in an #else are found by parsing
again with that branch chosen. What a function's text is, the caller cuts
from the original by line or byte.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tree_sitter import Node

from trustmine.cparse.braces import STATEMENT_WORDS, Block, Closing, blocks, opens_scope, signature_start
from trustmine.cparse.lexis import Lexis
from trustmine.cparse.spans import Spans
from trustmine.cparse.tree import Parsed, TooComplex, errors, outer_nodes, parse, text_of
from trustmine.lines import LineRange

_SCOPES = frozenset(("namespace_definition", "class_specifier", "struct_specifier", "union_specifier"))
_BODIES = ("compound_statement", "try_statement", "constructor_try_statement")
_NAMES = frozenset(("identifier", "field_identifier", "type_identifier", "operator_name", "destructor_name"))
_NAMES |= {"qualified_identifier", "template_function", "template_method", "operator_cast", "dependent_name"}
_SCOPE_SPACE = re.compile(rb" ?:: ?")
_SPACE = re.compile(rb"\s+")
# Of the names of scopes around a function: as long as one identifier may be by what C++ asks of compilers at least
# (https://eel.is/c++draft/implimits). In 111,000 functions of CUDA's and the system's headers all had 200 or less.
MAX_SCOPE_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class Function:
    """A function definition. Lines from 1, inclusive; bytes 0-based, half-open."""

    # As written; qualified in C++: ns::Cls::run, where ns::Cls is cut after MAX_SCOPE_BYTES. Bytes that are no UTF-8
    # are U+FFFD.
    name: str
    first_line: int  # of the whole signature, with a return type on a line of its own
    last_line: int
    start_byte: int
    end_byte: int
    body_first_line: int  # of the braces
    body_last_line: int
    has_error: bool  # the parser did not understand all of the body


@dataclass(frozen=True, slots=True)
class _Scope:
    """A namespace or class while its braces are open, or the whole file."""

    start_byte: int  # of the braces
    end_byte: int
    prefix: bytes  # of names in it: ns::Cls::
    class_start_byte: int  # of the innermost class among it and those around it; -1: none


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
    taken = Spans((f.start_byte, f.end_byte) for f in found)
    found += [_of_block(b, usual.lexis) for b in blocks(usual) if not taken.touch(b.start, b.end)]
    for parsed in configurations[1:]:
        # New is only what lies in a branch that the usual configuration leaves out.
        taken = Spans((f.start_byte, f.end_byte) for f in found)
        if not _may_define(parsed.text, [span for span in usual.left_out if not taken.hold(*span)]):
            continue
        left_out = Spans(usual.left_out)
        own = [f for f in _functions_of(parsed) if left_out.touch(f.start_byte, f.start_byte + 1)]
        found += [f for f in own if not taken.touch(f.start_byte, f.end_byte)]
    found.sort(key=lambda f: (f.start_byte, -f.end_byte))
    doubtful = sorted(LineRange(e.start_point.row + 1, e.end_point.row + 1) for e in errors(usual.root))
    lines = Spans((f.first_line, f.last_line + 1) for f in found)
    outside = [d for d in doubtful if not lines.hold(d.first_line, d.last_line + 1)]
    return Outline(tuple(found), tuple(outside), False)


def function_at(functions: Sequence[Function], first_line: int, last_line: int) -> Function | None:
    """The innermost function that holds all of these lines."""
    around = [f for f in functions if f.first_line <= first_line and last_line <= f.last_line]
    return min(around, key=lambda f: (f.last_line - f.first_line, -f.start_byte), default=None)


def name_in(source: bytes, path: str) -> str | None:
    """The name of the function that a text consists of, as its signature has it; None where the parser sees none."""
    try:
        found = outline_of(tuple(parse(source, path, is_fragment=True))).functions
    except TooComplex:
        return None
    largest = max(found, key=lambda f: (f.end_byte - f.start_byte, -f.start_byte), default=None)
    return None if largest is None else largest.name


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
    closing = Closing(parsed.text)
    templates: dict[int, Node] = {}  # by id of what they are templates of
    scopes = [_Scope(0, len(parsed.text) + 1, b"", -1)]  # around the present node
    result: list[Function] = []
    outer_end, outer_body = 0, 0
    for node in outer_nodes(parsed):
        while scopes[-1].end_byte <= node.start_byte:
            scopes.pop()
        if node.type == "template_declaration" and node.named_children:
            templates[node.named_children[-1].id] = node
        elif node.type in _SCOPES and parsed.cpp:
            block = node.child_by_field_name("body")
            if block is not None:
                scopes.append(_opened(node, block, _around(node, scopes), parsed.text))
        if node.type != "function_definition":
            continue
        body, name = body_of(node), name_of(node, parsed.text)
        if body is None or name is None or opens_scope(parsed.text, node.start_byte, body.start_byte):
            continue
        scope = _around(node, scopes)
        is_method = scope.class_start_byte >= outer_body
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
        start_byte = templates.get(node.id, node).start_byte
        declarator = node.child_by_field_name("declarator")
        if declarator is not None:
            head = parsed.text[start_byte : declarator.start_byte]
            # Recovery may take whole declarations for the type; `static struct { int a; } f(void)` is true.
            start_byte = declarator.start_byte if b";" in head and b"(" in head else start_byte
        start_byte = signature_start(parsed, start_byte)
        result.append(
            Function(
                name=(scope.prefix + name).decode("utf-8", "replace"),
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


def _around(node: Node, scopes: Sequence[_Scope]) -> _Scope:
    """The innermost scope that the node is in: what stands before a scope's braces is not."""
    return next(scope for scope in reversed(scopes) if scope.start_byte <= node.start_byte)


def _opened(node: Node, block: Node, around: _Scope, text: bytes) -> _Scope:
    called = node.child_by_field_name("name")
    prefix, class_start_byte = around.prefix, around.class_start_byte
    if called is not None:
        # What is around many functions is in the name of each: cut, they stay linear in the file's size.
        prefix = (prefix + _SPACE.sub(b"", text_of(called, text)))[:MAX_SCOPE_BYTES] + b"::"
    if node.type != "namespace_definition":
        class_start_byte = node.start_byte
    return _Scope(block.start_byte, block.end_byte, prefix, class_start_byte)


def _of_block(block: Block, lexis: Lexis) -> Function:
    """What braces alone show counts as not understood."""
    first, opening, last = (lexis.line_of(byte) for byte in (block.start, block.opening, block.end - 1))
    name = block.name.decode("utf-8", "replace")
    return Function(name, first, last, block.start, block.end, opening, last, True)


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
    return None if name in STATEMENT_WORDS or not name else name


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


def _may_define(text: bytes, spans: Iterable[tuple[int, int]]) -> bool:
    """Whether a definition may begin in one of these spans: a cheap look before a parse."""
    pieces = (text[start:end] for start, end in spans)
    return any(b"(" in piece and (b"{" in piece or not piece.rstrip().endswith(b";")) for piece in pieces)
