"""How well scores tell fixes from other commits: pure numbers.

Two questions. Does a higher score mean a fix (ROC AUC, average precision,
precision at k)? Does a probability mean what it says (Brier score, expected
calibration error)? Rows of equal score count as in any order, on average.

Everything takes arrays of equal length: scores or probabilities of fixes, and
whether each row is a fix. Both kinds must be there where a function compares
them. Who samples rows and asks a model is left to others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_BINS = 10

_MAX_STEPS = 100  # Newton's method took at most 15 on rows of curl
_ENOUGH = 1e-9  # gradient per row below which a fit is done

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


# -------------------------------------------------------------------------- ranking


def roc_auc(scores: ArrayLike, is_fix: ArrayLike) -> float:
    """How often a fix has a higher score than another commit; a tie is half."""
    fixes, others = _kinds(scores, is_fix)
    return float((_midranks(np.concatenate([fixes, others]))[: len(fixes)].mean() - (len(fixes) + 1) / 2) / len(others))


@dataclass(frozen=True, slots=True)
class Interval:
    """Confidence interval within 0..1."""

    low: float
    high: float
    method: str  # who published it, and when


def auc_interval(scores: ArrayLike, is_fix: ArrayLike, level: float = 0.95) -> Interval | None:
    """Confidence interval of the ROC AUC; None with fewer than two of a kind.

    DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44, 837-845), by ranks
    as in Sun and Xu 2014 (IEEE Signal Processing Letters 21, 1389-1393).

    Where all pairs of a fix and another commit come out alike (a perfect
    ranking, one wholly turned round, ties alone) that has no width, however
    few rows there are. Then the smaller kind's k rows, each with a row of its
    own of the other kind, are k independent trials that all had this outcome,
    and by Clopper and Pearson 1934 (Biometrika 26, 404-413) its probability is
    at least ((1 - level) / 2) ** (1 / k). Whatever is left may have come out
    either way. No better bound holds for all distributions: where the others
    are many, fixes that lie above them all or below them all come out so.
    """
    fixes, others = _kinds(scores, is_fix)
    m, n = len(fixes), len(others)
    if m < 2 or n < 2:
        return None
    ranks = _midranks(np.concatenate([fixes, others]))
    of_fixes = (ranks[:m] - _midranks(fixes)) / n  # share of others below each fix
    of_others = 1 - (ranks[m:] - _midranks(others)) / m  # share of fixes above each other
    deviation = math.sqrt(of_fixes.var(ddof=1) / m + of_others.var(ddof=1) / n)
    middle, reach = roc_auc(scores, is_fix), NormalDist().inv_cdf((1 + level) / 2) * deviation
    if deviation == 0:
        least = ((1 - level) / 2) ** (1 / min(m, n))
        return Interval(middle * least, 1 - (1 - middle) * least, "Clopper-Pearson 1934")
    return Interval(max(middle - reach, 0.0), min(middle + reach, 1.0), "DeLong 1988")


@dataclass(frozen=True, slots=True)
class Curve:
    """One point per score, the highest first: what taking all rows from there on would give."""

    scores: Floats
    recall: Floats  # share of the fixes at or above the score
    fallout: Floats  # share of the others at or above it

    def precision(self, prior: float) -> Floats:
        """Share of fixes among what is taken, where `prior` of all rows are fixes."""
        taken = prior * self.recall + (1 - prior) * self.fallout
        return np.divide(prior * self.recall, taken, out=np.zeros_like(taken), where=taken > 0)


def curve(scores: ArrayLike, is_fix: ArrayLike) -> Curve:
    """The ROC curve without its first point (0, 0)."""
    fixes, others = _kinds(scores, is_fix)
    levels = np.unique(np.concatenate([fixes, others]))[::-1]
    recall = 1 - np.searchsorted(np.sort(fixes), levels, "left") / len(fixes)
    fallout = 1 - np.searchsorted(np.sort(others), levels, "left") / len(others)
    return Curve(levels, recall, fallout)


def average_precision(scores: ArrayLike, is_fix: ArrayLike, prior: float | None = None) -> float:
    """Precision at each score, weighted by the recall it adds.

    With a prior, as if that share of rows were fixes: precision from recall
    and fallout, which do not depend on it (Siblini et al. 2020,
    arXiv 1909.02827).
    """
    found = curve(scores, is_fix)
    precision = found.precision(share(is_fix) if prior is None else prior)
    return float(np.sum(np.diff(found.recall, prepend=0.0) * precision))


def precision_at(scores: ArrayLike, is_fix: ArrayLike, k: int) -> float:
    """Share of fixes among the k rows of the highest scores; ties at the border count by their share of fixes."""
    values, fix = _floats(scores), _bools(is_fix)
    if not 0 < k <= len(values):
        raise ValueError(f"there are {len(values)} rows, not {k}")
    border = np.sort(values)[::-1][k - 1]
    above, tied = values > border, values == border
    return float((fix[above].sum() + (k - above.sum()) * fix[tied].mean()) / k)


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a threshold on the score lets through."""

    score: float  # rows of this score and more are taken
    recall: float
    fallout: float


def thresholds(scores: ArrayLike, is_fix: ArrayLike, recalls: Sequence[float]) -> list[Threshold]:
    """For each recall the highest threshold that reaches it."""
    found = curve(scores, is_fix)
    places = [int(np.argmax(found.recall >= recall - 1e-12)) for recall in recalls]
    return [Threshold(float(found.scores[i]), float(found.recall[i]), float(found.fallout[i])) for i in places]


