"""Parse trees: the only user of tree-sitter.

A parse is bounded by a count of parser steps, not by a clock, so that the
same bytes give the same tree on any machine. Trees are walked with stacks of
our own: source may nest deeper than Python's stack.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import tree_sitter_c
import tree_sitter_cpp
from tree_sitter import Language, Node, Parser, Query, QueryCursor

from trustmine.cparse.lexis import Lexis, is_cpp

C = Language(tree_sitter_c.language())
CPP = Language(tree_sitter_cpp.language())

# The parser reports every 100 operations. 400 KB of C took 3,836 reports and
# 0.15 s (measured 2026-11 on gpac's box_code_base.c), so this is about 5 MB.
MAX_STEPS = 50_000
# Configurations parsed per source; further branches of an #if..#elif chain are not looked into.
MAX_CONFIGURATIONS = 8


@dataclass(frozen=True)
class Parsed:
    """One configuration of a source, parsed."""

    lexis: Lexis
    root: Node
    text: bytes  # what was parsed: blanked, of the source's length
    left_out: tuple[tuple[int, int], ...]  # branches that were blanked
    cpp: bool


class TooComplex(Exception):
    """The parser gave up within its bound of steps."""


def parse(source: bytes, path: str, is_fragment: bool = False) -> Iterator[Parsed]:
    """The configurations of a source, the usual one first; raises TooComplex.

    A file named .h is C unless C++ reads it with fewer errors.
    """
    cpp = is_cpp(path)
    lexis = Lexis(source, cpp, is_fragment)
    text, left_out = next(lexis.configurations())
    root = _parse(text, cpp)
    if path.lower().endswith(".h") and root.has_error:
        other = Lexis(source, True, is_fragment)
        other_text, other_left_out = next(other.configurations())
        other_root = _parse(other_text, True)
        if _n_errors(other_root, True) < _n_errors(root, False):
            cpp, lexis, text, left_out, root = True, other, other_text, other_left_out, other_root
    yield Parsed(lexis, root, text, left_out, cpp)
    for text, left_out in islice(lexis.configurations(), 1, MAX_CONFIGURATIONS):
        yield Parsed(lexis, _parse(text, cpp), text, left_out, cpp)


def captures(parsed: Parsed, queries: tuple[Query, Query]) -> dict[str, list[Node]]:
    """Nodes that a query, given for C and C++, captures anywhere in the tree."""
    return QueryCursor(queries[parsed.cpp]).captures(parsed.root)


def query(c: str, cpp: str = "") -> tuple[Query, Query]:
    """A query for C, and the same with more patterns for C++."""
    return Query(C, c), Query(CPP, c + cpp)


def preorder(node: Node) -> Iterator[tuple[Node, Node | None, str | None]]:
    """Every node with its parent and its field there, in the order of the text."""
    stack: list[tuple[Node, Node | None, str | None]] = [(node, None, None)]
    while stack:
        entry = stack.pop()
        yield entry
        parent = entry[0]
        if parent.child_count:
            stack += reversed(list(fields(parent)))


def fields(node: Node) -> Iterator[tuple[Node, Node, str | None]]:
    """The children of a node with itself and their field names."""
    cursor = node.walk()
    more = cursor.goto_first_child()
    while more:
        child = cursor.node
        if child is not None:
            yield child, node, cursor.field_name
        more = cursor.goto_next_sibling()


def text_of(node: Node) -> bytes:
    """The node's text in the configuration that was parsed."""
    return node.text or b""


_ERRORS = query("(ERROR) @error (MISSING) @error")


def errors(parsed: Parsed) -> list[Node]:
    """Where the grammar did not fit."""
    return captures(parsed, _ERRORS).get("error", [])


def _n_errors(root: Node, cpp: bool) -> int:
    return len(QueryCursor(_ERRORS[cpp]).captures(root).get("error", []))


def _parse(text: bytes, cpp: bool) -> Node:
    steps = 0

    def give_up(_byte: int, _has_error: bool) -> bool:
        nonlocal steps
        steps += 1
        return steps > MAX_STEPS

    def read(byte: int, _point: object) -> bytes:
        return text[byte : byte + 65_536]

    try:
        return Parser(CPP if cpp else C).parse(read, progress_callback=give_up).root_node
    except ValueError as error:
        raise TooComplex(f"more than {MAX_STEPS} parser steps") from error
