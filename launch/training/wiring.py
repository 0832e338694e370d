"""Builds the parts of a run from its configuration: the only place that knows which class goes where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from agents.devices import device
from agents.model import ActorCritic
from agents.policy import TorchPolicy, encoding
from agents.ppo import PPOLearner
from agents.rollout import RolloutWorker
from envs.protocols import Games, GamesSpec, RewardModel, SeedSource
from envs.seeding import TrainingSeeds
from envs.tasks import make
from launch.config.train import TrainConfig
from launch.training.learning import Learning, Preferring
from launch.training.programs import RunPrograms
from rewards.bounded import bounded
from rewards.env import EnvReward
from rewards.heron.config import TreeConfig
from rewards.heron.cutter import SegmentCutter
from rewards.heron.inputs import Encode
from rewards.heron.reward import HeronReward
from rewards.labels.annotators import build_client
from rewards.labels.labeller import Labeller
from rewards.labels.questions import PromptSpec
from rewards.labels.store import LabelStore
from rewards.mix import Ingredient, RewardMix
from rewards.oni.caption_model import CaptionModel
from rewards.oni.reward import CaptionReward
from rewards.oni.values import CaptionValues

if TYPE_CHECKING:
    from rewards.heron.trainer import HeronTrainer

PROFILED_SPANS = 100_000
"""Stretches of work that a process keeps for a profile before it goes on without."""


def build_games(config: TrainConfig, num_games: int, seeds: SeedSource) -> Games:
    """The run's games, in this process, with the schema columns that its rewards read."""
    return make(config.env.model_copy(update={"features": config.features}), num_games, seeds)


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


def build_peer(config: TrainConfig, stream: int, programs: RunPrograms | None = None) -> tuple[RolloutWorker, Learning]:
    """A worker and what learns from it, with one network between them, on this process's CPU."""
    rollout = config.rollout
    games = build_games(config, rollout.games_per_worker, TrainingSeeds(config.seed, stream, rollout.games_per_worker))
    learning = build_learning(config, games.spec, f"worker {stream}", programs)
    policy = TorchPolicy(learning.learner.model, torch.device("cpu"), config.ppo.precision)
    return _worker(config, games, policy, stream), learning


def _worker(config: TrainConfig, games: Games, policy: TorchPolicy, stream: int) -> RolloutWorker:
    worker = RolloutWorker(games, policy, config.rollout.num_steps, config.seed, stream)
    worker.phases.spans_left = PROFILED_SPANS if config.profile else 0
    return worker


def build_learning(
    config: TrainConfig, spec: GamesSpec, name: str = "learner", programs: RunPrograms | None = None
) -> Learning:
    """Values of captions, rewards and learner; ``name`` is the process's in profiles and events."""
    values = CaptionValues()
    learner = build_learner(config, spec)
    learner.phases.spans_left = PROFILED_SPANS if config.profile else 0
    heron = build_heron(config, spec, encoding(learner.model, config.ppo.precision))
    program = None if programs is None else programs.reward(config, name)
    mix = build_mix(config, values, heron, program)
    return Learning(values, mix, learner, preferring(config, heron), program, name)


def build_learner(config: TrainConfig, spec: GamesSpec) -> PPOLearner:
    """The PPO learner on the configured device."""
    gammas = [stream.gamma for stream in config.reward.streams.values()]
    model = build_model(config, spec, len(gammas))
    return PPOLearner(model, config.ppo, gammas, device(config.device), config.seed)


def build_heron(config: TrainConfig, spec: GamesSpec, encode: Encode | None = None) -> RewardModel | None:
    """The reward over ranked factors; None where it weighs nothing."""
    heron = config.reward.heron
    return heron.build(spec, encode) if heron.weight > 0 else None


def preferring(config: TrainConfig, reward: RewardModel | None) -> Preferring | None:
    """What HERON needs of those who score; None where no model learns from preferences."""
    heron = config.reward.heron
    if not isinstance(heron, TreeConfig) or not isinstance(reward, HeronReward):
        return None
    cutter = SegmentCutter(reward.inputs, heron.table(), heron.segment_steps, len(config.env.task_ids))
    return Preferring(reward=reward, cutter=cutter)


def build_mix(
    config: TrainConfig,
    values: CaptionValues,
    heron: RewardModel | None = None,
    program: RewardModel | None = None,
) -> RewardMix:
    """Every reward of the run.

    Args:
        config: the run's.
        values: what captions are worth, renewed by whoever owns the caption model.
        heron: see ``build_heron``.
        program: the reward of reward programs; None where none is chosen.
    """
    reward = config.reward
    models: dict[str, RewardModel] = {"env": EnvReward()}
    if reward.oni.weight > 0:
        models["oni"] = CaptionReward(values, reward.oni.count_exponent)
    if heron is not None:
        models["heron"] = heron
    if program is not None:
        models["program"] = program
    ingredients = [
        Ingredient(model=bounded(model, reward.parts[name]), config=reward.parts[name])
        for name, model in models.items()
    ]
    return RewardMix(ingredients, reward.streams)


def build_heron_trainer(config: TrainConfig) -> HeronTrainer | None:
    """What learns HERON's reward from the play of all workers; None where none is learned."""
    heron = config.reward.heron
    if not isinstance(heron, TreeConfig) or heron.weight == 0:
        return None
    from rewards.heron.trainer import HeronTrainer

    return HeronTrainer(heron, heron.table(), config.seed)


def build_labeller(
    config: TrainConfig, store_path: str, run_id: str | None = None, spec: PromptSpec | None = None
) -> tuple[LabelStore, Labeller]:
    """The run's label store, and a labeller that writes it; whoever asked closes both.

    Args:
        config: the run's.
        store_path: the label store; several labellers may write one.
        run_id: whose budget is spent, the same after a resume; None = a run of its own.
        spec: what is asked; None = what the reward for captions asks.

    Raises:
        LabelStoreError: the store cannot be written.
    """
    labels = config.labels
    client = build_client(labels.client, config.llm)
    store = LabelStore(store_path)
    spec = spec or labels.spec(asks_pairs=config.reward.oni.asks_pairs)
    return store, Labeller(store, client, spec, labels.labeller, run_id)


def build_caption_model(config: TrainConfig) -> CaptionModel:
    """What learns from the annotator's answers; it is seeded by the run's seed."""
    return config.reward.oni.build(config.seed)
