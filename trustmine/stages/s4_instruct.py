"""s4: training instructions of one sample.

Tasks: locate, locate_explain, infill, refine, calibrate (candidates that
remove the vulnerability and some that do not) and abstain. Each is stored
in neutral form: what to do, what is given, what to answer, and the facts
behind the answer. The same facts give the same instructions, byte for byte.

Candidates are the fixed function and the one before, each also with an
unrelated change, and what a model wrote into the gap (`propose`) if it is what
the fix put there or took away. Of what else it wrote nobody knows if it helps.

No input holds the commit message or text of the fix where that would give
the answer away; a row in which one does after all, since an explanation
repeats it, is rejected as `gives_answer_away`. Where only the code before the fix is shown, so is only what
that code uses. Only an undecided commit is shown itself, message and patch:
its answer is that they do not suffice. These rows were rejected at s0_3 and
stay so (ASIDE); they go to split train, and are left out from the cutoff on.

Segments that the fix does not touch are a model's word alone. Unless the
setting taught_segments says all, they are left out, and a row of which none
is left keeps only what does not rest on them: infill and abstain.

Abstaining for want of a definition is asked of few rows, and as a question
about the very name that is missing, so that it does not contradict the row's
other tasks, which can be answered from the code that is shown.
"""

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from trustmine import candidates, cnames, counted, cparse, giveaway, samples, text, wording
from trustmine.keywords import OFFICIAL
from trustmine.lines import split_lines
from trustmine.prompts import fenced
from trustmine.records import (
    Advance,
    Candidate,
    Commit,
    ContextItem,
    DiffFile,
    Element,
    Explanation,
    FunctionPair,
    Identifier,
    Instruction,
    Mask,
    MergedMask,
    Outcome,
    Reject,
    Segment,
    Verdict,
)
from trustmine.samples import Sample
from trustmine.stages import shown
from trustmine.stages.base import Context

NAME, AFTER = "s4", "s3_2"
VERSION = 5
KIND = "cpu"
SETTINGS = ("cutoff", "taught_segments", "trusted_labels", *counted.SETTINGS)
PROMPTS = ()
REASONS = ("gives_answer_away",)

# Rows rejected there for that reason are taken as well, with commit.is_aside.
ASIDE = (("s0_3", "undecided"),)

# Of the rows that lack a definition, one in so many becomes an example of abstaining.
ONE_IN = 4

# Lines that a gap may have. Of 69 gaps around known fixes of curl 13 had more, 42 to 251 lines of state machines and
# option parsers, and none of those read could have been written from what was left (2026-11).
MAX_GAP_LINES = 40

# An abstention that calls a fix 98 % likely contradicts itself: beyond these p_fix does not leave both answers open.
OPEN_FROM, OPEN_TO = 0.2, 0.8

_ENUM = re.compile(r"\s*(?:typedef\s+)?enum\b")


def run(commit: Commit, ctx: Context) -> Outcome:
    """All instructions of the row, in the order of the tasks."""
    if commit.is_aside:
        return Advance(_undecided(commit, ctx))
    segments = [
        segment
        for segment in ctx.facts.all(Segment, commit)
        if segment.n_fix_lines or ctx.settings.taught_segments == "all"
    ]
    cwe = _cwe(commit, ctx)
    explanations = {
        explanation.segment_no: explanation if cwe is None else replace(explanation, cwe=cwe)
        for explanation in ctx.facts.all(Explanation, commit)
    }
    sample = Sample(
        commit=commit,
        function=ctx.facts.one(FunctionPair, commit),
        mask=ctx.facts.one(Mask, commit),
        merged=ctx.facts.one(MergedMask, commit),
        elements=ctx.facts.all(Element, commit),
        items=ctx.facts.all(ContextItem, commit),
        segments=tuple((segment, explanations[segment.segment_no]) for segment in segments),
    )
    made = (
        *((_locate(sample), _locate_explain(sample)) if segments else ()),
        *((_infill(sample),) if _is_fillable(sample) else ()),
        *((_refine(sample), *_calibrate(sample, ctx.facts.all(Candidate, commit))) if segments else ()),
        *_under_informed(sample),
    )
    if any(giveaway.given_away(sample, one.task, one.input) for one in made):
        return Reject("gives_answer_away")
    return Advance(made)


def _cwe(commit: Commit, ctx: Context) -> str | None:
    """What trusted labels call the weakness, the first that says so; None if none does."""
    return next((label.cwe for label in ctx.trusted_labels(commit) if label.cwe is not None), None)


