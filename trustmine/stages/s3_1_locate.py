"""s3_1: which segments of the function are vulnerable?

The model sees the function before the fix, the context of s2_2 and the
message, not the patch, and is told to reason as if no fix were known. Of the
context it gets only what the function itself uses: a definition that only
the fixed code needs would point at the fix. It says in a sentence what is
wrong, then names line ranges of whole statements, so every segment is exact
text. Asked for numbers at once small models answer by the first digit: it
stands for the most lines; and where they are not sure they name a loop as long
as the function, so a run has at most `max_segment_lines` lines. An answer that
was cut off or has another form is `unparsable`, its text stays in llm_calls;
`no_segment` means that the model said so.
"""

from trustmine import answers, samples
from trustmine.lines import cut_lines
from trustmine.records import Advance, Commit, ContextItem, Element, FunctionPair, Reject, Segment
from trustmine.stages import line_ranges
from trustmine.stages.base import Asking, Context

NAME, AFTER = "s3_1", "s2_2"
VERSION = 5
KIND = "llm"
SETTINGS = ("max_segments", "max_segment_lines")
PROMPTS = ("s3_1_locate",)
REASONS = ("unparsable", "no_segment")


def run(commit: Commit, ctx: Context) -> Asking:
    """Asks once; the segments in the order of the text."""
    function = ctx.facts.one(FunctionPair, commit)
    allowed = line_ranges.allowed(function, ctx.settings.max_segment_lines)
    completion = yield ctx.prompts.get("s3_1_locate").request(
        grammar=line_ranges.reasoned_grammar(allowed, ctx.settings.max_segments),
        function=samples.one_line(samples.old_name(function)),
        path=samples.one_line(function.old_path),
        numbered=samples.numbered(function.pre_text),
        context=samples.context(ctx.facts.all(Element, commit), ctx.facts.all(ContextItem, commit), with_post=False),
        message=commit.message,
        mark=answers.LINES,
        max_segments=str(ctx.settings.max_segments),
        max_lines=str(ctx.settings.max_segment_lines),
        max_tokens=line_ranges.reasoned_tokens(ctx.settings.max_segments),
        temperature=ctx.settings.temperature,
        seed=ctx.settings.seed,
    )
    try:
        finding, named = line_ranges.reasoned(completion, allowed)
    except answers.Unparsable:
        return Reject("unparsable")
    if not named:
        return Reject("no_segment")
    return Advance(
        tuple(
            Segment(
                segment_no=number,
                first_line=lines.first_line,
                last_line=lines.last_line,
                snippet=cut_lines(function.pre_text, lines),
                n_fix_lines=line_ranges.n_fix_lines(function, lines),
                finding=finding,
                request_hash=completion.request_hash,
            )
            for number, lines in enumerate(named, 1)
        )
    )
