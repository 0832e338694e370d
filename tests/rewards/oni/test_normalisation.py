import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.oni.normalisation import Normalisation, weighted_moments, weighted_quantile


def test_moments_by_hand():
    mean, std = weighted_moments(np.array([[0.0, 4.0], [1.0, 1.0]]), np.array([3.0, 1.0]))
    assert mean.tolist() == [1, 1]
    assert std.tolist() == pytest.approx([np.sqrt(3), 1])  # (3 * 1 + 1 * 9) / 4; all alike: 1


def test_quantile_by_hand():
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 5.0, 2.0])
    assert [weighted_quantile(values, weights, q) for q in (0, 0.5, 0.625, 0.7, 0.875, 0.9, 1)] == [1, 1, 1, 2, 2, 3, 3]


_OCCURRENCES = st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 6)), min_size=1, max_size=20)


@settings(deadline=None, max_examples=60)
@given(_OCCURRENCES, st.floats(0, 1))
def test_weights_are_occurrences(pairs, q):
    values, weights = (np.array(x, np.float64) for x in zip(*pairs, strict=True))
    heard = np.repeat(values, weights.astype(int))
    mean, std = weighted_moments(values, weights)
    assert mean == pytest.approx(heard.mean(), abs=1e-9)
    assert std == pytest.approx(heard.std() or 1.0, abs=1e-9)
    at = weighted_quantile(values, weights, q)
    assert at in values and (heard <= at).mean() >= q - 1e-9 and (heard < at).mean() <= q + 1e-9


def test_up_to_the_quantile_nothing_is_paid_and_above_it_the_normalised_score():
    # Heard: 0 six times, 2 once, 4 once: mean 3/4, variance (6 * 9/16 + 25/16 + 169/16) / 8 = 31/16.
    scores, heard = np.array([0.0, 2.0, 4.0]), np.array([6.0, 1.0, 1.0])
    std = np.sqrt(31 / 16)
    paid = Normalisation.of(scores, heard, 0.8).values(scores)
    assert paid.tolist() == pytest.approx([0, 0, 3.25 / std])
    # The median is the caption that is heard most: it is the quantile, and so it is not paid.
    assert Normalisation.of(scores, heard, 0.5).values(scores).tolist() == pytest.approx([0, 1.25 / std, 3.25 / std])
    # A caption that was not there when the quantile was taken is held to it too.
    assert Normalisation.of(scores, heard, 0.8).values(np.array([1.9, 2.1])).tolist() == pytest.approx([0, 1.35 / std])


def test_a_better_caption_is_never_paid_less_than_a_worse_one():
    scores, heard = np.array([-1.0, -0.9, -0.8, -0.7, 5.0]), np.ones(5)
    assert Normalisation.of(scores, heard, 0.5).values(scores)[:4].tolist() == [0, 0, 0, 0]
    rng = np.random.default_rng(0)
    for quantile in (0.0, 0.3, 0.9):
        scores, heard = np.sort(rng.normal(size=30) ** 3), rng.integers(1, 50, 30).astype(float)
        assert (np.diff(Normalisation.of(scores, heard, quantile).values(scores)) >= 0).all()
