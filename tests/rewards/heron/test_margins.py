import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.heron.margins import dead_factors, quantile_margins
from rewards.heron.pairs import cycle_rate
from rewards.heron.tree import Level, Mode, PreferenceTree


def rng(seed=0):
    return np.random.default_rng(seed)


def margin_of(values, quantile, **more):
    return quantile_margins(np.array(values, np.float64)[:, None], [None], quantile, rng(), **more)[0]


def tree_of(margins, mode: Mode = "margin"):
    return PreferenceTree([Level(name=f"f{n}", sign=1, margin=m) for n, m in enumerate(margins)], mode)


def test_a_margin_lies_between_two_differences_that_were_seen():
    # Differences of 0, 1, 3: of 1 (two thirds of those of one pair), of 2 and of 3 a third each.
    assert margin_of([0, 1, 3], 0.0) == 1.5
    assert margin_of([0, 1, 3], 0.5) == 2.5
    # Nothing larger than 3 was seen; above it, no pair would be told apart.
    assert margin_of([0, 1, 3], 0.9) == 2.5
    assert margin_of([0, 5], 0.5) == 2.5


def test_a_factor_that_is_usually_the_same_has_no_margin():
    assert margin_of([0] * 9 + [1], 0.25) == 0
    assert margin_of([0.1 + 0.2, 0.3] * 9 + [1], 0.7) == 0  # 0.1 + 0.2 and 0.3 are the same, rounded differently
    assert margin_of([7] * 4, 0.5) == 0


def test_given_margins_stay_as_they_are():
    values = rng().normal(size=(50, 3))
    margins = quantile_margins(values, [0.0, None, 2.0], 0.25, rng())
    assert margins[0] == 0 and margins[2] == 2 and margins[1] > 0
    assert quantile_margins(values[:1], [1.0, 2.0, 3.0], 0.25, rng()).tolist() == [1, 2, 3]


def test_the_quantile_is_the_share_of_pairs_that_stay_undecided():
    values = rng(1).normal(size=(300, 1))
    i, j = np.triu_indices(300, 1)
    for quantile in (0.1, 0.25, 0.6):
        found = quantile_margins(values, [None], quantile, rng())
        assert np.mean(tree_of(found).compare(values[i], values[j]).outcome == 0) == pytest.approx(quantile, abs=0.04)


def test_only_segments_of_one_group_are_compared():
    groups = np.array([0, 0, 1, 1])
    assert margin_of([0, 1, 100, 101], 0.9, groups=groups) == 0.5
    with pytest.raises(ValueError, match="no two segments are of one group"):
        margin_of([0, 1, 2], 0.5, groups=np.arange(3))


def test_what_margins_refuse():
    with pytest.raises(ValueError, match="values of 2 factors"):
        quantile_margins(np.zeros((4, 1)), [None, None], 0.5, rng())
    with pytest.raises(ValueError, match="quantile of margins is 1"):
        margin_of([0, 1], 1)
    with pytest.raises(ValueError, match="factor 1 of the ranking"):
        margin_of([0, np.nan], 0.5)
    with pytest.raises(ValueError, match="3 groups do not fit 2 segments"):
        margin_of([0, 1], 0.5, groups=np.arange(3))


@st.composite
def factors(draw):
    """float64 [N, F] as play has them: counts, shares, halves, hundredths, sums of tenths."""
    N = draw(st.integers(2, 12))
    columns = []
    for _ in range(draw(st.integers(1, 3))):
        most, unit = draw(st.sampled_from([1, 3, 20, 5000])), draw(st.sampled_from([1.0, 0.5, 1 / 3, 1 / 7, 0.01]))
        column = draw(st.lists(st.integers(-most, most), min_size=N, max_size=N))
        columns.append(np.array(column) * unit + draw(st.sampled_from([0.0, 0.1 + 0.2, 100.0])))
    return np.stack(columns, axis=1)


@settings(deadline=None, max_examples=100)
@given(
    factors(), st.sampled_from([1000.0, 1e-3, 7.3]), st.sampled_from(["margin", "bins"]), st.floats(0, 0.99), st.data()
)
def test_a_factor_in_another_unit_changes_no_outcome(values, scale, mode, quantile, data):
    scaled = values.copy()
    scaled[:, data.draw(st.integers(0, values.shape[1] - 1))] *= scale
    i, j = np.indices((len(values), len(values))).reshape(2, -1)
    found = []
    for own in (values, scaled):
        margins = quantile_margins(own, [None] * own.shape[1], quantile, rng(3), num_pairs=64)
        found.append(tree_of(margins, mode).compare(own[i], own[j]))
    assert (found[0].outcome == found[1].outcome).all()
    assert (found[0].level == found[1].level).all()


@settings(deadline=None, max_examples=50)
@given(factors(), st.floats(0, 0.99))
def test_a_factor_that_varies_among_the_pairs_has_a_say(values, quantile):
    margins = quantile_margins(values, [None] * values.shape[1], quantile, rng(), num_pairs=4096)
    spread = values.max(0) - values.min(0)
    assert (margins[spread > 1e-9] < spread[spread > 1e-9]).all()


def test_dead_factors_are_constant_up_to_rounding():
    values = np.array([[1.0, 0.1 + 0.2, 0, 5, 0], [1.0, 0.3, 1e-9, 6, 0]])
    assert dead_factors(values).tolist() == [True, True, False, False, True]
    assert dead_factors(values[:0]).tolist() == [True] * 5
    # Differs from group to group only, as the number of a task would.
    groups = np.array([4, 4, 2, 2])
    assert dead_factors(np.array([[1.0, 0], [1, 2], [8, 0], [8, 0]]), groups).tolist() == [True, False]


def test_three_values_within_a_margin_form_a_cycle_through_the_second_level():
    # 1.2 beats 0 at level 1. 0 beats 0.6 and 0.6 beats 1.2 at level 2.
    values = np.array([[0, 3.0], [0.6, 2], [1.2, 1]])
    assert cycle_rate(tree_of([1, 0]), values, rng(), 50) == 1
    assert cycle_rate(tree_of([1, 0], "bins"), values, rng(), 50) == 0
    # Ties at level 1 that are not transitive are not cycles.
    assert cycle_rate(tree_of([1]), values[:, :1], rng(), 50) == 0
    # One of the four triples of distinct segments.
    more = np.append(values, [[9, 0]], axis=0)
    assert cycle_rate(tree_of([1, 0]), more, rng(), 4000) == pytest.approx(1 / 4, abs=0.03)
    assert cycle_rate(tree_of([1, 0]), more, rng(), 50, np.array([0, 0, 0, 1])) == 1
    assert cycle_rate(tree_of([1, 0]), values[:2], rng(), 50) == 0


@settings(deadline=None, max_examples=40)
@given(factors(), st.floats(0, 0.99))
def test_bins_have_no_cycles(values, quantile):
    margins = quantile_margins(values, [None] * values.shape[1], quantile, rng(), num_pairs=64)
    assert cycle_rate(tree_of(margins, "bins"), values, rng(), 100) == 0
