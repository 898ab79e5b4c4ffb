"""The parameters of a function."""

from tree_sitter import Node

from trustmine.cparse.functions import largest_definition
from trustmine.cparse.tree import TooComplex, parse, preorder, text_of

_PARAMETERS = ("parameter_declaration", "optional_parameter_declaration", "variadic_parameter_declaration")


def parameters(source: bytes, path: str) -> tuple[str, ...]:
    """Names of the parameters of the function that a text consists of, in their order; unnamed ones are left out.

    Empty where the parser does not see them. Never raises.
    """
    try:
        parsed = next(iter(parse(source, path, is_fragment=True)))
        definition = largest_definition(parsed)
    except TooComplex:
        return ()
    if definition is None:
        return ()
    body = definition.child_by_field_name("body")
    end = body.start_byte if body is not None else definition.end_byte
    declarator = next((node for node, _, _ in preorder(definition) if node.type == "function_declarator"), None)
    given = declarator.child_by_field_name("parameters") if declarator is not None else None
    if given is None or given.start_byte >= end:
        return ()
    found = []
    for parameter in given.named_children:
        inner = parameter.child_by_field_name("declarator") if parameter.type in _PARAMETERS else parameter
        name = _name(inner) if inner is not None else None
        if name is not None:
            found.append(text_of(name, parsed.text).decode("utf-8", "replace"))
    return tuple(found)


def _name(declarator: Node) -> Node | None:
    return next((node for node, _, _ in preorder(declarator) if node.type == "identifier"), None)
