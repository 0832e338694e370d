"""Builds the parts of a run from its configuration: the only place that knows which class goes where."""

from __future__ import annotations

import torch

from agents.devices import device
from agents.model import ActorCritic
from agents.policy import TorchPolicy
from agents.ppo import PPOLearner
from agents.rollout import RolloutWorker
from envs.protocols import Games, GamesSpec, SeedSource
from envs.seeding import TrainingSeeds
from envs.tasks import make
from launch.config import TrainConfig
from rewards.env import EnvReward
from rewards.labels.labeller import Labeller
from rewards.labels.store import LabelStore
from rewards.labels.table import LabelTable
from rewards.mix import Ingredient, RewardMix
from rewards.oni.retrieval import RetrievalReward


def build_games(config: TrainConfig, num_games: int, seeds: SeedSource) -> Games:
    """The run's games, in this process."""
    return make(config.env, num_games, seeds)


def build_model(config: TrainConfig, spec: GamesSpec, num_streams: int) -> ActorCritic:
    """The network, with weights that the run's seed fixes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return ActorCritic(config.model, spec, num_streams)


def build_worker(config: TrainConfig, stream: int, num_streams: int) -> RolloutWorker:
    """A rollout worker, its games and its network on this process's CPU."""
    rollout = config.rollout
    games = build_games(config, rollout.games_per_worker, TrainingSeeds(config.seed, stream, rollout.games_per_worker))
    policy = TorchPolicy(build_model(config, games.spec, num_streams), torch.device("cpu"), config.ppo.precision)
    return RolloutWorker(games, policy, rollout.num_steps, config.seed, stream)


def build_learner(config: TrainConfig, spec: GamesSpec, mix: RewardMix) -> PPOLearner:
    """The PPO learner on the configured device."""
    model = build_model(config, spec, len(mix.streams))
    return PPOLearner(model, config.ppo, mix.gammas, device(config.device), config.seed)


def build_mix(config: TrainConfig, table: LabelTable) -> RewardMix:
    """Every reward of the run; ``table`` is filled by whoever reads labels."""
    reward = config.reward
    ingredients = [Ingredient(model=EnvReward(), config=reward.env)]
    if reward.oni.weight > 0:
        retrieval = RetrievalReward(table, reward.oni.count_exponent)
        ingredients.append(Ingredient(model=retrieval, config=reward.oni))
    return RewardMix(ingredients, {"extrinsic": reward.extrinsic, "intrinsic": reward.intrinsic})


def build_labeller(config: TrainConfig, store_path: str) -> tuple[LabelStore, Labeller]:
    """The run's label store, and the labeller that writes it; whoever asked closes both.

    Raises:
        LabelStoreError: the store is damaged, or another run writes it.
    """
    labels = config.labels
    store = LabelStore(store_path)
    return store, Labeller(store, labels.client.build(), labels.spec, labels.labeller)
