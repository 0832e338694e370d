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
from launch.learning import Learning
from rewards.env import EnvReward
from rewards.labels.labeller import Labeller
from rewards.labels.store import LabelStore
from rewards.mix import Ingredient, RewardMix
from rewards.oni.caption_model import CaptionModel
from rewards.oni.reward import CaptionReward
from rewards.oni.values import CaptionValues

PROFILED_SPANS = 100_000
"""Stretches of work that a process keeps for a profile before it goes on without."""


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
    return _worker(config, games, policy, stream)


def build_peer(config: TrainConfig, stream: int) -> tuple[RolloutWorker, Learning]:
    """A worker and what learns from it, with one network between them, on this process's CPU."""
    rollout = config.rollout
    games = build_games(config, rollout.games_per_worker, TrainingSeeds(config.seed, stream, rollout.games_per_worker))
    learning = build_learning(config, games.spec, f"worker {stream}")
    policy = TorchPolicy(learning.learner.model, torch.device("cpu"), config.ppo.precision)
    return _worker(config, games, policy, stream), learning


def _worker(config: TrainConfig, games: Games, policy: TorchPolicy, stream: int) -> RolloutWorker:
    worker = RolloutWorker(games, policy, config.rollout.num_steps, config.seed, stream)
    worker.phases.spans_left = PROFILED_SPANS if config.profile else 0
    return worker


def build_learning(config: TrainConfig, spec: GamesSpec, name: str = "learner") -> Learning:
    """Values of captions, rewards and learner; ``name`` is the process's in profiles."""
    values = CaptionValues()
    mix = build_mix(config, values)
    learner = build_learner(config, spec, mix)
    learner.phases.spans_left = PROFILED_SPANS if config.profile else 0
    return Learning(values, mix, learner, name)


def build_learner(config: TrainConfig, spec: GamesSpec, mix: RewardMix) -> PPOLearner:
    """The PPO learner on the configured device."""
    model = build_model(config, spec, len(mix.streams))
    return PPOLearner(model, config.ppo, mix.gammas, device(config.device), config.seed)


def build_mix(config: TrainConfig, values: CaptionValues) -> RewardMix:
    """Every reward of the run; ``values`` is renewed by whoever owns the caption model."""
    reward = config.reward
    ingredients = [Ingredient(model=EnvReward(), config=reward.env)]
    if reward.oni.weight > 0:
        captions = CaptionReward(values, reward.oni.count_exponent)
        ingredients.append(Ingredient(model=captions, config=reward.oni))
    return RewardMix(ingredients, {"extrinsic": reward.extrinsic, "intrinsic": reward.intrinsic})


def num_streams_of(config: TrainConfig) -> int:
    """S: reward streams that value heads are learned for."""
    return len(build_mix(config, CaptionValues()).streams)


def build_labeller(config: TrainConfig, store_path: str, run_id: str | None = None) -> tuple[LabelStore, Labeller]:
    """The run's label store, and the labeller that writes it; whoever asked closes both.

    Args:
        config: the run's.
        store_path: the label store.
        run_id: whose budget is spent, the same after a resume; None = a run of its own.

    Raises:
        LabelStoreError: the store cannot be written.
    """
    labels = config.labels
    client = labels.client.build(config.llm)
    store = LabelStore(store_path)
    spec = labels.spec(asks_pairs=config.reward.oni.asks_pairs)
    return store, Labeller(store, client, spec, labels.labeller, run_id)


def build_caption_model(config: TrainConfig) -> CaptionModel:
    """What learns from the annotator's answers; it is seeded by the run's seed."""
    return config.reward.oni.build(config.seed)
