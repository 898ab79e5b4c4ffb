"""Parse trees: the only user of tree-sitter.

A parse is bounded by parser steps and depth, not by a clock, so that the
same bytes give the same tree on any machine. Trees are walked with stacks of
our own: source may nest deeper than Python's stack.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from operator import sub

import tree_sitter_c
import tree_sitter_cpp
from tree_sitter import Language, Node, Parser

from trustmine.cparse.lexis import Lexis, is_cpp

C = Language(tree_sitter_c.language())
CPP = Language(tree_sitter_cpp.language())

_STEP: dict[int, int] = {byte: 1 if byte in b"([{" else -1 for byte in b"()[]{}"}
_NO_BRACKETS = bytes(set(range(256)) - _STEP.keys())
# The parser reports every 100 operations. 400 KB of C took 3,836 reports and
# 0.15 s (measured 2026-11 on gpac's box_code_base.c), so this is about 5 MB.
MAX_STEPS = 50_000
# Brackets in brackets. Compilers stop at 256 unless told otherwise (clang -fbracket-depth).
MAX_DEPTH = 1_000
_INNER = ("_expression", "expression_statement", "initializer_list", "parameter_list", "argument_list", "_literal")
_ONLY_CPP = re.compile(
    rb"^[ \t]*(?:(?:inline[ \t]+)?namespace\b[\w\s:]{0,200}\{|template[ \t]*<|class[ \t]+\w+[^;(){}=]{0,400}\{"
    rb"|(?:public|private|protected)[ \t]*:|using[ \t]+namespace\b)",
    re.MULTILINE,
)
# Configurations parsed per source; further branches of an #if..#elif chain are not looked into.
MAX_CONFIGURATIONS = 8


@dataclass(frozen=True)
class Parsed:
    """One configuration of a source, parsed when first asked for its tree."""

    lexis: Lexis
    text: bytes  # what was parsed: blanked, of the source's length
    left_out: tuple[tuple[int, int], ...]  # branches that were blanked
    cpp: bool

    @cached_property
    def root(self) -> Node:
        """The tree; raises TooComplex."""
        return _parse(self.text, self.cpp)


class TooComplex(Exception):
    """The source is beyond the bounds of what is parsed."""


def parse(source: bytes, path: str, is_fragment: bool = False) -> Iterator[Parsed]:
    """The configurations of a source, the usual one first; their trees may raise TooComplex.

    A file named .h is C unless it has C++'s own declarations outside of
    `#ifdef __cplusplus`, or C++ reads it with fewer errors.
    """
    configurations = _configurations(source, is_cpp(path), is_fragment)
    usual = next(configurations)
    if path.lower().endswith(".h"):
        others = _configurations(source, True, is_fragment)
        if _ONLY_CPP.search(usual.text):
            configurations, usual = others, next(others)
        elif usual.root.has_error:
            other = next(others)
            if len(errors(other.root)) < len(errors(usual.root)):
                configurations, usual = others, other
    yield usual
    yield from islice(configurations, MAX_CONFIGURATIONS - 1)


def _configurations(source: bytes, cpp: bool, is_fragment: bool) -> Iterator[Parsed]:
    lexis = Lexis(source, cpp, is_fragment)
    return (Parsed(lexis, text, left_out, cpp) for text, left_out in lexis.configurations())


def outer_nodes(parsed: Parsed) -> Iterator[Node]:
    """Every node but what lies in expressions and parameters that the grammar understood.

    Where definitions and statements are, that is. tree-sitter's own queries
    take time with the square of a tree's depth; this does not.
    """
    stack = [parsed.root]
    while stack:
        node = stack.pop()
        yield node
        if node.has_error or not node.type.endswith(_INNER):
            stack += reversed(node.named_children)


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


def text_of(node: Node, text: bytes) -> bytes:
    """The node's text in the configuration that was parsed."""
    return text[node.start_byte : node.end_byte]  # Node.text would read it again through the parser's callback


def errors(root: Node) -> list[Node]:
    """Where the grammar did not fit, in the order of the text."""
    found: list[Node] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            found.append(node)
        elif node.has_error:
            stack += reversed(node.children)
    return found


def _depth(text: bytes) -> int:
    """How deep brackets nest in a source whose literals hold none; one that was never opened closes nothing."""
    levels: list[int] = list(accumulate(map(_STEP.__getitem__, text.translate(None, _NO_BRACKETS)), initial=0))
    deepest: int = max(map(sub, levels, accumulate(levels, min)))
    return deepest


def _parse(text: bytes, cpp: bool) -> Node:
    if _depth(text) > MAX_DEPTH:
        raise TooComplex(f"more than {MAX_DEPTH} brackets in each other")
    steps = 0

    def give_up(_byte: int, _has_error: bool) -> bool:
        nonlocal steps
        steps += 1
        return steps > MAX_STEPS

    # The parser keeps a reference to all that it is given, for ever (py-tree-sitter 0.26). Views
    # are small, and released they let go of the text.
    whole = memoryview(text)
    views: dict[int, memoryview] = {}

    def read(byte: int, _point: object) -> memoryview:
        return views.setdefault(byte, whole[byte:])

    try:
        return Parser(CPP if cpp else C).parse(read, progress_callback=give_up).root_node
    except ValueError as error:
        raise TooComplex(f"more than {MAX_STEPS} parser steps") from error
    finally:
        for view in (*views.values(), whole):
            view.release()
