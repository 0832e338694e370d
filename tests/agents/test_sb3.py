"""Stable-Baselines3's algorithms on our games and rewards, and its models in our evaluation."""

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.config import EncoderConfig, ModelConfig
from agents.evaluate import evaluate
from agents.model import ActorCritic
from agents.noise import EpisodeNoise
from agents.policy import TorchPolicy
from agents.sb3 import (
    GamesVecEnv,
    RewardVecEnvWrapper,
    Sb3Policy,
    actor_critic_weights,
    load_model,
    network_kwargs,
)
from envs.data import EndStatus, FinalObs, RewardOutput, RewardPart, Rollout
from envs.seeding import ListedSeeds, TrainingSeeds, evaluation_seeds
from envs.toy import BanditGames, CorridorGames, MaskedGames, MemoryGames

SMALL = ModelConfig(encoder=EncoderConfig(hidden=32, vector_hidden=32))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path))


def reached(rollout):
    """Observations [T, B, ...] that the actions led to, those that ended an episode included."""
    obs = rollout.obs["vector"][1:].copy()
    t, b = rollout.final_obs.at.T
    obs[t, b] = rollout.final_obs.obs["vector"]
    return obs


class NewCells:
    """Pays each cell of a corridor once an episode; knows nothing of bumps into the wall."""

    part_names = ("cells",)
    version = 0

    def __init__(self, length=6):
        self.length = length

    def initial_state(self, num_games):
        return {"seen": np.zeros((num_games, self.length), bool)}

    def score(self, rollout, state):
        seen = state["seen"].copy()
        cells = reached(rollout)[..., : self.length].argmax(-1)
        value = np.zeros(cells.shape, np.float32)
        for t, row in enumerate(cells):
            everyone = np.arange(len(row))
            value[t] = ~seen[everyone, row] & (row > 0)
            seen[everyone, row] = True
            seen[rollout.done[t]] = False
        return {"cells": RewardPart(value=value, valid=rollout.actions != 2)}, {"seen": seen}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def corridor(num_games=8, seed=1, **settings):
    return CorridorGames(num_games, TrainingSeeds(seed, 0, num_games), **{"limit": 12, **settings})


def joined(rollouts):
    """Consecutive rollouts of one step as one."""
    at = np.concatenate([r.final_obs.at + np.array([t, 0]) for t, r in enumerate(rollouts)])
    names = ["actions", "env_reward", "terminated", "truncated", "end_status", "policy_version"]
    names += ["episode_id", "step_in_episode", "caption_id", "caption_count"]
    obs = {k: np.concatenate([r.obs[k][:1] for r in rollouts] + [rollouts[-1].obs[k][1:]]) for k in rollouts[0].obs}
    finals = {k: np.concatenate([r.final_obs.obs[k] for r in rollouts]) for k in obs}
    columns = {name: np.concatenate([getattr(r, name) for r in rollouts]) for name in names}
    return Rollout(obs=obs, final_obs=FinalObs(at=at, obs=finals), **columns)


# -- GamesVecEnv


def test_a_step_says_what_the_games_say_in_sb3_terms():
    venv, games = GamesVecEnv(corridor(2, limit=3)), corridor(2, limit=3)
    np.testing.assert_array_equal(venv.reset()["vector"], games.reset()["vector"])
    wait = np.full(2, 2)
    for _ in range(2):
        obs, reward, done, infos = venv.step(wait)
        games.step(wait)
        assert infos == [{}, {}] and not done.any() and not reward.any()
    obs, reward, done, infos = venv.step(wait)
    played = games.step(wait)
    assert done.all() and all(info["TimeLimit.truncated"] for info in infos)
    np.testing.assert_array_equal(infos[1]["terminal_observation"]["vector"], played.final_obs[1]["vector"])
    np.testing.assert_array_equal(obs["vector"], played.obs["vector"])
    assert infos[0]["episode"]["r"] == 0.0 and infos[0]["episode"]["l"] == 3 and infos[0]["is_success"] is False
    assert infos[0]["result"].end_status == EndStatus.ABORTED


def test_observations_stay_as_they_were_when_the_games_go_on():
    venv = GamesVecEnv(corridor(2))
    first = venv.reset()
    before = first["vector"].copy()
    venv.step(np.zeros(2, int))
    venv.step(np.ones(2, int))
    np.testing.assert_array_equal(first["vector"], before)
    assert venv.observation_space["vector"].shape == before.shape[1:]


def test_games_that_lack_actions_are_refused():
    with pytest.raises(ValueError, match="game 0 lacks action 0"):
        GamesVecEnv(MaskedGames(4, TrainingSeeds(1, 0, 4)))


def test_games_that_run_out_of_episodes_say_so():
    venv = GamesVecEnv(CorridorGames(1, ListedSeeds(evaluation_seeds(1)), limit=1))
    venv.reset()
    venv.step(np.zeros(1, int))
    with pytest.raises(RuntimeError, match="no more episodes"):
        venv.step(np.zeros(1, int))


