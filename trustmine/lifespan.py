"""How long the functions of a tree have been as they are, comments and white space aside.

Walks the first-parent history backwards by the differences of trees. Per file
it looks whether the version before still holds each function: its text byte
for byte (first where the function above it would have it), else its tokens, around every place where its name
stands before parameters and a brace. Only a function that was laid out anew
has its old file parsed. Renames of files are followed as git finds them,
functions that move from one file to another are not: there a function begins.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

from trustmine.cparse import functions, strip_comments_and_space
from trustmine.gitrepo import FileChange, GitRepo
from trustmine.lines import split_lines
from trustmine.text import decode

# How much longer a function may have been with other comments and white space, and what stands before its name.
MORE_BYTES, BEFORE_BYTES = 8_000, 2_000


@dataclass(slots=True)
class Lived:
    """A function of the tree, and since when it is as it is."""

    path: str
    oid: str  # git blob of the file
    name: str
    first_line: int
    last_line: int
    start_byte: int  # of its first line
    source: bytes  # whole lines
    body: bytes  # without comments and white space
    since_sha: str = ""  # the commit that made it what it is
    n_commits: int = 0  # of the first-parent history since then, that one not counted
    n_changes: int = 0  # commits of these that changed its file
    is_cut: bool = False  # the history was cut off there: it may be older
    touched_by: tuple[
        str, ...
    ] = ()  # commits that changed its text, since_sha included, as far as they were asked about


def lifespans(
    repo: GitRepo,
    tip: str,
    is_wanted: Callable[[str], bool],
    asked_about: frozenset[str] = frozenset(),
    progress: Callable[[int], object] = lambda done: None,
) -> list[Lived]:
    """The functions of the commit's tree in files that are wanted by their path, in the order of path and line.

    Functions that the parser did not understand are left out. `asked_about`: commits to be named in `touched_by`.
    `progress` is told the commits walked. Raises RepositoryError, MissingObject.
    """
    alive: dict[bytes, list[_Alive]] = {}
    found: list[Lived] = []
    for raw, oid in repo.tree_changes(None, tip):
        path = decode(raw)[0]
        if oid is not None and is_wanted(path):
            ours = _functions(repo.blob(oid), path, oid)
            found += ours
            alive[raw] = [_Alive(one, one.source, one.start_byte) for one in ours]
    chain = repo.first_parents(tip)
    place = {sha: number for number, sha in enumerate(chain)}
    for sha, changes in repo.changes(chain):
        progress(place[sha] + 1)
        moved: dict[bytes, list[_Alive]] = {}
        for change in changes:
            held = alive.pop(change.new_path, None) if change.new_path is not None else None
            if held:
                left = _before(repo, change, held, sha, place[sha], sha in asked_about)
                if left and change.old_path is not None:
                    moved[change.old_path] = left
        alive |= moved
    for held in alive.values():  # the root adds every file, so that nothing is left but where git lost a path
        for one in held:
            one.end(chain[-1], len(chain) - 1, False)
    for lived in found:
        lived.is_cut = repo.is_cut_off(lived.since_sha)
    return sorted(found, key=lambda one: (one.path, one.first_line, one.last_line))


@dataclass(slots=True)
class _Alive:
    """A function that is still there in the version of its file at hand, with its text in it."""

    lived: Lived
    source: bytes
    start_byte: int

    def end(self, sha: str, n_commits: int, is_asked: bool) -> None:
        """This commit made it."""
        self.lived.since_sha, self.lived.n_commits = sha, n_commits
        if is_asked:
            self.lived.touched_by = (*self.lived.touched_by, sha)


def _before(
    repo: GitRepo, change: FileChange, held: Iterable[_Alive], sha: str, n_commits: int, is_asked: bool
) -> list[_Alive]:
    """The functions that were there before the change, too."""
    old = None if change.old_oid is None else repo.blob(change.old_oid)
    path = decode(change.old_path)[0] if change.old_path is not None else ""
    by_body: dict[bytes, bytes] | None = None
    left = []
    moved_by = 0  # bytes, the function above
    for one in held:
        start = -1
        if old is not None:
            expected = max(one.start_byte + moved_by, 0)
            start = expected if old.startswith(one.source, expected) else old.find(one.source)
        if start < 0 and (old is None or not _holds(old, one, path)):
            one.end(sha, n_commits, is_asked)
            continue
        if start < 0:
            assert old is not None, "nothing is found in no file"
            if by_body is None:
                by_body = {before.body: before.source for before in _functions(old, path, "")}
            one.source = by_body.get(one.lived.body, one.source)
            start = max(old.find(one.source), 0)
            if is_asked:
                one.lived.touched_by = (*one.lived.touched_by, sha)
        moved_by, one.start_byte = start - one.start_byte, start
        one.lived.n_changes += 1
        left.append(one)
    return left


def _holds(old: bytes, one: _Alive, path: str) -> bool:
    """Whether a version of the file has a function with the same tokens."""
    name = one.lived.name.rpartition("::")[2].encode()
    if re.fullmatch(rb"~?\w+", name) is None:  # an operator may be written in several ways
        return one.lived.body in strip_comments_and_space(old, path)
    # Parameters of before C89 are declared between parentheses and brace.
    between = rb"[^{}]" if b";" in one.lived.body.partition(b"{")[0] else rb"[^;{}]"
    for found in re.finditer(rb"(?<!\w)%b\s*\(%b{0,4000}\{" % (re.escape(name), between), old):
        start = old.rfind(b"\n", 0, max(found.start() - BEFORE_BYTES, 0)) + 1
        part = old[start : found.end() + len(one.source) + MORE_BYTES]
        if one.lived.body in strip_comments_and_space(part, path):
            return True
    return False


def _functions(source: bytes, path: str, oid: str) -> list[Lived]:
    found = []
    lines = split_lines(source)
    starts = [0, *accumulate(map(len, lines))]
    for one in functions(source, path):
        text = b"".join(lines[one.first_line - 1 : one.last_line])
        body = strip_comments_and_space(text, path).strip()
        if body and not one.has_error:
            start = starts[one.first_line - 1]
            found.append(Lived(path, oid, one.name, one.first_line, one.last_line, start, text, body))
    return found
