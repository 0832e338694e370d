import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.heron.pairs import balanced_pairs, random_tuples
from rewards.heron.tree import Level, Mode, PreferenceTree


def rng(seed=0):
    return np.random.default_rng(seed)


def tree_of(*margins, mode: Mode = "bins"):
    return PreferenceTree([Level(name=f"f{n}", sign=1, margin=m) for n, m in enumerate(margins)], mode)


def shares(sample, levels):
    return np.bincount(sample.comparison.level + 1, minlength=levels + 1).tolist()


@st.composite
def problems(draw):
    N, F = draw(st.integers(0, 16)), draw(st.integers(1, 3))
    values = draw(st.lists(st.integers(0, 3), min_size=N * F, max_size=N * F))
    group = draw(st.lists(st.integers(-1, 3), min_size=N, max_size=N))
    tree = tree_of(
        *[draw(st.sampled_from([0, 1, 1.5])) for _ in range(F)], mode=draw(st.sampled_from(["margin", "bins"]))
    )
    return tree, np.array(values, np.float64).reshape(N, F), np.array(group, np.int64)


@settings(deadline=None, max_examples=60)
@given(problems(), st.integers(0, 50), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.integers(0, 9))
def test_pairs_are_distinct_of_one_group_and_labelled_as_the_tree_says(problem, number, tie_share, seed):
    tree, factors, group = problem
    sample = balanced_pairs(tree, factors, group, number, rng(seed), tie_share=tie_share)
    assert len(sample) <= number and (group[sample.first] == group[sample.second]).all()
    assert (sample.first != sample.second).all()
    assert len({tuple(sorted(pair)) for pair in zip(sample.first, sample.second, strict=True)}) == len(sample)
    assert np.sum(sample.comparison.outcome == 0) <= tie_share * len(sample) + 1e-9
    again = tree.compare(factors[sample.first], factors[sample.second])
    for name in ("outcome", "level", "strength"):
        assert (getattr(sample.comparison, name) == getattr(again, name)).all()
    twin = balanced_pairs(tree, factors, group, number, rng(seed), tie_share=tie_share)
    assert (twin.first == sample.first).all() and (twin.second == sample.second).all()


@pytest.mark.parametrize("mode", ["margin", "bins"])
def test_each_level_gets_its_share_however_rarely_it_decides_random_pairs(mode):
    # 3 of 2000 hold a success; of the rest 5 died; new tiles differ; turns nearly always do.
    draw = rng(5)
    factors = np.zeros((2000, 4))
    factors[[3, 500, 1999], 0] = 1
    factors[[7, 100, 900, 1200, 1500], 1] = -1
    factors[:, 2] = draw.integers(0, 2, 2000) * 50
    factors[:, 3] = draw.integers(0, 9, 2000)
    sample = balanced_pairs(tree_of(0, 0, 10, 2, mode=mode), factors, np.zeros(2000), 100, rng(), tie_share=0.2)
    assert shares(sample, 4) == [20] * 5
    # The order of the two tells nothing, and the pairs come in random order.
    assert 30 < np.sum(sample.comparison.outcome == 1) < 50
    assert len(set(sample.comparison.level[:20].tolist())) == 5


def test_what_a_level_cannot_fill_goes_to_the_others():
    # Four segments: one success, which makes 3 pairs; the other three differ at level 2: 3 pairs. No ties.
    factors = np.array([[1.0, 0], [0, 1], [0, 2], [0, 3]])
    sample = balanced_pairs(tree_of(0, 0), factors, np.zeros(4), 4, rng())
    assert shares(sample, 2) == [0, 2, 2]
    assert shares(balanced_pairs(tree_of(0, 0), factors, np.zeros(4), 99, rng()), 2) == [0, 3, 3]
    # One success among 30: at most 29 pairs; level 2 fills the sample up to 60.
    factors = np.stack([np.arange(30) == 0, np.arange(30)], 1).astype(np.float64)
    assert shares(balanced_pairs(tree_of(0, 0), factors, np.zeros(30), 100, rng()), 2) == [0, 29, 71]


def test_ties_are_at_most_their_share_of_what_there_is():
    # 2 decided pairs (with the last segment, within its group of 3) and many ties.
    factors = np.append(np.zeros(20), 1)[:, None]
    group = np.append(np.zeros(18), [1, 1, 1])
    tree = tree_of(0)
    assert shares(balanced_pairs(tree, factors, group, 50, rng(), tie_share=0.5), 1) == [2, 2]
    assert shares(balanced_pairs(tree, factors, group, 50, rng(), tie_share=0), 1) == [0, 2]
    assert shares(balanced_pairs(tree, factors, group, 50, rng(), tie_share=1), 1) == [48, 2]


def test_no_pair_where_no_group_has_two():
    sample = balanced_pairs(tree_of(0), np.arange(3.0)[:, None], np.arange(3), 8, rng())
    assert len(sample) == 0 and len(sample.comparison) == 0 and sample.first.dtype == np.int64


def test_what_sampling_refuses():
    with pytest.raises(ValueError, match="share of ties is 2"):
        balanced_pairs(tree_of(0), np.zeros((3, 1)), np.zeros(3), 8, rng(), tie_share=2)
    with pytest.raises(ValueError, match="2 groups do not fit 3 segments"):
        balanced_pairs(tree_of(0), np.zeros((3, 1)), np.zeros(2), 8, rng())
    with pytest.raises(ValueError, match="'f0' has a value that is not finite"):
        balanced_pairs(tree_of(0), np.full((3, 1), np.nan), np.zeros(3), 8, rng())


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 4))
def test_members_of_a_tuple_are_distinct_and_of_one_group(group, size):
    rows = random_tuples(np.array(group, np.int64), size, 30, rng())
    possible = any(group.count(g) >= size for g in group)
    assert rows.shape == (size, 30 if possible else 0)
    for one in rows.T.tolist():
        assert len(set(one)) == size and len({group[row] for row in one}) == 1


def test_every_tuple_is_equally_likely():
    rows = random_tuples(np.array([5, 1, 5, 5]), 2, 6000, rng())
    _, counts = np.unique(rows, axis=1, return_counts=True)
    assert len(counts) == 6 and np.abs(counts - 1000).max() < 130
