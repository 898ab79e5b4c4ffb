"""Measures against what they mean, counted one by one."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trustmine import evaluation
from trustmine.evaluation import Logistic

Rows = list[tuple[float, bool]]
# Few different values, so that ties are common; and any that a verdict can have.
SCORE = st.one_of(st.integers(-3, 3).map(float), st.floats(-800, 800))
PROBABILITY = st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0]), st.floats(0, 1))


def rows_of(values: st.SearchStrategy[float], min_size: int = 2) -> st.SearchStrategy[Rows]:
    rows = st.lists(st.tuples(values, st.booleans()), min_size=min_size, max_size=30)
    return rows.filter(lambda rows: len({fix for _, fix in rows}) == 2)


def apart(rows: Sequence[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [value for value, _ in rows], [fix for _, fix in rows]


@given(rows_of(SCORE))
def test_roc_auc_counts_pairs(rows: Rows) -> None:
    fixes, others = [s for s, fix in rows if fix], [s for s, fix in rows if not fix]
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in fixes for b in others]
    assert evaluation.roc_auc(*apart(rows)) == pytest.approx(sum(pairs) / len(pairs))


@given(rows_of(SCORE, 4))
def test_the_interval_of_the_auc_is_delongs(rows: Rows) -> None:
    fixes, others = [s for s, fix in rows if fix], [s for s, fix in rows if not fix]
    found = evaluation.auc_interval(*apart(rows))
    if min(len(fixes), len(others)) < 2:
        assert found is None
        return
    wins = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in others] for a in fixes])
    deviation = math.sqrt(wins.mean(axis=1).var(ddof=1) / len(fixes) + wins.mean(axis=0).var(ddof=1) / len(others))
    if wins.min() == wins.max():
        return
    low, high = wins.mean() - 1.959964 * deviation, wins.mean() + 1.959964 * deviation
    assert found is not None
    assert (found.low, found.high) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-6)
    assert found.method.startswith("DeLong")


@pytest.mark.parametrize(
    ("fixes", "others", "low", "high"),
    [
        (2, 300, 0.1581, 1),  # 0.025 ** (1 / 2)
        (5, 300, 0.4782, 1),
        (300, 6, 0.5407, 1),
        (100, 100, 0.9638, 1),
    ],
)
def test_a_perfect_ranking_of_few_rows_is_not_certain(fixes: int, others: int, low: float, high: float) -> None:
    is_fix = [True] * fixes + [False] * others
    scores = list(range(fixes + others, 0, -1))
    found = evaluation.auc_interval(scores, is_fix)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert found.method.startswith("Clopper-Pearson")
    turned = evaluation.auc_interval([-score for score in scores], is_fix)
    assert turned is not None
    assert (turned.low, turned.high) == pytest.approx((1 - high, 1 - low), abs=1e-4)
    tied = evaluation.auc_interval([0] * len(scores), is_fix)
    assert tied is not None
    assert (tied.low, tied.high) == pytest.approx((low / 2, 1 - low / 2), abs=1e-4)


def test_the_bound_of_a_perfect_ranking_fails_no_more_often_than_it_says() -> None:
    """Where it is tight: fixes of two kinds, a share above all others, the rest below them; the share is the AUC."""
    for n_fixes in (2, 5, 20):
        is_fix = [True] * n_fixes + [False] * 300
        found = evaluation.auc_interval([1] * n_fixes + [0] * 300, is_fix)
        assert found is not None
        assert found.low**n_fixes == pytest.approx(0.025), "how often a true AUC of this bound ranks perfectly"


def test_the_interval_covers_the_true_auc_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    true = 0.7602  # of two normal distributions one standard deviation apart
    is_fix = [True] * 40 + [False] * 120
    covered = 0
    for _ in range(400):
        found = evaluation.auc_interval([*draw.normal(1, 1, 40), *draw.normal(0, 1, 120)], is_fix)
        covered += found is not None and found.low <= true <= found.high
    assert 0.92 <= covered / 400 <= 0.98


@given(rows_of(SCORE))
def test_average_precision_is_the_step_sum_over_scores(rows: Rows) -> None:
    n_fixes = sum(fix for _, fix in rows)
    total, recall = 0.0, 0.0
    for level in sorted({s for s, _ in rows}, reverse=True):
        taken = [fix for s, fix in rows if s >= level]
        total += (sum(taken) / n_fixes - recall) * sum(taken) / len(taken)
        recall = sum(taken) / n_fixes
    assert evaluation.average_precision(*apart(rows)) == pytest.approx(total)


@given(rows_of(st.integers(-3, 3).map(float)), st.integers(1, 9))
def test_with_a_prior_average_precision_is_that_of_a_sample_with_so_many_others(rows: Rows, times: int) -> None:
    thinned = [row for row in rows for _ in range(1 if row[1] else times)]
    prior = sum(fix for _, fix in thinned) / len(thinned)
    expected = evaluation.average_precision(*apart(thinned))
    assert evaluation.average_precision(*apart(rows), prior) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 2).map(float), st.booleans()), min_size=1, max_size=6), st.data())
def test_precision_at_k_is_the_mean_over_all_orders_of_ties(rows: Rows, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(rows)))
    best = sorted((s for s, _ in rows), reverse=True)
    orders = [order for order in itertools.permutations(rows) if [s for s, _ in order] == best]
    expected = sum(sum(fix for _, fix in order[:k]) for order in orders) / len(orders) / k
    assert evaluation.precision_at(*apart(rows), k) == pytest.approx(expected)


@given(rows_of(SCORE), st.floats(0, 1))
def test_a_threshold_is_the_highest_that_reaches_its_recall(rows: Rows, recall: float) -> None:
    [found] = evaluation.thresholds(*apart(rows), [recall])
    fixes = [s for s, fix in rows if fix]

    def reached(level: float) -> float:
        return sum(s >= level for s in fixes) / len(fixes)

    assert found.recall == pytest.approx(reached(found.score))
    assert found.recall >= recall - 1e-9
    assert all(reached(s) < recall for s, _ in rows if s > found.score)
    others = [s for s, fix in rows if not fix]
    assert found.fallout == pytest.approx(sum(s >= found.score for s in others) / len(others))


@given(rows_of(PROBABILITY, 1))
def test_the_brier_score_is_the_mean_squared_error(rows: Rows) -> None:
    assert evaluation.brier(*apart(rows)) == pytest.approx(sum((p - fix) ** 2 for p, fix in rows) / len(rows))


@given(rows_of(PROBABILITY, 1))
def test_the_calibration_error_is_that_of_ten_bins_by_hand(rows: Rows) -> None:
    total, n = 0.0, 0
    for i in range(10):
        here = [(p, fix) for p, fix in rows if min(int(p * 10), 9) == i]
        if here:
            mean, share = sum(p for p, _ in here) / len(here), sum(fix for _, fix in here) / len(here)
            total += abs(mean - share) * len(here) / len(rows)
            n += len(here)
    assert n == len(rows) == sum(b.n for b in evaluation.bins(*apart(rows)))
    assert evaluation.calibration_error(*apart(rows)) == pytest.approx(total)


def test_the_calibration_error_of_a_worked_example() -> None:
    # Two bins: 0.15 on average with no fix of two, 0.95 with one fix of two.
    error = evaluation.calibration_error([0.1, 0.2 - 1e-9, 0.9, 1.0], [False, False, True, False])
    assert error == pytest.approx((0.15 * 2 + 0.45 * 2) / 4)


def loss(fit: Logistic, rows: Rows) -> float:
    """Negative log-likelihood under Platt's targets."""
    n_fixes = sum(fix for _, fix in rows)
    total = 0.0
    for s, fix in rows:
        target = (n_fixes + 1) / (n_fixes + 2) if fix else 1 / (len(rows) - n_fixes + 2)
        logit = fit.slope * s + fit.intercept
        total += float(np.logaddexp(0, logit)) - target * logit
    return total / len(rows)


