"""Policies act within what the games allow."""

from collections import Counter

import numpy as np
import pytest
import torch

from agents.config import EncoderConfig, ModelConfig
from agents.model import ActorCritic
from agents.policy import RandomPolicy, TorchPolicy, TranslatedPolicy, encoding, translated
from agents.rollout import GeneratorNoise
from envs.protocols import GamesSpec, PolicyStep
from envs.seeding import TrainingSeeds
from envs.toy import BanditGames, MaskedGames


def test_the_random_policy_is_uniform_over_allowed_actions():
    spec = GamesSpec(tasks=("x",), obs={}, action_names=("a", "b", "c"))
    policy, noise = RandomPolicy(spec), GeneratorNoise(3000, 1)
    free = Counter(policy.act({}, None, None, noise).actions.tolist())
    assert all(900 < free[a] < 1100 for a in range(3))
    mask = np.tile([True, False, True], (3000, 1))
    acted = policy.act({}, None, mask, noise)
    masked = Counter(acted.actions.tolist())
    assert masked[1] == 0 and 1400 < masked[0] < 1600
    assert acted.log_prob == pytest.approx(np.log(1 / 2))
    assert policy.act({}, None, None, noise).log_prob == pytest.approx(np.log(1 / 3))


def test_the_random_policy_stays_within_continuous_bounds():
    games = BanditGames(4, TrainingSeeds(0, 0, 4), continuous=True)
    actions = RandomPolicy(games.spec).act({}, None, None, GeneratorNoise(4, 1)).actions
    assert actions.shape == (4, *games.spec.action_shape)
    assert (actions >= games.spec.action_low).all() and (actions <= games.spec.action_high).all()


class _Recorder:
    """Acts with the first allowed action and remembers the mask that it was given."""

    version = 5

    def initial_state(self, num_games):
        return None

    def act(self, obs, recurrent_state, action_mask, noise, *, deterministic=False):
        self.mask = action_mask
        return PolicyStep(actions=action_mask.argmax(1))


def test_translation_masks_what_the_games_lack_and_renumbers_the_rest():
    inner = _Recorder()
    policy = TranslatedPolicy(inner, ["north", "kick", "south"], ["south", "kick"])
    obs = {"vector": np.zeros((2, 1))}
    step = policy.act(obs, None, None, None)
    assert inner.mask.tolist() == [[False, True, True]] * 2
    assert step.actions.tolist() == [1, 1]  # kick
    step = policy.act(obs, None, np.array([[True, False], [True, True]]), None)
    assert step.actions.tolist() == [0, 1]  # the first game may only go south
    assert translated(inner, ["a", "b"], ["a", "b"]) is inner
    with pytest.raises(ValueError, match="none of the actions"):
        TranslatedPolicy(inner, ["north"], ["apply"])


@pytest.fixture
def every_warning():
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


def test_arrays_that_must_not_be_written_are_read_without_a_warning(every_warning, recwarn):
    games = MaskedGames(2, TrainingSeeds(0, 0, 2))
    model = ActorCritic(ModelConfig(encoder=EncoderConfig(hidden=8, vector_hidden=8)), games.spec, 1)
    policy, mask = TorchPolicy(model, torch.device("cpu")), games.action_mask
    obs = {key: x.copy() for key, x in games.reset().items()}
    acted = policy.act(obs, None, mask, GeneratorNoise(2, 1))
    for array in (mask, *obs.values()):
        array.flags.writeable = False
    again = policy.act(obs, None, mask, GeneratorNoise(2, 1))
    np.testing.assert_array_equal(acted.log_prob, again.log_prob)
    np.testing.assert_array_equal(encoding(model, "fp32")(obs).shape, (2, 8))
    assert not [w for w in recwarn if "not writable" in str(w.message)]
