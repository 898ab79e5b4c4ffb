"""s2_0: the mask in both versions of the function, and the names there that it does not define.

Keeps functions with exactly one mask. The post-image is masked where the
masked lines of the pre-image went; what the fix inserts at them belongs to
the region also where comments stand between, for that is where the fix is.
Where a comment would be cut in two, all of it belongs to the region. Undefined elements are the names that the
masked block, its fixed counterpart or the statements next to it use and the
function does not define: callees, macros, types, globals, members.
"""

from collections.abc import Iterable

from trustmine import cparse, masking, text
from trustmine.cparse import LineRange, names, neighbours
from trustmine.lines import cut_lines
from trustmine.records import (
    Advance,
    Commit,
    FunctionPair,
    Mask,
    MaskedFunction,
    MergedMask,
    Outcome,
    Reject,
    UndefinedElement,
)
from trustmine.stages.base import Context

NAME, AFTER = "s2_0", "s1_2"
VERSION = 2
KIND = "parser"
SETTINGS: tuple[str, ...] = ()
PROMPTS: tuple[str, ...] = ()
REASONS = ("multi_mask", "no_undefined_elements")


def run(commit: Commit, ctx: Context) -> Outcome:
    masks = ctx.facts.all(Mask, commit)
    if len(masks) != 1:
        return Reject("multi_mask")
    mask, function = masks[0], ctx.facts.one(FunctionPair, commit)
    if masking.unmask(ctx.facts.one(MaskedFunction, commit).masked_pre, [mask.removed]) != function.pre_text:
        raise ValueError("the masked function with its mask taken out is not the function")
    masked = LineRange(mask.first_line, mask.last_line)
    fixed = masking.post_region(
        function.pre_text, function.post_text, masked, function.deleted_lines, function.added_lines
    )
    post = text.encode(function.post_text, function.encoding)
    code = [bool(line.strip()) for line in cparse.code_lines(post, function.path)]
    fixed = masking.with_insertions(fixed, code, function.deleted_lines, function.added_lines)
    fixed = masking.without_blank_borders(function.post_text, cparse.widen(post, fixed, function.path))
    indentation = masking.indentation_of(function.pre_text, mask.first_line)
    merged = MergedMask(
        masked_post=masking.mask(function.post_text, [fixed], indentation),
        fixed=cut_lines(function.post_text, fixed),
        post_first_line=fixed.first_line,
        post_last_line=fixed.last_line,
    )
    elements = _undefined(function, masked, fixed)
    if not elements:
        return Reject("no_undefined_elements", (merged,))
    return Advance((merged, *elements))


def _undefined(function: FunctionPair, masked: LineRange, fixed: LineRange) -> tuple[UndefinedElement, ...]:
    """Each name once, with the first of masked, fixed and adjoining that uses it."""
    pre = text.encode(function.pre_text, function.encoding)
    post = text.encode(function.post_text, function.encoding)
    places: Iterable[tuple[str, bytes, str, tuple[LineRange, ...]]] = (
        ("masked", pre, function.old_path, (masked,)),
        ("fixed", post, function.path, (fixed,)),
        ("adjoining", pre, function.old_path, neighbours(pre, masked, function.old_path)),
    )
    found: dict[str, UndefinedElement] = {}
    for place, source, path, ranges in places:
        for lines in ranges:
            for name in names(source, lines.first_line, lines.last_line, path):
                if not name.is_local:
                    found.setdefault(name.name, UndefinedElement(name.name, name.kind, place))
    return tuple(found[name] for name in sorted(found))