# -------------------------------------------------------------------- probabilities


def share(is_fix: ArrayLike) -> float:
    """Share of fixes."""
    return float(_bools(is_fix).mean())


def brier(probabilities: ArrayLike, is_fix: ArrayLike) -> float:
    """Mean squared distance of probability and truth (Brier 1950): 0 is best."""
    return float(np.mean((_floats(probabilities) - _bools(is_fix)) ** 2))


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose probability lies in one tenth of 0..1."""

    n: int
    probability: float  # mean
    share: float  # of fixes


def bins(probabilities: ArrayLike, is_fix: ArrayLike, n_bins: int = N_BINS) -> list[Bin]:
    """Bins of equal width that hold a row, from low to high; a border belongs to the bin above it, 1 to the last."""
    values, fix = _floats(probabilities), _bools(is_fix)
    place = np.minimum((values * n_bins).astype(int), n_bins - 1)
    return [
        Bin(int(here.sum()), float(values[here].mean()), float(fix[here].mean()))
        for here in (place == i for i in range(n_bins))
        if here.any()
    ]


def calibration_error(probabilities: ArrayLike, is_fix: ArrayLike, n_bins: int = N_BINS) -> float:
    """Expected calibration error: the mean over rows of |mean probability - share of fixes| of their bin.

    Naeini, Cooper and Hauskrecht 2015 (AAAI), for the probability of one
    label; Guo et al. 2017 measure the same of the label that a model chose.
    """
    found = bins(probabilities, is_fix, n_bins)
    return sum(b.n * abs(b.probability - b.share) for b in found) / sum(b.n for b in found)


# ----------------------------------------------------------------------------- fits


@dataclass(frozen=True, slots=True)
class Logistic:
    """p = 1 / (1 + exp(-(slope * score + intercept)))."""

    slope: float
    intercept: float

    def probabilities(self, scores: ArrayLike) -> Floats:
        return _sigmoid(self.slope * _floats(scores) + self.intercept)


RAW = Logistic(1.0, 0.0)  # p(yes) / (p(yes) + p(no))


def temperature(scores: ArrayLike, is_fix: ArrayLike) -> Logistic:
    """Temperature scaling (Guo et al. 2017, arXiv 1706.04599): slope 1/T by maximum likelihood, no intercept.

    A ranking worse than chance gives slope 0, an infinite temperature.
    """
    values = _floats(scores)
    slope = float(_fit(values[:, None], _targets(_bools(is_fix)))[0])
    return Logistic(max(slope, 0.0), 0.0)


def platt(scores: ArrayLike, is_fix: ArrayLike) -> Logistic:
    """Platt scaling: slope and intercept by maximum likelihood.

    Platt 1999; as in Lin, Lin and Weng 2007 (Machine Learning 68, 267-276).
    """
    values = _floats(scores)
    slope, intercept = _fit(np.column_stack([values, np.ones_like(values)]), _targets(_bools(is_fix)))
    return Logistic(float(slope), float(intercept))


def _targets(is_fix: Bools) -> Floats:
    """Platt's targets: a little within 0..1, so that rows which a score separates wholly still have a best fit."""
    n_fixes, n_others = int(is_fix.sum()), int((~is_fix).sum())
    return np.where(is_fix, (n_fixes + 1) / (n_fixes + 2), 1 / (n_others + 2))


def _fit(columns: Floats, targets: Floats) -> Floats:
    """Coefficients of a logistic regression, by Newton's method with backtracking."""
    width = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    columns = columns / width
    found = np.zeros(columns.shape[1])

    def loss(coefficients: Floats) -> float:
        logits = columns @ coefficients
        return float(np.mean(np.logaddexp(0, logits) - targets * logits))

    now = loss(found)
    for _ in range(_MAX_STEPS):
        p = _sigmoid(columns @ found)
        gradient = columns.T @ (p - targets) / len(targets)
        if np.abs(gradient).max() < _ENOUGH:
            break
        hessian = (columns.T * (p * (1 - p))) @ columns / len(targets)
        step = np.linalg.lstsq(hessian + 1e-12 * np.eye(len(found)), gradient, rcond=None)[0]
        size = 1.0
        while (then := loss(found - size * step)) > now and size > 1e-12:
            size /= 2
        if then > now:
            break
        found, now = found - size * step, then
    return np.asarray(found / width)


# ---------------------------------------------------------------------------- parts


def _sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-logit)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    in_order = np.sort(values)
    below, up_to = np.searchsorted(in_order, values, "left"), np.searchsorted(in_order, values, "right")
    return np.asarray((below + up_to + 1) / 2)


def _kinds(scores: ArrayLike, is_fix: ArrayLike) -> tuple[Floats, Floats]:
    """Scores of fixes, and of others. Raises ValueError unless there are both."""
    values, fix = _floats(scores), _bools(is_fix)
    if len(values) != len(fix):
        raise ValueError(f"{len(values)} scores, {len(fix)} rows")
    if fix.all() or not fix.any():
        raise ValueError("fixes and other commits are both needed")
    return values[fix], values[~fix]


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _bools(values: ArrayLike) -> Bools:
    return np.asarray(values, dtype=np.bool_)
