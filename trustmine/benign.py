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

A run replaces what an earlier one chose of the same repository. Lifespans are
stored file by file (lifespans), so it can be stopped and goes on there.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from trustmine import benignexample, counted, cparse, licences, lifespan, lifespans, profiles, text, tools
from trustmine.benignexample import Candidate
from trustmine.changed_function import old_name
from trustmine.config import Settings
from trustmine.db import facts
from trustmine.db.connect import transaction
from trustmine.errors import RepositoryError
from trustmine.gitrepo import GitRepo, MissingObject
from trustmine.lifespans import Lived
from trustmine.lines import split_lines
from trustmine.progress import Progress, quiet
from trustmine.records import BlobSymbols, Instruction
from trustmine.stages.base import Context

TOLERANCE = 0.2  # of a length that is to be met
MIN_LENGTHS = 16  # vulnerable functions; fewer say nothing about their lengths
MAX_BLOCK_LINES = 6  # of the statements that context is collected around; masks of curl's fixes have 1 to 6 as a rule

# Why a function is none of those to choose from.
TOUCHED, PAIR, COPY, TOO_LONG = "touched_by_a_fix", "in_a_function_pair", "copy", "too_long"


class NotIngested(RepositoryError):
    """The first ingest of the repository was cut off: which tree is its newest is not known yet."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was done for one repository."""

    repo: str
    n_functions: int  # in its tree
    left_out: Mapping[str, int]  # by reason
    n_chosen: int
    has_lengths: bool  # False: there are too few vulnerable functions to take lengths from
    n_missing: int  # fewer than asked for: no function of such a length is left
    given_up: Sequence[str]  # files that no process survived


def choose(
    conn: sqlite3.Connection,
    settings: Settings,
    repo_id: int,
    per_repo: int,
    n_processes: int = 1,
    progress: Progress = quiet,
) -> Chosen:
    """Store the benign functions of a repository and their examples.

    `progress` is told what is done, how much of it, and of how much. Raises RepositoryError (maybe NotIngested).
    """
    try:
        return _choose(conn, settings, repo_id, per_repo, n_processes, progress)
    except MissingObject as error:
        raise RepositoryError(
            "The repository cannot be read", str(error), "Repair or clone it again; nothing was changed"
        ) from error


def _choose(
    conn: sqlite3.Connection, settings: Settings, repo_id: int, per_repo: int, n_processes: int, progress: Progress
) -> Chosen:
    ctx = tools.context(conn, settings)
    repo = ctx.repos.get(repo_id)
    name, tip = conn.execute(
        """SELECT name, sha FROM repos LEFT JOIN refs ON repo_id = id WHERE id = ?
           ORDER BY ref <> 'HEAD', ref LIMIT 1""",
        (repo_id,),
    ).fetchone()
    if tip is None:
        what = f"{name} has not been ingested to the end"
        raise NotIngested(what, repo.path, f"trustmine ingest {repo.path} --name {name}")
    fixes = frozenset(
        sha
        for (sha,) in conn.execute(
            """SELECT sha FROM commits WHERE repo_id = ? AND (
                   id IN (SELECT commit_id FROM labels WHERE label = 'yes')
                   OR id IN (SELECT commit_id FROM verdicts WHERE label = 'yes'))""",
            (repo_id,),
        )
    )
    chain = repo.first_parents(tip)
    if not conn.execute("SELECT 1 FROM commits WHERE repo_id = ? AND sha = ?", (repo_id, chain[-1])).fetchone():
        what = "The history goes further back than was ingested: a shallow clone was deepened"
        raise RepositoryError(what, repo.path, f"trustmine ingest {repo.path} --name {name}")
    found, given_up = lifespans.lifespans(
        conn, repo, repo_id, chain, lambda path: _is_source(path, settings), n_processes, progress
    )
    left_out: Counter[str] = Counter()
    candidates = list(_candidates(conn, settings, repo_id, found, _with_merges(conn, repo_id, chain, fixes), left_out))
    lengths = _lengths(conn, repo_id)
    picked = _pick(repo, candidates, lengths, per_repo)
    _store(conn, ctx, repo, repo_id, tip, picked, progress)
    return Chosen(
        repo=name,
        n_functions=len(found),
        left_out=dict(left_out),
        n_chosen=len(picked),
        has_lengths=len(lengths) >= MIN_LENGTHS,
        n_missing=per_repo - len(picked),
        given_up=given_up,
    )


def _with_merges(conn: sqlite3.Connection, repo_id: int, chain: Sequence[str], fixes: frozenset[str]) -> frozenset[str]:
    """The fixes, and the commits of the first-parent history that brought one in from a branch."""
    if fixes <= set(chain):
        return fixes
    parents = {
        sha: ours.split()
        for sha, ours in conn.execute("SELECT sha, parents FROM commits WHERE repo_id = ?", (repo_id,))
    }
    seen: set[str] = set()
    found = set(fixes)
    for sha in reversed(chain):  # the oldest first: each commit belongs to the first merge that has it
        seen.add(sha)
        stack = parents.get(sha, [])[1:]
        while stack:
            one = stack.pop()
            if one not in seen:
                seen.add(one)
                stack += parents.get(one, [])
                if one in fixes:
                    found.add(sha)
    return frozenset(found)


def _is_source(path: str, settings: Settings) -> bool:
    return path.endswith(settings.extensions) and not counted.is_ignored(path, profiles.IGNORED_FILES)


# ------------------------------------------------------------------------- which ones


