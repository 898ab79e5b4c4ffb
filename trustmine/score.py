"""How well answers fill the gaps of TRUST-Bench, and how well they know when to decline.

An answer is the code that belongs in place of `<MASK_1>`; of an answer with
one fenced block, the block. Right is what equals the fixed code, white space
and comments aside. That is strict: another fix that is as good counts as
wrong, so the other numbers stand beside it: whether the function still parses
with the answer in it, and how much the answer has in common with the fixed
and with the vulnerable code.

Declining is counted apart. Coverage is the share of gaps that were answered,
selective risk the share of wrong ones among them. Where every answer has a
confidence, AURC is the area under the curve of risk over coverage (Geifman
and El-Yaniv 2017), answers taken from the surest on; answers of the same
confidence count as one step.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from trustmine import fences, masking, minhash
from trustmine.cparse import outline, strip_comments_and_space
from trustmine.errors import TrustmineError

_NEEDED = ("id", "path", "masked_function", "vulnerable", "fixed")
UNKNOWN_CWE = "unknown"


@dataclass(frozen=True, slots=True)
class Gap:
    """One instance of the benchmark, as far as it is scored."""

    id: str
    path: str
    masked: str
    vulnerable: str
    fixed: str
    cwe: str  # the first; 'unknown' if there is none


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered."""

    code: str | None  # None: declined
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """One answered gap."""

    id: str
    cwe: str
    is_exact: bool  # line ends at its end aside
    is_right: bool  # white space and comments aside
    parses: bool | None  # as one function without errors; None where the fixed one does not either
    to_fixed: float  # Jaccard similarity of tokens
    to_vulnerable: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """The numbers of all gaps, or of those of one CWE. Shares of nothing are None."""

    n: int
    answered: int
    abstained: int
    missing: int  # nothing was said about them
    coverage: float | None
    exact: float | None  # of the answered, as the next ones
    right: float | None
    risk: float | None  # 1 - right
    parses: float | None  # of those whose fixed function parses
    to_fixed: float | None
    to_vulnerable: float | None
    right_of_all: float | None  # abstained and missing count as not right
    aurc: float | None


