"""s0_1: does the message speak of security, and what does the commit change?

The message decides first, so that `no_keyword` counts all commits without a
keyword, merges or not; then come merges, then commits whose parent a shallow
clone lacks, then those that change nothing. What the message holds is kept on
rejection too.
"""

from collections.abc import Sequence

from trustmine.keywords import find_identifiers
from trustmine.records import Advance, Commit, Diff, Fact, KeywordMatch, Outcome, Reject
from trustmine.stages.base import Context

NAME, AFTER = "s0_1", "ingested"
KIND = "git"
VERSION = 1
SETTINGS = ("keywords", "match_mode", "max_diff_chars")
PROMPTS = ()
REASONS = ("no_keyword", "merge", "shallow_boundary", "empty_diff")


def prepare(commits: Sequence[Commit], ctx: Context) -> None:
    """Let git work ahead on the patches that these rows will want."""
    for commit in commits:
        if len(commit.parents) <= 1 and not commit.is_boundary and ctx.keywords.find(commit.message):
            ctx.repos.get(commit.repo_id).expect([commit.sha])


def run(commit: Commit, ctx: Context) -> Outcome:
    found: tuple[Fact, ...] = find_identifiers(commit.message)
    keywords = ctx.keywords.find(commit.message)
    if not keywords:
        return Reject("no_keyword", found)
    found = (KeywordMatch(keywords), *found)
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
