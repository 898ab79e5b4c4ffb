"""How long the functions of a file have been as they are, comments and white space aside.

Walks the versions of the file from the newest to the oldest and looks in each
whether it still holds the functions: those in what two versions begin or end
with alike are there; another one is looked for by its text, then, around every
place of its name, by its tokens, which are compared from there on until they
differ. The walk ends when no function is left. Only the newest version is
parsed, and one in which a function was laid out anew but braces do not tell
where it ends. Functions that move from one file to another begin there.
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from trustmine import tokens
from trustmine.cparse import Function, functions, strip_comments_and_space
from trustmine.gitrepo import GitRepo
from trustmine.lineage import Lineage
from trustmine.lines import split_lines
from trustmine.text import decode

# Raised when the same history would give other lives; the parser's version counts as well.
VERSION = 1
# Bytes of an old version whose tokens are compared at first; four times as many each time that they fit.
FIRST_BYTES = 160
_BODY_BYTES = 16  # of a body's hash
# Bytes read around places of a function's name in one version, as a multiple of the version's size, before a parser is
# asked: whole lines are read, and one may be very long and name the function again and again.
MAX_READ = 64
MAX_HEAD_BYTES = 4_096  # that may stand between a function's first line and its name, comments included

_NAME = re.compile(rb"~?\w+")
_WORD = re.compile(rb"\w")
_OPENS = re.compile(rb"[\s\\]*[(/]")  # what may stand between a name and its parameters: white space, a comment
_LINE_END = re.compile(rb"\n")
NOWHERE = (-1, 0)


@dataclass(frozen=True, slots=True)
class Life:
    """A function of a file, and since when it is as it is."""

    name: str
    first_line: int
    last_line: int
    body: str  # hash of the function without comments and white space
    n_tokens: int  # cl100k_base
    since: str = ""  # SHA of the commit that made it what it is
    n_changes: int = 0  # commits since then that changed its file
    touched: tuple[str, ...] = ()  # commits that changed its text, `since` included, the newest first


@dataclass(slots=True)
class _Alive:
    """A function that is still there in the version at hand, with its text in it."""

    number: int
    name: str
    body: bytes
    source: bytes  # whole lines
    start: int  # byte


def body_hash(source: bytes, path: str) -> str:
    """What tells whether two functions are the same, comments and white space aside."""
    return _hash(strip_comments_and_space(source, path).strip())


def _hash(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=_BODY_BYTES).hexdigest()


def lives(
    repo: GitRepo,
    chain: Sequence[str],
    lineage: Lineage,
    known: tuple[int, Mapping[str, Life]] | None = None,
) -> list[Life]:
    """The functions of the newest version that the parser understood, in their order.

    `known`: the place of a commit in the history, and the lives by body of the functions that the file has there;
    these are not followed any further. Raises MissingObject.
    """
    path = decode(lineage.path)[0]
    new = repo.blob(lineage.oid)
    found, alive = _functions(new, path)
    oid = lineage.oid
    for n_changes, step in enumerate(lineage.steps):
        if known is not None and step.place >= known[0]:
            alive = _known(alive, found, known[1], n_changes)
            known = None
        if not alive:
            break
        sha = chain[step.place]
        path = path if step.path is None else decode(step.path)[0]
        left: list[_Alive] = []
        if step.oid is not None and step.oid != oid:
            old = repo.blob(step.oid)
            for one, is_new_text in _before(old, new, alive, path):
                left.append(one)
                if is_new_text:
                    life = found[one.number]
                    found[one.number] = replace(life, touched=(*life.touched, sha))
            new, oid = old, step.oid
        elif step.oid is not None:
            left = alive
        _end(alive, left, found, sha, n_changes)
        alive = left
    if known is not None:
        alive = _known(alive, found, known[1], len(lineage.steps))
    # Every file begins somewhere, so that nothing is left but where git lost a path.
    _end(alive, [], found, chain[-1], len(lineage.steps))
    return found


def _end(alive: Sequence[_Alive], left: Sequence[_Alive], found: list[Life], sha: str, n_changes: int) -> None:
    """This commit made those that are not left."""
    stay = {one.number for one in left}
    for one in alive:
        if one.number not in stay:
            life = found[one.number]
            found[one.number] = replace(life, since=sha, n_changes=n_changes, touched=(*life.touched, sha))


def _known(alive: Sequence[_Alive], found: list[Life], known: Mapping[str, Life], n_changes: int) -> list[_Alive]:
    """Take over what is known; those of which nothing is."""
    left = []
    for one in alive:
        before = known.get(found[one.number].body)
        if before is None:
            left.append(one)
            continue
        life = found[one.number]
        found[one.number] = replace(
            life,
            since=before.since,
            n_changes=n_changes + before.n_changes,
            touched=(*life.touched, *before.touched),
        )
    return left


# ------------------------------------------------------------------ one version and the one before


def _before(old: bytes, new: bytes, alive: Sequence[_Alive], path: str) -> Iterator[tuple[_Alive, bool]]:
    """The functions of the new version that the old one has, and whether their text was another one there."""
    front, back = _alike(old, new)
    shift = len(old) - len(new)
    moved_by = 0  # bytes, the function above
    parsed: dict[bytes, bytes] | None = None
    for one in alive:
        if one.start + len(one.source) <= front:
            yield one, False
            continue
        is_behind = one.start >= len(new) - back
        start = one.start + shift if is_behind else _find(old, one.source, one.start + moved_by)
        is_new_text = start < 0
        if is_new_text:
            span = _laid_out(old, one, path)
            if span is None:
                if parsed is None:
                    parsed = {body: text for _, _, text, body in _parsed(old, path)}
                text = parsed.get(one.body)
                if text is None:
                    continue
                span = (old.find(text), len(text))
            elif span[0] < 0:
                continue
            start, one.source = span[0], old[span[0] : sum(span)]
        moved_by, one.start = start - one.start, start
        yield one, is_new_text


def _alike(old: bytes, new: bytes) -> tuple[int, int]:
    """Bytes that both begin with, and that the rest of both ends with."""
    most = min(len(old), len(new))
    front = _longest(most, lambda a, b: old[a:b] == new[a:b])
    n_old, n_new = len(old), len(new)
    back = _longest(most - front, lambda a, b: old[n_old - b : n_old - a] == new[n_new - b : n_new - a])
    return front, back


def _longest(most: int, is_alike: Callable[[int, int], bool]) -> int:
    """The largest number up to `most` for which all from 0 to it is alike; every byte is compared twice or so."""
    if is_alike(0, most):
        return most
    alike, other = 0, most
    while other - alike > 1:
        middle = (alike + other) // 2
        if is_alike(alike, middle):
            alike = middle
        else:
            other = middle
    return alike


def _find(old: bytes, source: bytes, expected: int) -> int:
    """Where these whole lines stand, first where they are expected; -1 if nowhere."""
    start = expected if expected >= 0 and old.startswith(source, expected) else old.find(source)
    while start >= 0:
        end = start + len(source)
        if (start == 0 or old[start - 1 : start] == b"\n") and (
            source.endswith(b"\n") or old[end : end + 1] in (b"", b"\n", b"\r")
        ):
            return start
        start = old.find(source, start + 1)
    return -1


def _laid_out(old: bytes, one: _Alive, path: str) -> tuple[int, int] | None:
    """Byte and length of whole lines with the function's tokens; NOWHERE if none have them; None: ask a parser."""
    name = one.name.rpartition("::")[2].encode()
    called = re.search(rb"(?<![\w~])%b\(" % re.escape(name), one.body) if _NAME.fullmatch(name) else None
    if called is None:  # an operator may be written in several ways, and a macro may make the name
        return None if one.body in strip_comments_and_space(old, path) else NOWHERE
    head, tail = one.body[: called.start()].strip(), one.body[called.start() :]
    at, left = old.find(name), MAX_READ * len(old)
    while at >= 0:
        if not _WORD.match(old[max(at - 1, 0) : at]) and _OPENS.match(old, at + len(name)):
            end, n_read = _reaches(old, at, tail, path)
            left -= n_read
            if left < 0:
                return None
            start = None if end is None else _head(old, at, head, path)
            if end is not None and start is not None:
                if start < 0:
                    return None
                end = _end_of(old, at, end, tail, path)
                if strip_comments_and_space(old[start:end], path).strip() == one.body:
                    return start, end - start
        at = old.find(name, at + 1)
    return NOWHERE