def _is_fillable(sample: Sample) -> bool:
    if 2 * sample.mask.n_fix_lines < len(sample.function.fix_lines):
        return False
    longest = max(sample.mask.removed, sample.merged.fixed, key=lambda part: len(split_lines(part)))
    return len(split_lines(longest)) <= MAX_GAP_LINES


# ------------------------------------------------------------------------- the tasks


def _locate(sample: Sample) -> Instruction:
    found = [samples.place(sample, segment) for segment, _ in sample.segments]
    return _instruction(
        sample,
        "locate",
        given=samples.given(sample, samples.function_before(sample), with_post=False),
        output="\n\n".join(found),
        meta={"segments": [[segment.first_line, segment.last_line] for segment, _ in sample.segments]},
    )


def _locate_explain(sample: Sample) -> Instruction:
    found = [
        f"{samples.place(sample, segment)}\n\nRoot cause: {explanation.root_cause}\n\nImpact: {explanation.impact}"
        + (f"\n\nWeakness: {explanation.cwe}" if explanation.cwe else "")
        for segment, explanation in sample.segments
    ]
    return _instruction(
        sample,
        "locate_explain",
        given=samples.given(sample, samples.function_before(sample), with_post=False),
        output="\n\n".join(found),
        meta={
            "segments": [[segment.first_line, segment.last_line] for segment, _ in sample.segments],
            "cwe": [explanation.cwe for _, explanation in sample.segments],
        },
    )


def _infill(sample: Sample) -> Instruction:
    """The masked function is the fixed one: only there is the fixed block what belongs in the gap."""
    if sample.merged.fixed.strip():
        output = samples.code(sample, sample.merged.fixed)
    else:
        output = "Nothing belongs in place of <MASK_1>: without it the function is complete and does no harm."
    title = samples.title(sample, sample.function.name)
    masked = f"{title}, with a gap:\n\n{samples.code(sample, sample.merged.masked_post)}"
    return _instruction(
        sample,
        "infill",
        given=samples.given(sample, masked, with_post=True),
        output=output,
        meta={"mask": [sample.merged.post_first_line, sample.merged.post_last_line]},
    )


def _refine(sample: Sample) -> Instruction:
    return _instruction(
        sample,
        "refine",
        given=samples.given(sample, samples.function_before(sample), samples.findings(sample), with_post=True),
        output=samples.code(sample, sample.function.post_text),
        meta={"changed": list(sample.function.added_lines)},
    )


def _calibrate(sample: Sample, proposed: Sequence[Candidate]) -> Iterator[Instruction]:
    """What removes the weakness and what does not, as one example each."""
    for number, candidate in enumerate(candidates.of(sample, proposed), 1):
        shown = f"Candidate:\n\n{samples.code(sample, candidate.text)}"
        yield _instruction(
            sample,
            "calibrate",
            given=samples.given(
                sample, samples.function_before(sample), samples.findings(sample), shown, with_post=True
            ),
            output=f"{candidate.verdict}\n\nConfidence: 1.0",
            meta={"removes": candidate.removes, "confidence": 1.0, "candidate": candidate.kind, **candidate.meta},
            example_no=number,
        )


def _under_informed(sample: Sample) -> Iterator[Instruction]:
    """A question about a name whose definition the reader does not get; for few rows, and none with everything."""
    if int(sample.commit.sha[16:24], 16) % ONE_IN:
        return
    withheld = _withheld(sample)
    if withheld is None:
        return
    kind = wording.ELEMENT_KINDS[withheld.kind]
    if kind == "macro" and not _is_called(sample.function, withheld.name):
        kind = "constant"
    used = _code_lines_with(sample.function, withheld.name)
    if not used:
        return  # it stands in a comment alone
    # Without every item that shows the definition, under whatever name it is listed.
    where = (withheld.def_path, withheld.def_first_line, withheld.def_last_line)
    hidden = {
        element.name
        for element in sample.elements
        if (element.def_path, element.def_first_line, element.def_last_line) == where or element.name == withheld.name
    }
    rest = replace(sample, items=tuple(item for item in sample.items if item.name not in hidden))
    lines = wording.listed([str(line) for line in used])
    yield _instruction(
        sample,
        "abstain",
        given=samples.given(rest, samples.function_before(sample), with_post=False),
        output=(
            f"I cannot do that because the definition of `{withheld.name}` is not part of what I was given. "
            f"The function uses it in {'line' if len(used) == 1 else 'lines'} {lines}, but that does not show "
            f"{wording.WHAT_IS_NEEDED[kind]}; anything I said about it would be a guess. "
            f"Give me the definition of `{withheld.name}` and I can answer."
        ),
        meta={
            "reason": "definition_cut" if withheld.definition is not None else "definition_missing",
            "missing": withheld.missing,
            "element": withheld.name,
            "kind": withheld.kind,
        },
        instruction=wording.ABOUT_ELEMENT[kind].format(name=withheld.name),
    )


