"""Checks of stored text against what it was cut from: pre-images, functions, masks, segments and what rests on them."""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator

from trustmine import counted, masking, patches
from trustmine.cparse import LineRange
from trustmine.lines import cut_lines, split_lines
from trustmine.records import (
    BlobSymbols,
    Commit,
    ContextItem,
    Diff,
    DiffFile,
    Element,
    ElementCount,
    Explanation,
    FunctionPair,
    Instruction,
    Mask,
    MaskedFunction,
    MergedMask,
    PreImage,
    Segment,
    is_of_its_stage,
)
from trustmine.text import encode
from trustmine.verify.base import Finding, Look


class Wrong(Exception):
    """What is wrong with a row."""


def _rows(look: Look, table: str, stage: str, check: Callable[[Look, Commit], None]) -> Iterator[Finding]:
    """A finding for each commit that `check` raises for. Damage makes all sorts of exceptions."""
    for commit in look.commits(table):
        try:
            check(look, commit)
        except Wrong as error:
            yield Finding(commit.id, str(error), back=stage)
        except (LookupError, ValueError, TypeError, zlib.error) as error:
            yield Finding(commit.id, f"{table}: {type(error).__name__}: {error}", back=stage)


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


def _spelled(lines: LineRange) -> str:
    return f"lines {lines.first_line}-{lines.last_line}"


def git_blob_oid(data: bytes) -> str:
    """The name that git gives this content (SHA-1)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


# ------------------------------------------------------------------------- s0_1


def diffs(look: Look) -> Iterator[Finding]:
    """A stored patch has the length, the files and the encoding that are stored with it."""
    return _rows(look, "diffs", "s0_1", _diff)


def _diff(look: Look, commit: Commit) -> None:
    diff, files = look.facts.one(Diff, commit), look.facts.all(DiffFile, commit)
    if diff.patch is None:
        return
    encode(diff.patch, diff.encoding)
    _must(len(diff.patch) == diff.n_chars, f"the patch has {len(diff.patch)} characters, not {diff.n_chars}")
    counted.parts(diff.patch, files)
    n_added, n_deleted = sum(f.n_added for f in files), sum(f.n_deleted for f in files)
    lines = [
        line[:1] for file in patches.parse(encode(diff.patch, diff.encoding)) for h in file.hunks for line in h.lines
    ]
    found = (lines.count(b"+"), lines.count(b"-"))
    _must(found == (n_added, n_deleted), f"the patch adds and deletes {found} lines, not {(n_added, n_deleted)}")


# ------------------------------------------------------------------------- s1_1


def pre_images(look: Look) -> Iterator[Finding]:
    """A stored file is the git blob whose name it has."""
    for oid, size_bytes, content in look.rows("SELECT oid, size_bytes, content FROM pre_images"):
        try:
            data = zlib.decompress(content)
            if len(data) == size_bytes and git_blob_oid(data) == oid:
                continue
        except zlib.error:
            pass
        drop = (("DELETE FROM pre_images WHERE oid = ?", (oid,)),)
        yield Finding(None, f"pre-image {oid[:12]} is not what its name says", mend=drop)
        for (commit_id,) in look.rows("SELECT commit_id FROM functions WHERE pre_oid = ?", (oid,)):
            yield Finding(commit_id, f"cut from the damaged pre-image {oid[:12]}", back="s1_1")


def functions(look: Look) -> Iterator[Finding]:
    """The two texts are the lines of the files before and after; pre-image and patch give the post-image's hash."""
    return _rows(look, "functions", "s1_1", _function)


