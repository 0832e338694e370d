"""Composition of components: by hand as in the paper, and what no play can get around."""

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from rewards.auto.composition import Composer, Steps
from rewards.auto.config import CompositionConfig


def _as_in_the_paper(**changes):
    """Its weights, within a budget."""
    return CompositionConfig(**{"dense": "budget", "dense_weight": 0.1, **changes})


KINDS = {"goal": "sparse", "walk": "dense", "look": "dense"}


def _steps(T, B=1, *, invalid=(), terminated=(), truncated=()):
    masks = []
    for places in (invalid, terminated, truncated):
        mask = np.zeros((T, B), bool)
        for at in places:
            mask[at] = True
        masks.append(mask)
    return Steps(valid=~masks[0], terminated=masks[1], truncated=masks[2])


def _run(values, steps=None, config=None, gamma=1.0, state=None, kinds=None):
    """Composes lists of T numbers of one game, or arrays [T, B]."""
    values = {name: np.atleast_2d(np.array(value, float).T).T for name, value in values.items()}
    shape = next(iter(values.values())).shape
    composer = Composer(config or _as_in_the_paper(), tuple(KINDS), gamma=gamma)
    composed, after = composer.compose(
        values, kinds or KINDS, steps or _steps(*shape), state or composer.initial_state(shape[1])
    )
    return composed, after


def _total(*args, **kwargs):
    return _run(*args, **kwargs)[0].total[:, 0].tolist()


@pytest.mark.parametrize("sparse", [-1, 0, 1])
@pytest.mark.parametrize("dense", [-1, 0, 1])
def test_one_step_pays_as_in_the_paper(sparse, dense):
    paid = _total({"goal": [sparse * 7.0], "walk": [dense * 0.003]})
    expected = {(1, 1): 1.1, (1, 0): 1.0, (1, -1): 0.9, (0, 1): 0.1, (0, 0): 0.0}
    key = (sparse, dense) if (sparse, dense) in expected else (-sparse, -dense)
    sign = 1 if key == (sparse, dense) else -1
    assert paid == [pytest.approx(sign * expected[key], abs=1e-15)]


def test_components_have_signs_of_their_own_and_add_up():
    composed, _ = _run({"goal": [2, 0], "walk": [5, -5], "look": [-0.1, -9], "else": [3, 0], "more": [1, 0]})
    assert composed.components["goal"][:, 0].tolist() == [1, 0]
    assert composed.components["walk"][:, 0].tolist() == [0.1, -0.1]
    assert composed.components["look"][:, 0].tolist() == [-0.1, -0.1]
    assert composed.components["other"][:, 0].tolist() == [0.2, 0]  # two that nobody declared, dense
    assert composed.raw["other"][:, 0].tolist() == [4, 0]
    assert composed.raw["walk"][:, 0].tolist() == [5, -5]
    assert composed.total[:, 0].tolist() == pytest.approx([1.2, -0.2])


def test_clipped_values_keep_their_size_up_to_one():
    config = _as_in_the_paper(values="clipped")
    assert _total({"goal": [0.25, -3], "walk": [0.5, 7]}, config=config) == pytest.approx([0.3, -0.9])


def test_the_budget_bounds_what_an_episode_comes_to_and_a_new_episode_has_a_new_one():
    config = _as_in_the_paper(dense_budget=0.25)
    paid = _total({"walk": [1, 1, 1, 1, -1, 1, 1, 1]}, _steps(8, terminated=[(5, 0)]), config)
    #                 paid so far: .1 .2 .25 .25 .15 .25 | .1 .2
    assert paid == pytest.approx([0.1, 0.1, 0.05, 0, -0.1, 0.1, 0.1, 0.1])
    paid = _total({"walk": [-1, -1, -1, -1, 1]}, _steps(5, truncated=[(3, 0)]), config)
    assert paid == pytest.approx([-0.1, -0.1, -0.05, 0, 0.1])


def test_what_fades_into_the_budget_never_stands_still():
    """By hand: sums 0.1, 0.2, ... pay 0.9 * S / (0.9 + S)."""
    paid = _total({"walk": [1, 1, 1, -1]}, config=_as_in_the_paper(dense="fading", dense_budget=0.9))
    sums = [0.09, 0.9 * 0.2 / 1.1, 0.9 * 0.3 / 1.2, 0.9 * 0.2 / 1.1]
    assert np.cumsum(paid) == pytest.approx(sums)
    long = np.array(_total({"walk": [1] * 500}, config=_as_in_the_paper(dense="fading", dense_budget=0.9)))
    assert (long > 0).all() and 0.85 < long.sum() < 0.9


