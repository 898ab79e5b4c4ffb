"""s3_2: root cause and impact of each segment.

One request per segment, which shows the function and the context as s3_1 did
but neither message nor patch, and what s3_1 found, as far as it draws on the
code alone: that had seen the message. What the model writes is checked
(review.py): about the code alone, naming only what the reader can see. An
answer that fails, or is cut off or in another form, is sent back once with the
complaint but without its text, which small models write again word for word;
when the second fails too, the row is rejected. Explanations that had passed by
then are kept.
"""

from trustmine import answers, review, samples
from trustmine.records import (
    Advance,
    Commit,
    Completion,
    ContextItem,
    Element,
    Explanation,
    FunctionPair,
    Reject,
    Segment,
)
from trustmine.stages.base import Asking, Context

NAME, AFTER = "s3_2", "s3_1"
VERSION = 4
KIND = "llm"
SETTINGS = ("explanation_tokens", "repeat_penalty", "cwes")
PROMPTS = ("s3_2_explain", "s3_2_again")
REASONS = ("bad_explanation",)

# Explanation.id is commit_id * this + segment_no.
SEGMENTS_PER_COMMIT = 100
# English prose about code has 3.5 to 4.5 characters per token; root cause and
# impact share the tokens with the form around them.
CHARS_PER_TOKEN = 3

# What is shorter is no sentence: small models like to answer with a single name.
MIN_CHARS = 40

Answer = tuple[str, str, str | None]  # root cause, impact, CWE


def run(commit: Commit, ctx: Context) -> Asking:
    """Asks once or twice per segment."""
    function = ctx.facts.one(FunctionPair, commit)
    context = samples.context(ctx.facts.all(Element, commit), ctx.facts.all(ContextItem, commit), with_post=False)
    name = samples.old_name(function)
    shown = review.Shown(code="\n".join((name, function.old_path, function.pre_text, context)), message=commit.message)
    max_tokens = ctx.settings.explanation_tokens
    max_chars = min(max_tokens * CHARS_PER_TOKEN // 2, answers.MAX_STRING_CHARS)
    grammar = answers.explanation_grammar(max_chars, ctx.settings.cwes, min(MIN_CHARS, max_chars))
    schema = answers.explanation_schema(ctx.settings.cwes)
    explanations: list[Explanation] = []
    for segment in ctx.facts.all(Segment, commit):
        earlier = [explanation.root_cause for explanation in explanations]
        request = ctx.prompts.get("s3_2_explain").request(
            grammar=grammar,
            schema=schema,
            max_tokens=max_tokens,
            temperature=ctx.settings.temperature,
            repeat_penalty=ctx.settings.repeat_penalty,
            seed=ctx.settings.seed,
            function=samples.one_line(name),
            path=samples.one_line(function.old_path),
            numbered=samples.numbered(function.pre_text),
            context=context,
            mark=answers.LINES,
            lines=samples.span(segment.first_line, segment.last_line),
            snippet=segment.snippet,
            finding=review.lead(segment.finding, shown) or "(nothing was noted)",
        )
        completion = yield request
        n_asked = 1
        answer = _judge(completion, shown, earlier, max_chars)
        if isinstance(answer, str):
            completion = yield ctx.prompts.get("s3_2_again").request(
                after=request.messages,
                grammar=grammar,
                schema=schema,
                max_tokens=max_tokens,
                temperature=ctx.settings.temperature,
                repeat_penalty=ctx.settings.repeat_penalty,
                seed=ctx.settings.seed,
                complaint=answer,
            )
            n_asked = 2
            answer = _judge(completion, shown, earlier, max_chars)
            if isinstance(answer, str):
                return Reject("bad_explanation", tuple(explanations))
        root_cause, impact, cwe = answer
        explanations.append(
            Explanation(
                id=commit.id * SEGMENTS_PER_COMMIT + segment.segment_no,
                segment_no=segment.segment_no,
                root_cause=root_cause,
                impact=impact,
                cwe=cwe,
                n_asked=n_asked,
                request_hash=completion.request_hash,
            )
        )
    return Advance(tuple(explanations))


def _judge(completion: Completion, shown: review.Shown, earlier: list[str], max_chars: int) -> Answer | str:
    """The explanation, or the complaint about it."""
    try:
        root_cause, impact, cwe = answers.parse_explanation(answers.finished(completion))
    except answers.Unparsable as error:
        if error.reason == "truncated":
            return "It does not come to an end: be shorter."
        return "It is not a JSON object with root_cause, impact and cwe."
    # At that length the grammar closed the text, not the model.
    if max(len(root_cause), len(impact)) >= max_chars:
        return f"Root cause and impact must each come to their end within {max_chars} characters."
    wrong = review.complaint(root_cause, impact, shown, earlier)
    return wrong if wrong is not None else (root_cause, impact, cwe)
