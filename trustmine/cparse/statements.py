"""Which lines of a function may be masked: whole statements, never less.

A range is a run of statements of one block that starts and ends with its
lines, so that one line put in its place leaves balanced code. Ranges are
looked for in every branch of every #if; none cuts through a conditional, a
comment, a literal or a directive.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tree_sitter import Node

from trustmine.cparse.functions import body_of, largest_definition
from trustmine.cparse.lexis import Lexis
from trustmine.cparse.tree import Parsed, TooComplex, parse
from trustmine.lines import LineRange

# Statements in one run, and ranges of one block: they grow with the square of
# a block's length. The functions that are kept have 1,000 tokens at most, far
# too few to reach either; only in longer ones do runs get shorter.
MAX_RUN = 200
MAX_RANGES = 100_000
# Labels of one statement behind which a range may begin; labels nest in a tree, so a row of them costs its square.
MAX_LABELS = 16

_BRACKET = re.compile(rb"[][(){}]")
_CLOSES = {b")": b"(", b"]": b"[", b"}": b"{"}
_BLOCKS = frozenset(("compound_statement", "case_statement", "declaration_list", "field_declaration_list"))
# Statements whose own single statement may stand without braces.
_HOLDERS = frozenset(("if_statement", "else_clause", "while_statement", "for_statement", "do_statement"))
_HOLDERS |= {"for_range_loop", "labeled_statement"}


@dataclass(frozen=True, slots=True)
class _Item:
    """A statement of a block: where it may start (with or without its label) and where it ends."""

    starts: tuple[int, ...]
    end: int


def statement_ranges(source: bytes, path: str) -> tuple[LineRange, ...]:
    """Every range of lines of a function's text that may be masked, sorted.

    `source` is one function in whole lines. The whole body is not among the
    ranges. Empty if the text cannot be parsed as a function. Never raises.
    """
    found: set[LineRange] = set()
    try:
        for parsed in parse(source, path, is_fragment=True):
            for is_body, items in _blocks_of(parsed):
                found |= {lines for _, _, lines in _ranges_in(parsed, is_body, items)}
    except TooComplex:
        return ()
    return tuple(sorted(found))


def neighbours(source: bytes, lines: LineRange, path: str) -> tuple[LineRange, ...]:
    """The statement before and the statement after a run of statements, in the same block.

    `lines` is one of `statement_ranges`; at the beginning or end of a block
    there is nothing on that side.
    """
    try:
        for parsed in parse(source, path, is_fragment=True):
            for is_body, items in _blocks_of(parsed):
                for first, last, found in _ranges_in(parsed, is_body, items):
                    if found == lines:
                        around = (items[n] for n in (first - 1, last + 1) if 0 <= n < len(items))
                        lexis = parsed.lexis
                        spans = ((min(item.starts), item.end - 1) for item in around if item is not None)
                        return tuple(LineRange(lexis.line_of(start), lexis.line_of(end)) for start, end in spans)
    except TooComplex:
        pass  # nothing is known about what stands next to it
    return ()


def _blocks_of(parsed: Parsed) -> Iterator[tuple[bool, list[_Item | None]]]:
    """For every block in a function, whether it is the whole body, and its statements."""
    definition = largest_definition(parsed)
    body = body_of(definition) if definition is not None else None
    stack = [body] if body is not None else []
    while stack:
        node = stack.pop()
        if node.type in _BLOCKS or node.type in _HOLDERS:
            yield body is not None and node.id == body.id, _items(node, parsed.text)
        stack += node.named_children


def _ranges_in(parsed: Parsed, is_body: bool, items: list[_Item | None]) -> Iterator[tuple[int, int, LineRange]]:
    """The ranges of one block, each with the first and last of its statements."""
    lexis, text = parsed.lexis, parsed.text
    for first, last in _runs(items):
        one, other = items[first], items[last]
        if one is None or other is None or (is_body and (first, last) == (0, len(items) - 1)):
            continue
        if not _ends_line(text, other.end):
            continue
        end = lexis.line_of(other.end - 1)
        for start in one.starts:
            lines = LineRange(lexis.line_of(start), end)
            if _begins_line(text, lexis, start) and _is_whole(lexis, lines):
                yield first, last, lines


def _runs(items: list[_Item | None]) -> Iterator[tuple[int, int]]:
    """First and last of every run of statements that holds nothing not understood."""
    longest = min(MAX_RUN, 1 + MAX_RANGES // max(len(items), 1))
    for first in range(len(items)):
        for last in range(first, min(first + longest, len(items))):
            if items[last] is None:
                break
            yield first, last


def _items(block: Node, text: bytes) -> list[_Item | None]:
    """The statements of a block in their order; None for what the parser did not understand."""
    if block.type in _HOLDERS:
        inner = [block.child_by_field_name(name) for name in ("consequence", "alternative", "body")]
        nodes = [node for node in inner if node is not None and node.type not in ("else_clause", "compound_statement")]
        if block.type in ("else_clause", "labeled_statement"):
            nodes = [n for n in block.named_children if n.type.endswith("_statement")]
            nodes = [n for n in nodes if n.type != "compound_statement"]
    elif block.type == "case_statement":
        value = block.child_by_field_name("value")
        nodes = [node for node in block.named_children if value is None or node.id != value.id]
    else:
        nodes = list(block.named_children)
    return [_item(node, text) for node in nodes]


def _item(node: Node, text: bytes) -> _Item | None:
    if node.is_error or node.end_byte <= node.start_byte:
        return None
    # Without an error the grammar has balanced it.
    if node.has_error and not _is_balanced(text[node.start_byte : node.end_byte]):
        return None
    starts, inner = [node.start_byte], node
    while inner.type == "labeled_statement" and inner.named_children and len(starts) <= MAX_LABELS:
        inner = inner.named_children[-1]
        if inner.type != "statement_identifier" and inner.end_byte > inner.start_byte:
            starts.append(inner.start_byte)
    return _Item(tuple(starts), node.end_byte)


def _begins_line(text: bytes, lexis: Lexis, at: int) -> bool:
    return not text[lexis.line_starts[lexis.line_of(at) - 1] : at].strip()


def _ends_line(text: bytes, at: int) -> bool:
    end = text.find(b"\n", at)
    return not text[at : len(text) if end < 0 else end].strip()


def _is_whole(lexis: Lexis, lines: LineRange) -> bool:
    borders = lexis.branch_of_line
    same_branch = borders[lines.first_line - 1] == borders[lines.last_line]
    return same_branch and lines.first_line <= lines.last_line and not lexis.cuts_token(lines)


def _is_balanced(text: bytes) -> bool:
    opened: list[bytes] = []
    for match in _BRACKET.finditer(text):
        if match[0] not in _CLOSES:
            opened.append(match[0])
        elif not opened or opened.pop() != _CLOSES[match[0]]:
            return False
    return not opened
