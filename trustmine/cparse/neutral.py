"""Edits of a function that change nothing that runs: which locals may be renamed, which declarations swapped.

Strict rather than complete: where the preprocessor, a macro or the grammar
leaves a doubt, there is no edit. Never raises for any source.
"""

import re
from dataclasses import dataclass

from tree_sitter import Node

from trustmine.cparse.names import Parents, declares
from trustmine.cparse.tree import Parsed, TooComplex, parse, preorder, text_of

_NAME = re.compile(rb"[A-Za-z_]\w*")
_MACRO = re.compile(rb"_*[A-Z][A-Z0-9_]*|offsetof|assert")
# Code in which a name may stand for something else than the one local that is declared.
_DOUBTFUL = frozenset(
    ("lambda_expression", "gnu_asm_expression", "field_initializer_list", "structured_binding_declarator")
)
_PLAIN_VALUES = frozenset(("number_literal", "char_literal", "string_literal", "null", "true", "false"))
_PLAIN_TYPES = frozenset(("primitive_type", "sized_type_specifier", "type_identifier", "type_qualifier"))
_PLAIN_TYPES |= {"struct_specifier", "union_specifier", "enum_specifier"}


@dataclass(frozen=True, slots=True)
class Local:
    """A parameter or variable of a function, declared once, with every place that means it."""

    name: bytes
    starts: tuple[int, ...]  # bytes, in order


def renameable(source: bytes, path: str) -> tuple[Local, ...]:
    """The locals of a function that may get another name, in the order of their names.

    Left out are locals that a macro is given or whose name also is a type's,
    and all of a function with directives, lambdas or assembler in it.
    """
    parsed = _plainly(source, path)
    if parsed is None:
        return ()
    parents: Parents = {}
    starts: dict[bytes, list[int]] = {}
    n_declared: dict[bytes, int] = {}
    barred: set[bytes] = set()
    for node, parent, role in preorder(parsed.root):
        parents[node.id] = (node, parent, role)
        if node.type in _DOUBTFUL:
            return ()
        if node.child_count or parent is None or not node.type.endswith("identifier"):
            continue
        name = source[node.start_byte : node.end_byte]
        if node.type != "identifier":
            barred |= {name} if node.type == "type_identifier" else set()
            continue
        if (
            _NAME.fullmatch(name) is None
            or name != text_of(node, parsed.text)
            or _is_given_to_macro(node, parents, source)
        ):
            barred.add(name)
        starts.setdefault(name, []).append(node.start_byte)
        n_declared[name] = n_declared.get(name, 0) + declares(node, parents, parsed.text)
    return tuple(
        Local(name, tuple(places))
        for name, places in sorted(starts.items())
        if n_declared[name] == 1 and len(places) > 1 and name not in barred
    )


def rename(source: bytes, local: Local, new: bytes) -> bytes:
    """The source with another name for the local. Raises ValueError if the new one stands in it already."""
    if new in set(_NAME.findall(source)):
        raise ValueError(f"{new!r} is in use")
    parts, at = [], 0
    for start in local.starts:
        parts += [source[at:start], new]
        at = start + len(local.name)
    return b"".join([*parts, source[at:]])


def swappable(source: bytes, path: str) -> tuple[int, ...]:
    """Lines of a function that hold one declaration alone and may change places with the next line, likewise.

    Neither names what the other declares, and their values are literals or none.
    """
    parsed = _plainly(source, path)
    if parsed is None:
        return ()
    lines = parsed.lexis.line_starts
    borders = {byte for start, end in parsed.lexis.long_tokens for byte in range(start, end)}
    found: dict[int, set[bytes]] = {}  # line -> names that its declaration declares or uses
    for node, parent, _ in preorder(parsed.root):
        if node.type != "declaration" or parent is None or parent.type != "compound_statement":
            continue
        line = node.start_point.row + 1
        whole = source[lines[line - 1] : lines[line]] if line < len(lines) else b""
        if (
            node.end_point.row + 1 == line
            and text_of(node, parsed.text).strip() == parsed.text[lines[line - 1] : lines[line]].strip()
            and whole.endswith(b"\n")
            and lines[line] - 1 not in borders
            and lines[line - 1] not in borders
            and _is_plain(node, parsed.text)
        ):
            found[line] = _names_in(node, source)
    return tuple(
        line
        for line, names in sorted(found.items())
        if line + 1 in found
        and not names & found[line + 1]
        and source[lines[line - 1] : lines[line]] != source[lines[line] : lines[line + 1]]
    )


def _plainly(source: bytes, path: str) -> Parsed | None:
    """The tree of a function that holds no directive and nothing that the grammar did not understand."""
    try:
        parsed = next(parse(source, path, is_fragment=True))
        return None if parsed.lexis.directives or parsed.root.has_error else parsed
    except TooComplex:
        return None


def _is_given_to_macro(node: Node, parents: Parents, source: bytes) -> bool:
    """Whether the name is called or stands in the arguments of what looks like a macro."""
    _, at, _ = parents[node.id]
    while at is not None and at.type not in ("compound_statement", "function_definition"):
        if at.type == "call_expression":
            called = at.child_by_field_name("function")
            if called is not None and _MACRO.fullmatch(source[called.start_byte : called.end_byte]):
                return True
        _, at, _ = parents[at.id]
    return False


def _is_plain(declaration: Node, text: bytes) -> bool:
    """Whether a declaration has a type by its name, no more than variables, and no value that is computed."""
    for child in declaration.named_children:
        if child.type in _PLAIN_TYPES:
            if child.child_by_field_name("body") is not None:
                return False
            continue
        if child.type == "init_declarator":
            value = child.child_by_field_name("value")
            if value is None or value.type not in _PLAIN_VALUES:
                return False
            inner = child.child_by_field_name("declarator")
        elif child.type in ("identifier", "pointer_declarator", "array_declarator"):
            inner = child
        else:
            return False
        while inner is not None and inner.type != "identifier":
            if inner.type not in ("pointer_declarator", "array_declarator"):
                return False
            size = inner.child_by_field_name("size")
            if size is not None and size.type not in ("number_literal", "identifier"):
                return False
            inner = inner.child_by_field_name("declarator")
        if inner is None:
            return False
    return True


def _names_in(node: Node, source: bytes) -> set[bytes]:
    """Its identifiers, without the names of types."""
    return {source[one.start_byte : one.end_byte] for one, _, _ in preorder(node) if one.type == "identifier"}
