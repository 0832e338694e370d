"""Intervals and orders of the figures that people compare."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.statistics import (
    Z_95,
    auc_interval,
    auc_of,
    bootstrap_interval,
    difference_interval,
    interquartile_mean,
    ranks,
    spearman,
    t_interval,
    wilson_interval,
)


def test_wilson_interval_against_published_values():
    # Newcombe (1998), table I, method 3: 81/263 and 0/20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 5), (0, 0)])
def test_what_is_no_proportion_is_refused(successes, trials):
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(successes, trials)


def test_interquartile_mean_by_hand():
    assert interquartile_mean([0, 1, 2, 100]) == 1.5
    # Six values: the middle three, the outer two of them... half of the 2nd and 5th, all of the 3rd and 4th.
    assert interquartile_mean([0, 1, 2, 3, 4, 100]) == pytest.approx((0.5 * 1 + 2 + 3 + 0.5 * 4) / 3)
    assert interquartile_mean([7]) == 7


def test_t_interval_by_hand():
    # mean 2, standard deviation 1, t(2 degrees of freedom) = 4.302653
    low, high = t_interval([1, 2, 3])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    with pytest.raises(ValueError, match="at least two"):
        t_interval([1.0])


def test_bootstrap_interval_covers_the_mean_and_is_repeatable():
    values = np.random.default_rng(0).normal(5, 1, 200)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high and high - low < 0.4
    assert bootstrap_interval(values) == (low, high)


def test_difference_interval_by_hand():
    # Equal variances 1 and sizes 3: standard error (2/3)**0.5, 4 degrees of freedom, t = 2.776445.
    low, high = difference_interval([2, 3, 4], [1, 2, 3])
    assert (low, high) == pytest.approx((1 - 2.776445 * (2 / 3) ** 0.5, 1 + 2.776445 * (2 / 3) ** 0.5))
    assert difference_interval([1, 1], [0, 0]) == (1, 1)


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
        for end in auc_interval(value, m, n):
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


def test_spearman_by_hand():
    x = np.array([1.0, 2, 3, 4])
    assert spearman(x, 10 * x**3) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)
    assert spearman(x, np.array([1.0, 2, 4, 3])) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    # Equal values share their mean rank: 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    mean_ranks = np.array([1, 2.5, 2.5, 4])
    assert spearman(np.array([0.0, 5, 5, 9]), x) == pytest.approx(np.corrcoef(mean_ranks, x)[0, 1])


def test_what_is_constant_has_no_order():
    assert spearman(np.ones(3), np.arange(3.0)) is None
    assert spearman(np.arange(1.0), np.arange(1.0)) is None


def test_ranks_by_hand():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_t_interval_of_many_values_is_student_s_too():
    values = np.arange(30.0)  # 29 degrees of freedom: t = 2.045230
    low, high = t_interval(values)
    assert high - low == pytest.approx(2 * 2.045230 * values.std(ddof=1) / 30**0.5, rel=1e-6)


def test_wilson_interval_of_fewer_independent_trials():
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(0.5 * 3, 3) == pytest.approx((0.1253, 0.8747), abs=1e-4)
    assert wilson_interval(1.0, 1) == pytest.approx((0.2065, 1.0), abs=1e-4)


def test_bootstrap_interval_of_the_median():
    values = np.random.default_rng(1).normal(0, 1, 101)
    low, high = bootstrap_interval(values, statistic=np.median)
    assert low < np.median(values) < high
    assert np.isin((low, high), values).all()  # a median of an odd number is one of them
