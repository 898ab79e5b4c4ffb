"""s0_1: does the message speak of security, and what does the commit change?

A message lets its commit in by a keyword and, as the setting `admit` says, by
an identifier or by a word that a crash leaves; which of these did is stored.
The message decides first, so that `no_keyword` counts all commits that none
of the rules lets in, merges or not; then come merges, then commits whose
parent a shallow clone lacks, then those that change nothing. What the message
holds is kept on rejection too.
"""

from collections.abc import Sequence

from trustmine.keywords import find_identifiers
from trustmine.records import Advance, Commit, Diff, Fact, Identifier, KeywordMatch, Outcome, Reject
from trustmine.stages.base import Context

NAME, AFTER = "s0_1", "ingested"
KIND = "git"
VERSION = 1
SETTINGS = ("keywords", "match_mode", "admit", "crash_words", "identifier_kinds", "max_diff_chars")
PROMPTS = ()
REASONS = ("no_keyword", "merge", "shallow_boundary", "empty_diff")


def prepare(commits: Sequence[Commit], ctx: Context) -> None:
    """Let git work ahead on the patches that these rows will want."""
    wanted: dict[int, list[str]] = {}  # by repository
    for commit in commits:
        if len(commit.parents) <= 1 and not commit.is_boundary and _is_admitted(commit.message, ctx):
            wanted.setdefault(commit.repo_id, []).append(commit.sha)
    for repo_id, shas in wanted.items():
        ctx.repos.get(repo_id).expect(shas)


def run(commit: Commit, ctx: Context) -> Outcome:
    match, identifiers = _admitted(commit.message, ctx)
    if not match.rules:
        return Reject("no_keyword", identifiers)
    found: tuple[Fact, ...] = (match, *identifiers)
    if len(commit.parents) > 1:
        return Reject("merge", found)
    repo = ctx.repos.get(commit.repo_id)
    if commit.is_boundary and not repo.has(commit.parents[0]):
        # git would show the whole tree as added.
        return Reject("shallow_boundary", found)
    patch = repo.patch(commit.sha, ctx.settings.max_diff_chars)
    if not patch.files:
        return Reject("empty_diff", found)
    return Advance((*found, Diff(patch.text, patch.encoding, patch.n_chars), *patch.files))


def _is_admitted(message: str, ctx: Context) -> bool:
    is_by_keyword = "keywords" in ctx.settings.admit and bool(ctx.keywords.find(message))
    return is_by_keyword or bool(_admitted(message, ctx)[0].rules)


def _admitted(message: str, ctx: Context) -> tuple[KeywordMatch, tuple[Identifier, ...]]:
    """The words and identifiers found, and the rules that let the commit in; none if it is to be rejected."""
    identifiers = find_identifiers(message, ctx.settings.identifier_kinds)
    admit = ctx.settings.admit
    keywords = ctx.keywords.find(message)
    crash_words = ctx.crash_words.find(message) if ctx.crash_words is not None else ()
    applies = {"keywords": bool(keywords), "identifiers": bool(identifiers), "crash_words": bool(crash_words)}
    rules = tuple(rule for rule, does in applies.items() if does and rule in admit)
    return KeywordMatch(keywords, crash_words, rules), identifiers
