"""Evaluation plays each listed episode once, the same however it is split."""

from collections import Counter

import numpy as np
import pytest
import torch

from agents.config import EncoderConfig, ModelConfig
from agents.evaluate import evaluate
from agents.model import ActorCritic
from agents.noise import EpisodeNoise, GeneratorNoise
from agents.policy import TorchPolicy
from agents.random_policy import RandomPolicy
from agents.translation import TranslatedPolicy, translated
from envs.protocols import GamesSpec, ObsSpec, PolicyStep
from envs.seeding import TrainingSeeds, evaluation_seeds
from envs.toy import BanditGames, CorridorGames, MemoryGames


def _policy(games_class, core="none"):
    spec = games_class(1, TrainingSeeds(0, 0, 1)).spec
    torch.manual_seed(0)
    config = ModelConfig(encoder=EncoderConfig(hidden=8, vector_hidden=8), core=core, core_hidden=8)
    return TorchPolicy(ActorCritic(config, spec, 1), torch.device("cpu"))


@pytest.mark.parametrize(("games_class", "core"), [(CorridorGames, "none"), (MemoryGames, "gru")])
def test_results_do_not_depend_on_how_the_episodes_are_played(games_class, core):
    policy, seeds = _policy(games_class, core), evaluation_seeds(23)

    def played(seeds, num_games):
        results = evaluate(policy, games_class, seeds, num_games=num_games)
        return {r.seeds: (r.num_steps, r.env_return, r.success) for r in results}

    together = played(seeds, 5)
    assert list(together) != [] and set(together) == set(seeds)
    assert played(seeds, 1) == together
    assert played(seeds[:7], 4) | played(seeds[7:], 16) == together


def test_another_noise_seed_samples_other_actions():
    policy, seeds = _policy(CorridorGames), evaluation_seeds(30)
    lengths = [
        [r.num_steps for r in evaluate(policy, CorridorGames, seeds, num_games=1, noise_seed=n)] for n in (0, 0, 1)
    ]
    assert lengths[0] == lengths[1] != lengths[2]


def test_training_and_evaluation_never_share_a_game():
    source = TrainingSeeds(1, 0, 4)
    trained = {x for game in range(4) for _ in range(500) for x in source.next(game)}
    evaluated = {x for seeds in evaluation_seeds(500) for x in seeds}
    assert not trained & evaluated
    assert max(evaluated) < 2**31


def test_the_random_policy_is_uniform_over_allowed_actions():
    spec = GamesSpec(tasks=("x",), obs={}, action_names=("a", "b", "c"))
    policy, noise = RandomPolicy(spec), GeneratorNoise(3000, 1)
    free = Counter(policy.act({}, None, None, noise).actions.tolist())
    assert all(900 < free[a] < 1100 for a in range(3))
    mask = np.tile([True, False, True], (3000, 1))
    masked = Counter(policy.act({}, None, mask, noise).actions.tolist())
    assert masked[1] == 0 and 1400 < masked[0] < 1600


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


def test_episode_noise_is_the_episode_s_own():
    first, second = EpisodeNoise(2), EpisodeNoise(3)
    seeds = evaluation_seeds(1)[0]
    first.begin(0, seeds)
    second.uniform(4)
    second.begin(2, seeds)
    np.testing.assert_array_equal(first.uniform(3)[0], second.uniform(3)[2])


def test_an_observation_without_an_encoder_is_refused():
    spec = GamesSpec(tasks=("x",), obs={"smell": ObsSpec(shape=(2,), dtype=np.dtype(np.float32))}, action_names=("a",))
    with pytest.raises(ValueError, match="no encoder for observation 'smell'"):
        ActorCritic(ModelConfig(), spec, 1)
