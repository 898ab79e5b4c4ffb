"""What is said of a function before its body: return type, parameters, and the comment above it."""

import re
from dataclasses import dataclass

from tree_sitter import Node

from trustmine.cparse.functions import largest_definition
from trustmine.cparse.tree import TooComplex, parse, preorder

_PARAMETERS = ("parameter_declaration", "optional_parameter_declaration", "variadic_parameter_declaration")
_STORAGE = frozenset(("static", "extern", "inline", "virtual", "register", "constexpr"))
_COMMENT = re.compile(rb"/\*.*?\*/|//[^\n]*", re.DOTALL)
_COMMENT_END, _LINE_COMMENT = re.compile(rb"\*/\s*$"), re.compile(rb"\s*//")
MAX_COMMENT_LINES = 100  # a longer one is no comment on one function


@dataclass(frozen=True, slots=True)
class Signature:
    """White space is one space, and comments are left out."""

    returns: str  # 'char *'; 'void', or '' for constructors and where the parser does not see it
    parameters: tuple[str, ...]  # 'const char *src', those with a name, in their order


def signature(source: bytes, path: str) -> Signature:
    """Of the function that a text consists of. Empty where the parser does not see it. Never raises."""
    try:
        parsed = next(iter(parse(source, path, is_fragment=True)))
        definition = largest_definition(parsed)
    except TooComplex:
        return Signature("", ())
    if definition is None:
        return Signature("", ())
    body = definition.child_by_field_name("body")
    end = body.start_byte if body is not None else definition.end_byte
    declarator = next((node for node, _, _ in preorder(definition) if node.type == "function_declarator"), None)
    given = declarator.child_by_field_name("parameters") if declarator is not None else None
    if declarator is None or given is None or given.start_byte >= end:
        return Signature("", ())
    # Of the source itself: the pointer of an old-style definition has no place in the grammar.
    before = _plain(source[definition.start_byte : declarator.start_byte]).split(" ")
    found = []
    for parameter in given.named_children:
        inner = parameter.child_by_field_name("declarator") if parameter.type in _PARAMETERS else parameter
        if inner is not None and _has_name(inner):
            found.append(_plain(parsed.text[parameter.start_byte : parameter.end_byte]))
    return Signature(" ".join(word for word in before if word not in _STORAGE), tuple(found))


def comment_above(source: bytes, first_line: int) -> str:
    """The comment that ends on the line before a function, or one line above that; '' if there is none.

    As written, with its marks. `first_line` is the function's in the file.
    """
    lines = source.split(b"\n")[: first_line - 1]
    if lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        return ""
    if _COMMENT_END.search(lines[-1]):
        for n in range(1, min(len(lines), MAX_COMMENT_LINES) + 1):
            if b"/*" in lines[-n]:
                # Behind code it is that line's comment.
                is_alone = lines[-n].lstrip().startswith(b"/*")
                return b"\n".join(lines[-n:]).decode("utf-8", "replace") if is_alone else ""
        return ""
    n = 0
    while n < min(len(lines), MAX_COMMENT_LINES) and _LINE_COMMENT.match(lines[-n - 1]):
        n += 1
    return b"\n".join(lines[len(lines) - n :]).decode("utf-8", "replace")


def _plain(code: bytes) -> str:
    """The code without comments, in one line."""
    return " ".join(_COMMENT.sub(b" ", code).decode("utf-8", "replace").split())


def _has_name(declarator: Node) -> bool:
    return any(node.type == "identifier" for node, _, _ in preorder(declarator))
