"""Memory's slope over resets: against lines that are known."""

import numpy as np

from tests.benchmarks.soak import SoakBench, growth, measure


def test_the_slope_of_a_line_is_found_through_a_jump_and_noise():
    resets = np.arange(0, 4000, 20.0)
    noise = np.random.default_rng(1).normal(scale=4096, size=len(resets))
    slope, low, high = growth(resets, 1e8 + 1843.0 * resets + noise)
    assert low < 1843 < high and abs(slope - 1843) < 10
    jump = np.where(np.arange(len(resets)) < 10, 0.0, 1e6)
    slope, low, high = growth(resets, 1e8 + jump)
    assert slope == low == high == 0


def test_too_few_points_fit_nothing():
    assert growth(np.array([1.0, 1.0]), np.array([5.0, 6.0])) == (0.0, 0.0, 0.0)


def test_a_short_soak_counts_what_it_played():
    shown, results = measure(SoakBench(games=2, minutes=0.02, interval_s=0.1, settle=0.0))
    assert results["summary"]["steps"] > 0 and len(results["samples"]) >= 3
    assert "2 games of MiniHack-Room-5x5-v0" in shown and "KiB a reset" in shown
