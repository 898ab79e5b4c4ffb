"""Functions in which no vulnerability is known: those of a tree that have lived longest as they are.

Long life is evidence, not proof: nobody found a reason to change them while
their files changed. Left out are functions that a fix made or touched (by a
label or a verdict), that stand in a function pair by path and name or by
their tokens, and what is test, example or generated code. Of equal functions
one is taken. They are as long as the vulnerable ones of the database: to each
quantile of those the longest-lived function of about that length.

Each becomes an example that asks like `locate` and is answered by "no
vulnerability detected" (task `benign`), with context collected as for other
samples, around a run of statements picked by the function's blob: by the
stages themselves, with a model that lists nothing, so that no example is told
from others by what surrounds it. It hangs on the commit that made the function
what it is, and so goes with that commit's side of a split.

A run replaces what an earlier one stored of the same repository, and takes some
minutes for 40,000 commits; nothing is stored before the end.
"""

import datetime
import hashlib
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from trustmine import counted, cparse, lifespan, profiles, samples, text, tokens, tools, wording
from trustmine.config import Settings
from trustmine.db import facts
from trustmine.db.connect import transaction
from trustmine.errors import RepositoryError
from trustmine.gitrepo import GitRepo, MissingObject
from trustmine.lifespan import Lived
from trustmine.lines import LineRange, cut_lines
from trustmine.records import (
    Advance,
    BlobSymbols,
    Commit,
    Completion,
    ContextItem,
    Element,
    Fact,
    FunctionPair,
    Instruction,
    Label,
    Mask,
    MergedMask,
    PreImage,
)
from trustmine.samples import Sample
from trustmine.stages import s2_1_elements, s2_2_validate
from trustmine.stages.base import Context, F, Facts

TASK = "benign"
ANSWER = "No vulnerability detected in this function."
TOLERANCE = 0.2  # of a length that is to be met
MIN_LENGTHS = 16  # vulnerable functions; fewer say nothing about their lengths
MAX_BLOCK_LINES = 6  # of the statements that context is collected around; masks of curl's fixes have 1 to 6 as a rule

# Why a function is none of those to choose from.
TOUCHED, PAIR, COPY, TOO_LONG = "touched_by_a_fix", "in_a_function_pair", "copy", "too_long"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was done for one repository."""

    repo: str
    n_functions: int  # in its tree
    left_out: Mapping[str, int]  # by reason
    n_chosen: int
    has_lengths: bool  # False: there are too few vulnerable functions to take lengths from
    n_missing: int  # fewer than asked for: no function of such a length is left


@dataclass(frozen=True, slots=True)
class _Candidate:
    lived: Lived
    text: str
    encoding: str
    n_tokens: int


def choose(
    conn: sqlite3.Connection,
    settings: Settings,
    repo_id: int,
    per_repo: int,
    progress: Callable[[int], object] = lambda done: None,
) -> Chosen:
    """Store the benign functions of a repository and their examples. `progress` is told commits walked.

    Raises RepositoryError.
    """
    try:
        return _choose(conn, settings, repo_id, per_repo, progress)
    except MissingObject as error:
        raise RepositoryError(
            "The repository cannot be read", str(error), "Repair or clone it again; nothing was changed"
        ) from error


def _choose(
    conn: sqlite3.Connection, settings: Settings, repo_id: int, per_repo: int, progress: Callable[[int], object]
) -> Chosen:
    ctx = tools.context(conn, settings)
    repo = ctx.repos.get(repo_id)
    name, tip = conn.execute(
        """SELECT name, sha FROM repos JOIN refs ON repo_id = id WHERE id = ? ORDER BY ref <> 'HEAD', ref LIMIT 1""",
        (repo_id,),
    ).fetchone()
    fixes = frozenset(
        sha
        for (sha,) in conn.execute(
            """SELECT sha FROM commits WHERE repo_id = ? AND (
                   id IN (SELECT commit_id FROM labels WHERE label = 'yes')
                   OR id IN (SELECT commit_id FROM verdicts WHERE label = 'yes'))""",
            (repo_id,),
        )
    )
    found = lifespan.lifespans(repo, tip, lambda path: _is_source(path, settings), fixes, progress)
    left_out: Counter[str] = Counter()
    candidates = list(_candidates(conn, settings, repo_id, found, left_out))
    lengths = _lengths(conn, repo_id)
    picked = _pick(candidates, lengths, per_repo)
    _store(conn, ctx, repo, repo_id, tip, picked)
    return Chosen(name, len(found), dict(left_out), len(picked), len(lengths) >= MIN_LENGTHS, per_repo - len(picked))


def _is_source(path: str, settings: Settings) -> bool:
    return path.endswith(settings.extensions) and not counted.is_ignored(path, profiles.IGNORED_FILES)


# ------------------------------------------------------------------------- which ones


def _candidates(
    conn: sqlite3.Connection, settings: Settings, repo_id: int, found: Sequence[Lived], left_out: Counter[str]
) -> Iterator[_Candidate]:
    """Those that may be taken, the longest-lived first; the others are counted."""
    places, bodies = _known_pairs(conn, repo_id)
    for lived in sorted(found, key=lambda one: (-one.n_commits, -one.n_changes, one.path, one.first_line)):
        function, encoding = text.decode(lived.source)
        reason = None
        if lived.touched_by:
            reason = TOUCHED
        elif (lived.path, lived.name) in places or lived.body in bodies[PAIR]:
            reason = PAIR
        elif lived.body in bodies[COPY]:
            reason = COPY
        n_tokens = None if reason else tokens.fewer_than(function, settings.max_function_tokens)
        bodies[COPY].add(lived.body)
        if n_tokens is None:
            left_out[reason or TOO_LONG] += 1
        else:
            yield _Candidate(lived, function, encoding, n_tokens)


def _known_pairs(conn: sqlite3.Connection, repo_id: int) -> tuple[set[tuple[str, str]], dict[str, set[bytes]]]:
    """(path, name) of the repository's function pairs, and the tokens of all pairs of the database."""
    places: set[tuple[str, str]] = set()
    bodies: dict[str, set[bytes]] = {PAIR: set(), COPY: set()}
    for owner, name, path, old_path, encoding, pre, post in conn.execute(
        """SELECT repo_id, name, path, old_path, encoding, pre_text, post_text
           FROM functions JOIN commits ON id = commit_id"""
    ):
        places |= {(path, name), (old_path, name)} if owner == repo_id else set()
        for where, function in ((old_path, pre), (path, post)):
            bodies[PAIR].add(cparse.strip_comments_and_space(text.encode(function, encoding), where).strip())
    return places, bodies


