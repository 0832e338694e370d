import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.oni.ranking import (
    Normalisation,
    PairPool,
    select_pairs,
    unordered,
    weighted_moments,
    weighted_quantile,
)


def pool_of(comparisons, templates=None, scores=None):
    number = len(comparisons)
    return PairPool(
        numbers=np.arange(number) * 3,
        comparisons=np.array(comparisons),
        templates=np.arange(number) if templates is None else np.array(templates),
        scores=np.full((2, number), np.nan) if scores is None else np.array(scores, np.float64),
    )


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 5), st.data())
def test_no_pair_twice_nor_with_itself_and_no_more_than_the_limit(number, limit, seed, data):
    pool = pool_of([0] * number, data.draw(st.lists(st.integers(0, 2), min_size=number, max_size=number)))
    asked = set()
    for _ in range(4):
        pairs = select_pairs(pool, asked, limit, 100, rng(seed))
        assert len(pairs) <= limit
        new = {unordered(*pair) for pair in pairs}
        assert len(new) == len(pairs) and not new & asked
        assert all(a != b and a in pool.numbers and b in pool.numbers for a, b in pairs)
        asked |= new
    assert asked or number < 2


def test_all_pairs_of_a_small_pool_are_asked_in_the_end_and_then_none():
    pool, asked = pool_of([0] * 7), set()
    for seed in range(30):
        asked |= {unordered(*pair) for pair in select_pairs(pool, asked, 3, 100, rng(seed))}
    assert len(asked) == 21
    assert select_pairs(pool, asked, 3, 100, rng()) == []


def test_new_captions_come_first_and_captions_compared_often_enough_get_none():
    pool = pool_of([9] * 20 + [0, 0])
    for pair in select_pairs(pool, set(), 2, 9, rng()):
        assert {60, 63} & set(pair)
    assert select_pairs(pool_of([9] * 20), set(), 2, 9, rng()) == []


def test_templates_differ_where_they_can():
    pool = pool_of([0] * 10, templates=[0] * 9 + [1])
    pairs = select_pairs(pool, set(), 5, 9, rng())
    assert all(27 in pair for pair in pairs) and len(pairs) == 5
    assert len(select_pairs(pool_of([0] * 3, templates=[0] * 3), {(0, 3), (0, 6)}, 5, 9, rng())) == 1


def test_the_partner_is_one_of_whom_the_model_is_unsure():
    # Position 0 is new. Its equal, 2, tells more than 1 and 3, which it surely beats or loses to.
    pool = pool_of([0, 5, 5, 5], scores=[[0, 9, 0, -9]] * 2)
    assert {unordered(*select_pairs(pool, set(), 1, 5, rng(seed))[0]) for seed in range(9)} == {(0, 6)}
    # Members that surely contradict each other: p = 1/2 and its standard deviation 1/2. That the equal is a tie is
    # known: only p (1 - p) = 1/4. Where all agree, 0.
    torn = pool_of([0, 5, 5, 5], scores=[[0, 99, 0, -99], [0, -99, 0, -99]])
    assert torn.appeal(0, np.array([1, 2, 3])).tolist() == pytest.approx([2.25 + 1 / 6, 0.25 + 1 / 6, 1 / 6])
    unknown = pool_of([0, 1])
    assert unknown.appeal(0, np.array([1])).tolist() == [1.5]


def test_either_caption_is_shown_first():
    pool = pool_of([0] * 40)
    pairs = [pair for seed in range(20) for pair in select_pairs(pool, set(), 20, 9, rng(seed))]
    assert 0.4 < np.mean([a < b for a, b in pairs]) < 0.6


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
