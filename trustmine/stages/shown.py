"""The patch of a commit as stages show it to a model: the parts about counted files."""

from trustmine import counted
from trustmine.records import Commit, Diff, DiffFile
from trustmine.stages.base import Context


def patch(commit: Commit, ctx: Context) -> str | None:
    """Cut from the stored patch; None if that was too large to be kept."""
    diff = ctx.facts.one(Diff, commit)
    if ctx.settings.counted_files == "all":
        return diff.patch
    return counted.patch(diff, ctx.facts.all(DiffFile, commit), ctx.settings)
