"""Candidate versions of a vulnerable function, each with the certainty whether it removes the weakness.

Pure: from a sample, and what a model wrote into its gap. The sentences of the
answer are made here too, since they say what a candidate does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from trustmine import cparse, masking, neutral, samples, text, wording
from trustmine.lines import split_lines
from trustmine.records import Candidate
from trustmine.samples import Sample

# Changed places of a fix that an answer lists; more are no help to a reader.
MAX_TOLD = 6


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
        _fixed(sample, "post-image", function.post_text),
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
        yield _fixed(
            sample,
            f"post-image, {kind}",
            unrelated.post_text,
            comment_line=sample.merged.post_first_line if kind == "comment" else None,
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


def _fixed(sample: Sample, kind: str, candidate: str, *, comment_line: int | None = None, more: str = "") -> Judged:
    """A candidate with all that the fix changes; `comment_line`: a line added to it, which moves those below."""
    done = _doings(sample, comment_line)
    return Judged(kind, candidate, True, f"Yes. The candidate {done}. With that the weakness is gone.{more}")


def _doings(sample: Sample, comment_line: int | None) -> str:
    """What the fix does to the lines of the function: `has its lines 9-11 in place of line 9 and drops line 20`."""

    def moved(line: int) -> int:
        return line + (comment_line is not None and line >= comment_line)

    edits = _edits(sample.function.deleted_lines, sample.function.added_lines)
    if len(edits) > MAX_TOLD:
        lines = [line for old, _ in edits for line in old] or [old.start for old, _ in edits]
        return f"changes {len(edits)} places of the function between its lines {lines[0]} and {lines[-1]}"
    told = []
    for old, new in edits:
        before = samples.span(old.start, old.stop - 1)
        after = samples.span(moved(new.start), moved(new.stop - 1))
        both = f"has its {after} in place of {before}"
        told.append(both if old and new else f"drops {before}" if old else f"adds its {after}")
    return wording.listed(told)


def _edits(deleted: Sequence[int], added: Sequence[int]) -> list[tuple[range, range]]:
    """Lines of the function before, and those of the fixed one that stand in their place; either may be empty."""
    gone, new = set(deleted), set(added)
    found = []
    i = j = 1
    while i <= max(gone, default=0) or j <= max(new, default=0):
        first, start = i, j
        while i in gone:
            i += 1
        while j in new:
            j += 1
        if i > first or j > start:
            found.append((range(first, i), range(start, j)))
        else:
            i, j = i + 1, j + 1
    return found


def _removes(sample: Sample, kind: str, candidate: str, *, code: str, meta: Mapping[str, object]) -> Judged:
    """A candidate with `code` in the gap."""
    old = samples.span(sample.mask.first_line, sample.mask.last_line)
    n_lines = len(split_lines(code))
    if n_lines:
        first = sample.merged.post_first_line
        how = f"has its {samples.span(first, first + n_lines - 1)} in place of {old}"
    else:
        how = f"drops {old}"
    return Judged(kind, candidate, True, f"Yes. The candidate {how}. With that the weakness is gone.", meta)


def _keeps(sample: Sample, kind: str, candidate: str, why: str, *, meta: Mapping[str, object] | None = None) -> Judged:
    verdict = f"No. {why} The weakness in {samples.places(sample)} is still there."
    return Judged(kind, candidate, False, verdict, meta or {})


def _tokens(sample: Sample, code: str) -> bytes:
    return cparse.strip_comments_and_space(text.encode(code, text.UTF_8), sample.function.path)