def _function(look: Look, commit: Commit) -> None:
    f = look.facts.one(FunctionPair, commit)
    pre = zlib.decompress(look.facts.shared(PreImage, f.pre_oid).content)
    before, after = LineRange(f.pre_first_line, f.pre_last_line), LineRange(f.post_first_line, f.post_last_line)
    n_lines = len(split_lines(pre))
    _must(1 <= before.first_line <= before.last_line <= n_lines, f"{_spelled(before)} of a file of {n_lines}")
    _must(cut_lines(pre, before) == encode(f.pre_text, f.encoding), f"pre_text is not {_spelled(before)} of the file")
    diff, files = look.facts.one(Diff, commit), look.facts.all(DiffFile, commit)
    _must(diff.patch is not None, "the patch is not stored")
    assert diff.patch is not None
    [part] = [part for file, part in counted.parts(diff.patch, files)
              if (file.old_oid, file.new_path) == (f.pre_oid, f.path)]  # fmt: skip
    [patch] = patches.parse(encode(part, diff.encoding))
    post = patches.apply(pre, patch)
    _must(git_blob_oid(post) == f.post_oid, "pre-image and patch do not give the post-image")
    _must(cut_lines(post, after) == encode(f.post_text, f.encoding), f"post_text is not {_spelled(after)} of that file")
    n_pre, n_post = len(split_lines(f.pre_text)), len(split_lines(f.post_text))
    _must(all(1 <= line <= n_pre for line in (*f.deleted_lines, *f.fix_lines)), "lines of the fix out of bounds")
    _must(all(1 <= line <= n_post for line in f.added_lines), "added lines out of bounds")
    kept = [line for number, line in enumerate(split_lines(f.pre_text), 1) if number not in f.deleted_lines]
    twin = [line for number, line in enumerate(split_lines(f.post_text), 1) if number not in f.added_lines]
    _must(kept == twin, "without deleted and added lines the two texts differ")


# ------------------------------------------------------------------ s1_2 and s2_0


def masks(look: Look) -> Iterator[Finding]:
    """Masks lie in the function, count the lines of the fix, and put back they give the function."""
    return _rows(look, "masked_functions", "s1_2", _mask)


def _mask(look: Look, commit: Commit) -> None:
    f, masked = look.facts.one(FunctionPair, commit), look.facts.one(MaskedFunction, commit)
    found = look.facts.all(Mask, commit)
    _must([m.mask_no for m in found] == list(range(1, len(found) + 1)), "masks are not numbered from 1")
    for m in found:
        lines = LineRange(m.first_line, m.last_line)
        _must(m.removed == cut_lines(f.pre_text, lines), f"mask {m.mask_no} is not {_spelled(lines)} of the function")
        n = sum(m.first_line <= line <= m.last_line for line in f.fix_lines)
        _must(n == m.n_fix_lines, f"mask {m.mask_no} holds {n} lines of the fix, not {m.n_fix_lines}")
    _must(masking.unmask(masked.masked_pre, [m.removed for m in found]) == f.pre_text, "masks do not give the function")
    missed = len(f.fix_lines) - sum(m.n_fix_lines for m in found)
    _must(missed == masked.n_fix_lines_missed, f"masks miss {missed} lines of the fix, not {masked.n_fix_lines_missed}")


def merged_masks(look: Look) -> Iterator[Finding]:
    """The mask of the fixed function, put back, gives the fixed function."""
    return _rows(look, "merged_masks", "s2_0", _merged)


def _merged(look: Look, commit: Commit) -> None:
    f, merged = look.facts.one(FunctionPair, commit), look.facts.one(MergedMask, commit)
    lines = LineRange(merged.post_first_line, merged.post_last_line)
    _must(merged.fixed == cut_lines(f.post_text, lines), f"the fixed block is not {_spelled(lines)}")
    _must(
        masking.unmask(merged.masked_post, [merged.fixed]) == f.post_text, "the mask does not give the fixed function"
    )


# ------------------------------------------------------------------ s2_1 and s2_2


def blob_symbols(look: Look) -> Iterator[Finding]:
    """What is known of a file's definitions can be read, and is as much as it says."""
    for oid, grammar, parser, n_symbols, content in look.rows(
        f"SELECT oid, grammar, parser, n_symbols, content FROM {BlobSymbols.TABLE}"
    ):
        try:
            _, rows = json.loads(zlib.decompress(content))
            if len(rows) == n_symbols and all(len(row) == 5 for row in rows):
                continue
        except (zlib.error, ValueError, TypeError):
            pass
        drop = "DELETE FROM blob_symbols WHERE oid = ? AND grammar = ? AND parser = ?"
        yield Finding(None, f"symbols of blob {oid[:12]} are damaged", mend=((drop, (oid, grammar, parser)),))