@given(rows_of(SCORE), st.floats(-5, 5), st.floats(-5, 5))
def test_no_other_line_fits_better_than_platts(rows: Rows, slope: float, intercept: float) -> None:
    fit = evaluation.platt(*apart(rows))
    assert math.isfinite(fit.slope)
    assert math.isfinite(fit.intercept)
    best = loss(fit, rows)
    assert best <= loss(Logistic(slope, intercept), rows) + 1e-6
    for near in (Logistic(fit.slope * 1.01 + 1e-4, fit.intercept), Logistic(fit.slope, fit.intercept * 1.01 + 1e-4)):
        assert best <= loss(near, rows) + 1e-9


@given(rows_of(SCORE), st.floats(0, 5))
def test_no_other_temperature_fits_better(rows: Rows, slope: float) -> None:
    fit = evaluation.temperature(*apart(rows))
    assert fit.intercept == 0
    assert 0 <= fit.slope < math.inf
    assert loss(fit, rows) <= loss(Logistic(slope, 0.0), rows) + 1e-6


def test_fits_find_the_line_that_made_the_rows() -> None:
    draw = np.random.default_rng(2)
    scores = draw.normal(0, 3, 20_000)
    for slope, intercept, fit in ((0.7, -2.0, evaluation.platt), (0.4, 0.0, evaluation.temperature)):
        is_fix = draw.random(20_000) < 1 / (1 + np.exp(-(slope * scores + intercept)))
        found = fit(scores, is_fix)
        assert (found.slope, found.intercept) == pytest.approx((slope, intercept), abs=0.08)
        p = found.probabilities(scores)
        assert evaluation.calibration_error(p, is_fix) < 0.02
        assert evaluation.brier(p, is_fix) < evaluation.brier(evaluation.RAW.probabilities(scores), is_fix)


def test_a_ranking_worse_than_chance_has_no_finite_temperature() -> None:
    assert evaluation.temperature([2, 1, -1, -2], [False, False, True, True]).slope == 0
    assert evaluation.platt([2, 1, -1, -2], [False, False, True, True]).slope < 0


@given(rows_of(SCORE))
def test_the_curve_rises_to_one(rows: Rows) -> None:
    found = evaluation.curve(*apart(rows))
    assert found.recall[-1] == found.fallout[-1] == 1
    assert (np.diff(found.recall) >= 0).all()
    assert (np.diff(found.fallout) >= 0).all()
    area = float(np.trapezoid([0, *found.recall], [0, *found.fallout]))
    assert area == pytest.approx(evaluation.roc_auc(*apart(rows)))


@given(st.lists(st.tuples(SCORE, st.booleans()), max_size=5))
def test_one_kind_alone_cannot_be_ranked(rows: Rows) -> None:
    assume(len({fix for _, fix in rows}) < 2)
    for measure in (evaluation.roc_auc, evaluation.auc_interval, evaluation.average_precision):
        with pytest.raises(ValueError, match="both needed"):
            measure(*apart(rows))
