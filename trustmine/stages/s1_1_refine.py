"""s1_1: the one function that a fix changes, before and after, or why there is none.

Cheap and clear reasons come first: what date, file and hunk tell
(after_cutoff, then multi_hunk, only_additions), then what the parser tells
(function_unparsed, not_in_function), then what the two texts tell (noop,
format_only, function_too_long). A whole file added is only_additions; a file
deleted, a binary file or a submodule is not_in_function; a pure rename or
change of mode is noop.

That pre-image plus patch is the post-image is checked by git's hash for every
row that gets as far as its blob; if not, the row fails.
"""

import datetime
import zlib

from trustmine import patches, text, tokens
from trustmine.changed_function import NOT_IN_FUNCTION, UNPARSED, function_pair, patched
from trustmine.cparse import Function, outline, strip_comments_and_space
from trustmine.lines import LineRange, cut_lines
from trustmine.records import Advance, Commit, Diff, DiffFile, FunctionPair, Identifier, Outcome, PreImage, Reject
from trustmine.stages.base import Context

NAME, AFTER = "s1_1", "s0_3"
VERSION = 1
KIND = "parser"
SETTINGS = ("max_function_tokens", "cutoff")
PROMPTS: tuple[str, ...] = ()
REASONS = (
    "after_cutoff",
    "multi_hunk",
    "only_additions",
    UNPARSED,
    NOT_IN_FUNCTION,
    "noop",
    "format_only",
    "function_too_long",
)

_ZLIB_LEVEL = 6


class IdentityError(ValueError):
    """A stored patch does not turn the pre-image into the post-image."""


def run(commit: Commit, ctx: Context) -> Outcome:
    split = _split(commit, ctx)
    if split is None:
        return Reject("after_cutoff")
    files = ctx.facts.all(DiffFile, commit)
    if len(files) != 1:
        raise ValueError(f"{len(files)} files in a commit that passed s0_2")
    file = files[0]
    reason = _reason_by_shape(file)
    if reason is not None:
        return Reject(reason)

    repo = ctx.repos.get(commit.repo_id)
    pre = repo.blob(file.old_oid)
    diff = ctx.facts.one(Diff, commit)
    if diff.patch is None:
        raise ValueError("the patch of a commit that passed s0_2 is not stored")
    hunk, post = patched(pre, text.encode(diff.patch, diff.encoding))
    if repo.blob_oid(post) != file.new_oid:
        raise IdentityError(f"{file.old_path} {file.old_oid} plus patch is not {file.new_oid}")

    pair = function_pair(outline(pre, file.old_path), outline(post, file.new_path), hunk)
    if isinstance(pair, str):
        return Reject(pair)
    before, after = pair
    pre_bytes, post_bytes = (cut_lines(data, _lines(f)) for data, f in ((pre, before), (post, after)))
    if pre_bytes == post_bytes:
        return Reject("noop")
    if strip_comments_and_space(pre_bytes, file.old_path) == strip_comments_and_space(post_bytes, file.new_path):
        return Reject("format_only")

    # One codec for all three texts.
    _, codec = text.decode(pre_bytes + post_bytes + hunk.text())
    pre_text = pre_bytes.decode(codec)
    n_tokens = tokens.fewer_than(pre_text, ctx.settings.max_function_tokens)
    if n_tokens is None:
        return Reject("function_too_long")
    function = FunctionPair(
        name=after.name,
        path=file.new_path,
        old_path=file.old_path,
        split=split,
        pre_oid=file.old_oid,
        post_oid=file.new_oid,
        encoding=codec,
        hunk=hunk.text().decode(codec),
        pre_first_line=before.first_line,
        pre_last_line=before.last_line,
        post_first_line=after.first_line,
        post_last_line=after.last_line,
        pre_text=pre_text,
        post_text=post_bytes.decode(codec),
        deleted_lines=tuple(line - before.first_line + 1 for line in patches.deleted_lines(hunk)),
        added_lines=tuple(line - after.first_line + 1 for line in patches.added_lines(hunk)),
        n_tokens=n_tokens,
    )
    return Advance((PreImage(file.old_oid, len(pre), zlib.compress(pre, _ZLIB_LEVEL)), function))


def _split(commit: Commit, ctx: Context) -> str | None:
    """train, bench, or None for a commit that is too new and has no CVE."""
    day = datetime.datetime.fromtimestamp(commit.commit_time_s, datetime.UTC).date()
    if day < ctx.settings.cutoff:
        return "train"
    in_message = any(identifier.kind == "CVE" for identifier in ctx.facts.all(Identifier, commit))
    in_labels = any(label.identifier.startswith("CVE-") for label in ctx.facts.labels(commit))
    return "bench" if in_message or in_labels else None


def _reason_by_shape(file: DiffFile) -> str | None:
    """Why a change of this shape cannot be one function's fix; None if it may be."""
    if file.is_binary or file.is_submodule or file.change in ("deleted", "typechange"):
        return NOT_IN_FUNCTION
    if file.change == "added":
        return "only_additions"
    if file.n_hunks == 0:
        return "noop"
    if file.n_hunks > 1:
        return "multi_hunk"
    return "only_additions" if file.n_deleted == 0 else None


def _lines(function: Function) -> LineRange:
    return LineRange(function.first_line, function.last_line)