def test_components_that_cancel_out_fade_alike_and_pay_nothing_in_all():
    composed, _ = _run({"walk": [1, 1], "look": [0, -1]}, config=_as_in_the_paper(dense="fading", dense_budget=0.9))
    assert composed.components["walk"][1, 0] == pytest.approx(0.1 * 0.9**2)
    assert composed.components["look"][1, 0] == pytest.approx(-0.1 * 0.9**2)
    assert composed.total[1, 0] == pytest.approx(0)


def test_the_budget_leaves_sparse_components_alone():
    config = _as_in_the_paper(dense_budget=0.1)
    assert _total({"goal": [1, 1, 1], "walk": [1, 1, 1]}, config=config) == pytest.approx([1.1, 1, 1])


def test_components_are_cut_in_proportion():
    config = _as_in_the_paper(dense_budget=0.1, values="clipped")
    composed, _ = _run({"walk": [1], "look": [0.5], "goal": [0]}, config=config)
    assert composed.components["walk"][0, 0] == pytest.approx(0.1 * 2 / 3)
    assert composed.components["look"][0, 0] == pytest.approx(0.1 / 3)


def test_invalid_steps_pay_nothing_and_are_as_if_they_had_not_been():
    for dense in ("budget", "fading", "potential"):
        config = _as_in_the_paper(dense=dense, dense_budget=0.15)
        values, invalid = [1, 1, 0, -1, 1, 1], [(1, 0), (3, 0)]
        paid = _total({"goal": values, "walk": values}, _steps(6, invalid=invalid), config)
        kept = [0, 2, 4, 5]
        without = _total({"goal": [values[t] for t in kept], "walk": [values[t] for t in kept]}, config=config)
        assert [paid[t] for t in kept] == without and paid[1] == paid[3] == 0
    ended = _total({"walk": [1, 1, 1]}, _steps(3, invalid=[(1, 0)], terminated=[(1, 0)]), config)
    assert ended == pytest.approx([0.1, 0, 0.1])  # an end is an end, valid or not


def test_a_potential_pays_differences_and_is_zero_at_the_end():
    config = _as_in_the_paper(dense="potential", values="clipped")
    phi = {"walk": [0.2, 0.6, 0.6, 0.1, 0.8]}
    assert _total(phi, config=config) == pytest.approx([0.02, 0.04, 0, -0.05, 0.07])
    assert _total(phi, _steps(5, terminated=[(3, 0)]), config) == pytest.approx([0.02, 0.04, 0, -0.06, 0.08])
    # A time limit ends nothing for a learner that bootstraps there; the next episode begins at 0 all the same.
    assert _total(phi, _steps(5, truncated=[(3, 0)]), config) == pytest.approx([0.02, 0.04, 0, -0.05, 0.08])


def test_a_discounted_potential_telescopes_in_discounted_sums():
    gamma, config = 0.9, _as_in_the_paper(dense="potential", values="clipped")
    paid = _total({"walk": [0.5, -0.5, 1]}, config=config, gamma=gamma)
    assert paid == pytest.approx([0.045, -0.045 - 0.05, 0.09 + 0.05])
    assert np.dot(paid, gamma ** np.arange(3)) == pytest.approx(gamma**3 * 0.1)


def test_another_program_gets_no_second_budget_and_no_old_potential():
    for dense, expected in (("budget", [0.0, -0.1]), ("potential", [0.1, -0.2])):
        composer = Composer(_as_in_the_paper(dense=dense, dense_budget=0.1), ("walk",))
        one, two = {"walk": np.ones((1, 2))}, {"look": np.array([[1.0, 1], [-1, -1]])}
        _, state = composer.compose(one, {}, _steps(1, 2), composer.initial_state(2))
        after = composer.after_switch(state, np.array([True, False]))
        composed, _ = composer.compose(two, {}, _steps(2, 2), after)
        assert composed.total[:, 0].tolist() == pytest.approx(expected)
    assert after["dense"].tolist() == [[0, 0], [0.1, 0]]


def test_memory_is_not_written_to():
    state = Composer(_as_in_the_paper(), tuple(KINDS)).initial_state(1)
    _, after = _run({"walk": [1, 1]}, state=state)
    assert not state["dense"].any() and after["dense"].sum() == pytest.approx(0.2)


# ---- what no play can get around


@pytest.mark.parametrize(
    ("sparse", "budget", "is_fine"), [(1, 0.9, True), (1, 1, False), (0.3, 0.5, False), (0, 5, True)]
)
def test_farming_may_not_outweigh_success(sparse, budget, is_fine):
    refused = pytest.raises(ValidationError, match=r"dense_budget .* is not below sparse_weight")
    with nullcontext() if is_fine else refused:
        CompositionConfig(sparse_weight=sparse, dense_budget=budget)


