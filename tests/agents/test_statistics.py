import numpy as np
import pytest

from agents.statistics import bootstrap_interval, difference_interval, interquartile_mean, t_interval, wilson_interval


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
    # mean 2, standard deviation 1, t(2 degrees of freedom) = 4.303
    low, high = t_interval([1, 2, 3])
    assert (low, high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    with pytest.raises(ValueError, match="at least two"):
        t_interval([1.0])


def test_bootstrap_interval_covers_the_mean_and_is_repeatable():
    values = np.random.default_rng(0).normal(5, 1, 200)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high and high - low < 0.4
    assert bootstrap_interval(values) == (low, high)


def test_difference_interval_by_hand():
    # Equal variances 1 and sizes 3: standard error (2/3)**0.5, 4 degrees of freedom, t = 2.776.
    low, high = difference_interval([2, 3, 4], [1, 2, 3])
    assert (low, high) == pytest.approx((1 - 2.776 * (2 / 3) ** 0.5, 1 + 2.776 * (2 / 3) ** 0.5))
    assert difference_interval([1, 1], [0, 0]) == (1, 1)
