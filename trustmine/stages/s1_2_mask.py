"""s1_2: which block of the function is the risky one?

The conversation of s0_3 goes on: after message, patch and `yes` the model
sees the function before the fix with line numbers, and the numbers of the
lines that the fix deletes, or at which it inserts others. It answers with line ranges of whole statements.
So a block is exact text of the function, never a paraphrase, and what stays
around `<MASK_n>` is readable code.

A function in which the parser finds no statement on lines of its own offers
nothing to choose from: `no_statement`, and the model is not asked; nor for a
function that holds something like `<MASK_1>` itself: `holds_mask`. An answer
that was cut off or has another form is `unparsable`, its text stays in
llm_calls; `no_block` means that the model said so. Masks that miss the fix or
leave no statement of the function are kept for people to look at.

Where `masked_by` is "fix" no model is asked: the block is the shortest run of
statements, but not all of the function, that holds what the fix changes;
`no_block` if there is none.
"""

from collections.abc import Generator, Sequence

from trustmine import answers, counted, masking, samples
from trustmine.lines import LineRange, cut_lines
from trustmine.records import (
    Advance,
    Commit,
    Completion,
    FunctionPair,
    Mask,
    MaskedFunction,
    Reject,
    Request,
)
from trustmine.stages import line_ranges, shown
from trustmine.stages.base import Asking, Context

NAME, AFTER = "s1_2", "s1_1"
VERSION = 4
KIND = "llm"
UNASKED = (("masked_by", "fix"),)
SETTINGS = ("masked_by", "max_masks", *counted.SETTINGS)
PROMPTS = ("s0_3_classify", "s1_2_mask")
REASONS = ("holds_mask", "no_statement", "unparsable", "no_block", "mask_misses_fix", "mask_whole_function")


def run(commit: Commit, ctx: Context) -> Asking:
    """Asks once, or not at all; the masks in the order of the text."""
    function = ctx.facts.one(FunctionPair, commit)
    if masking.holds_mask(function.pre_text) or masking.holds_mask(function.post_text):
        return Reject("holds_mask")
    allowed = line_ranges.allowed(function)
    if not allowed:
        return Reject("no_statement")
    if ctx.settings.masked_by == "fix":
        named, request_hash = _around_fix(function, allowed), None
    else:
        completion = yield from _ask(commit, ctx, function, allowed)
        try:
            named, request_hash = line_ranges.named(completion, allowed), completion.request_hash
        except answers.Unparsable:
            return Reject("unparsable")
    if not named:
        return Reject("no_block")
    masks = tuple(
        Mask(
            mask_no=number,
            first_line=lines.first_line,
            last_line=lines.last_line,
            removed=cut_lines(function.pre_text, lines),
            n_fix_lines=line_ranges.n_fix_lines(function, lines),
        )
        for number, lines in enumerate(named, 1)
    )
    n_covered = sum(mask.n_fix_lines for mask in masks)
    masked = MaskedFunction(
        masked_pre=masking.mask(function.pre_text, named),
        n_fix_lines_missed=len(function.fix_lines) - n_covered,
        request_hash=request_hash,
    )
    if n_covered == 0:
        return Reject("mask_misses_fix", (*masks, masked))
    ends = {line for choice in allowed for line in (choice.first_line, choice.last_line)}
    if all(any(lines.first_line <= line <= lines.last_line for lines in named) for line in ends):
        return Reject("mask_whole_function", (*masks, masked))
    return Advance((*masks, masked))


def _ask(
    commit: Commit, ctx: Context, function: FunctionPair, allowed: Sequence[LineRange]
) -> Generator[Request, Completion, Completion]:
    """The model's answer, with the conversation of s0_3 before it."""
    patch = shown.patch(commit, ctx)
    assert patch is not None, "s0_2 lets no patch through that is too large to keep"
    judged = ctx.prompts.get("s0_3_classify").request(message=commit.message, patch=patch)
    return (
        yield ctx.prompts.get("s1_2_mask").request(
            after=judged.messages,
            grammar=line_ranges.grammar(allowed, ctx.settings.max_masks),
            function=samples.one_line(samples.old_name(function)),
            numbered=samples.numbered(function.pre_text),
            fix=_fix(function),
            max_masks=str(ctx.settings.max_masks),
            max_tokens=ctx.settings.max_masks * line_ranges.TOKENS_PER_RANGE,
            temperature=ctx.settings.temperature,
            seed=ctx.settings.seed,
        )
    )


def _around_fix(function: FunctionPair, allowed: Sequence[LineRange]) -> tuple[LineRange, ...]:
    """The shortest of the choices that holds all lines of the fix; () if none does."""
    n_lines = len(function.fix_lines)
    holding = [lines for lines in allowed if line_ranges.n_fix_lines(function, lines) == n_lines]
    shortest = min(holding, key=lambda lines: (len(lines), lines.first_line), default=None)
    return () if shortest is None else (shortest,)


def _fix(function: FunctionPair) -> str:
    """Where the change is, in the words of the prompt."""
    deleted = [line for line in function.fix_lines if line in function.deleted_lines]
    inserted = [line for line in function.fix_lines if line not in function.deleted_lines]
    parts = []
    if deleted or not inserted:
        parts.append(f"Lines that the change deletes or rewrites: {line_ranges.spelled(deleted)}")
    if inserted:
        parts.append(f"Lines at which the change inserts what was missing: {line_ranges.spelled(inserted)}")
    return "\n".join(parts)