@dataclass(frozen=True)
class Result:
    """The scores, and the curve of (coverage, risk) if every answer has a confidence."""

    total: Score
    by_cwe: dict[str, Score]
    curve: tuple[tuple[float, float], ...]
    judged: tuple[Judged, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def score(bench: Path, answers: Path) -> Result:
    """Score a file of answers. Raises TrustmineError, with the line, for what is wrong in either file."""
    gaps = _gaps(bench)
    given = _answers(answers, gaps)
    judged = [
        judge(gap, answer.code, answer.confidence)
        for id, gap in gaps.items()
        if (answer := given.get(id)) is not None and answer.code is not None
    ]
    cwes = sorted({gap.cwe for gap in gaps.values()}, key=_cwe_order)
    return Result(
        total=_score(list(gaps.values()), given, judged),
        by_cwe={
            cwe: _score(
                [gap for gap in gaps.values() if gap.cwe == cwe], given, [one for one in judged if one.cwe == cwe]
            )
            for cwe in cwes
        },
        curve=tuple(curve(judged)),
        judged=tuple(judged),
    )


def judge(gap: Gap, answer: str, confidence: float | None = None) -> Judged:
    """How one answer compares."""
    code = code_of(answer)
    words = minhash.tokens(_stripped(code, gap.path))
    return Judged(
        id=gap.id,
        cwe=gap.cwe,
        is_exact=code.rstrip("\r\n") == gap.fixed.rstrip("\r\n"),
        is_right=_stripped(code, gap.path) == _stripped(gap.fixed, gap.path),
        parses=_parses(gap, code) if _parses(gap, gap.fixed) else None,
        to_fixed=_jaccard(words, minhash.tokens(_stripped(gap.fixed, gap.path))),
        to_vulnerable=_jaccard(words, minhash.tokens(_stripped(gap.vulnerable, gap.path))),
        confidence=confidence,
    )


def code_of(answer: str) -> str:
    """The code of an answer: of its one fenced block, else all of it."""
    found = fences.blocks(answer)
    return found[0].code if len(found) == 1 else answer


def curve(judged: Sequence[Judged]) -> Iterator[tuple[float, float]]:
    """(share of the answers, risk among them), from the surest on; nothing unless all have a confidence."""
    if any(one.confidence is None for one in judged):
        return
    seen = wrong = 0
    ordered = sorted(judged, key=lambda one: -(one.confidence or 0))
    for _, group in groupby(ordered, key=lambda one: one.confidence):
        same = list(group)
        seen += len(same)
        wrong += sum(not one.is_right for one in same)
        yield seen / len(judged), wrong / seen


def aurc(points: Sequence[tuple[float, float]]) -> float | None:
    """The area under the curve: risk at each step, weighed by the answers that it adds."""
    area = at = 0.0
    for coverage, risk in points:
        area, at = area + (coverage - at) * risk, coverage
    return area if points else None


def _score(gaps: Sequence[Gap], given: Mapping[str, Answer], judged: Sequence[Judged]) -> Score:
    abstained = sum(gap.id in given and given[gap.id].code is None for gap in gaps)
    right = _mean([one.is_right for one in judged])
    return Score(
        n=len(gaps),
        answered=len(judged),
        abstained=abstained,
        missing=len(gaps) - len(judged) - abstained,
        coverage=len(judged) / len(gaps) if gaps else None,
        exact=_mean([one.is_exact for one in judged]),
        right=right,
        risk=None if right is None else 1 - right,
        parses=_mean([one.parses for one in judged if one.parses is not None]),
        to_fixed=_mean([one.to_fixed for one in judged]),
        to_vulnerable=_mean([one.to_vulnerable for one in judged]),
        right_of_all=sum(one.is_right for one in judged) / len(gaps) if gaps else None,
        aurc=aurc(list(curve(judged))),
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _stripped(code: str, path: str) -> bytes:
    return strip_comments_and_space(code.encode("utf-8", "replace"), path)


def _jaccard(one: Sequence[bytes], other: Sequence[bytes]) -> float:
    """Of the tokens, each as often as it stands there; 1 for two empty ones."""
    mine, theirs = Counter(one), Counter(other)
    either = (mine | theirs).total()
    return (mine & theirs).total() / either if either else 1.0


def _parses(gap: Gap, code: str) -> bool:
    """Whether the function with this code in its gap is one function to the parser, without an error."""
    ended = code if code.endswith("\n") or not code else code + "\n"
    source = masking.unmask(gap.masked, [ended]).encode("utf-8", "replace")
    found = outline(source, gap.path)
    return len(found.functions) == 1 and not found.functions[0].has_error and not found.doubtful


def _cwe_order(cwe: str) -> tuple[bool, int, str]:
    digits = cwe.removeprefix("CWE-")
    return (not digits.isdigit(), int(digits) if digits.isdigit() else 0, cwe)


# --------------------------------------------------------------------------- reading


def _gaps(path: Path) -> dict[str, Gap]:
    gaps: dict[str, Gap] = {}
    for where, row in _lines(path):
        lacking = [name for name in _NEEDED if not isinstance(row.get(name), str)]
        if lacking:
            raise TrustmineError(
                f"This is no benchmark: a row has no {', '.join(lacking)}", where, "Write one: export --format bench"
            )
        if row["id"] in gaps:
            raise TrustmineError(f"There are two rows {row['id']!r}", where)
        try:
            masking.unmask(row["masked_function"], [""])
        except ValueError as error:
            raise TrustmineError("A masked function must have one <MASK_1>", where, str(error)) from error
        named = row.get("cwe")
        first = named[0] if isinstance(named, list) and named else named
        cwe = first if isinstance(first, str) and first else UNKNOWN_CWE
        gaps[row["id"]] = Gap(row["id"], row["path"], row["masked_function"], row["vulnerable"], row["fixed"], cwe)
    if not gaps:
        raise TrustmineError("The benchmark is empty", str(path), "Write one: export --format bench")
    return gaps


def _answers(path: Path, gaps: Mapping[str, Gap]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for where, row in _lines(path):
        answer, abstain, confidence = row.get("answer"), row.get("abstain", False), row.get("confidence")
        id = row.get("id")
        is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
        complaint = None
        if not isinstance(id, str) or id not in gaps:
            complaint = f"The benchmark has no {id!r}" if id is not None else "An answer needs an id"
        elif id in answers:
            complaint = f"{id!r} was answered before"
        elif not isinstance(abstain, bool):
            complaint = "abstain must be true or false"
        elif confidence is not None and not (is_number and 0 <= confidence <= 1):
            complaint = "confidence must be a number from 0 to 1"
        elif not abstain and not isinstance(answer, str):
            complaint = "An answer must be text, unless it has abstain: true"
        if complaint is not None:
            raise TrustmineError(complaint, where, 'Like {"id": "...", "answer": "  if(!p)\\n    return;\\n"}')
        assert isinstance(id, str)
        answers[id] = Answer(None if abstain else str(answer), None if confidence is None else float(confidence))
    return answers


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """file:line and object of each line that is not empty."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", _object(line, f"{path}:{number}")
    except OSError as error:
        raise TrustmineError(f"Cannot read the file: {error.strerror}", str(path)) from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
        json.dumps(found, ensure_ascii=False).encode()  # half a character (a lone surrogate) is no text
    except (ValueError, RecursionError) as error:
        raise TrustmineError("This line is no JSON", where, str(error)) from error
    if not isinstance(found, dict):
        raise TrustmineError("A line must be an object", where, 'Like {"id": "...", "answer": "..."}')
    return found