def elements(look: Look) -> Iterator[Finding]:
    """Definitions are as long as their lines, those in the function's own file are its lines, and the counts fit."""
    return _rows(look, "element_counts", "s2_1", _elements)


def _elements(look: Look, commit: Commit) -> None:
    found, n = look.facts.all(Element, commit), look.facts.one(ElementCount, commit)
    _must(len(found) == n.n_parser + n.n_model - n.n_both, f"{len(found)} elements are not what the counts say")
    f = look.facts.one(FunctionPair, commit)
    pre = zlib.decompress(look.facts.shared(PreImage, f.pre_oid).content)
    for e in found:
        if e.definition is None or e.def_first_line is None or e.def_last_line is None:
            continue
        n_lines = e.def_last_line - e.def_first_line + 1
        _must(len(split_lines(e.definition)) == n_lines, f"the definition of {e.name} does not have {n_lines} lines")
        if e.def_path == f.old_path:
            own = cut_lines(pre, LineRange(e.def_first_line, e.def_last_line))
            _must(own in (e.definition.encode(), e.definition.encode("latin-1", "replace")),
                  f"the definition of {e.name} is not in the file where it is said to be")  # fmt: skip


def context_items(look: Look) -> Iterator[Finding]:
    """Each element is kept or dropped once, and no more of its definition is shown than there is."""
    return _rows(look, "context_items", "s2_2", _items)


def _items(look: Look, commit: Commit) -> None:
    items = look.facts.all(ContextItem, commit)
    by_name = {e.name: e for e in look.facts.all(Element, commit)}
    _must({i.name for i in items} == by_name.keys(), "the items are not the elements")
    _must(sorted(i.item_no for i in items) == list(range(1, len(items) + 1)), "items are not numbered from 1")
    for i in items:
        _must(i.n_chars <= len(by_name[i.name].definition or ""), f"more of {i.name} is shown than there is")


# ------------------------------------------------------------------ s3_1, s3_2, s4


def segments(look: Look) -> Iterator[Finding]:
    """A segment's snippet is the lines of the function that it names."""
    return _rows(look, "segments", "s3_1", _segments)


def _segments(look: Look, commit: Commit) -> None:
    f = look.facts.one(FunctionPair, commit)
    for s in look.facts.all(Segment, commit):
        lines = LineRange(s.first_line, s.last_line)
        _must(s.snippet == cut_lines(f.pre_text, lines) != "", f"segment {s.segment_no} is not {_spelled(lines)}")
        n = sum(s.first_line <= line <= s.last_line for line in f.fix_lines)
        _must(n == s.n_fix_lines, f"segment {s.segment_no} holds {n} lines of the fix, not {s.n_fix_lines}")


def explanations(look: Look) -> Iterator[Finding]:
    """An explanation is of a segment that is there, and says something."""
    return _rows(look, "explanations", "s3_2", _explanations)


def _explanations(look: Look, commit: Commit) -> None:
    numbers = {s.segment_no for s in look.facts.all(Segment, commit)}
    for e in look.facts.all(Explanation, commit):
        _must(e.segment_no in numbers, f"an explanation of segment {e.segment_no}, which is not there")
        _must(bool(e.root_cause.strip() and e.impact.strip()), f"the explanation of segment {e.segment_no} is empty")


def instructions(look: Look) -> Iterator[Finding]:
    """Instructions are in their function's split, and speak of lines that are there."""
    return _rows(look, "instructions", "s4", _instructions)


def _instructions(look: Look, commit: Commit) -> None:
    found = [one for one in look.facts.all(Instruction, commit) if is_of_its_stage(one)]
    pairs = look.facts.all(FunctionPair, commit)
    _must({one.split for one in found} <= ({pairs[0].split} if pairs else {"train"}), "instructions in another split")
    spans = {(s.first_line, s.last_line) for s in look.facts.all(Segment, commit)}
    for one in found:
        _must(
            bool(one.instruction.strip() and one.input.strip() and one.output.strip()), f"{one.task}: a text is empty"
        )
        named = one.meta.get("segments", [])
        _must(isinstance(named, list) and {tuple(span) for span in named} <= spans, f"{one.task}: unknown segments")