def _lengths(conn: sqlite3.Connection, repo_id: int) -> list[int]:
    """Tokens of the vulnerable functions, of this repository if there are enough, else of all."""
    found = conn.execute("SELECT repo_id, n_tokens FROM functions JOIN commits ON id = commit_id").fetchall()
    own = [n_tokens for owner, n_tokens in found if owner == repo_id]
    return sorted(own if len(own) >= MIN_LENGTHS else [n_tokens for _, n_tokens in found])


def _pick(candidates: Sequence[_Candidate], lengths: Sequence[int], wanted: int) -> list[_Candidate]:
    """To evenly spaced quantiles of the lengths the longest-lived functions of about that length; in their order.

    With too few lengths the longest-lived of any.
    """
    if len(lengths) < MIN_LENGTHS:
        targets: list[int | None] = [None] * wanted
    else:
        targets = [lengths[(2 * number + 1) * len(lengths) // (2 * wanted)] for number in range(wanted)]
    picked: dict[int, _Candidate] = {}
    has_block: dict[int, bool] = {}
    for target in targets:
        for number, one in enumerate(candidates):
            if number not in picked and (target is None or abs(one.n_tokens - target) <= target * TOLERANCE):
                if number not in has_block:
                    has_block[number] = bool(_blocks(one))
                if has_block[number]:
                    picked[number] = one
                    break
    return [picked[number] for number in sorted(picked)]


def _blocks(one: _Candidate) -> tuple[LineRange, ...]:
    """The runs of statements that context may be collected around."""
    found = cparse.statement_ranges(one.lived.source, one.lived.path)
    return tuple(lines for lines in found if len(lines) <= MAX_BLOCK_LINES)


# ------------------------------------------------------------------------ as examples


def _store(
    conn: sqlite3.Connection, ctx: Context, repo: GitRepo, repo_id: int, tip: str, picked: Sequence[_Candidate]
) -> None:
    """Put functions, examples and the symbols learnt on the way in the place of what an earlier run stored."""
    made = [_made(ctx, repo, repo_id, tip, one) for one in picked]
    with transaction(conn):
        ours = "SELECT id FROM commits WHERE repo_id = ?"
        conn.execute(f"DELETE FROM instructions WHERE task = ? AND commit_id IN ({ours})", (TASK, repo_id))
        conn.execute("DELETE FROM benign_functions WHERE repo_id = ?", (repo_id,))
        numbers: Counter[int] = Counter()
        for one, (split, example, news) in zip(picked, made, strict=True):
            lived = one.lived
            (commit_id,) = conn.execute(
                "SELECT id FROM commits WHERE repo_id = ? AND sha = ?", (repo_id, lived.since_sha)
            ).fetchone()
            numbers[commit_id] += 1
            row = {
                "repo_id": repo_id,
                "path": lived.path,
                "first_line": lived.first_line,
                "last_line": lived.last_line,
                "name": lived.name,
                "oid": lived.oid,
                "tree_sha": tip,
                "since_commit_id": commit_id,
                "since_time_s": repo.commit_time_s(lived.since_sha),
                "n_commits": lived.n_commits,
                "n_changes": lived.n_changes,
                "is_cut": lived.is_cut,
                "n_tokens": one.n_tokens,
                "encoding": one.encoding,
                "text": one.text,
                "split": split,
                "example_no": numbers[commit_id],
            }
            conn.execute(
                f"INSERT INTO benign_functions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            )
            facts.write(conn, [(commit_id, fact) for fact in (replace(example, example_no=numbers[commit_id]), *news)])


def _made(
    ctx: Context, repo: GitRepo, repo_id: int, tip: str, one: _Candidate
) -> tuple[str, Instruction, tuple[BlobSymbols, ...]]:
    """Split, example and new symbols of files."""
    lived = one.lived
    midnight = datetime.datetime.combine(ctx.settings.cutoff, datetime.time(), datetime.UTC)
    split = "train" if repo.commit_time_s(lived.since_sha) < midnight.timestamp() else "bench"
    key = hashlib.sha256(f"{lived.oid}:{lived.name}:{lived.first_line}".encode()).hexdigest()
    sample, news = _sample(ctx, repo, repo_id, tip, one, split, key)
    example = Instruction(
        task=TASK,
        example_no=1,
        split=split,
        instruction=wording.pick(wording.INSTRUCTIONS["locate"], key),
        input=samples.given(sample, samples.function_before(sample), with_post=False),
        output=ANSWER,
        meta={
            "function": lived.name,
            "path": lived.path,
            "segments": [],
            "blob": lived.oid,
            "lines": [lived.first_line, lived.last_line],
            "tree": tip,
            "n_commits": lived.n_commits,
            "n_changes": lived.n_changes,
        },
    )
    return split, example, news


def _sample(
    ctx: Context, repo: GitRepo, repo_id: int, tip: str, one: _Candidate, split: str, key: str
) -> tuple[Sample, tuple[BlobSymbols, ...]]:
    """The function as if one of its blocks had been found risky, with the context that s2_1 and s2_2 collect then."""
    lived = one.lived
    content = repo.blob(lived.oid)
    blocks = _blocks(one)
    block = blocks[int(key[8:16], 16) % len(blocks)]
    removed = cut_lines(one.text, block)
    function = FunctionPair(
        name=lived.name,
        path=lived.path,
        old_path=lived.path,
        split=split,
        pre_oid=lived.oid,
        post_oid=lived.oid,
        encoding=one.encoding,
        hunk="",
        pre_first_line=lived.first_line,
        pre_last_line=lived.last_line,
        post_first_line=lived.first_line,
        post_last_line=lived.last_line,
        pre_text=one.text,
        post_text=one.text,
        deleted_lines=(),
        added_lines=(),
        fix_lines=(),
        n_tokens=one.n_tokens,
    )
    mask = Mask(mask_no=1, first_line=block.first_line, last_line=block.last_line, removed=removed, n_fix_lines=0)
    merged = MergedMask(masked_post="", fixed=removed, post_first_line=block.first_line, post_last_line=block.last_line)
    image = PreImage(lived.oid, len(content), zlib.compress(content, 1))
    # Definitions are looked up in the tree of the first parent: here the tree that the function is from.
    commit = Commit(0, repo_id, key[:40], (tip,), 0, 0, False, "", s2_1_elements.AFTER)
    view = _View(ctx.facts, (function, mask, merged, image))
    ctx = replace(ctx, facts=view)
    listed = _without_model(commit, ctx)
    elements = tuple(fact for fact in listed if isinstance(fact, Element))
    view.given += elements
    outcome = s2_2_validate.run(commit, ctx)
    assert isinstance(outcome, Advance), "s2_2 rejects nothing"
    items = tuple(fact for fact in outcome.facts if isinstance(fact, ContextItem))
    sample = Sample(commit, function, mask, merged, elements, items, ())
    return sample, tuple(fact for fact in listed if isinstance(fact, BlobSymbols))


def _without_model(commit: Commit, ctx: Context) -> tuple[Fact, ...]:
    """What s2_1 finds if the model lists no element and picks no definition."""
    asking = s2_1_elements.run(commit, ctx)
    try:
        next(asking)
        answer = "[]"
        while True:
            asking.send(Completion(answer, "stop", None, 0, 0, 0, 0.0, "", ""))
            answer = ""
    except StopIteration as end:
        assert isinstance(end.value, Advance), "an empty list can be parsed"
        return end.value.facts


class _View:
    """Facts of a commit that is none: those given, and what the database knows of blobs."""

    def __init__(self, stored: Facts, given: tuple[Fact, ...]) -> None:
        self.given = given
        self._stored = stored

    def __hash__(self) -> int:
        return hash(self._stored)  # the finder of definitions is one for all functions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _View) and other._stored is self._stored

    def all(self, fact: type[F], commit: Commit) -> tuple[F, ...]:
        return tuple(one for one in self.given if isinstance(one, fact))

    def one(self, fact: type[F], commit: Commit) -> F:
        (found,) = self.all(fact, commit)
        return found

    def shared(self, fact: type[F], *key: str) -> F:
        return self.one(fact, Commit(0, 0, "", (), 0, 0, False, "", ""))

    def find_shared(self, fact: type[F], *key: str) -> F | None:
        return self._stored.find_shared(fact, *key)

    def labels(self, commit: Commit) -> tuple[Label, ...]:
        return ()
