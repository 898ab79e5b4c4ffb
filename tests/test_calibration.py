import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustmine.calibration import SPELLINGS, Calibration, decide, estimate, p_fix, score, together, undecidedness

Row = dict[str, float]


def row(yes: float, no: float, cannot_decide: float) -> Row:
    """Log-probabilities of labels with these weights."""
    total = yes + no + cannot_decide
    return {"yes": math.log(yes / total), "no": math.log(no / total), "cannot decide": math.log(cannot_decide / total)}


def calibration(offset: float, scale: float = 1.0, undecided_cutoff: float = math.inf) -> Calibration:
    return Calibration(1, "", "batch", offset, scale, undecided_cutoff, 64)


def biased_rows(lean: float, n: int = 200) -> list[Row]:
    """Rows of a model that ranks well but leans to one answer by `lean` in log odds."""
    draw = random.Random(1)
    return [row(math.exp(lean + draw.gauss(0, 1)), 1.0, math.exp(draw.gauss(-3, 1))) for _ in range(n)]


def test_scores_are_differences_of_logs() -> None:
    assert score(row(3, 1, 1)) == pytest.approx(math.log(3))
    assert undecidedness(row(3, 1, 2)) == pytest.approx(math.log(2 / 4))


def test_without_a_calibration_the_most_probable_label_stands() -> None:
    assert decide(None, row(5, 4, 1), 0.5) == "yes"
    assert decide(None, row(4, 5, 1), 0.5) == "no"
    assert decide(None, row(4, 3, 5), 0.5) == "undecided"
    assert p_fix(None, row(3, 1, 5)) == pytest.approx(0.75)
    assert decide(None, row(5, 4, 1), 0.9) == "no"


def test_p_fix_is_the_formula_of_the_schema() -> None:
    answer = row(2, 1, 1)
    assert p_fix(calibration(math.log(2)), answer) == pytest.approx(0.5)
    assert p_fix(calibration(-1.0, 2.0), answer) == pytest.approx(1 / (1 + math.exp(-2.0 * (math.log(2) + 1.0))))


@pytest.mark.parametrize("lean", [-8.0, -2.0, 0.0, 5.0])
def test_a_batch_calibration_takes_away_the_lean_of_a_model(lean: float) -> None:
    rows = biased_rows(lean)
    offset, scale, cutoff = estimate(rows, 0.0)
    labels = [decide(calibration(offset, scale, cutoff), answer, 0.5) for answer in rows]
    assert 0.2 < labels.count("yes") / len(labels) < 0.8
    assert "undecided" not in labels


@pytest.mark.parametrize(("share", "n"), [(0.0, 0), (0.1, 7), (0.5, 35), (1.0, 70), (3.0, 70)])
def test_the_share_of_undecided_rows_is_as_asked(share: float, n: int) -> None:
    rows = biased_rows(0.0, 70)
    offset, scale, cutoff = estimate(rows, share)
    labels = [decide(calibration(offset, scale, cutoff), answer, 0.5) for answer in rows]
    assert labels.count("undecided") == n


def test_an_estimate_does_not_depend_on_the_order_of_rows() -> None:
    rows = biased_rows(-3.0)
    assert estimate(rows, 0.1) == estimate(rows[::-1], 0.1)


def test_a_calibration_needs_rows() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        estimate([], 0.1)


LOGPROB = st.floats(max_value=0, allow_nan=False, allow_infinity=True)


@given(st.lists(st.fixed_dictionaries({"yes": LOGPROB, "no": LOGPROB, "cannot decide": LOGPROB}), min_size=1))
def test_any_log_probabilities_give_finite_numbers(rows: list[Row]) -> None:
    offset, scale, cutoff = estimate(rows, 0.1)
    assert math.isfinite(offset)
    assert math.isfinite(cutoff)
    for answer in rows:
        assert 0 <= p_fix(calibration(offset, scale, cutoff), answer) <= 1
        assert decide(calibration(offset, scale, cutoff), answer, 0.5) in ("yes", "no", "undecided")


def test_spellings_of_a_label_count_together() -> None:
    assert set(SPELLINGS) == {"yes", "Yes", "no", "No", "cannot decide", "Cannot decide"}
    p = {"yes": 0.1, "Yes": 0.5, "no": 0.3, "No": 0.0, "cannot decide": 0.0, "Cannot decide": 0.1}
    found = together({text: math.log(value) if value else -math.inf for text, value in p.items()})
    assert {label: math.exp(value) for label, value in found.items()} == pytest.approx(
        {"yes": 0.6, "no": 0.3, "cannot decide": 0.1}
    )
