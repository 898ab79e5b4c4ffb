"""s0_2: is this patch small, of a single file, and C or C++? If so: how promising is the commit?

Only counted files are looked at (counted.py): all of them, or the C and C++
source among them. The commit text whose tokens count, here and in later
stages' prompts, is message, newline, patch of these files. Extensions are
compared as they are written, in the setting and in the path after the change:
`.C` is C++ by convention, `.H` may be anything, and whoever wants them adds
them to the list.

A row that passes gets its priority: the order in which later stages take rows.
"""

from trustmine import counted, priority, tokens
from trustmine.records import Advance, Commit, CommitSize, DiffFile, Identifier, Outcome, Reject
from trustmine.stages import shown
from trustmine.stages.base import Context

NAME, AFTER = "s0_2", "s0_1"
KIND = "cpu"
VERSION = 1
SETTINGS = (
    *("max_diff_chars", "max_commit_tokens", "headers", *counted.SETTINGS),
    *("strong_words", "medium_words", "weak_words", "unlikely_words"),
)
PROMPTS = ()
REASONS = ("diff_too_large", "too_many_tokens", "not_single_file", "not_c")


def run(commit: Commit, ctx: Context) -> Outcome:
    settings = ctx.settings
    patch = shown.patch(commit, ctx)
    if patch is None or len(patch) >= settings.max_diff_chars:
        return Reject("diff_too_large")
    n_tokens = tokens.fewer_than(counted.text(commit.message, patch), settings.max_commit_tokens)
    if n_tokens is None:
        return Reject("too_many_tokens")
    size = CommitSize(n_tokens)
    files = ctx.facts.all(DiffFile, commit)
    if not counted.files(files, settings):
        return Reject("not_c", (size,))
    own = counted.own(files, settings)
    if len(own) != 1:
        return Reject("not_single_file", (size,))
    if not own[0].new_path.rpartition("/")[2].endswith(settings.extensions):
        return Reject("not_c", (size,))
    rank = priority.rank(
        commit.message,
        ctx.facts.all(Identifier, commit),
        patch,
        counted.files(files, settings),
        strong=settings.strong_words,
        medium=settings.medium_words,
        weak=settings.weak_words,
        unlikely=settings.unlikely_words,
    )
    return Advance((size, rank))
