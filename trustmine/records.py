"""What rooms pass to each other: frozen dataclasses, no I/O.

A Fact is what a stage found out about a commit: one class per table of
schema.sql, fields named as its columns (commit_id is added when it is
written). Tuples and dicts are stored as JSON, bools as 0 or 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Commit:
    """One row of the queue, as a stage sees it."""

    id: int
    repo_id: int
    sha: str
    parents: tuple[str, ...]  # full SHAs, first parent first
    author_time_s: int
    commit_time_s: int
    is_boundary: bool  # its parents were cut off by a shallow clone
    message: str
    status: str
    is_aside: bool = False  # rejected earlier, but a later stage still learns from it


@dataclass(frozen=True, slots=True)
class CommitHeader:
    """A commit as git has it, for ingest."""

    sha: str
    parents: tuple[str, ...]  # as written in the commit, also where a shallow clone cut them off
    author_time_s: int
    commit_time_s: int
    message: str
    encoding: str  # codec that turns `message` back into the commit's bytes
    is_boundary: bool  # its parents were cut off by a shallow clone


@dataclass(frozen=True, slots=True)
class Fact:
    """Base of everything a stage can store."""

    TABLE: ClassVar[str]
    STAGE: ClassVar[str]  # the only stage that writes the table
    SHARED: ClassVar[bool] = False  # keyed by content, not by commit; kept when rows go back


# ------------------------------------------------------------------------- s0_1


@dataclass(frozen=True, slots=True)
class KeywordMatch(Fact):
    TABLE: ClassVar[str] = "keyword_matches"
    STAGE: ClassVar[str] = "s0_1"
    keywords: tuple[str, ...]
    crash_words: tuple[str, ...] = ()
    rules: tuple[str, ...] = ("keywords",)


@dataclass(frozen=True, slots=True)
class Identifier(Fact):
    TABLE: ClassVar[str] = "identifiers"
    STAGE: ClassVar[str] = "s0_1"
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Diff(Fact):
    TABLE: ClassVar[str] = "diffs"
    STAGE: ClassVar[str] = "s0_1"
    patch: str | None
    encoding: str
    n_chars: int


@dataclass(frozen=True, slots=True)
class DiffFile(Fact):
    TABLE: ClassVar[str] = "diff_files"
    STAGE: ClassVar[str] = "s0_1"
    file_no: int
    change: str
    old_path: str
    new_path: str
    old_oid: str
    new_oid: str
    is_binary: bool
    is_submodule: bool
    n_hunks: int
    n_added: int
    n_deleted: int


# ------------------------------------------------------------------------- s0_2


@dataclass(frozen=True, slots=True)
class CommitSize(Fact):
    TABLE: ClassVar[str] = "commit_sizes"
    STAGE: ClassVar[str] = "s0_2"
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Priority(Fact):
    TABLE: ClassVar[str] = "priorities"
    STAGE: ClassVar[str] = "s0_2"
    priority: float  # the sum of the next five
    identifiers: float
    vocabulary: float
    shape: float
    size: float
    place: float
    found: tuple[str, ...]


# ------------------------------------------------------------------------- s0_3


@dataclass(frozen=True, slots=True)
class Verdict(Fact):
    TABLE: ClassVar[str] = "verdicts"
    STAGE: ClassVar[str] = "s0_3"
    label: str
    source: str
    p_yes: float | None = None
    p_no: float | None = None
    p_undecided: float | None = None
    p_fix: float | None = None
    calibration_id: int | None = None
    rationale: str | None = None
    request_hash: str | None = None


# ------------------------------------------------------------------------- s1_1


@dataclass(frozen=True, slots=True)
class PreImage(Fact):
    TABLE: ClassVar[str] = "pre_images"
    STAGE: ClassVar[str] = "s1_1"
    SHARED: ClassVar[bool] = True
    oid: str
    size_bytes: int
    content: bytes  # zlib-compressed


@dataclass(frozen=True, slots=True)
class FunctionPair(Fact):
    TABLE: ClassVar[str] = "functions"
    STAGE: ClassVar[str] = "s1_1"
    name: str  # after the fix, as path
    path: str
    old_path: str
    split: str
    pre_oid: str
    post_oid: str
    encoding: str
    hunk: str
    pre_first_line: int
    pre_last_line: int
    post_first_line: int
    post_last_line: int
    pre_text: str
    post_text: str
    deleted_lines: tuple[int, ...]
    added_lines: tuple[int, ...]
    fix_lines: tuple[int, ...]
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Licence(Fact):
    TABLE: ClassVar[str] = "licences"
    STAGE: ClassVar[str] = "s1_1"
    spdx: str
    source: str | None
    path: str | None


# ------------------------------------------------------------------------- s1_2


@dataclass(frozen=True, slots=True)
class Mask(Fact):
    TABLE: ClassVar[str] = "masks"
    STAGE: ClassVar[str] = "s1_2"
    mask_no: int
    first_line: int
    last_line: int
    removed: str
    n_fix_lines: int


@dataclass(frozen=True, slots=True)
class MaskedFunction(Fact):
    TABLE: ClassVar[str] = "masked_functions"
    STAGE: ClassVar[str] = "s1_2"
    masked_pre: str
    n_fix_lines_missed: int
    request_hash: str | None  # None: masked by the fix, no model was asked


# ------------------------------------------------------------------------- s2_0


@dataclass(frozen=True, slots=True)
class MergedMask(Fact):
    TABLE: ClassVar[str] = "merged_masks"
    STAGE: ClassVar[str] = "s2_0"
    masked_post: str
    fixed: str
    post_first_line: int
    post_last_line: int


@dataclass(frozen=True, slots=True)
class UndefinedElement(Fact):
    TABLE: ClassVar[str] = "undefined_elements"
    STAGE: ClassVar[str] = "s2_0"
    name: str
    kind: str
    place: str


# ------------------------------------------------------------------------- s2_1


@dataclass(frozen=True, slots=True)
class BlobSymbols(Fact):
    TABLE: ClassVar[str] = "blob_symbols"
    STAGE: ClassVar[str] = "s2_1"
    SHARED: ClassVar[bool] = True
    oid: str
    grammar: str
    parser: str
    n_symbols: int
    loss: str | None
    content: bytes  # see trees.packed


@dataclass(frozen=True, slots=True)
class Element(Fact):
    TABLE: ClassVar[str] = "elements"
    STAGE: ClassVar[str] = "s2_1"
    name: str
    kind: str
    found_by: str
    in_pre: bool
    in_post: bool
    n_candidates: int
    chosen_by: str | None
    def_path: str | None
    def_first_line: int | None
    def_last_line: int | None
    definition: str | None
    missing: str | None


@dataclass(frozen=True, slots=True)
class ElementCount(Fact):
    TABLE: ClassVar[str] = "element_counts"
    STAGE: ClassVar[str] = "s2_1"
    n_parser: int
    n_model: int
    n_both: int
    n_hallucinated: int


# ------------------------------------------------------------------------- s2_2


@dataclass(frozen=True, slots=True)
class ContextItem(Fact):
    TABLE: ClassVar[str] = "context_items"
    STAGE: ClassVar[str] = "s2_2"
    name: str
    item_no: int
    is_kept: bool
    reason: str | None
    n_chars: int
    n_tokens: int


# ------------------------------------------------- of `propose`, between s2_2 and s4


@dataclass(frozen=True, slots=True)
class Candidate(Fact):
    TABLE: ClassVar[str] = "candidates"
    STAGE: ClassVar[str] = "s2_2"  # not written by it, but made from its context: both go when a row goes back
    request_hash: str
    model_id: int
    prompt_hash: str
    code: str
    verdict: str  # fix, vulnerable, other


# ------------------------------------------------------------------------- s3_1


@dataclass(frozen=True, slots=True)
class Segment(Fact):
    TABLE: ClassVar[str] = "segments"
    STAGE: ClassVar[str] = "s3_1"
    segment_no: int
    first_line: int
    last_line: int
    snippet: str
    n_fix_lines: int
    finding: str  # what the model says is wrong with the function, before it names lines
    request_hash: str


# ------------------------------------------------------------------------- s3_2


@dataclass(frozen=True, slots=True)
class Explanation(Fact):
    TABLE: ClassVar[str] = "explanations"
    STAGE: ClassVar[str] = "s3_2"
    id: int
    segment_no: int
    root_cause: str
    impact: str
    cwe: str | None
    n_asked: int
    request_hash: str


# --------------------------------------------------------------------------- s4


@dataclass(frozen=True, slots=True)
class Instruction(Fact):
    TABLE: ClassVar[str] = "instructions"
    STAGE: ClassVar[str] = "s4"
    task: str
    example_no: int
    split: str
    instruction: str
    input: str
    output: str
    meta: Mapping[str, object]


def is_of_its_stage(fact: Fact) -> bool:
    """Whether the stage of its table wrote it: `propose` and `benign` add to what stages made."""
    return not (isinstance(fact, Candidate) or (isinstance(fact, Instruction) and fact.task == "benign"))


# Every table of facts, in the order in which stages write them.
FACTS: tuple[type[Fact], ...] = (
    KeywordMatch,
    Identifier,
    Diff,
    DiffFile,
    CommitSize,
    Priority,
    Verdict,
    PreImage,
    FunctionPair,
    Licence,
    Mask,
    MaskedFunction,
    MergedMask,
    UndefinedElement,
    BlobSymbols,
    Element,
    ElementCount,
    ContextItem,
    Candidate,
    Segment,
    Explanation,
    Instruction,
)


# ------------------------------------------------------- labels, read but not facts


@dataclass(frozen=True, slots=True)
class Label:
    """A verdict from a list of known commits."""

    source: str
    identifier: str  # CVE, GHSA, ...; '' where the list gives none
    label: str  # yes, no
    cwe: str | None
    quality: str = "list"  # list, advisory, bisected, bisected_range, message


# --------------------------------------------------------------- what a stage says


@dataclass(frozen=True, slots=True)
class Advance:
    """The row passes; its facts are stored with the new status."""

    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """The row ends here for one countable reason; what was learned is kept."""

    reason: str
    facts: tuple[Fact, ...] = ()


Outcome = Advance | Reject


# ------------------------------------------------------------ asking a language model


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. All of `content` is data: it can hold no control tokens."""

    role: str  # system, user, assistant
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a language model.

    Exactly one answer form: `labels` (scored, no text generated), `grammar`
    (GBNF, the completion is a sentence of it) or neither (free text).
    """

    task: str
    prompt_name: str
    prompt_hash: str
    messages: tuple[Message, ...]
    max_tokens: int
    labels: tuple[str, ...] = ()
    grammar: str | None = None
    temperature: float = 0.0
    seed: int = 0
    repeat_penalty: float = 1.0  # divides the logits of tokens just generated; 1: off
    schema: str | None = None  # JSON Schema of the grammar's answers, if they are JSON, for engines that know no GBNF


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to a Request, with what it cost."""

    text: str  # the most likely label where labels were asked for
    finish_reason: str  # stop, length, label
    label_logprobs: Mapping[str, float] | None  # natural log, over the allowed labels, sums to 1
    n_prompt: int
    n_cached: int
    n_completion: int
    duration_ms: float
    request_hash: str
    rendered_hash: str
