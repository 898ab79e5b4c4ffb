"""Candidate versions of a vulnerable function, each with the certainty whether it removes the weakness.

Pure: from a sample, and what a model wrote into its gap. The sentences of the
answer are made here too, since they say what a candidate does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from trustmine import cparse, masking, neutral, samples, text
from trustmine.lines import split_lines
from trustmine.records import Candidate
from trustmine.samples import Sample


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate with its verdict."""

    kind: str  # post-image, pre-image, also with a change: "pre-image, rename"; or model
    text: str  # the whole function
    removes: bool
    verdict: str
    meta: Mapping[str, object] = field(default_factory=dict)


def of(sample: Sample, proposed: Sequence[Candidate]) -> Iterator[Judged]:
    """The candidates of a sample, no two the same: fixed, as before, both with an unrelated change, a model's."""
    function = sample.function
    seen: set[str] = set()
    unrelated = neutral.change(sample)
    for made in (
        _removes(sample, "post-image", function.post_text),
        _keeps(sample, "pre-image", function.pre_text, "The candidate is the function as it was."),
        *(() if unrelated is None else _with_change(sample, unrelated)),
        *(judged for one in proposed if (judged := _by_model(sample, one)) is not None),
    ):
        if made.text not in seen:
            seen.add(made.text)
            yield made


def _with_change(sample: Sample, unrelated: neutral.Change) -> Iterator[Judged]:
    kind = unrelated.kind
    yield _keeps(
        sample,
        f"pre-image, {kind}",
        unrelated.pre_text,
        f"The candidate {unrelated.what} and changes nothing that runs.",
    )
    if unrelated.post_text is not None:
        yield _removes(
            sample,
            f"post-image, {kind}",
            unrelated.post_text,
            n_before=int(kind == "comment"),
            more=f" That it also {unrelated.what} changes nothing that runs.",
        )


def _by_model(sample: Sample, proposed: Candidate) -> Judged | None:
    """What a model wrote, if its tokens are those of the fix or of what it replaced; else None."""
    merged = sample.merged
    whole = masking.unmask(merged.masked_post, [proposed.code])
    meta = {"request": f"s4:{proposed.request_hash}"}
    if proposed.verdict == "fix":
        return _removes(sample, "model", whole, code=proposed.code, meta=meta)
    # A fix that reaches beyond the mask may be in part in what surrounds the gap.
    is_as_before = _tokens(sample, masking.unmask(merged.masked_post, [sample.mask.removed])) == _tokens(
        sample, sample.function.pre_text
    )
    if proposed.verdict == "vulnerable" and is_as_before:
        why = "What the candidate does is what the function did before."
        return _keeps(sample, "model", whole, why, meta=meta)
    return None


def _removes(
    sample: Sample,
    kind: str,
    candidate: str,
    *,
    code: str | None = None,
    n_before: int = 0,
    more: str = "",
    meta: Mapping[str, object] | None = None,
) -> Judged:
    """`code`: what stands in the gap, if not the fix's own; `n_before`: lines added before it."""
    old = samples.span(sample.mask.first_line, sample.mask.last_line)
    n_lines = len(split_lines(sample.merged.fixed if code is None else code))
    if n_lines:
        first = sample.merged.post_first_line + n_before
        new = samples.span(first, first + n_lines - 1)
        how = f"In place of {old} the candidate has its {new}, and the weakness is gone."
    else:
        how = f"The candidate drops {old}, and the weakness with it."
    return Judged(kind, candidate, True, f"Yes. {how}{more}", meta or {})


def _keeps(sample: Sample, kind: str, candidate: str, why: str, *, meta: Mapping[str, object] | None = None) -> Judged:
    verdict = f"No. {why} The weakness in {samples.places(sample)} is still there."
    return Judged(kind, candidate, False, verdict, meta or {})


def _tokens(sample: Sample, code: str) -> bytes:
    return cparse.strip_comments_and_space(text.encode(code, text.UTF_8), sample.function.path)
