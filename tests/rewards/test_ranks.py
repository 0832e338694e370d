import numpy as np
import pytest

from rewards.ranks import ranks, spearman


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
