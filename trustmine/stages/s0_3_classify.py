"""s0_3: does this commit fix a vulnerability?

A verdict from a list of known commits or an advisory outranks the model's,
which is not asked then (setting trusted_labels; the fixes that OSS-Fuzz found
by bisection are too often another commit). Otherwise the model is asked for
the probabilities of yes, no and cannot decide (calibration.SPELLINGS) twice, to
the opposite question and to the question itself about the same evidence; their
`calibration.mean` is what counts. The calibration makes a label of it, and, as
the setting `rationale` says, the last conversation goes on with the reason for
it. Raw probabilities are stored whatever the calibration was.
"""

import contextlib
import math
import re
from collections.abc import Sequence

from trustmine import calibration, counted
from trustmine.errors import PromptError
from trustmine.llm.base import ContextOverflow
from trustmine.records import Advance, Commit, Completion, Outcome, Reject, Request, Verdict
from trustmine.stages import shown
from trustmine.stages.base import Asking, Context

NAME, AFTER = "s0_3", "s0_2"
VERSION = 2
KIND = "llm"
SETTINGS = ("trusted_labels", "rationale", "min_p_fix", "repeat_penalty", *counted.SETTINGS)
CLASSIFY_PROMPT, RATIONALE_PROMPT = "s0_3_classify", "s0_3_rationale"
PROMPTS = (CLASSIFY_PROMPT, RATIONALE_PROMPT)
REASONS = ("not_a_fix", "undecided")

_SAID = {"yes": calibration.YES, "no": calibration.NO, "undecided": calibration.CANNOT_DECIDE}
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


def run(commit: Commit, ctx: Context) -> Asking:
    known = _known_verdict(commit, ctx)
    if known is not None:
        return _outcome(known)
    requests = classify_requests(commit, ctx)
    answers = []
    for request in requests:
        answers.append((yield request))
    logprobs = raw(answers)
    label = calibration.decide(ctx.calibration, logprobs, ctx.settings.min_p_fix)
    rationale = None
    if ctx.settings.rationale == "all" or ctx.settings.rationale == label:
        with contextlib.suppress(ContextOverflow):  # the verdict stands without its reason
            rationale = _trimmed((yield _rationale_request(requests[-1], label, ctx)))
    return _outcome(
        Verdict(
            label=label,
            source="model",
            p_yes=math.exp(logprobs[calibration.YES]),
            p_no=math.exp(logprobs[calibration.NO]),
            p_undecided=math.exp(logprobs[calibration.CANNOT_DECIDE]),
            p_fix=calibration.p_fix(ctx.calibration, logprobs),
            calibration_id=None if ctx.calibration is None else ctx.calibration.id,
            rationale=rationale,
            request_hash=answers[-1].request_hash,
        )
    )


def classify_requests(commit: Commit, ctx: Context) -> tuple[Request, ...]:
    """What is asked to judge a commit and to feed a calibration: the opposite question if there is one, the question.

    In that order, so that what goes on from the question finds it in the cache.
    Raises PromptError if the prompt has more questions.
    """
    patch = shown.patch(commit, ctx)
    if patch is None:
        raise ValueError("the patch was too large to be stored")
    prompt = ctx.prompts.get(CLASSIFY_PROMPT)
    if len(prompt.questions) > 2:
        what = f"Prompt {prompt.name} has {len(prompt.questions)} questions"
        raise PromptError(what, ", ".join(prompt.questions), "s0_3 asks one question, or one and its opposite")
    return tuple(
        prompt.request(labels=tuple(calibration.SPELLINGS), question=question, message=commit.message, patch=patch)
        for question in (reversed(prompt.questions) if prompt.questions else (None,))
    )


def raw(answers: Sequence[Completion]) -> dict[str, float]:
    """The label log-probabilities that the answers to `classify_requests` come to."""
    found = [calibration.together(answer.label_logprobs) for answer in answers if answer.label_logprobs is not None]
    if len(found) < len(answers):
        raise ValueError("the engine gave no label probabilities")
    return calibration.mean(found[-1], found[0] if len(found) > 1 else None)


def _rationale_request(asked: Request, label: str, ctx: Context) -> Request:
    """The conversation so far, the label as its answer, and the question why."""
    return ctx.prompts.get(RATIONALE_PROMPT).request(
        after=asked.messages,
        label=_SAID[label],
        temperature=ctx.settings.temperature,
        repeat_penalty=ctx.settings.repeat_penalty,
        seed=ctx.settings.seed,
    )


def _known_verdict(commit: Commit, ctx: Context) -> Verdict | None:
    """The verdict of a trusted label, where any yes wins over every no; None if the commit has none."""
    labels = sorted(ctx.trusted_labels(commit), key=lambda label: label.label != "yes")
    return Verdict(label=labels[0].label, source=labels[0].source) if labels else None


def _outcome(verdict: Verdict) -> Outcome:
    if verdict.label == "yes":
        return Advance((verdict,))
    return Reject("not_a_fix" if verdict.label == "no" else "undecided", (verdict,))


def _trimmed(completion: Completion) -> str | None:
    """The text; if it was cut off, up to its last whole sentence, else its last whole word."""
    text = completion.text.strip()
    if completion.finish_reason == "length":
        ends = [found.end() for found in _SENTENCE_END.finditer(text)]
        # Of a single word nothing would be left, so it stays.
        text = text[: ends[-1]] if ends else " ".join(text.rsplit(maxsplit=1)[:1])
    return text or None
