"""s1_1: the one function that a fix changes, before and after, or why there is none.

What a fix may span is a setting: one hunk, or one function. In the latter
case hunks may be many, and edits that change no code (fixes.py) are no part
of it, wherever they are.

Cheap and clear reasons come first: what date, file and hunk tell
(after_cutoff, then multi_hunk, only_additions), then what the parser tells
(function_unparsed, not_in_function, multi_function), then what the two texts
tell (noop, format_only, function_too_long). A whole file added is
only_additions; a file deleted, a binary file or a submodule is
not_in_function; a pure rename or change of mode is noop.

That pre-image plus patch is the post-image is checked by git's hash for every
row that gets as far as its blob; if not, the row fails. The licence of a row
that passes is read from the file, else from the commit's tree.
"""

import datetime
import zlib
from collections.abc import Iterable, Sequence

from trustmine import counted, fixes, licences, patches, text, tokens
from trustmine.changed_function import MULTI_FUNCTION, NOT_IN_FUNCTION, UNPARSED, function_pair
from trustmine.cparse import Function, outline, strip_comments_and_space
from trustmine.gitrepo import GitRepo
from trustmine.lines import LineRange, cut_lines, split_lines
from trustmine.patches import FilePatch, Hunk
from trustmine.records import (
    Advance,
    Commit,
    Diff,
    DiffFile,
    FunctionPair,
    Identifier,
    Licence,
    Outcome,
    PreImage,
    Reject,
)
from trustmine.stages.base import Context

