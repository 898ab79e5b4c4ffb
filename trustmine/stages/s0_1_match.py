"""s0_1: does the message speak of security, and what does the commit change?

A message lets its commit in by a keyword and, as the setting `admit` says, by
an identifier or by a word that a crash leaves; which of these did is stored.
The message decides first, so that `no_keyword` counts all commits that none
of the rules lets in, merges or not; then come merges, then commits whose parent a shallow
clone lacks, then those that change nothing. What the message holds is kept on
rejection too.
"""

from trustmine import text
from trustmine.keywords import find_identifiers
from trustmine.records import Advance, Commit, Diff, Fact, KeywordMatch, Outcome, Reject
from trustmine.stages.base import Context

NAME, AFTER = "s0_1", "ingested"
KIND = "git"
VERSION = 2
SETTINGS = ("keywords", "match_mode", "admit", "crash_words", "identifier_kinds", "max_diff_chars")
PROMPTS = ()
REASONS = ("no_keyword", "merge", "shallow_boundary", "empty_diff")


def run(commit: Commit, ctx: Context) -> Outcome:
    found: tuple[Fact, ...] = find_identifiers(commit.message, ctx.settings.identifier_kinds)
    match = _match(commit.message, bool(found), ctx)
    if not match.rules:
        return Reject("no_keyword", found)
    found = (match, *found)
    if len(commit.parents) > 1:
        return Reject("merge", found)
    repo = ctx.repos.get(commit.repo_id)
    if commit.is_boundary and not repo.has(commit.parents[0]):
        # git would show the whole tree as added.
        return Reject("shallow_boundary", found)
    patch = repo.patch(commit.sha, ctx.settings.max_diff_chars)
    if not patch.files:
        return Reject("empty_diff", found)
    kept, encoding = (None, text.UTF_8) if patch.patch is None else text.decode(patch.patch)
    return Advance((*found, Diff(kept, encoding, patch.n_chars), *patch.files))


def _match(message: str, has_identifier: bool, ctx: Context) -> KeywordMatch:
    """The words found, and the rules that let the commit in; none if it is to be rejected."""
    admit = ctx.settings.admit
    keywords = ctx.keywords.find(message)
    crash_words = ctx.crash_words.find(message) if ctx.crash_words is not None else ()
    applies = {"keywords": bool(keywords), "identifiers": has_identifier, "crash_words": bool(crash_words)}
    return KeywordMatch(keywords, crash_words, tuple(rule for rule, does in applies.items() if does and rule in admit))