def _candidates(
    conn: sqlite3.Connection,
    settings: Settings,
    repo_id: int,
    found: Sequence[Lived],
    fixes: frozenset[str],
    left_out: Counter[str],
) -> Iterator[Lived]:
    """Those that may be taken, the longest-lived first; the others are counted."""
    places, bodies = _known_pairs(conn, repo_id)
    copies: set[str] = set()
    for lived in sorted(found, key=lambda one: (-one.n_commits, -one.life.n_changes, one.path, one.life.first_line)):
        life = lived.life
        reason = None
        if not fixes.isdisjoint(life.touched):
            reason = TOUCHED
        elif (lived.path, life.name) in places or life.body in bodies:
            reason = PAIR
        elif life.body in copies:
            reason = COPY
        elif life.n_tokens >= settings.max_function_tokens:
            reason = TOO_LONG
        copies.add(life.body)
        if reason is None:
            yield lived
        else:
            left_out[reason] += 1


def _known_pairs(conn: sqlite3.Connection, repo_id: int) -> tuple[set[tuple[str, str]], set[str]]:
    """(path, name) of the repository's function pairs in both images, and what the bodies of all pairs hash to."""
    places: set[tuple[str, str]] = set()
    bodies: set[str] = set()
    for owner, name, path, old_path, encoding, pre, post in conn.execute(
        """SELECT repo_id, name, path, old_path, encoding, pre_text, post_text
           FROM functions JOIN commits ON id = commit_id"""
    ):
        before, after = text.encode(pre, encoding), text.encode(post, encoding)
        if owner == repo_id:
            places |= {(path, name), (old_path, name), (old_path, old_name(name, old_path, before, path, after))}
        bodies |= {lifespan.body_hash(before, old_path), lifespan.body_hash(after, path)}
    return places, bodies


def _lengths(conn: sqlite3.Connection, repo_id: int) -> list[int]:
    """Tokens of the vulnerable functions, of this repository if there are enough, else of all."""
    found = conn.execute("SELECT repo_id, n_tokens FROM functions JOIN commits ON id = commit_id").fetchall()
    own = [n_tokens for owner, n_tokens in found if owner == repo_id]
    return sorted(own if len(own) >= MIN_LENGTHS else [n_tokens for _, n_tokens in found])


def _pick(repo: GitRepo, candidates: Sequence[Lived], lengths: Sequence[int], wanted: int) -> list[Candidate]:
    """To evenly spaced quantiles of the lengths the longest-lived functions of about that length; in their order.

    With too few lengths the longest-lived of any.
    """
    if len(lengths) < MIN_LENGTHS:
        targets: list[int | None] = [None] * wanted
    else:
        targets = [lengths[(2 * number + 1) * len(lengths) // (2 * wanted)] for number in range(wanted)]
    picked: dict[int, Candidate] = {}
    unfit: set[int] = set()
    for target in targets:
        for number, lived in enumerate(candidates):
            if number in picked or number in unfit:
                continue
            if target is None or abs(lived.life.n_tokens - target) <= target * TOLERANCE:
                one = _candidate(repo, lived)
                if one.blocks:
                    picked[number] = one
                    break
                unfit.add(number)
    return [picked[number] for number in sorted(picked)]


def _candidate(repo: GitRepo, lived: Lived) -> Candidate:
    source = b"".join(split_lines(repo.blob(lived.oid))[lived.life.first_line - 1 : lived.life.last_line])
    found = cparse.statement_ranges(source, lived.path)
    blocks = tuple(lines for lines in found if len(lines) <= MAX_BLOCK_LINES)
    return Candidate(lived, source, *text.decode(source), blocks)


# ------------------------------------------------------------------------ as examples


def _store(
    conn: sqlite3.Connection,
    ctx: Context,
    repo: GitRepo,
    repo_id: int,
    tip: str,
    picked: Sequence[Candidate],
    progress: Progress,
) -> None:
    """Put functions, examples and the symbols learnt on the way in the place of what an earlier run stored."""
    made: list[tuple[str, Instruction, tuple[BlobSymbols, ...]]] = []
    for one in picked:
        progress("examples", len(made), len(picked))  # the first ones parse the files that others look into as well
        made.append(benignexample.made(ctx, repo, repo_id, tip, one))
    top = repo.top_files(tip)
    licence, _ = licences.of_repository(top, repo.blob, lambda path: repo.find_file(tip, path))
    with transaction(conn):
        ids = "SELECT id FROM commits WHERE repo_id = ?"
        conn.execute(f"DELETE FROM instructions WHERE task = ? AND commit_id IN ({ids})", (benignexample.TASK, repo_id))
        conn.execute("DELETE FROM benign_functions WHERE repo_id = ?", (repo_id,))
        numbers: Counter[int] = Counter()
        for one, (split, example, news) in zip(picked, made, strict=True):
            lived, life = one.lived, one.lived.life
            (commit_id,) = conn.execute(
                "SELECT id FROM commits WHERE repo_id = ? AND sha = ?", (repo_id, life.since)
            ).fetchone()
            numbers[commit_id] += 1
            row = {
                "repo_id": repo_id,
                "path": lived.path,
                "first_line": life.first_line,
                "last_line": life.last_line,
                "name": life.name,
                "oid": lived.oid,
                "tree_sha": tip,
                "since_commit_id": commit_id,
                "since_time_s": repo.commit_time_s(life.since),
                "n_commits": lived.n_commits,
                "n_changes": life.n_changes,
                "is_cut": lived.is_cut,
                "n_tokens": life.n_tokens,
                "encoding": one.encoding,
                "text": one.text,
                "split": split,
                "example_no": numbers[commit_id],
                "licence": licences.of_file(repo.blob(lived.oid)) or licence,
            }
            conn.execute(
                f"INSERT INTO benign_functions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            )
            facts.write(conn, [(commit_id, fact) for fact in (replace(example, example_no=numbers[commit_id]), *news)])
