"""Models of Stable-Baselines3 as policies, and our network in theirs."""

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO, SAC

from agents.config import EncoderConfig, ModelConfig
from agents.evaluate import EpisodeNoise, evaluate
from agents.model import ActorCritic
from agents.policy import TorchPolicy
from agents.sb3 import (
    GamesVecEnv,
    Sb3Policy,
    actor_critic_weights,
    load_model,
    network_kwargs,
)
from envs.seeding import TrainingSeeds, evaluation_seeds
from envs.toy import BanditGames, CorridorGames, MaskedGames, MemoryGames

SMALL = ModelConfig(encoder=EncoderConfig(hidden=32, vector_hidden=32))


def corridor(num_games=8, seed=1, **settings):
    return CorridorGames(num_games, TrainingSeeds(seed, 0, num_games), **{"limit": 12, **settings})


def untrained(algorithm, games, policy="MultiInputPolicy", **settings):
    return algorithm(policy, GamesVecEnv(games), seed=1, device="cpu", **settings)


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_an_episode_plays_out_the_same_whichever_games_run_beside_it(algorithm):
    model = untrained(algorithm, corridor(2))
    model.exploration_rate = 0.5  # of DQN
    policy = Sb3Policy(model, corridor(1).spec)
    seeds = evaluation_seeds(6)

    def lengths(num_games, listed):
        results = evaluate(policy, lambda n, s: CorridorGames(n, s, limit=40), listed, num_games=num_games)
        return {result.seeds: result.num_steps for result in results}

    together = lengths(4, seeds)
    assert len(together) == 6 and len(set(together.values())) > 1
    assert lengths(1, seeds[3:]) == {s: together[s] for s in seeds[3:]}


def test_continuous_models_play_too():
    games = BanditGames(2, TrainingSeeds(1, 0, 2), continuous=True)
    policy = Sb3Policy(untrained(SAC, games, buffer_size=10), games.spec)
    acted = policy.act(games.reset(), None, None, EpisodeNoise(2))
    assert acted.actions.shape == (2, 1) and acted.actions[0] != acted.actions[1]
    again = policy.act(games.reset(), None, None, EpisodeNoise(2), deterministic=True)
    assert again.actions.shape == (2, 1)


def test_models_of_other_games_and_masks_are_refused():
    model = untrained(PPO, corridor(2))
    with pytest.raises(ValueError, match=r"observes 'vector' of shape \(7,\); in these games it is of shape \(3,\)"):
        Sb3Policy(model, MemoryGames(1, TrainingSeeds(0, 0, 1)).spec)
    masked = MaskedGames(4, TrainingSeeds(0, 0, 4))
    with pytest.raises(ValueError, match=r"the model acts in Discrete\(3\), these games in Discrete\(4\)"):
        Sb3Policy(model, masked.spec)
    with pytest.raises(ValueError, match="lacks action"):
        Sb3Policy(model, corridor(1).spec).act(masked.reset(), None, masked.action_mask, EpisodeNoise(4))


def test_a_saved_model_is_loaded_by_its_algorithms_name(tmp_path):
    model = untrained(PPO, corridor(2), policy_kwargs=network_kwargs(SMALL))
    model.save(tmp_path / "model.zip")
    loaded = Sb3Policy(load_model(tmp_path / "model.zip", "ppo"), corridor(1).spec)
    obs = corridor(4).reset()
    args = (obs, None, None)
    here = Sb3Policy(model, corridor(1).spec).act(*args, EpisodeNoise(4, 3)).actions
    np.testing.assert_array_equal(loaded.act(*args, EpisodeNoise(4, 3)).actions, here)
    with pytest.raises(ValueError, match="unknown Stable-Baselines3 algorithm 'pppo'; allowed: ppo, a2c"):
        load_model(tmp_path / "model.zip", "pppo")
    with pytest.raises(ValueError, match="there is no"):
        load_model(tmp_path / "other.zip", "ppo")


def test_sb3_has_exactly_our_network():
    games = corridor(2)
    model = untrained(PPO, games, policy_kwargs=network_kwargs(SMALL))
    ours = ActorCritic(SMALL, games.spec, 1)
    weights = actor_critic_weights(model.policy)
    assert {name: x.shape for name, x in weights.items()} == {n: tuple(x.shape) for n, x in ours.state_dict().items()}
    assert sum(p.numel() for p in model.policy.parameters()) == sum(p.numel() for p in ours.parameters())
    policy = TorchPolicy(ours, torch.device("cpu"))
    policy.load(weights, 1)
    obs = {key: x.copy() for key, x in games.reset().items()}
    theirs = model.policy.predict_values(model.policy.obs_to_tensor(obs)[0]).detach().numpy()
    np.testing.assert_allclose(policy.evaluate(obs, None), theirs, rtol=1e-5, atol=1e-6)
    seeds = evaluation_seeds(8)

    def plays(acting):
        make_games = lambda n, s: CorridorGames(n, s, limit=40)  # noqa: E731
        return [(r.seeds, r.num_steps) for r in evaluate(acting, make_games, seeds, noise_seed=5)]

    assert plays(policy) == plays(Sb3Policy(model, games.spec))


def test_sb3_initialises_and_optimises_as_we_do():
    model = untrained(PPO, corridor(2), policy_kwargs=network_kwargs(SMALL))
    (group,) = model.policy.optimizer.param_groups
    assert group["eps"] == 1e-5 and group["weight_decay"] == 0
    assert model.clip_range_vf is None and model.normalize_advantage and model.target_kl is None
    for name, gain in (
        ("action_net", 0.01),
        ("value_net", 1.0),
        ("features_extractor.encoder.joint.0", 2**0.5),
    ):
        singular = torch.linalg.svdvals(model.policy.get_submodule(name).weight)
        torch.testing.assert_close(singular, torch.full_like(singular, gain))
        assert not model.policy.get_submodule(name).bias.any()


def test_a_recurrent_core_is_refused():
    with pytest.raises(ValueError, match="no memory"):
        network_kwargs(ModelConfig(core="gru"))