NAME, AFTER = "s1_1", "s0_3"
VERSION = 3
KIND = "parser"
SETTINGS = ("max_function_tokens", "cutoff", "fix_scope", "only_additions", "headers", *counted.SETTINGS)
PROMPTS: tuple[str, ...] = ()
REASONS = (
    "after_cutoff",
    "multi_hunk",
    "only_additions",
    UNPARSED,
    NOT_IN_FUNCTION,
    MULTI_FUNCTION,
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
    own = counted.own(files, ctx.settings)
    if len(own) != 1:
        raise ValueError(f"{len(own)} files in a commit that passed s0_2")
    file = own[0]
    is_hunk = ctx.settings.fix_scope == "hunk"
    reason = _reason_by_shape(file, ctx)
    if reason is not None:
        return Reject(reason)

    repo = ctx.repos.get(commit.repo_id)
    pre = repo.blob(file.old_oid)
    patch = _file_patch(commit, ctx, files, file)
    post = patches.apply(pre, patch)
    if repo.blob_oid(post) != file.new_oid:
        raise IdentityError(f"{file.old_path} {file.old_oid} plus patch is not {file.new_oid}")

    edits = fixes.edits(patch.hunks)
    fix = edits if is_hunk else fixes.of_code(edits, pre, post, file.old_path, file.new_path)
    if not fix:
        return Reject("format_only" if _is_format_only(pre, post, file) else NOT_IN_FUNCTION)
    if ctx.settings.only_additions == "reject" and not any(len(edit.old) for edit in fix):
        return Reject("only_additions")
    old, new = outline(pre, file.old_path), outline(post, file.new_path)
    pair = function_pair(old, new, edits, fix, is_one_place=is_hunk)
    if isinstance(pair, str):
        return Reject(pair)
    before, after = (_lines(function) for function in pair)
    pre_bytes, post_bytes = cut_lines(pre, before), cut_lines(post, after)
    if pre_bytes == post_bytes:
        return Reject("noop")
    if _is_format_only(pre_bytes, post_bytes, file):
        return Reject("format_only")

    hunks = b"".join(hunk.text() for hunk in patch.hunks if _touches(hunk, before))
    deleted = _within(before, (line for edit in edits for line in _each(edit.old)))
    added = _within(after, (line for edit in edits for line in _each(edit.new)))
    if not _is_twin(pre_bytes, post_bytes, deleted, added):
        return Reject(NOT_IN_FUNCTION)
    fix_lines = set(_within(before, (line for edit in fix for line in _each(edit.old))))
    if ctx.settings.only_additions == "keep":
        fix_lines |= set(_within(before, fixes.insertion_lines(fix, before, pre, file.old_path)))

    # One codec for all three texts.
    _, codec = text.decode(pre_bytes + post_bytes + hunks)
    pre_text = pre_bytes.decode(codec)
    n_tokens = tokens.fewer_than(pre_text, ctx.settings.max_function_tokens)
    if n_tokens is None:
        return Reject("function_too_long")
    function = FunctionPair(
        name=pair[1].name,
        path=file.new_path,
        old_path=file.old_path,
        split=split,
        pre_oid=file.old_oid,
        post_oid=file.new_oid,
        encoding=codec,
        hunk=hunks.decode(codec),
        pre_first_line=before.first_line,
        pre_last_line=before.last_line,
        post_first_line=after.first_line,
        post_last_line=after.last_line,
        pre_text=pre_text,
        post_text=post_bytes.decode(codec),
        deleted_lines=deleted,
        added_lines=added,
        fix_lines=tuple(sorted(fix_lines)),
        n_tokens=n_tokens,
    )
    image = PreImage(file.old_oid, len(pre), zlib.compress(pre, _ZLIB_LEVEL))
    return Advance((image, function, _licence(commit, repo, pre, file.old_path)))


def _licence(commit: Commit, repo: GitRepo, pre: bytes, path: str) -> Licence:
    own = licences.of_file(pre)
    if own is not None:
        return Licence(own, "file", path)
    top = repo.top_files(commit.sha)
    spdx, where = licences.of_repository(top, repo.blob, lambda path: repo.find_file(commit.sha, path))
    return Licence(spdx, None, None) if where is None else Licence(spdx, "repository", text.decode(where)[0])


def _split(commit: Commit, ctx: Context) -> str | None:
    """train, bench, or None for a commit that is too new and has no CVE."""
    # In seconds: no calendar holds every date that a commit may claim.
    cutoff = datetime.datetime.combine(ctx.settings.cutoff, datetime.time(), datetime.UTC)
    if commit.commit_time_s < cutoff.timestamp():
        return "train"
    in_message = any(identifier.kind == "CVE" for identifier in ctx.facts.all(Identifier, commit))
    in_labels = any(label.identifier.startswith("CVE-") for label in ctx.facts.labels(commit))
    return "bench" if in_message or in_labels else None


def _reason_by_shape(file: DiffFile, ctx: Context) -> str | None:
    """Why a change of this shape cannot be one function's fix; None if it may be."""
    if file.is_binary or file.is_submodule or file.change in ("deleted", "typechange"):
        return NOT_IN_FUNCTION
    if file.change == "added":
        return "only_additions"
    if file.n_hunks == 0:
        return "noop"
    if ctx.settings.fix_scope == "hunk" and file.n_hunks > 1:
        return "multi_hunk"
    return "only_additions" if ctx.settings.only_additions == "reject" and file.n_deleted == 0 else None


def _file_patch(commit: Commit, ctx: Context, files: Sequence[DiffFile], file: DiffFile) -> FilePatch:
    """What the stored patch does to this file."""
    diff = ctx.facts.one(Diff, commit)
    if diff.patch is None:
        raise ValueError("the patch of a commit that passed s0_2 is not stored")
    (part,) = (part for other, part in counted.parts(diff.patch, files) if other == file)
    (file_patch,) = patches.parse(text.encode(part, diff.encoding))
    return file_patch


def _is_format_only(pre: bytes, post: bytes, file: DiffFile) -> bool:
    return strip_comments_and_space(pre, file.old_path) == strip_comments_and_space(post, file.new_path)


def _is_twin(pre: bytes, post: bytes, deleted: Sequence[int], added: Sequence[int]) -> bool:
    """Whether the two functions are the same but for these lines."""
    gone, new = set(deleted), set(added)
    kept = [line for number, line in enumerate(split_lines(pre), 1) if number not in gone]
    return kept == [line for number, line in enumerate(split_lines(post), 1) if number not in new]


def _each(lines: LineRange) -> range:
    return range(lines.first_line, lines.last_line + 1)


def _within(function: LineRange, lines: Iterable[int]) -> tuple[int, ...]:
    """Those of the file's lines that lie in the function, counted from its first line."""
    first = function.first_line
    return tuple(line - first + 1 for line in lines if first <= line <= function.last_line)


def _touches(hunk: Hunk, function: LineRange) -> bool:
    return any(
        edit.place.first_line <= function.last_line and function.first_line <= edit.place.last_line
        for edit in fixes.edits([hunk])
    )


def _lines(function: Function) -> LineRange:
    return LineRange(function.first_line, function.last_line)