def _reaches(old: bytes, start: int, tail: bytes, path: str) -> tuple[int | None, int]:
    """A line end, at most four times as far as needed, up to which the text has at least these tokens; None if not.

    And the bytes that were read.
    """
    size, n_read = FIRST_BYTES, 0
    while True:
        end = _line_end(old, start + size)
        n_read += end - start
        there = strip_comments_and_space(old[start:end], path)
        if there.startswith(tail):
            return end, n_read
        if end == len(old) or not tail.startswith(there):
            return None, n_read
        size *= 4


def _line_end(old: bytes, at: int) -> int:
    """The next line end that no literal or directive crosses: up to there a text has the tokens that the whole has."""
    while at < len(old):
        at = old.find(b"\n", at) + 1
        if at == 0:
            break
        if not old[max(at - 3, 0) : at].rstrip(b"\r\n").endswith(b"\\"):
            return at
    return len(old)


def _end_of(old: bytes, start: int, end: int, tail: bytes, path: str) -> int:
    """The first line end up to which the text has all these tokens, as it has up to `end`."""
    ends = [match.end() for match in _LINE_END.finditer(old, start, end)]
    if not ends or ends[-1] != end:
        ends.append(end)
    return ends[
        bisect_left(
            ends, True, hi=len(ends) - 1, key=lambda at: strip_comments_and_space(old[start:at], path).startswith(tail)
        )
    ]


def _head(old: bytes, name_at: int, head: bytes, path: str) -> int | None:
    """Where the line begins from which on these tokens stand before a name; None if others do; -1: cannot be told."""
    start = name_at
    while True:
        start = old.rfind(b"\n", 0, max(start - 1, 0)) + 1
        before = old[start:name_at]
        found = strip_comments_and_space(before, path).strip()
        if found == head:
            return start
        if b"*/" in before and b"*/" in found:
            return -1  # a comment that begins further up
        if name_at - start > MAX_HEAD_BYTES:
            return -1  # every line is read again with those above
        if start == 0 or not head.endswith(found):
            return None


# ---------------------------------------------------------------------------------- the newest


def _functions(source: bytes, path: str) -> tuple[list[Life], list[_Alive]]:
    found: list[Life] = []
    alive: list[_Alive] = []
    for one, start, text, body in _parsed(source, path):
        alive.append(_Alive(len(found), one.name, body, text, start))
        n_tokens = tokens.count(decode(text)[0])
        found.append(Life(one.name, one.first_line, one.last_line, _hash(body), n_tokens))
    return found, alive


def _parsed(source: bytes, path: str) -> Iterator[tuple[Function, int, bytes, bytes]]:
    """The functions that the parser understands, each with its first byte, whole lines and tokens."""
    lines = split_lines(source)
    starts = [0, *accumulate(map(len, lines))]
    for one in functions(source, path):
        text = b"".join(lines[one.first_line - 1 : one.last_line])
        body = strip_comments_and_space(text, path).strip()
        if body and not one.has_error:
            yield one, starts[one.first_line - 1], text, body
