"""Where a name is defined in the tree of a commit, as far as the parser can prove it.

Looks in the file itself, then in the headers that it includes (and those
they include), then in all C and C++ files of the tree, and stops at the
first of these three that has a definition. Declarations are the answer only
where there is no definition anywhere. Choosing among several is not done here.
"""

import posixpath
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from trustmine.cparse import LineRange, Symbol, includes, symbols
from trustmine.lines import cut_lines

C_SUFFIXES = (".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".inl", ".ipp")
# Files whose symbols are kept. An entry is some kilobytes; a large project has some thousand files.
MAX_CACHED = 4_096
# Headers looked into for one file: more than any file of curl or gpac reaches.
MAX_HEADERS = 500
# Files of one tree that may be parsed for one name, beyond those that are included.
MAX_FILES = 200

_TYPES = ("struct", "union", "enum", "typedef")
# What a name may turn out to be, given how it is used. A use like a variable
# or a macro may be an enumerator; a call may go through a variable or a macro.
_KINDS = {
    "function": ("function", "macro", "variable", "typedef", "struct"),
    "macro": ("macro", "constant", "function", "variable"),
    "type": (*_TYPES, "macro"),
    "constant": ("constant", "macro", "variable"),
    "variable": ("variable", "constant", "macro", "function"),
    "pointer variable": ("variable", "constant", "macro", "function"),
    "member": ("member",),
    **dict.fromkeys(_TYPES, (*_TYPES, "macro")),
}


class Repo(Protocol):
    """What is needed of a GitRepo."""

    def blob(self, oid: str) -> bytes: ...

    def tree_files(self, sha: str) -> Iterator[tuple[str, str]]: ...


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a name: whole lines of a file in the parent commit's tree."""

    path: str
    first_line: int
    last_line: int
    text: bytes
    kind: str  # function, variable, struct, union, enum, typedef, macro, constant, member
    is_declaration_only: bool


class DefinitionFinder:
    """Finds definitions in one repository; keeps what it parsed, once per blob."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._symbols: OrderedDict[tuple[str, str], tuple[Symbol, ...]] = OrderedDict()
        self._tree: tuple[str, dict[str, str]] = ("", {})  # of the last commit asked about: path -> blob
        self._by_base: dict[str, list[str]] = {}

    def find(self, name: str, kind_hint: str, path: str, commit_sha: str, pre_image: bytes) -> tuple[Definition, ...]:
        """Candidates for the definition of a name used in `path`, nearest first.

        `kind_hint` is how the name is used (a Name's kind) or what it is
        thought to be. Empty if the parser finds none. Raises what the
        repository raises for objects it lacks.
        """
        kinds = _KINDS.get(kind_hint, ())
        needle = name.encode()
        own = _matching(symbols(pre_image, path), name, kinds) if needle in pre_image else []
        declared = _cut(path, pre_image, own)
        if any(not d.is_declaration_only for d in declared):
            return _definitions(declared)
        files = self._files(commit_sha)
        headers = self._headers(path, pre_image)
        others = [p for p in _nearest(files, path) if p != path and p not in set(headers)]
        for place, limit in ((headers, MAX_HEADERS), (others, MAX_FILES)):
            found = list(self._in_files(place, limit, name, kinds))
            if any(not d.is_declaration_only for d in found):
                return _definitions(found)
            declared += found
        return tuple(declared)

    def _in_files(self, paths: Iterable[str], limit: int, name: str, kinds: tuple[str, ...]) -> Iterator[Definition]:
        word = re.compile(rb"\b%b\b" % re.escape(name.encode()))
        n_parsed = 0
        for path in paths:
            source = self._repo.blob(self._tree[1][path])
            if word.search(source) is None:
                continue
            n_parsed += 1
            if n_parsed > limit:
                return
            yield from _cut(path, source, _matching(self._symbols_of(path, source), name, kinds))

    def _symbols_of(self, path: str, source: bytes) -> tuple[Symbol, ...]:
        # The suffix decides the grammar: one blob may be two files.
        key = (self._tree[1][path], posixpath.splitext(path)[1])
        if key in self._symbols:
            self._symbols.move_to_end(key)
            return self._symbols[key]
        found = self._symbols[key] = symbols(source, path)
        if len(self._symbols) > MAX_CACHED:
            self._symbols.popitem(last=False)
        return found

    def _files(self, commit_sha: str) -> dict[str, str]:
        """The C and C++ files of a commit's tree."""
        if self._tree[0] != commit_sha:
            files = {p: oid for p, oid in self._repo.tree_files(commit_sha) if p.lower().endswith(C_SUFFIXES)}
            self._tree = (commit_sha, files)
            self._by_base = {}
            for path in sorted(files):
                self._by_base.setdefault(posixpath.basename(path), []).append(path)
        return self._tree[1]

    def _headers(self, path: str, source: bytes) -> list[str]:
        """Files of the tree that a file includes, breadth first."""
        found: dict[str, None] = {}
        queue = [(path, source)]
        for place, text in queue:
            for written in includes(text, place):
                header = self._resolve(written, place)
                if header is not None and header != path and header not in found and len(found) < MAX_HEADERS:
                    found[header] = None
                    queue.append((header, self._repo.blob(self._tree[1][header])))
        return list(found)

    def _resolve(self, written: str, includer: str) -> str | None:
        """The file that an #include means: next to the includer, else the nearest with that end of path."""
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(includer), written))
        if beside in self._tree[1]:
            return beside
        end = posixpath.normpath(written)
        while end.startswith("../"):
            end = end[3:]
        same_name = self._by_base.get(posixpath.basename(end), [])
        fitting = [path for path in same_name if path == end or path.endswith("/" + end)]
        return next(iter(_nearest(fitting, includer)), None)


def _nearest(paths: Iterable[str], path: str) -> list[str]:
    """Paths by the number of steps between folders, then by name."""
    own = posixpath.dirname(path).split("/")

    def steps(other: str) -> int:
        parts = posixpath.dirname(other).split("/")
        shared = 0
        while shared < min(len(own), len(parts)) and own[shared] == parts[shared]:
            shared += 1
        return len(own) + len(parts) - 2 * shared

    return sorted(paths, key=lambda other: (steps(other), other))


def _matching(found: Iterable[Symbol], name: str, kinds: tuple[str, ...]) -> list[Symbol]:
    return [symbol for symbol in found if symbol.name == name and symbol.kind in kinds]


def _cut(path: str, source: bytes, found: Iterable[Symbol]) -> list[Definition]:
    return [
        Definition(
            path=path,
            first_line=symbol.first_line,
            last_line=symbol.last_line,
            text=cut_lines(source, LineRange(symbol.first_line, symbol.last_line)),
            kind=symbol.kind,
            is_declaration_only=symbol.is_declaration_only,
        )
        for symbol in found
    ]


def _definitions(found: Iterable[Definition]) -> tuple[Definition, ...]:
    return tuple(definition for definition in found if not definition.is_declaration_only)
