import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.heron.tree import Level, LevelVerdict, Mode, PreferenceTree

MODES: tuple[Mode, ...] = ("margin", "bins")


def tree_of(*margins, mode: Mode = "margin", signs=None):
    signs = signs or [1] * len(margins)
    levels = [Level(name=f"f{n}", sign=s, margin=m) for n, (s, m) in enumerate(zip(signs, margins, strict=True))]
    return PreferenceTree(levels, mode)


def compared(tree, first, second):
    found = tree.compare(np.array([first], np.float64), np.array([second], np.float64))
    return found.outcome[0], found.level[0], pytest.approx(found.strength[0])


@st.composite
def problems(draw, mode=None):
    """A tree, and values that often differ by a whole number of margins."""
    F, N = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    margins = draw(st.lists(st.sampled_from([0.0, 0.1, 1.0, 1.5]), min_size=F, max_size=F))
    signs = draw(st.lists(st.sampled_from([1, -1]), min_size=F, max_size=F))
    number = st.one_of(st.integers(-3, 3), st.integers(-9, 9).map(lambda n: n / 10), st.floats(-1e6, 1e6))
    values = draw(st.lists(st.lists(number, min_size=F, max_size=F), min_size=N, max_size=N))
    return tree_of(*margins, mode=mode or draw(st.sampled_from(MODES)), signs=signs), np.array(values, np.float64)


def all_pairs(N):
    return (side.ravel() for side in np.indices((N, N)))


def test_the_first_level_that_differs_by_more_than_its_margin_decides():
    tree = tree_of(0, 1, 2)
    assert compared(tree, [1, 0, 0], [0, 9, 9]) == (1, 0, 1)
    assert compared(tree, [0, 3, 0], [0, 0, 9]) == (1, 1, 3)
    assert compared(tree, [0, 1, 0], [0, 0, 9]) == (-1, 2, 4.5)  # by 1, which is not more than 1
    assert compared(tree, [0, 1, 2], [0, 0, 0]) == (0, -1, 0)


def test_a_negative_sign_prefers_less():
    tree = tree_of(0, 0.5, signs=[-1, -1])
    assert compared(tree, [3, 0], [1, 9]) == (-1, 0, 1)
    assert compared(tree, [3, 0], [3, 2]) == (1, 1, 4)
    # The bins are those of the value, whatever the sign.
    assert compared(tree_of(1, mode="bins", signs=[-1]), [0.9], [0.1]) == (0, -1, 0)


def test_bins_are_whole_margins():
    tree = tree_of(2, 0, mode="bins")
    assert compared(tree, [1.9, 0], [0, 1]) == (-1, 1, 1)
    assert compared(tree, [2, 0], [1.9, 1]) == (1, 0, 1)
    assert compared(tree, [-0.1, 0], [5, 1]) == (-1, 0, 3)
    assert tree.bins(np.array([[-0.1, 7.5], [5, -3]])).tolist() == [[-1, 7.5], [2, -3]]


@pytest.mark.parametrize("mode", MODES)
def test_rounding_decides_nothing(mode):
    assert compared(tree_of(0, mode=mode), [0.1 + 0.2], [0.3]) == (0, -1, 0)
    assert compared(tree_of(0, mode=mode), [1e6 + 0.001], [1e6]) == (1, 0, 1)
    assert compared(tree_of(0, mode=mode), [0.0], [-1e-300]) == (1, 0, 1)
    assert compared(tree_of(0.1), [0.3], [0.2]) == compared(tree_of(0.1), [0.4], [0.3]) == (0, -1, 0)
    # 0.3 / 0.1 is just below 3, and 0.3 begins the third bin all the same.
    assert compared(tree_of(0.1, mode="bins"), [0.3], [0.39]) == (0, -1, 0)


def test_no_pairs_are_no_outcomes():
    found = tree_of(0).compare(np.zeros((0, 1)), np.zeros((0, 1)))
    assert len(found) == 0 and found.outcome.dtype == found.level.dtype == np.int8
    assert found.strength.dtype == np.float32


def test_explain_tells_what_each_level_says_and_whether_it_was_reached():
    tree = tree_of(0, 1, 2, signs=[1, -1, 1])
    verdicts = tree.explain(np.array([1.0, 3, 9]), np.array([1.0, 1, 0]))
    assert [(v.outcome, v.strength, v.reached) for v in verdicts] == [(0, 0, True), (-1, 2, True), (1, 4.5, False)]
    assert verdicts[1] == LevelVerdict(level=tree.levels[1], first=3, second=1, outcome=-1, strength=2, reached=True)


