"""A long-lived function as an example: asked about like `locate`, with context, and answered by "nothing found".

Its context is that of one of its runs of statements, picked by the function's
blob, and collected by the stages themselves, with a model that lists nothing.
"""

import datetime
import hashlib
import zlib
from dataclasses import dataclass, replace

from trustmine import samples, wording
from trustmine.gitrepo import GitRepo
from trustmine.lifespans import Lived
from trustmine.lines import LineRange, cut_lines
from trustmine.records import (
    Advance,
    BlobSymbols,
    Commit,
    ContextItem,
    Element,
    Fact,
    FunctionPair,
    Instruction,
    Label,
    Mask,
    MergedMask,
    PreImage,
)
from trustmine.samples import Sample
from trustmine.stages import s2_1_elements, s2_2_validate
from trustmine.stages.base import Context, F, Facts

TASK = "benign"
ANSWER = "No vulnerability detected in this function."


@dataclass(frozen=True, slots=True)
class Candidate:
    """A function that was chosen, with its text."""

    lived: Lived
    source: bytes
    text: str
    encoding: str
    blocks: tuple[LineRange, ...]  # runs of statements that context may be collected around


def made(
    ctx: Context, repo: GitRepo, repo_id: int, tip: str, one: Candidate
) -> tuple[str, Instruction, tuple[BlobSymbols, ...]]:
    """Split, example and new symbols of files."""
    lived, life = one.lived, one.lived.life
    midnight = datetime.datetime.combine(ctx.settings.cutoff, datetime.time(), datetime.UTC)
    split = "train" if repo.commit_time_s(life.since) < midnight.timestamp() else "bench"
    key = hashlib.sha256(f"{lived.oid}:{life.name}:{life.first_line}".encode()).hexdigest()
    sample, news = _sample(ctx, repo, repo_id, tip, one, split, key)
    example = Instruction(
        task=TASK,
        example_no=1,
        split=split,
        instruction=wording.pick(wording.INSTRUCTIONS["locate"], key),
        input=samples.given(sample, samples.function_before(sample), with_post=False),
        output=ANSWER,
        meta={
            "function": life.name,
            "path": lived.path,
            "segments": [],
            "blob": lived.oid,
            "lines": [life.first_line, life.last_line],
            "tree": tip,
            "n_commits": lived.n_commits,
            "n_changes": life.n_changes,
        },
    )
    return split, example, news


def _sample(
    ctx: Context, repo: GitRepo, repo_id: int, tip: str, one: Candidate, split: str, key: str
) -> tuple[Sample, tuple[BlobSymbols, ...]]:
    """The function as if one of its blocks had been found risky, with the context that s2_1 and s2_2 collect then."""
    lived, life = one.lived, one.lived.life
    content = repo.blob(lived.oid)
    block = one.blocks[int(key[8:16], 16) % len(one.blocks)]
    removed = cut_lines(one.text, block)
    function = FunctionPair(
        name=life.name,
        path=lived.path,
        old_path=lived.path,
        split=split,
        pre_oid=lived.oid,
        post_oid=lived.oid,
        encoding=one.encoding,
        hunk="",
        pre_first_line=life.first_line,
        pre_last_line=life.last_line,
        post_first_line=life.first_line,
        post_last_line=life.last_line,
        pre_text=one.text,
        post_text=one.text,
        deleted_lines=(),
        added_lines=(),
        fix_lines=(),
        n_tokens=life.n_tokens,
    )
    mask = Mask(mask_no=1, first_line=block.first_line, last_line=block.last_line, removed=removed, n_fix_lines=0)
    merged = MergedMask(masked_post="", fixed=removed, post_first_line=block.first_line, post_last_line=block.last_line)
    image = PreImage(lived.oid, len(content), zlib.compress(content, 1))
    # Definitions are looked up in the tree of the first parent: here the tree that the function is from.
    commit = Commit(0, repo_id, key[:40], (tip,), 0, 0, False, "", s2_1_elements.AFTER)
    view = _View(ctx.facts, (function, mask, merged, image))
    ctx = replace(ctx, facts=view, settings=replace(ctx.settings, elements_by="parser"))
    listed = _listed(commit, ctx)
    elements = tuple(fact for fact in listed if isinstance(fact, Element))
    view.given += elements
    outcome = s2_2_validate.run(commit, ctx)
    assert isinstance(outcome, Advance), "s2_2 rejects nothing"
    items = tuple(fact for fact in outcome.facts if isinstance(fact, ContextItem))
    sample = Sample(commit, function, mask, merged, elements, items, ())
    return sample, tuple(fact for fact in listed if isinstance(fact, BlobSymbols))


def _listed(commit: Commit, ctx: Context) -> tuple[Fact, ...]:
    """What s2_1 finds without a model."""
    try:
        next(s2_1_elements.run(commit, ctx))
    except StopIteration as end:
        assert isinstance(end.value, Advance), "s2_1 rejects only what a model says"
        return end.value.facts
    raise AssertionError("s2_1 asks a model and was told not to")


class _View:
    """Facts of a commit that is none: those given, and what the database knows of blobs."""

    def __init__(self, stored: Facts, given: tuple[Fact, ...]) -> None:
        self.given = given
        self._stored = stored

    def __hash__(self) -> int:
        return hash(self._stored)  # the finder of definitions is one for all functions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _View) and other._stored is self._stored

    def all(self, fact: type[F], commit: Commit) -> tuple[F, ...]:
        return tuple(one for one in self.given if isinstance(one, fact))

    def one(self, fact: type[F], commit: Commit) -> F:
        (found,) = self.all(fact, commit)
        return found

    def shared(self, fact: type[F], *key: str) -> F:
        return self.one(fact, Commit(0, 0, "", (), 0, 0, False, "", ""))

    def find_shared(self, fact: type[F], *key: str) -> F | None:
        return self._stored.find_shared(fact, *key)

    def labels(self, commit: Commit) -> tuple[Label, ...]:
        return ()
