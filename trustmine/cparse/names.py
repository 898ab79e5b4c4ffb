"""The names that lines of a function use, and which of them the function defines itself."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from tree_sitter import Node

from trustmine.cparse.functions import largest_definition, name_of
from trustmine.cparse.tree import Parsed, TooComplex, parse, preorder, text_of

FUNCTION, MACRO, TYPE, CONSTANT = "function", "macro", "type", "constant"
POINTER, VARIABLE, MEMBER, LABEL = "pointer variable", "variable", "member", "label"
# Where uses differ, the first of these says what the name is.
_RANK = (FUNCTION, MACRO, TYPE, CONSTANT, POINTER, VARIABLE, MEMBER, LABEL)

_ALL_CAPS = re.compile(r"_*[A-Z][A-Z0-9_]*")
_WORD = re.compile(rb"[A-Za-z_]\w*")
_IN_CONDITION = re.compile(rb"\b(?!defined\b|__has_\w+\b|if|elif\b|else\b|endif\b|ifn?def\b)[A-Za-z_]\w*")
_LITERAL = re.compile(rb"([\"'])_*\1")  # as a skeleton has it
_DECLARING = frozenset(("declaration", "parameter_declaration", "optional_parameter_declaration", "init_declarator"))
_DECLARING |= {"pointer_declarator", "array_declarator", "reference_declarator", "parenthesized_declarator"}
_DECLARING |= {"attributed_declarator", "for_range_loop", "structured_binding_declarator", "function_declarator"}
_DECLARING |= {"condition_declaration", "lambda_capture_specifier", "lambda_capture_initializer"}
# Node by id: itself, its parent, its field there.
Parents: TypeAlias = dict[int, tuple[Node, Node | None, str | None]]
_NAMED_TYPES = ("struct_specifier", "union_specifier", "enum_specifier", "class_specifier")


@dataclass(frozen=True, slots=True)
class Name:
    """A name with what its use says it is: a kind, and whether the function defines it."""

    name: str
    kind: str  # function, macro, type, constant, pointer variable, variable, member, label
    is_local: bool  # parameter, local variable, label, type or macro defined in the function, or its own name


@dataclass
class _Uses:
    """What is collected over all configurations of a text."""

    kinds: dict[str, set[str]] = field(default_factory=dict)  # of the lines asked for
    local: set[str] = field(default_factory=set)  # of the whole function
    pointers: set[str] = field(default_factory=set)  # declared as pointers, or dereferenced


def names(source: bytes, first_line: int, last_line: int, path: str) -> tuple[Name, ...]:
    """The names used in these lines of a function's text, each once, in alphabetical order.

    Names in conditions of #if count as macros. Keywords and built-in types
    are no names. Empty if the text cannot be parsed in bounds. Never raises.
    """
    uses = _Uses()
    try:
        for number, parsed in enumerate(parse(source, path, is_fragment=True)):
            if number == 0:
                _read_directives(parsed, first_line, last_line, uses)
            _read_tree(parsed, source, first_line, last_line, uses)
    except TooComplex:
        return ()
    result: list[Name] = []
    for name, kinds in sorted(uses.kinds.items()):
        kind = min(kinds, key=_RANK.index)
        if kind == VARIABLE and name in uses.pointers:
            kind = POINTER
        result.append(Name(name, kind, name in uses.local and kind != MEMBER))
    return tuple(result)


def _read_directives(parsed: Parsed, first_line: int, last_line: int, uses: _Uses) -> None:
    lexis = parsed.lexis
    for directive in lexis.directives:
        text = _LITERAL.sub(b" ", lexis.skeleton[directive.start : directive.end])
        if directive.word == b"define":
            words = _WORD.findall(text)
            uses.local |= {word.decode() for word in words[1:2]}
        elif directive.word in (b"if", b"ifdef", b"ifndef", b"elif"):
            if not first_line <= lexis.line_of(directive.start) <= last_line:
                continue
            for word in _IN_CONDITION.findall(text):
                uses.kinds.setdefault(word.decode(), set()).add(MACRO)


def _read_tree(parsed: Parsed, source: bytes, first_line: int, last_line: int, uses: _Uses) -> None:
    definition = largest_definition(parsed)
    if definition is not None and (own_name := name_of(definition, parsed.text)) is not None:
        uses.local.add(own_name.decode("utf-8", "replace").rpartition("::")[2])
    parents: Parents = {}
    for node, parent, role in preorder(parsed.root):
        parents[node.id] = (node, parent, role)
        if node.type.endswith("identifier") and node.child_count == 0 and parent is not None:
            match = _WORD.match(source, node.start_byte)
            if match is None or match.end() < node.end_byte:
                continue  # not a word of plain ASCII: no name we could look for
            name = match[0].decode()
            kind = _kind(node, parent, role, name)
            if declares(node, parents, parsed.text):
                uses.local.add(name)
                if any(step.type == "pointer_declarator" for step in _up(node, parents) if step.type in _DECLARING):
                    uses.pointers.add(name)
            elif kind == LABEL or (parent.type in _NAMED_TYPES and parent.child_by_field_name("body") is not None):
                uses.local.add(name)
            if _is_dereferenced(node, parent, role):
                uses.pointers.add(name)
            if first_line <= node.start_point.row + 1 <= last_line:
                uses.kinds.setdefault(name, set()).add(kind)


def _kind(node: Node, parent: Node, role: str | None, name: str) -> str:
    if node.type == "field_identifier":
        return MEMBER
    if node.type == "statement_identifier":
        return LABEL
    is_caps = _ALL_CAPS.fullmatch(name) is not None and len(name) > 1
    if parent.type == "call_expression" and role == "function":
        return MACRO if is_caps else FUNCTION
    if parent.type == "function_declarator" and role == "declarator":
        return FUNCTION
    if node.type in ("type_identifier", "namespace_identifier"):
        return TYPE
    if parent.type == "case_statement" and role == "value":
        return CONSTANT
    if parent.type == "enumerator":
        return CONSTANT
    return MACRO if is_caps else VARIABLE


def declares(node: Node, parents: Parents, text: bytes) -> bool:
    """Whether this is the place where a parameter or local variable gets its name."""
    if node.type not in ("identifier", "type_identifier"):
        return False
    at, parent, role = parents[node.id]
    if parent is None:
        return False
    if parent.type in ("enumerator", "type_definition", "alias_declaration") and role in ("name", "declarator"):
        return True
    if parent.type == "parameter_list":
        return True  # K&R
    while parent is not None and parent.type in _DECLARING:
        if parent.type in ("structured_binding_declarator", "lambda_capture_specifier"):
            return True
        if role == "value" or role == "size" or role == "right" or role in ("type", "default_value", "parameters"):
            return False
        if parent.type == "function_declarator" and at.type == "identifier":
            # The function's own name, or a prototype: neither is a local variable.
            return False
        if parent.type in ("declaration", "condition_declaration") and role in ("declarator", "value"):
            return not any(
                child.type == "storage_class_specifier" and text_of(child, text) == b"extern"
                for child in parent.children
            )
        if parent.type in ("parameter_declaration", "optional_parameter_declaration", "for_range_loop"):
            return role == "declarator"
        at, parent, role = parents[parent.id]
    return False


def _up(node: Node, parents: Parents) -> Iterator[Node]:
    """The declarators around a name, up to its declaration."""
    _, parent, _ = parents[node.id]
    while parent is not None and parent.type in _DECLARING:
        yield parent
        _, parent, _ = parents[parent.id]


def _is_dereferenced(node: Node, parent: Node, role: str | None) -> bool:
    if role != "argument" or parent.child_count < 2:
        return False
    operator = parent.child_by_field_name("operator")
    return (parent.type == "field_expression" and operator is not None and operator.type == "->") or (
        parent.type == "pointer_expression" and operator is not None and operator.type == "*"
    )