@settings(deadline=None, max_examples=50)
@given(problems())
def test_explain_agrees_with_compare(problem):
    tree, values = problem
    found = tree.compare(values[:1], values[-1:])
    deciding = [n for n, v in enumerate(tree.explain(values[0], values[-1])) if v.reached and v.outcome]
    assert deciding == [n for n in found.level.tolist() if n >= 0]
    assert [tree.explain(values[0], values[-1])[n].outcome for n in deciding] == [o for o in found.outcome if o]


@settings(deadline=None, max_examples=50)
@given(problems())
def test_swapping_the_two_turns_the_outcome_round(problem):
    tree, values = problem
    i, j = all_pairs(len(values))
    one, other = tree.compare(values[i], values[j]), tree.compare(values[j], values[i])
    assert (one.outcome == -other.outcome).all() and (one.level == other.level).all()
    assert (one.strength == other.strength).all()
    assert (one.outcome[i == j] == 0).all()
    assert ((one.level == -1) == (one.outcome == 0)).all() and ((one.strength > 0) == (one.outcome != 0)).all()


@settings(deadline=None, max_examples=50)
@given(problems(mode="bins"))
def test_bins_order_all_segments(problem):
    tree, values = problem
    N = len(values)
    i, j = all_pairs(N)
    at_least = (tree.compare(values[i], values[j]).outcome >= 0).reshape(N, N)
    assert (at_least | at_least.T).all()
    chained = (at_least[:, :, None] & at_least[None]).any(1)
    assert (at_least | ~chained).all()


@settings(deadline=None, max_examples=50)
@given(problems(), st.randoms(use_true_random=False))
def test_an_outcome_does_not_depend_on_the_other_pairs(problem, random):
    tree, values = problem
    i, j = all_pairs(len(values))
    whole = tree.compare(values[i], values[j])
    some = np.array(random.sample(range(len(i)), random.randint(1, len(i))))
    part, expected = tree.compare(values[i[some]], values[j[some]]), whole.take(some)
    for name in ("outcome", "level", "strength"):
        assert (getattr(part, name) == getattr(expected, name)).all()


@settings(deadline=None, max_examples=50)
@given(problems())
def test_no_level_tells_values_of_one_bin_apart(problem):
    tree, values = problem
    bins = tree.bins(values)
    i, j = all_pairs(len(values))
    alike = (bins[i] == bins[j]).all(1)
    assert (tree.compare(values[i], values[j]).outcome[alike] == 0).all()


@settings(deadline=None, max_examples=50)
@given(problems(), st.sampled_from([1000.0, 1e-3, 7.3]), st.data())
def test_a_factor_in_another_unit_changes_no_outcome(problem, scale, data):
    tree, values = problem
    values = np.round(values, 2)
    at = data.draw(st.integers(0, len(tree.levels) - 1))
    margins = [level.margin * (scale if n == at else 1) for n, level in enumerate(tree.levels)]
    scaled_tree = tree_of(*margins, mode=tree.mode, signs=[level.sign for level in tree.levels])
    scaled = values.copy()
    scaled[:, at] *= scale
    i, j = all_pairs(len(values))
    one, other = tree.compare(values[i], values[j]), scaled_tree.compare(scaled[i], scaled[j])
    assert (one.outcome == other.outcome).all() and (one.level == other.level).all()


def test_what_a_tree_refuses():
    for margin in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="margin of factor 'f0'"):
            tree_of(margin)
    with pytest.raises(ValueError, match="sign of factor 'f0' is 2"):
        tree_of(1, signs=[2])
    level = Level(name="gold", sign=1, margin=0)
    with pytest.raises(ValueError, match="'gold' is ranked twice"):
        PreferenceTree([level, level], "bins")
    with pytest.raises(ValueError, match="mode 'best' is unknown, it must be one of margin, bins"):
        PreferenceTree([level], "best")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="1 to 127 levels, not 0"):
        PreferenceTree([], "bins")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_even_where_an_earlier_level_decides(bad):
    tree = tree_of(0, 0)
    good, wrong = np.array([[1.0, 0.0]]), np.array([[0.0, bad]])
    for first, second in ((good, wrong), (wrong, good)):
        with pytest.raises(ValueError, match="factor 'f1' has a value that is not finite"):
            tree.compare(first, second)
        with pytest.raises(ValueError, match="factor 'f1'"):
            tree.explain(first[0], second[0])


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="values of 2 factors were expected"):
        tree_of(0, 0).compare(np.zeros((3, 1)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="3 first segments cannot be compared with 2 second ones"):
        tree_of(0).compare(np.zeros((3, 1)), np.zeros((2, 1)))
