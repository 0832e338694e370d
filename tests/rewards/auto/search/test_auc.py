"""How surely a reward tells successes from failures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.auto.search.auc import Z_95, auc_of, interval

values = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12).map(np.array)


def test_pairs_counted_by_hand():
    # (2 > 1), (2 = 2), (3 > 1), (3 > 2): three and a half of four.
    found = auc_of(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    assert (found.value, found.successes, found.failures) == (3.5 / 4, 2, 2)


@settings(max_examples=50, deadline=None)
@given(values, values)
def test_it_is_the_share_of_all_pairs(success, failure):
    pairs = [float(s > f) + 0.5 * float(s == f) for s in success for f in failure]
    found = auc_of(success, failure)
    assert found.value == pytest.approx(np.mean(pairs), abs=1e-12)
    assert 0.0 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1.0


@settings(max_examples=50, deadline=None)
@given(values, values)
def test_the_other_way_round_it_is_mirrored(success, failure):
    one, other = auc_of(success, failure), auc_of(-success, -failure)
    assert other.value == pytest.approx(1 - one.value, abs=1e-12)
    assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low), abs=1e-9)


def test_the_ends_solve_the_equation_of_the_score_interval():
    # Where the true share is an end, the share found is z standard errors (Hanley and McNeil's) away.
    for value, m, n in ((0.8, 10, 15), (0.5, 6, 6), (0.07, 30, 5)):
        spare = (m + n) / 2 - 1
        for end in interval(value, m, n):
            q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
            variance = (end * (1 - end) + spare * (q1 - end**2) + spare * (q2 - end**2)) / (m * n)
            assert abs(value - end) == pytest.approx(Z_95 * np.sqrt(variance), abs=1e-9)


def test_perfect_order_is_not_certainty():
    few, many = auc_of(np.full(5, 1.0), np.zeros(5)), auc_of(np.full(100, 1.0), np.zeros(100))
    assert few.value == many.value == few.high == 1.0
    assert 0.5 < few.low < 0.85 and 0.97 < many.low < 1.0
    assert few.outcome == "pass"


def test_outcomes():
    up, flat = np.arange(10.0), np.zeros(10)
    assert auc_of(up + 20, up).outcome == "pass"
    assert auc_of(up, up + 20).outcome == "fail"
    assert auc_of(flat, flat).outcome == "undetermined"
    assert auc_of(np.ones(1), np.zeros(1)).outcome == "undetermined"  # one pair says nothing
    assert str(auc_of(flat, flat)).startswith("0.50 (0.")


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="0 successes and 3 failures"):
        auc_of(np.zeros(0), np.zeros(3))


@pytest.mark.parametrize(("m", "n", "shift"), [(5, 5, 1.0), (8, 30, 1.5), (40, 40, 0.0), (10, 10, -1.0)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(m, n, shift):
    rng = np.random.default_rng(3)
    # For normal values of equal spread the share is Phi(shift / sqrt(2)).
    truth = np.mean(rng.normal(shift, 1, 300_000) > rng.normal(0, 1, 300_000))
    found = [auc_of(rng.normal(shift, 1, m), rng.normal(0, 1, n)) for _ in range(800)]
    held = np.mean([auc.low <= truth <= auc.high for auc in found])
    assert 0.92 <= held <= 0.99
