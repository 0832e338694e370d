import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.oni.pairs import PairPool, select_pairs, unordered


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
