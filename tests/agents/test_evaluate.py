"""Evaluation plays each listed episode once, the same however it is split."""

import numpy as np
import pytest
import torch

from agents.config import EncoderConfig, ModelConfig
from agents.evaluate import EpisodeNoise, evaluate
from agents.model import ActorCritic
from agents.policy import TorchPolicy
from agents.rollout import GeneratorNoise
from envs.seeding import TrainingSeeds, evaluation_seeds
from envs.toy import CorridorGames, MemoryGames


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


def test_episode_noise_is_the_episode_s_own():
    first, second = EpisodeNoise(2), EpisodeNoise(3)
    seeds = evaluation_seeds(1)[0]
    first.begin(0, seeds)
    second.uniform(4)
    second.begin(2, seeds)
    np.testing.assert_array_equal(first.uniform(3)[0], second.uniform(3)[2])


def test_noise_for_some_games_leaves_that_of_others():
    drawn, undisturbed = EpisodeNoise(3), EpisodeNoise(3)
    some = drawn.uniform(4, np.array([2, 0]))
    whole = undisturbed.uniform(4)
    np.testing.assert_array_equal(some, whole[[2, 0]])
    np.testing.assert_array_equal(drawn.uniform(4)[1], whole[1])
    assert drawn.uniform(4, np.array([], np.int64)).shape == (0, 4)


def test_one_generator_draws_as_many_numbers_as_games_ask_for():
    noise, same = GeneratorNoise(5, 7), GeneratorNoise(5, 7)
    np.testing.assert_array_equal(noise.uniform(3, np.arange(5)), same.uniform(3))
    assert noise.uniform(3, np.array([4, 1])).shape == (2, 3)
