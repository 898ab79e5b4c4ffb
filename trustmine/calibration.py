"""How raw label log-probabilities become a label.

Models rank commits better than they label them: one answers "no" to nearly
all, another "yes". So a label is decided after a calibration of the model and
prompt, estimated over a batch of the project's own rows (Zhou et al. 2023,
"Batch Calibration", arXiv 2309.17249) or fitted on known fixes. Without one,
the most probable label stands.

Pure functions of numbers; who estimates, stores and hashes a calibration is
left to others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What the model is asked to say; a verdict calls the last one 'undecided'.
YES, NO, CANNOT_DECIDE = "yes", "no", "cannot decide"
LABELS = (YES, NO, CANNOT_DECIDE)
# How each may be written, as answers begin; which one a model takes says nothing about the commit. SmolLM2-135M, asked
# to answer yes or no, writes Yes or No with 0.4 to 0.6, yes or no with 0.05 to 0.15.
SPELLINGS = {spelling: label for label in LABELS for spelling in (label, label.capitalize())}

# Log-probabilities below this (no double is e**-745) count as this: differences stay finite.
_LEAST = -745.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Numbers of the table calibrations, for one model and prompt."""

    id: int
    hash: str
    method: str  # batch, known
    offset: float
    scale: float
    undecided_cutoff: float
    n_rows: int


def together(spelled: Mapping[str, float]) -> dict[str, float]:
    """Label log-probabilities from those of SPELLINGS, which sum to 1; so do these."""
    found: dict[str, list[float]] = {label: [] for label in LABELS}
    for spelling, label in SPELLINGS.items():
        found[label].append(spelled[spelling])
    return {label: _log_sum(logprobs) for label, logprobs in found.items()}


def mean(asked: Mapping[str, float], opposite: Mapping[str, float] | None) -> dict[str, float]:
    """Label log-probabilities from those of a question and of its opposite; they sum to 1.

    The mean of the logarithms, yes of the one with no of the other, so score
    is the mean of the first score and the negated second. What a text draws
    to yes or no whatever is asked cancels out: of SmolLM2-135M that is most of
    what it answers (docs/RESULTS.md). Without an opposite: as asked.
    """
    if opposite is None:
        return dict(asked)
    across = {YES: NO, NO: YES, CANNOT_DECIDE: CANNOT_DECIDE}
    means = {label: (max(asked[label], _LEAST) + max(opposite[other], _LEAST)) / 2 for label, other in across.items()}
    total = _log_sum(list(means.values()))
    return {label: value - total for label, value in means.items()}


def score(logprobs: Mapping[str, float]) -> float:
    """log p(yes) - log p(no)."""
    return max(logprobs[YES], _LEAST) - max(logprobs[NO], _LEAST)


def undecidedness(logprobs: Mapping[str, float]) -> float:
    """log p(cannot decide) - log(p(yes) + p(no))."""
    yes, no = max(logprobs[YES], _LEAST), max(logprobs[NO], _LEAST)
    highest = max(yes, no)
    decided = highest + math.log(math.exp(yes - highest) + math.exp(no - highest))
    return max(logprobs[CANNOT_DECIDE], _LEAST) - decided


def p_fix(calibration: Calibration | None, logprobs: Mapping[str, float]) -> float:
    """Probability of yes against no: 1 / (1 + exp(-scale * (score - offset))), raw without a calibration."""
    if calibration is None:
        return _sigmoid(score(logprobs))
    return _sigmoid(calibration.scale * (score(logprobs) - calibration.offset))


def decide(calibration: Calibration | None, logprobs: Mapping[str, float], min_p_fix: float) -> str:
    """'yes', 'no' or 'undecided'.

    Undecided if the row lies above the calibration's cutoff, or without a
    calibration if "cannot decide" is the most probable label; else yes from
    min_p_fix on.
    """
    if calibration is None:
        is_undecided = logprobs[CANNOT_DECIDE] > max(logprobs[YES], logprobs[NO])
    else:
        is_undecided = undecidedness(logprobs) > calibration.undecided_cutoff
    if is_undecided:
        return "undecided"
    return "yes" if p_fix(calibration, logprobs) >= min_p_fix else "no"


def estimate(rows: Sequence[Mapping[str, float]], undecided_share: float) -> tuple[float, float, float]:
    """(offset, scale, undecided_cutoff) by batch calibration over the label log-probabilities of some rows.

    The contextual prior is the mean of p(yes) and p(no) over the batch, both
    renormalised to exclude "cannot decide", and the offset is its log odds: a
    row is as likely yes as no where it leans to yes as much as the batch does.
    Means of probabilities, as in the paper, and not of log odds, because one
    extreme row moves them by at most 1/n; on 50 rows of curl with SmolLM2-135M
    both gave the same offset to 0.01 and the same labels.
    The scale stays 1: a batch without labels says nothing about it. The share
    of rows above the cutoff is undecided_share, rounded down, ties left out.
    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a calibration needs at least one row")
    scores = [score(row) for row in rows]
    prior_yes = math.fsum(_sigmoid(value) for value in scores)
    prior_no = math.fsum(_sigmoid(-value) for value in scores)
    offset = math.log(prior_yes) - math.log(prior_no)
    leanings = sorted(undecidedness(row) for row in rows)
    n_undecided = min(math.floor(undecided_share * len(rows) + 1e-9), len(rows))  # 0.1 * 70 is a little below 7
    cutoff = -math.inf if n_undecided == len(rows) else leanings[len(rows) - n_undecided - 1]
    return offset, 1.0, cutoff


def _log_sum(logs: Sequence[float]) -> float:
    """Logarithm of the sum of what these are the logarithms of."""
    highest = max(logs)
    if highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(log - highest) for log in logs))


def _sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), for any finite value; never 0, so that it has a logarithm."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(max(value, _LEAST)) / (1 + math.exp(max(value, _LEAST)))
