import numpy as np
import pytest

from rewards.oni.learned import NO_FOLD, bootstrap_weights, fold_of


def test_captions_of_a_template_share_a_fold_and_each_fold_has_its_share():
    texts = [f"Message of kind {'x' * i}." for i in range(3000)]
    folds = np.array([fold_of(text, 0.1, 3) for text in texts])
    assert [np.mean(folds == k) for k in (0, 1, 2)] == pytest.approx([0.1] * 3, abs=0.02)
    assert np.mean(folds == NO_FOLD) == pytest.approx(0.7, abs=0.03)
    for i in range(20):
        shout = "!" * i
        assert fold_of(f"The newt bites{shout}", 0.2, 5) == fold_of(f"The hill orc bites{shout}", 0.2, 5)
    assert {fold_of(text, 0.0, 3) for text in texts} == {NO_FOLD}


def test_folds_do_not_depend_on_the_number_of_members():
    for i in range(200):
        of_five = fold_of(f"Message {'x' * i}.", 0.1, 5)
        assert fold_of(f"Message {'x' * i}.", 0.1, 2) == (of_five if of_five < 2 else NO_FOLD)


def test_bootstrap_weights_are_poisson_and_stable():
    weights = np.stack([bootstrap_weights(str(i), 2) for i in range(4000)])
    assert weights.mean(0) == pytest.approx([1, 1], abs=0.06)
    assert weights.var(0) == pytest.approx([1, 1], abs=0.12)
    assert abs(np.corrcoef(weights.T)[0, 1]) < 0.06
    np.testing.assert_array_equal(bootstrap_weights("7", 2), weights[7])
