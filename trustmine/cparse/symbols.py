"""What a file defines or declares outside of its functions' bodies."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from tree_sitter import Node

from trustmine.cparse.functions import outline_of
from trustmine.cparse.lexis import Lexis, is_cpp
from trustmine.cparse.outside import declarations
from trustmine.cparse.tree import Parsed, TooComplex, fields, parse, text_of

# Raised when the same file would give other symbols; the grammars' versions count as well.
VERSION = 1
PARSER = f"{VERSION} c {metadata.version('tree-sitter-c')} cpp {metadata.version('tree-sitter-cpp')}"
# Larger files are data. The largest of curl, vim and gpac has 2 MB, the amalgamation of SQLite 9 MB.
MAX_BYTES = 16_000_000

# A name with a dollar, of VMS, is no name of C.
_MACRO = re.compile(rb"[ \t\f\v\r]*(?:#|%:)[ \t\f\v]*define(?:\\\r?\n|[ \t])+([A-Za-z_]\w*+)(?!\$)")
_INCLUDE = re.compile(rb"(?:#|%:)[ \t]*include[ \t]*(?:\"([^\"\n]+)\"|<([^>\n]+)>)")
_WORD = re.compile(rb"[A-Za-z_]\w*")
_STATEMENT = re.compile(rb"(?:if|else|for|while|do|switch|case|return)\b")
_FUNCTION = re.compile(r"~?[A-Za-z_]\w*|operator.*", re.ASCII)
# What the parser may take for a name where it went astray. `_` stands for an enumerator that a macro makes.
_NO_NAMES = frozenset(
    b"_ const volatile struct union enum class static extern inline typedef unsigned signed void int char long short "
    b"float double return if else for while do switch case default goto break continue sizeof".split()
)
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


@dataclass(frozen=True, slots=True)
class FileSymbols:
    """What a file defines, declares and includes."""

    symbols: tuple[Symbol, ...]  # in the order of the text
    includes: tuple[str, ...]  # the paths that #include lines name, in their order, each once
    loss: str | None  # why there are fewer symbols than the file may have: too_large, too_complex


def grammar(path: str) -> str:
    """How a file of this name is read: c, cpp, or h, which is C unless C++ reads it with fewer errors."""
    return "cpp" if is_cpp(path) else "c" if path.lower().endswith(".c") else "h"


def file_symbols(source: bytes, grammar: str) -> FileSymbols:
    """Functions, variables, types, macros, enumerators and members; and what is included.

    A C++ class counts as a struct. Looks into every branch of every #if.
    Nothing but macros if the file cannot be parsed in bounds. Never raises.
    """
    if len(source) > MAX_BYTES:
        return FileSymbols((), (), "too_large")
    whole = Lexis(source, grammar == "cpp")
    found = set(_macros(whole))
    loss = None
    try:
        found |= _parsed(declarations(whole, grammar == "cpp"), f"x.{grammar}")
    except TooComplex:
        loss = "too_complex"
    in_order = sorted(found, key=lambda s: (s.first_line, s.last_line, s.kind, s.name))
    return FileSymbols(tuple(in_order), _includes(whole), loss)


def symbols(source: bytes, path: str) -> tuple[Symbol, ...]:
    """The symbols of a file of this name; see `file_symbols`."""
    return file_symbols(source, grammar(path)).symbols


def includes(source: bytes, path: str) -> tuple[str, ...]:
    """The paths that #include lines name, in their order, each once."""
    return _includes(Lexis(source, is_cpp(path)))


def _includes(lexis: Lexis) -> tuple[str, ...]:
    found = (_INCLUDE.search(lexis.source, d.start, d.end) for d in lexis.directives if d.word == b"include")
    return tuple(dict.fromkeys((match[1] or match[2]).decode("utf-8", "replace") for match in found if match))


def _parsed(source: bytes, path: str) -> set[Symbol]:
    configurations = tuple(parse(source, path))
    usual = configurations[0]
    found: set[Symbol] = set()
    for function in outline_of(configurations).functions:
        name = function.name.rpartition("::")[2]
        is_other = name == function.name and _is_no_function(name, source[function.start_byte : function.end_byte])
        if _FUNCTION.fullmatch(name) and not is_other:
            found.add(Symbol(name, "function", function.first_line, function.last_line, False))
    for parsed in configurations:
        found |= {s for at, s in _declared(parsed, source) if parsed is usual or _is_in(at, usual.left_out)}
    return found


def _is_no_function(name: str, text: bytes) -> bool:
    """Whether this is no function of that name: a macro that makes a signature, so that the function has another
    name, `DEFINE_TYPE(x) { }`, or a statement of a body that a macro has opened.
    """
    return _STATEMENT.match(text) is not None or (
        name.isupper() and text.removeprefix(b"static").lstrip().startswith(name.encode())
    )


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
        if match is not None and match[0] not in _NO_NAMES:
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
    # `typedef unsigned char uint8_t;`: the grammar knows some names as types of its own.
    is_name = at is not None and at.type.endswith(("identifier", "primitive_type"))
    return (at if is_name else None), is_function


def _is_in(byte: int, spans: tuple[tuple[int, int], ...]) -> bool:
    return any(start <= byte < end for start, end in spans)