def _withheld(sample: Sample) -> Element | None:
    """The first element of the risky code whose definition is not known, or was cut to fit the context."""
    risky = "".join([sample.mask.removed, *(segment.snippet for segment, _ in sample.segments)])
    by_name = {element.name: element for element in sample.elements}
    for item in sorted(sample.items, key=lambda item: item.item_no):
        element = by_name[item.name]
        is_missing = item.reason == "no_definition" and element.missing != "local"
        if (
            (is_missing or samples.is_cut(element, item))
            and element.in_pre
            and element.kind in wording.ELEMENT_KINDS
            and not _is_enum(element)
            and element.name not in cnames.LIBRARY | cnames.LANGUAGE
            and _lines_with(risky, element.name)
        ):
            return element
    return None


def _is_enum(element: Element) -> bool:
    """Whether it is an enumeration: code relies on the values that it names, hardly on its layout."""
    return element.kind == "enum" or _ENUM.match(element.definition or "") is not None


def _undecided(commit: Commit, ctx: Context) -> tuple[Instruction, ...]:
    """Abstaining from a verdict on a commit that s0_3 could not decide."""
    midnight = datetime.datetime.combine(ctx.settings.cutoff, datetime.time(), datetime.UTC)
    if commit.commit_time_s >= midnight.timestamp():
        return ()
    verdict = ctx.facts.one(Verdict, commit)
    if verdict.p_fix is not None and not OPEN_FROM <= verdict.p_fix <= OPEN_TO:
        return ()
    patch = shown.patch(commit, ctx)
    assert patch is not None, "s0_2 lets no patch through that is too large to keep"
    files = counted.files(ctx.facts.all(DiffFile, commit), ctx.settings)
    identifiers = [one for one in ctx.facts.all(Identifier, commit) if one.kind in OFFICIAL]
    reasons = ["message and patch alone leave both answers open"]
    meta: dict[str, object] = {"reason": "undecided", "rationale": verdict.rationale, "p_fix": verdict.p_fix}
    if verdict.p_fix is not None:
        reasons.append(f"judged by them it is {verdict.p_fix:.0%} likely that the commit fixes a vulnerability")
        meta |= {"p_yes": verdict.p_yes, "p_no": verdict.p_no, "p_undecided": verdict.p_undecided}
    missing = []
    if not identifiers:
        missing.append("the message names no CVE, GHSA or CWE")
    n_changed = sum(file.n_added + file.n_deleted for file in files)
    if n_changed == 0:
        return ()  # a pure rename or change of mode: nothing is open about it
    paths = wording.listed([f"`{samples.one_line(file.new_path)}`" for file in files])
    missing.append(
        f"the patch shows {n_changed} changed {'line' if n_changed == 1 else 'lines'} of {paths}, but neither the "
        "whole function nor the code that calls it"
    )
    output = (
        f"I cannot do that because {': '.join(reasons)}. What is missing: {', and '.join(missing)}. "
        "With the functions around the change and their callers, or the report that led to it, I could judge it."
    )
    return (
        Instruction(
            task="abstain",
            example_no=1,
            split="train",
            instruction=wording.pick(wording.INSTRUCTIONS["abstain"], commit.sha),
            input=f"Commit message:\n\n{fenced(commit.message)}\n\nPatch:\n\n{fenced(patch, 'diff')}",
            output=output,
            meta=meta,
        ),
    )


# ------------------------------------------------------------------- how it is written


def _instruction(
    sample: Sample,
    task: str,
    *,
    given: str,
    output: str,
    meta: Mapping[str, object],
    example_no: int = 1,
    instruction: str | None = None,
) -> Instruction:
    return Instruction(
        task=task,
        example_no=example_no,
        split=sample.function.split,
        instruction=instruction or wording.pick(wording.INSTRUCTIONS[task], sample.commit.sha),
        input=given,
        output=output,
        meta={"function": sample.function.name, "path": sample.function.old_path, **meta},
    )


def _is_called(function: FunctionPair, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}\s*\(", function.pre_text) is not None


def _code_lines_with(function: FunctionPair, name: str) -> list[int]:
    """Numbers of the lines of the function before the fix whose code, comments aside, holds the name."""
    code = cparse.code_lines(text.encode(function.pre_text, function.encoding), function.old_path)
    return _lines_with(b"\n".join(code).decode(function.encoding), name)


def _lines_with(code: str, name: str) -> list[int]:
    """Numbers of the lines in which the name stands as a word of its own."""
    word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    return [number for number, line in enumerate(code.split("\n"), 1) if word.search(line)]
