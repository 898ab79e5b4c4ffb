"""s0_2: is this patch small, of a single file, and C or C++? If so: how promising is the commit?

The commit text that is counted, here and in later stages' prompts, is
message, newline, patch. Extensions are compared as they are written, in the
setting and in the path after the change: `.C` is C++ by convention, `.H` may
be anything, and whoever wants them adds them to the list.

A row that passes gets its priority: the order in which later stages take rows.
"""

from trustmine import priority, tokens
from trustmine.records import Advance, Commit, CommitSize, Diff, DiffFile, Identifier, Outcome, Reject
from trustmine.stages.base import Context

NAME, AFTER = "s0_2", "s0_1"
KIND = "cpu"
VERSION = 2
SETTINGS = (
    "max_diff_chars", "max_commit_tokens", "extensions", "strong_words", "medium_words", "weak_words", "unlikely_words",
)  # fmt: skip
PROMPTS = ()
REASONS = ("diff_too_large", "too_many_tokens", "not_single_file", "not_c")


def run(commit: Commit, ctx: Context) -> Outcome:
    settings = ctx.settings
    diff = ctx.facts.one(Diff, commit)
    if diff.patch is None or diff.n_chars >= settings.max_diff_chars:
        return Reject("diff_too_large")
    n_tokens = tokens.fewer_than(f"{commit.message}\n{diff.patch}", settings.max_commit_tokens)
    if n_tokens is None:
        return Reject("too_many_tokens")
    size = CommitSize(n_tokens)
    files = ctx.facts.all(DiffFile, commit)
    if len(files) != 1:
        return Reject("not_single_file", (size,))
    name = files[0].new_path.rpartition("/")[2]
    if not name.endswith(settings.extensions):
        return Reject("not_c", (size,))
    rank = priority.rank(
        commit.message,
        ctx.facts.all(Identifier, commit),
        diff.patch,
        files,
        strong=settings.strong_words,
        medium=settings.medium_words,
        weak=settings.weak_words,
        unlikely=settings.unlikely_words,
    )
    return Advance((size, rank))
