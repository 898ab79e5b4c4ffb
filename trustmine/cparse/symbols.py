"""What a file defines or declares outside of its functions' bodies."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tree_sitter import Node

from trustmine.cparse.functions import outline_of
from trustmine.cparse.lexis import Lexis, is_cpp
from trustmine.cparse.tree import Parsed, TooComplex, fields, parse, text_of

_MACRO = re.compile(rb"[ \t\f\v\r]*(?:#|%:)[ \t\f\v]*define(?:\\\r?\n|[ \t])+([A-Za-z_]\w*)")
_INCLUDE = re.compile(rb"(?:#|%:)[ \t]*include[ \t]*(?:\"([^\"\n]+)\"|<([^>\n]+)>)")
_WORD = re.compile(rb"[A-Za-z_]\w*")
_TYPES = {
    "struct_specifier": "struct",
    "class_specifier": "struct",
    "union_specifier": "union",
    "enum_specifier": "enum",
}


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name with the lines of its definition or declaration, from 1, inclusive."""

    name: str  # the last part only, in C++: run for Cls::run
    kind: str  # function, variable, struct, union, enum, typedef, macro, constant, member
    first_line: int
    last_line: int
    is_declaration_only: bool  # a prototype, an extern variable, `struct foo;`


def symbols(source: bytes, path: str) -> tuple[Symbol, ...]:
    """Functions, variables, types, macros, enumerators and members, in the order of the text.

    A C++ class counts as a struct. Looks into every branch of every #if.
    Empty if the file cannot be parsed in bounds. Never raises.
    """
    try:
        found = _symbols(tuple(parse(source, path)), source)
    except TooComplex:
        return ()
    return tuple(sorted(found, key=lambda s: (s.first_line, s.last_line, s.kind, s.name)))


def _symbols(configurations: Sequence[Parsed], source: bytes) -> set[Symbol]:
    usual = configurations[0]
    found: set[Symbol] = set(_macros(usual.lexis))
    for function in outline_of(configurations).functions:
        name = function.name.rpartition("::")[2]
        if not name or "\ufffd" in name:
            continue  # not a name that anything could be looked up by
        found.add(Symbol(name, "function", function.first_line, function.last_line, False))
    for parsed in configurations:
        found |= {s for at, s in _declared(parsed, source) if parsed is usual or _is_in(at, usual.left_out)}
    return found


def includes(source: bytes, path: str) -> tuple[str, ...]:
    """The paths that #include lines name, in their order, each once."""
    lexis = Lexis(source, is_cpp(path), is_fragment=True)
    found = (_INCLUDE.search(source, d.start, d.end) for d in lexis.directives if d.word == b"include")
    return tuple(dict.fromkeys((match[1] or match[2]).decode("utf-8", "replace") for match in found if match))


def _macros(lexis: Lexis) -> Iterator[Symbol]:
    for directive in lexis.directives:
        match = _MACRO.match(lexis.source, directive.start, directive.end)
        if match:
            last = lexis.line_of(max(directive.end - 1, directive.start))
            yield Symbol(match[1].decode(), "macro", lexis.line_of(match.start(1)), last, False)


def _declared(parsed: Parsed, source: bytes) -> Iterator[tuple[int, Symbol]]:
    """(byte, symbol) of every declaration outside of function bodies."""

    def symbol(name: Node, kind: str, whole: Node, is_declaration_only: bool = False) -> Iterator[tuple[int, Symbol]]:
        match = _WORD.fullmatch(source, name.start_byte, name.end_byte)
        if match is not None:
            first, last = whole.start_point.row + 1, whole.end_point.row + 1
            yield name.start_byte, Symbol(match[0].decode(), kind, first, last, is_declaration_only)

    # A node, and the declaration whose lines define what is found in it.
    stack: list[tuple[Node, Node]] = [(parsed.root, parsed.root)]
    while stack:
        node, whole = stack.pop()
        if node.type in _TYPES:
            name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
            # `struct foo;` declares; `struct foo *p;` only uses.
            is_alone = whole.id == node.id or whole.child_by_field_name("declarator") is None
            if name is not None and (body is not None or is_alone):
                yield from symbol(name, _TYPES[node.type], node, body is None)
            if body is not None:
                stack += [(child, child) for child in body.named_children]
        elif node.type == "enumerator":
            name = node.child_by_field_name("name")
            if name is not None:
                yield from symbol(name, "constant", node)
        elif node.type in ("declaration", "field_declaration", "type_definition"):
            is_extern = any(
                c.type == "storage_class_specifier" and text_of(c, parsed.text) == b"extern" for c in node.children
            )
            for child, _, role in fields(node):
                if role == "type":
                    stack.append((child, node))
                elif role == "declarator":
                    name, is_function = _declarator(child)
                    if name is None:
                        continue
                    if node.type == "type_definition":
                        yield from symbol(name, "typedef", node)
                    elif is_function:
                        yield from symbol(name, "function", node, True)
                    elif node.type == "field_declaration":
                        yield from symbol(name, "member", node)
                    else:
                        yield from symbol(name, "variable", node, is_extern and child.type != "init_declarator")
        elif node.type == "alias_declaration":
            name = node.child_by_field_name("name")
            if name is not None:
                yield from symbol(name, "typedef", node)
        elif node.type == "function_definition":
            kind = node.child_by_field_name("type")
            if kind is not None:
                stack.append((kind, node))
        elif node.type not in ("compound_statement", "expression_statement"):
            stack += [(child, child) for child in node.named_children]


def _declarator(node: Node) -> tuple[Node | None, bool]:
    """The name in a declarator, and whether it declares a function (not a pointer to one)."""
    is_function = False
    at: Node | None = node
    while at is not None and at.child_count:
        if at.type in ("qualified_identifier", "operator_name", "destructor_name", "template_function"):
            return at.child_by_field_name("name"), is_function
        if at.type == "function_declarator":
            is_function = True
        elif at.type in ("pointer_declarator", "array_declarator"):
            is_function = False  # of what is nearer to the name; set again below it
        inner = at.child_by_field_name("declarator")
        if inner is None:
            inner = next((c for c in at.named_children if c.type.endswith(("declarator", "identifier"))), None)
        at = inner
    return (at if at is not None and at.type.endswith("identifier") else None), is_function


def _is_in(byte: int, spans: tuple[tuple[int, int], ...]) -> bool:
    return any(start <= byte < end for start, end in spans)
