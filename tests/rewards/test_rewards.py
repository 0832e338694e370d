"""Every reward model through the conformance suite, and its numbers by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.captions import caption_id
from envs.data import FinalObs, RewardPart, Rollout
from rewards import conformance
from rewards.mix import EnvReward, Ingredient, RewardMix, discounted_sums
from rewards.normalise import RunningMoments
from rewards.oni.caption_reward import CaptionReward, CaptionValues
from rewards.parts import PartConfig, StreamConfig

GOOD, BAD, NEW = (caption_id(text) for text in ("You kill it!", "It's the wall.", "Something new."))


def _rollout(caption_ids, env_reward=None, ends=()):
    """Captions [T, B] with their counts worked out here, episodes ending at ``ends`` (t, b)."""
    ids = np.array(caption_ids, np.int64)
    T, B = ids.shape
    done = np.zeros((T, B), bool)
    for t, b in ends:
        done[t, b] = True
    counts = np.zeros((T, B), np.int32)
    for b in range(B):
        seen = {}
        for t in range(T):
            if ids[t, b]:
                seen[ids[t, b]] = counts[t, b] = seen.get(ids[t, b], 0) + 1
            if done[t, b]:
                seen = {}
    at = np.argwhere(done).astype(np.int64).reshape(-1, 2)
    return Rollout(
        obs={"vector": np.zeros((T + 1, B, 1), np.float32)},
        actions=np.zeros((T, B), np.int64),
        env_reward=np.zeros((T, B), np.float32) if env_reward is None else np.array(env_reward, np.float32),
        terminated=done,
        truncated=np.zeros((T, B), bool),
        end_status=done.astype(np.int8),
        final_obs=FinalObs(at=at, obs={"vector": np.zeros((len(at), 1), np.float32)}),
        policy_version=np.zeros((T, B), np.int64),
        episode_id=np.zeros((T, B), np.int64),
        step_in_episode=np.zeros((T, B), np.int32),
        caption_id=ids,
        caption_count=counts,
    )


def _values(*more):
    values = CaptionValues()
    values.apply([(GOOD, 1.0), (BAD, 0.0), *more])
    return values


MODELS = {
    "env": EnvReward,
    "captions": lambda: CaptionReward(_values()),
    "captions, no decay": lambda: CaptionReward(_values(), count_exponent=0.0),
}


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name):
    rng = np.random.default_rng(0)
    rollout = _rollout(
        rng.choice([0, GOOD, BAD, NEW], (20, 3)), rng.normal(size=(20, 3)), ends=[(4, 0), (11, 0), (9, 2)]
    )
    conformance.check_reward_model(MODELS[name], rollout)


def test_caption_reward_by_hand():
    # Third occurrence: 1 / 3**3. The count starts afresh after the end at step 3.
    rollout = _rollout([[GOOD], [GOOD], [0], [GOOD], [GOOD], [BAD], [NEW]], ends=[(3, 0)])
    parts, _ = CaptionReward(_values()).score(rollout, {})
    assert parts["oni"].value[:, 0].tolist() == pytest.approx([1, 1 / 8, 0, 1 / 27, 1, 0, 0])
    assert parts["oni"].valid[:, 0].tolist() == [True] * 6 + [False]


def test_the_message_that_ends_a_game_is_paid():
    rollout = _rollout([[0], [GOOD]], ends=[(1, 0)])
    parts, _ = CaptionReward(_values()).score(rollout, {})
    assert parts["oni"].value[1, 0] == 1


def test_values_may_be_any_number_and_are_renewed():
    reward = CaptionReward(_values((NEW, -0.5)))
    rollout = _rollout([[NEW], [NEW], [GOOD]])
    before = reward.version
    assert reward.score(rollout, {})[0]["oni"].value[:, 0].tolist() == pytest.approx([-0.5, -0.5 / 8, 1])
    assert reward.values.apply([(NEW, -0.5), (GOOD, 0.25), (GOOD, 0.5)]) == 1  # the last word counts
    assert reward.version == before + 1 and len(reward.values) == 3
    assert reward.score(rollout, {})[0]["oni"].value[2, 0] == 0.5
    assert reward.values.apply([(GOOD, 0.5)]) == 0 and reward.version == before + 1


def test_silence_is_worth_nothing_and_values_are_finite():
    values = CaptionValues()
    assert [x.tolist() for x in values.lookup(np.array([0, GOOD]))] == [[0, 0], [True, False]]
    with pytest.raises(ValueError, match="silence is worth 0 and cannot be worth"):
        values.apply([(0, 0.5)])
    with pytest.raises(ValueError, match=f"the value of caption {GOOD} is not finite"):
        values.apply([(GOOD, float("nan"))])
    assert len(values) == 0 and values.version == 0


_CHANGES = st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(-2, 2)), max_size=6), max_size=6)


@settings(deadline=None, max_examples=60)
@given(_CHANGES)
def test_values_are_a_mapping(changes):
    values, expected = CaptionValues(), {}
    for change in changes:
        values.apply(change)
        expected |= dict(change)
    ids = np.arange(1, 10).reshape(3, 3)
    found, valid = values.lookup(ids)
    assert valid.tolist() == [[i in expected for i in row] for row in ids.tolist()]
    assert found.tolist() == [[expected.get(i, 0) for i in row] for row in ids.tolist()]
    copy = CaptionValues()
    copy.load_state_dict(values.state_dict())
    np.testing.assert_array_equal(copy.lookup(ids)[0], found)
    assert copy.version == values.version


def _mix(parts, **streams):
    return RewardMix([Ingredient(model=m, config=c) for m, c in parts], streams or {"extrinsic": StreamConfig()})


class Fixed:
    """A reward model with given values."""

    version = 3

    def __init__(self, name, value, valid=None):
        self.part_names = (name,)
        value = np.array(value, np.float32)[:, None]
        valid = np.ones(value.shape, bool) if valid is None else np.array(valid)[:, None]
        self._part = RewardPart(value=value, valid=valid)

    def initial_state(self, num_games):
        return {}

    def score(self, rollout, state):
        return {self.part_names[0]: self._part}, state

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def _scored(mix, num_steps):
    output, _ = mix.score(_rollout(np.zeros((num_steps, 1))), mix.initial_state(1))
    return output


def test_parts_of_a_stream_add_up_weighted_and_clipped_and_invalid_ones_pay_nothing():
    mix = _mix(
        [
            (Fixed("a", [1, 2, 3]), PartConfig(weight=2, clip=5)),
            (Fixed("b", [10, 10, 10], [True, False, True]), PartConfig(weight=0.1)),
        ]
    )
    output = _scored(mix, 3)
    assert output.streams[:, 0, 0].tolist() == pytest.approx([3, 4, 6])
    assert output.parts["a"].value[:, 0].tolist() == [1, 2, 3]  # parts stay unweighted
    assert not output.parts["b"].valid[1, 0]


def test_parts_of_a_stream_multiply_where_asked_and_invalid_ones_have_no_say():
    mix = _mix(
        [(Fixed("a", [2, 2]), PartConfig()), (Fixed("b", [3, 5], [True, False]), PartConfig())],
        extrinsic=StreamConfig(combine="product"),
    )
    assert _scored(mix, 2).streams[:, 0, 0].tolist() == [6, 2]


def test_each_stream_keeps_its_own_discount_and_unfed_streams_are_left_out():
    streams = {"extrinsic": StreamConfig(gamma=0.9), "intrinsic": StreamConfig(gamma=0.5)}
    both = _mix([(Fixed("a", [1]), PartConfig()), (Fixed("b", [2]), PartConfig(stream="intrinsic"))], **streams)
    assert [stream.gamma for stream in both.streams.values()] == [0.9, 0.5]
    assert _scored(both, 1).streams[0, 0].tolist() == [1, 2]
    one = _mix([(Fixed("a", [1]), PartConfig(weight=0)), (Fixed("b", [2]), PartConfig(stream="intrinsic"))], **streams)
    assert [stream.gamma for stream in one.streams.values()] == [0.5]
    assert set(_scored(one, 1).parts) == {"a", "b"}  # a part of weight 0 is still measured


def test_nonsense_mixes_are_refused():
    with pytest.raises(ValueError, match="both called 'a'"):
        _mix([(Fixed("a", [1]), PartConfig()), (Fixed("a", [1]), PartConfig())])
    with pytest.raises(ValueError, match="weight 0"):
        _mix([(Fixed("a", [1]), PartConfig(weight=0))])


def test_a_reward_that_is_not_finite_is_refused_unless_it_is_invalid():
    with pytest.raises(ValueError, match="not finite"):
        RewardPart(value=np.array([[np.nan]]), valid=np.array([[True]]))
    RewardPart(value=np.array([[np.nan]]), valid=np.array([[False]]))


def test_normalised_parts_survive_a_checkpoint():
    config = PartConfig(normalise="std")
    first = _mix([(Fixed("a", [0, 4]), config)])
    assert _scored(first, 2).streams[:, 0, 0].tolist() == [0, 2]  # standard deviation 2
    second = _mix([(Fixed("a", [0, 4]), config)])
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(_scored(second, 2).streams, _scored(first, 2).streams)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.floats(-1e3, 1e3), max_size=20), min_size=1, max_size=5))
def test_running_moments_equal_those_of_all_values_at_once(batches):
    moments = RunningMoments()
    for batch in batches:
        moments.update(np.array(batch))
    values = np.array([x for batch in batches for x in batch])
    assert moments.count == len(values)
    if len(values):
        assert moments.mean == pytest.approx(values.mean(), abs=1e-6)
    if len(values) > 1 and values.std() > 1e-3:
        assert moments.std == pytest.approx(values.std(), rel=1e-6)


def test_a_part_may_be_divided_by_the_spread_of_what_it_comes_to():
    done = np.array([[False], [True], [False]])
    part = RewardPart(value=np.array([[1.0], [2.0], [4.0]], np.float32), valid=np.array([[True], [True], [True]]))
    sums, left = discounted_sums(part, done, 0.5, np.array([8.0]))
    assert sums.tolist() == [[5.0], [4.5], [4.0]]  # 0.5 * 8 + 1, 0.5 * 5 + 2, and 4 after the end
    assert left.tolist() == [4.0]

    config = PartConfig(normalise="return", weight=2.0)
    mix = RewardMix([Ingredient(model=EnvReward(), config=config)], {"extrinsic": StreamConfig(gamma=0.5)})
    rollout = _rollout(np.zeros((3, 1)), [[1.0], [2.0], [4.0]], ends=[(1, 0)])
    output, state = mix.score(rollout, mix.initial_state(1))
    spread = np.std([1.0, 2.5, 4.0])
    np.testing.assert_allclose(output.streams[:, 0, 0], 2 * np.array([1, 2, 4]) / spread, rtol=1e-6)
    assert state["sums"]["env"].tolist() == [4.0]
    # The next rollout goes on from there: 0.5 * 4 + 1 = 3.
    output, _ = mix.score(_rollout(np.zeros((1, 1)), [[1.0]]), state)
    np.testing.assert_allclose(output.streams[0, 0, 0], 2 / np.std([1.0, 2.5, 4.0, 3.0]), rtol=1e-6)


def test_steps_without_a_value_do_not_count_in_the_spread_of_sums():
    class Late:
        part_names, version = ("late",), 0

        def initial_state(self, num_games):
            return {}

        def score(self, rollout, state):
            value = rollout.env_reward
            return {"late": RewardPart(value=value, valid=value != 0)}, state

    mix = RewardMix([Ingredient(model=Late(), config=PartConfig(normalise="return"))], {"extrinsic": StreamConfig()})
    _, state = mix.score(_rollout(np.zeros((20, 1)), np.zeros((20, 1))), mix.initial_state(1))
    output, _ = mix.score(_rollout(np.zeros((2, 1)), [[1.0], [3.0]]), state)
    np.testing.assert_allclose(output.streams[:, 0, 0], np.array([1, 3]) / np.std([1.0, 3.99]), rtol=1e-6)