# -- RewardVecEnvWrapper


def played(venv, steps, seed=0):
    rng = np.random.default_rng(seed)
    venv.reset()
    for _ in range(steps):
        actions = np.array([venv.action_space.sample() for _ in range(venv.num_envs)])
        if hasattr(venv.action_space, "n"):
            actions = rng.choice(3, venv.num_envs, p=[0.2, 0.7, 0.1])
        yield venv.step(actions)


def test_scoring_step_by_step_equals_scoring_the_whole_at_once():
    rollouts, paid = [], []
    venv = RewardVecEnvWrapper(GamesVecEnv(corridor(4)), NewCells(), on_step=lambda r, parts: rollouts.append(r))
    for _, reward, _, _ in played(venv, 60):
        paid.append(reward)
    whole = joined(rollouts)
    parts, _ = NewCells().score(whole, NewCells().initial_state(4))
    part = parts["cells"]
    np.testing.assert_array_equal(np.stack(paid), np.where(part.valid, part.value, 0))
    assert venv.num_scored == 240 and venv.num_invalid["cells"] == (~part.valid).sum() > 0
    assert whole.done.sum() > 5
    # Episodes are numbered, and count their steps and captions.
    assert len(np.unique(whole.episode_id)) == whole.done.sum() + 4
    starts = np.vstack([np.ones((1, 4), bool), whole.done[:-1]])
    np.testing.assert_array_equal(whole.step_in_episode == 0, starts)
    spoken = whole.caption_id != 0
    assert spoken.any() and (whole.caption_count[spoken] >= 1).all()
    assert {text for r in rollouts for text in r.new_captions.values()} >= {
        "You see here the key.",
        "You win!",
    }


def test_the_true_reward_and_return_are_kept():
    venv = RewardVecEnvWrapper(GamesVecEnv(corridor(1)), NewCells())
    venv.reset()
    for step in range(5):
        _, reward, done, (info,) = venv.step(np.ones(1, int))
        assert reward[0] == 1.0 and info["env_reward"] == (step == 4)
    assert done[0] and info["episode"]["r"] == 1.0 and info["scored_return"] == 5.0


class Mixed:
    """Answers as a mix does: two streams."""

    version = 3

    def initial_state(self, num_games):
        return []

    def score(self, rollout, state):
        streams = np.stack([np.full(rollout.env_reward.shape, 2.0), np.full(rollout.env_reward.shape, 0.5)], -1)
        return RewardOutput(streams=streams.astype(np.float32), parts={}), state


def test_the_streams_of_a_mix_are_added_up():
    venv = RewardVecEnvWrapper(GamesVecEnv(corridor(2)), Mixed())
    assert [reward.tolist() for _, reward, _, _ in played(venv, 2)] == [[2.5, 2.5]] * 2
    assert venv.last_version == 3


class Upright:
    """Pays Pendulum's cosine."""

    part_names = ("upright",)
    version = 0

    def initial_state(self, num_games):
        return {}

    def score(self, rollout, state):
        value = reached(rollout)[..., 0].astype(np.float32)
        return {"upright": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state


def test_any_vec_env_will_do():
    made = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1", max_episode_steps=20)] * 2)
    venv = RewardVecEnvWrapper(made, Upright(), weights={"upright": 2.0})
    done, infos = np.zeros(2, bool), []
    for obs, reward, done, infos in played(venv, 20):  # noqa: B007
        shown = np.stack([infos[b].get("terminal_observation", obs[b]) for b in range(2)])
        np.testing.assert_allclose(reward, 2 * shown[:, 0])
    assert done.all() and infos[0]["episode"]["r"] < 0 and infos[0]["episode"]["l"] == 20
    assert venv.last.truncated.all() and (venv.last.end_status == EndStatus.ABORTED).all()
    assert venv.last.caption_id is None


# -- learning


def success(model, make_games, episodes=50, deterministic=False):
    policy = Sb3Policy(model, make_games(1, TrainingSeeds(0, 0, 1)).spec)
    results = evaluate(policy, make_games, evaluation_seeds(episodes), deterministic=deterministic)
    return float(np.mean([result.success for result in results]))


def corridor_of(num_games, seeds):
    return CorridorGames(num_games, seeds, length=10, limit=18)


def test_sb3_ppo_learns_from_our_reward_alone():
    games = corridor_of(8, TrainingSeeds(1, 0, 8))
    venv = RewardVecEnvWrapper(GamesVecEnv(games), NewCells(10))
    kwargs = network_kwargs(SMALL)
    hyper = {
        "n_steps": 64,
        "batch_size": 128,
        "n_epochs": 4,
        "learning_rate": 3e-3,
        "gamma": 0.95,
        "ent_coef": 0.01,
    }
    model = PPO("MultiInputPolicy", venv, policy_kwargs=kwargs, seed=1, device="cpu", **hyper)
    assert success(model, corridor_of) < 0.5
    model.learn(16_000)
    assert success(model, corridor_of) > 0.9


# -- Sb3Policy


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


# -- the same network


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
