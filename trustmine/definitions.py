"""Where a name is defined in the tree of a commit, as far as the parser can prove it.

Looks in the file itself, then in the headers that it includes (and those
they include), then in all C and C++ files of the tree, and stops at the
first of these three that has a definition. Declarations are the answer only
where there is no definition anywhere. Choosing among several is not done here.

What the file cannot see is no definition: in another source file that it does
not include, anything but a function or variable with external linkage; macros
and members of headers that it does not include; and macros of a file whose
name says that it is for another platform than the common one. An empty stand-in
of a macro comes after the variants that do something.
"""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from trustmine.cparse import Symbol, grammar
from trustmine.lines import split_lines
from trustmine.records import BlobSymbols
from trustmine.trees import Repo, SharedFacts, TreeIndex, is_c

_TYPES = ("struct", "union", "enum", "typedef")
_CPP = (".cc", ".cpp", ".cxx")
_SOURCE = (".c", *_CPP)  # each a translation unit of its own
_LINKED = ("function", "variable")
_OF_HEADERS = ("macro", "constant", "member")  # seen where the header is included, and nowhere else
_STATIC = re.compile(rb"\s*(?:static|(?:\w+\s+)?static)\b")
# `#define f(...) body` or `#define f(a, b) body`.
_CALLABLE_MACRO = re.compile(rb"\s*#\s*define\s+\w+\(([^)]*)\)(.*)", re.DOTALL)
_VOID_MACRO = re.compile(rb"\s*#\s*define\s+\w+\s*(?:\(\s*(?:\(\s*)?void\s*\)(?:\s*0\s*\))?\s*)?")
_WORD = re.compile(rb"[A-Za-z_]\w*")
# Parts of file names that name a platform other than Unix: systems of https://sourceforge.net/p/predef/wiki/OperatingSystems
_NAME_PART = re.compile(r"[a-z]+[0-9]*[a-z]*")
_PLATFORMS = frozenset(
    _NAME_PART.findall(
        "amiga amigaos beos dos haiku mac macos msdos mvs netware os2 os400 plan9 qnx riscos symbian tpf vms vxworks "
        "win32 win32ce win64 wince windows zos"
    )
)
# What a name may turn out to be, given how it is used. A use like a variable
# or a macro may be an enumerator; a call may go through a variable or a macro.
KINDS = {
    "function": ("function", "macro", "variable", "typedef", "struct"),
    "macro": ("macro", "constant", "function", "variable"),
    "type": (*_TYPES, "macro"),
    "constant": ("constant", "macro", "variable"),
    "variable": ("variable", "constant", "macro", "function"),
    "pointer variable": ("variable", "constant", "macro", "function"),
    "member": ("member",),
    **dict.fromkeys(_TYPES, (*_TYPES, "macro")),
}


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a name: whole lines of a file in the parent commit's tree."""

    path: str
    first_line: int
    last_line: int
    text: bytes
    kind: str  # function, variable, struct, union, enum, typedef, macro, constant, member
    is_declaration_only: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates for the definition of a name."""

    nearest: tuple[Definition, ...]  # nearest first
    n: int  # how many there are in all


_Place = tuple[str, str, Symbol]  # path, blob, what the name is there


class DefinitionFinder:
    """Finds definitions in one repository; keeps the symbols of one tree at hand."""

    def __init__(self, repo: Repo, facts: SharedFacts | None = None) -> None:
        self._repo = repo
        self._index = TreeIndex(repo, facts)
        self._own: tuple[str, bytes] | None = None  # blob and content of the file last asked about
        self._headers_of: tuple[tuple[str, str, str], dict[str, int]] = (("", "", ""), {})
        self._lines_of: tuple[str, list[bytes]] = ("", [])  # blob last cut from, and its lines

    def find(self, name: str, kind_hint: str, path: str, commit_sha: str, pre_image: bytes, limit: int) -> Found:
        """Candidates for the definition of a name used in `path`: the nearest `limit`, and how many there are.

        `kind_hint` is how the name is used (a Name's kind) or what it is
        thought to be. Empty if the parser finds none. Raises what the
        repository raises for objects it lacks.
        """
        self._index.move_to(commit_sha)
        kinds = KINDS.get(kind_hint, ())
        if path.lower().endswith(".c"):
            kinds = tuple(
                kind for kind in kinds if kind_hint != "function" or kind not in _TYPES
            )  # C has no constructors
        if self._own is None or pre_image is not self._own[1]:
            self._own = (self._repo.blob_oid(pre_image), pre_image)
        oid = self._own[0]
        blob = self._index.take(oid, grammar(path), pre_image)
        own = [(path, oid, symbol) for symbol in self._index.in_blob(name, blob) if symbol.kind in kinds]
        if definitions := _definitions(own):
            return self._found(sorted(definitions, key=self._is_stand_in), limit)
        headers = self._headers(path, commit_sha, oid, blob)
        elsewhere = [
            place
            for place in self._index.in_tree(name)
            if place[0] != path and place[2].kind in kinds and not _is_foreign(place, path)
        ]
        included = sorted((place for place in elsewhere if place[0] in headers), key=lambda place: headers[place[0]])
        others = {place[0] for place in elsewhere if place[0] not in headers and is_c(place[0])}
        rank = {other: number for number, other in enumerate(_nearest(others, path))}
        rest = sorted(
            (place for place in elsewhere if place[0] in rank and self._is_visible(place)),
            key=lambda place: rank[place[0]],
        )
        for places in (included, rest):
            if definitions := _definitions(places):
                return self._found(sorted(definitions, key=self._is_stand_in), limit)
        return self._found([*own, *included, *rest], limit)

    def members(self, name: str, whole: Definition) -> tuple[Definition, ...]:
        """The members of this name that the definition of a struct or union holds, of the tree last asked about."""
        found = [
            place
            for place in self._index.in_tree(name)
            if place[0] == whole.path
            and place[2].kind == "member"
            and whole.first_line <= place[2].first_line
            and place[2].last_line <= whole.last_line
        ]
        return self._found(found, len(found)).nearest

    def news(self, commit_sha: str) -> tuple[BlobSymbols, ...]:
        """The symbols of blobs of a commit's tree that are not stored yet, as facts."""
        self._index.move_to(commit_sha)
        return self._index.news()

    def _found(self, places: list[_Place], limit: int) -> Found:
        return Found(tuple(self._cut(place) for place in places[:limit]), len(places))

    def _is_visible(self, place: _Place) -> bool:
        """Whether a name of a file that is not included can be what is meant."""
        path, _, symbol = place
        if path.lower().endswith(_SOURCE):
            is_defined = symbol.kind in _LINKED and not symbol.is_declaration_only
            return is_defined and _STATIC.match(self._cut(place).text) is None
        return symbol.kind not in _OF_HEADERS

    def _is_stand_in(self, place: _Place) -> bool:
        """Whether this is what a macro is where a feature is off: it uses none of its parameters, or is void."""
        if place[2].kind != "macro":
            return False
        says = self._cut(place).text
        if _VOID_MACRO.fullmatch(says):
            return True
        match = _CALLABLE_MACRO.fullmatch(says)
        if match is None:
            return False
        parameters = set(_WORD.findall(match[1])) | ({b"__VA_ARGS__"} if b"..." in match[1] else set())
        return bool(parameters) and not parameters & set(_WORD.findall(match[2]))

    def _cut(self, place: _Place) -> Definition:
        path, oid, symbol = place
        return Definition(
            path=path,
            first_line=symbol.first_line,
            last_line=symbol.last_line,
            text=b"".join(self._lines(oid)[symbol.first_line - 1 : symbol.last_line]),
            kind=symbol.kind,
            is_declaration_only=symbol.is_declaration_only,
        )

    def _lines(self, oid: str) -> list[bytes]:
        """The lines of a blob. Kept until another one is asked for: a file may define a name thousands of times."""
        if self._lines_of[0] != oid:
            source = self._own[1] if self._own is not None and oid == self._own[0] else self._repo.blob(oid)
            self._lines_of = (oid, split_lines(source))
        return self._lines_of[1]

    def _headers(self, path: str, commit_sha: str, oid: str, blob: int) -> dict[str, int]:
        """Files of the tree that a file includes, breadth first, numbered."""
        key = (commit_sha, path, oid)
        if self._headers_of[0] == key:
            return self._headers_of[1]
        found: dict[str, int] = {}
        resolved: dict[tuple[str, str], str | None] = {}
        queue = [(path, self._index.includes_of(blob))]
        for place, includes in queue:
            for written in includes:
                folder = posixpath.dirname(place)
                if (written, folder) not in resolved:
                    resolved[written, folder] = self._resolve(written, place)
                header = resolved[written, folder]
                if header is not None and header != path and header not in found:
                    found[header] = len(found)
                    queue.append((header, self._index.includes(header)))
        self._headers_of = (key, found)
        return found

    def _resolve(self, written: str, includer: str) -> str | None:
        """The file that an #include means: next to the includer, else the nearest with that end of path."""
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(includer), written))
        if self._index.oid_at(beside) is not None:
            return beside
        end = posixpath.normpath(written)
        while end.startswith("../"):
            end = end[3:]
        same_name = self._index.paths_named(posixpath.basename(end))
        fitting = [path for path in same_name if path == end or path.endswith("/" + end)]
        return next(iter(_nearest(fitting, includer)), None)


def _is_foreign(place: _Place, path: str) -> bool:
    """Whether this is a macro or declaration of a file for a platform that the file asking is not for."""
    other, _, symbol = place
    if symbol.kind != "macro" and not symbol.is_declaration_only:
        return False
    return bool((_platforms(other) - _platforms(path)) & _PLATFORMS)


def _platforms(path: str) -> set[str]:
    return set(_NAME_PART.findall(posixpath.basename(path).lower()))


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


def _definitions(places: Iterable[_Place]) -> list[_Place]:
    return [place for place in places if not place[2].is_declaration_only]
