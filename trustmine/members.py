"""Which struct's member does `a->b.c` mean?

A name like `data` is a member of many structs. What it stands for in a
function is told by what it is taken from: the line that declares `a` names a
struct, whose definition holds a line for `b`, which names the next one. Where
an expression is no such chain, or a macro says the type, that stays open.
"""

import re
from collections.abc import Callable, Sequence

from trustmine import cparse
from trustmine.cnames import KEYWORDS
from trustmine.definitions import Definition
from trustmine.lines import LineRange
from trustmine.snippets import declaring_line
from trustmine.text import decode, encode

# A typedef of a typedef of a struct: so many names are followed.
MAX_TYPEDEFS = 4

_INDEX = r"(?:\s*\[[^\[\]]*\])*"
_TAKEN = r"\s*(?:->|\.)\s*"
_CHAIN = rf"(?<![\w.>\])])([A-Za-z_]\w*{_INDEX}(?:{_TAKEN}[A-Za-z_]\w*{_INDEX})*){_TAKEN}"
_INDEXED = re.compile(r"\[[^\[\]]*\]")
_WORD = re.compile(r"[A-Za-z_]\w*")
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)
_TAGGED = re.compile(r"\b(?:struct|union|class)\s+([A-Za-z_]\w*)")
# What stands before a name in its declaration: a type, or other names of that type.
_SPECIFIERS = re.compile(r"[\w\s*&]*")

Find = Callable[[str], Sequence[Definition]]  # definitions of a type, nearest first
Members = Callable[[str, Definition], Sequence[Definition]]  # members of a name in a definition
Chain = tuple[str, ...]  # ("a", "b") for what c is taken from in a->b.c


def chains(name: str, text: str, encoding: str, path: str, block: LineRange) -> tuple[Chain, ...]:
    """What a member is taken from in a function's text, each once; uses in the block come first."""
    lines = [decode(line)[0] for line in cparse.code_lines(encode(text, encoding), path, keep_directives=False)]
    pattern = re.compile(rf"{_CHAIN}{re.escape(name)}(?!\w)")
    inside = {number for number in range(block.first_line - 1, block.last_line) if number < len(lines)}
    order = [*sorted(inside), *(number for number in range(len(lines)) if number not in inside)]
    found = (match[1] for number in order for match in pattern.finditer(lines[number]))
    return tuple(dict.fromkeys(tuple(_WORD.findall(_INDEXED.sub("", one))) for one in found))


def resolve(
    name: str, chain: Chain, text: str, encoding: str, path: str, find: Find, members: Members
) -> tuple[Definition, ...] | None:
    """The member's definition; () where its struct has a name and no definition; None where that stays open."""
    number = declaring_line(chain[0], text, encoding, path)
    if number is None:
        return None
    said, of = decode(cparse.code_lines(encode(text, encoding), path)[number - 1])[0], chain[0]
    found: Sequence[Definition] = ()
    for part in (*chain[1:], name):
        if "{" in said and found:  # a struct without a name of its own
            whole: Definition | None = found[0]
        else:
            owner = _type_in(said, of)
            if owner is None:
                return None
            whole = _whole(owner, find)
        if whole is None:
            return ()
        found = members(part, whole)
        if not found:
            return None
        said, of = _COMMENT.sub(" ", decode(found[0].text)[0]), part
    return tuple(found)


def _type_in(line: str, name: str) -> str | None:
    """The type that a declaration gives a name; None if the line does not look like one."""
    match = re.search(rf"(?<!\w){re.escape(name)}(?=\s*(?:[,;=)\[:]|\Z))", line)
    if match is None:
        return None
    statement = re.split(r"[;(){}]", line[: match.start()])[-1]
    # `struct s *a, *b` and `struct s *a, int b`: what is nearest, unless that says no type.
    for part in reversed(statement.split(",")):
        if not _SPECIFIERS.fullmatch(part):
            return None
        tagged = _TAGGED.search(part)
        if tagged is not None:
            return tagged[1]
        words = [word for word in _WORD.findall(part) if word not in KEYWORDS]
        if words:
            return str(words[-1])
        if _WORD.search(part):
            return None  # `return name;`, `int name;`
    return None


def _whole(owner: str, find: Find) -> Definition | None:
    """The definition of a type that has members, through typedefs."""
    for _ in range(MAX_TYPEDEFS):
        named = None
        for definition in find(owner):
            says = _COMMENT.sub(" ", decode(definition.text)[0])
            if "{" in says:
                return definition
            tagged = _TAGGED.search(says)
            words = [word for word in _WORD.findall(says) if word not in KEYWORDS and word != owner]
            named = named or (tagged[1] if tagged else words[-1] if words else None)
        if named is None:
            return None
        owner = named
    return None