_EPISODES = arrays(np.float64, st.tuples(st.just(2), st.integers(1, 60), st.just(2)), elements=st.floats(-2, 2))
_CONFIGS = st.builds(
    CompositionConfig,
    values=st.sampled_from(["signs", "clipped"]),
    dense=st.sampled_from(["budget", "fading"]),
    sparse_weight=st.just(2.5),
    dense_budget=st.floats(0.01, 2),
    dense_weight=st.floats(0, 1),
)


def _dense(values, config, invalid=None):
    steps = _steps(*values.shape[1:])
    if invalid is not None:
        steps = Steps(valid=~invalid, terminated=steps.terminated, truncated=steps.truncated)
    return _run({"walk": values[0], "look": values[1]}, steps, config)[0]


@settings(deadline=None, max_examples=60)
@given(values=_EPISODES, config=_CONFIGS, gamma=st.floats(0, 1), data=st.data())
def test_dense_pay_of_an_episode_stays_within_the_budget(values, config, gamma, data):
    invalid = data.draw(arrays(bool, values.shape[1:]))
    composed = _dense(values, config, invalid)
    paid = composed.total
    assert not paid[invalid].any()
    np.testing.assert_allclose(sum(composed.components.values()), paid, atol=1e-12)
    assert (np.abs(paid.cumsum(axis=0)) <= config.dense_budget + 1e-9).all()  # at every step, so at the end
    discounts = gamma ** np.arange(len(paid))
    assert (np.abs(discounts @ paid) <= config.dense_budget + 1e-9).all()
    shaped = np.sign(values) if config.values == "signs" else values.clip(-1, 1)
    weighted = config.dense_weight * shaped.sum(axis=0)
    assert (np.abs(paid) <= np.abs(weighted) + 1e-9).all() and (paid * weighted >= -1e-12).all()


@settings(deadline=None, max_examples=50)
@given(cycle=_EPISODES, config=_CONFIGS, times=st.integers(1, 12))
def test_going_round_gains_no_more_than_the_budget_however_often(cycle, config, times):
    paid = _dense(np.tile(cycle, (1, times, 1)), config).total
    up, down = paid.clip(0).sum(axis=0), -paid.clip(None, 0).sum(axis=0)
    assert (np.abs(up - down) <= config.dense_budget + 1e-9).all()
    # From any time on, going on moves what was paid from one bound to the other at most.
    sums = np.concatenate([np.zeros((1, 2)), paid.cumsum(axis=0)])
    assert (np.ptp(sums, axis=0) <= 2 * config.dense_budget + 1e-9).all()


def test_back_and_forth_pays_nothing_and_leaves_the_signal_alive():
    values = np.tile([1.0, -1.0], 500)
    config = _as_in_the_paper()
    paid = np.array(_total({"walk": [*values, *[1] * 50, -1, 1]}, config=config))
    assert paid[:1000].sum() == pytest.approx(0) and paid.sum() == pytest.approx(0.9)
    assert paid[-2:].tolist() == pytest.approx([-0.1, 0.1])


@settings(deadline=None, max_examples=60)
@given(values=_EPISODES, gamma=st.floats(0.5, 1))
def test_an_episode_that_terminates_has_no_potential_left(values, gamma):
    config = _as_in_the_paper(dense="potential", values="clipped")
    T = values.shape[1]
    steps = _steps(T, 2, terminated=[(T - 1, 0), (T - 1, 1)])
    paid = _run({"walk": values[0], "look": values[1]}, steps, config, gamma)[0].total
    np.testing.assert_allclose(gamma ** np.arange(T) @ paid, 0, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(values=_EPISODES, dense=st.sampled_from(["budget", "fading", "potential"]), data=st.data())
def test_cut_into_rollouts_it_pays_the_same(values, dense, data):
    config = _as_in_the_paper(dense=dense, dense_budget=0.3)
    T = values.shape[1]
    masks = [data.draw(arrays(bool, (T, 2))) for _ in range(3)]
    cut = data.draw(st.integers(0, T))
    whole, _ = _run({"walk": values[0]}, Steps(valid=masks[0], terminated=masks[1], truncated=masks[2]), config)
    pieces, state = [], None
    for part in (slice(0, cut), slice(cut, T)):
        steps = Steps(valid=masks[0][part], terminated=masks[1][part], truncated=masks[2][part])
        composer = Composer(config, tuple(KINDS))
        composed, state = composer.compose({"walk": values[0][part]}, KINDS, steps, state or composer.initial_state(2))
        pieces.append(composed.total)
    np.testing.assert_array_equal(np.concatenate(pieces), whole.total)
