"""Builds the parts of a run from its configuration: the only place that knows which class goes where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from agents.devices import device
from agents.model import ActorCritic
from agents.policy import TorchPolicy, encoding
from agents.ppo import PPOLearner
from agents.rollout import RolloutWorker
from envs.protocols import Games, GamesSpec, SeedSource
from envs.seeding import TrainingSeeds
from envs.tasks import make
from launch.config.train_config import TrainConfig
from launch.errors import UserError
from launch.processes.learning import Learning
from launch.runs.folder import read_events
from rewards.kinds import Encode, ScoringContext
from rewards.labels.annotators import build_client
from rewards.labels.labeller import Labeller
from rewards.labels.questions import PromptSpec
from rewards.labels.store import LabelStore
from rewards.mix import RewardMix, build_mix
from rewards.parts import PartConfig

Given = Mapping[str, Any]
"""What each kind of reward found in the run's folder, for those who score and for its teacher: ``RewardKind.load``."""

PROFILED_SPANS = 100_000
"""Stretches of work that a process keeps for a profile before it goes on without."""


def build_games(config: TrainConfig, num_games: int, seeds: SeedSource) -> Games:
    """The run's games, in this process, with the schema columns that its rewards read."""
    return make(config.env.replace(features=config.features), num_games, seeds)


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


def build_peer(config: TrainConfig, stream: int, given: Given) -> tuple[RolloutWorker, Learning]:
    """A worker and what learns from it, with one network between them, on this process's CPU."""
    rollout = config.rollout
    games = build_games(config, rollout.games_per_worker, TrainingSeeds(config.seed, stream, rollout.games_per_worker))
    learning = build_learning(config, games.spec, f"worker {stream}", given)
    policy = TorchPolicy(learning.learner.model, torch.device("cpu"), config.ppo.precision)
    return _worker(config, games, policy, stream), learning


def _worker(config: TrainConfig, games: Games, policy: TorchPolicy, stream: int) -> RolloutWorker:
    worker = RolloutWorker(games, policy, config.rollout.num_steps, config.seed, stream)
    worker.phases.spans_left = PROFILED_SPANS if config.profile else 0
    return worker


def build_learning(config: TrainConfig, spec: GamesSpec, name: str = "learner", given: Given | None = None) -> Learning:
    """Rewards and learner.

    Args:
        config: the run's.
        spec: of the games.
        name: the process's, in profiles and events.
        given: see ``given_to_rewards``.
    """
    learner = build_learner(config, spec)
    learner.phases.spans_left = PROFILED_SPANS if config.profile else 0
    mix = build_rewards(config, spec, name, given, encoding(learner.model, config.ppo.precision))
    caption_parts = [kind for kind, (of, _) in config.reward.paid.items() if of.pays_captions]
    return Learning(mix, learner, name, caption_parts)


def build_learner(config: TrainConfig, spec: GamesSpec) -> PPOLearner:
    """The PPO learner on the configured device."""
    gammas = [stream.gamma for stream in config.reward.streams.values()]
    model = build_model(config, spec, len(gammas))
    return PPOLearner(model, config.ppo, gammas, device(config.device), config.seed)


def build_rewards(
    config: TrainConfig,
    spec: GamesSpec,
    name: str = "learner",
    given: Given | None = None,
    encode: Encode | None = None,
) -> RewardMix:
    """Every reward of the run, as one of its processes scores with it.

    Args:
        config: the run's.
        spec: of the games.
        name: the process's.
        given: see ``given_to_rewards``.
        encode: the policy's encoder; None where no policy is at hand.
    """
    streams = config.reward.streams

    def context(kind: str, part: PartConfig) -> ScoringContext:
        return ScoringContext(
            spec=spec,
            num_tasks=len(config.env.task_ids),
            gamma=streams[part.stream].gamma if part.stream in streams else 1.0,
            scorer=name,
            encode=encode,
            seed=config.seed,
            given=(given or {}).get(kind),
        )

    return build_mix(config.reward, context)


def given_to_rewards(config: TrainConfig, run: Path) -> Given:
    """What the rewards of a run find in its folder.

    Raises:
        UserError: something is not there any more, or was edited.
    """
    events = read_events(run)
    given = {}
    for name, (kind, part) in config.reward.paid.items():
        try:
            given[name] = kind.load(part, run, events)
        except ValueError as error:
            raise UserError(f"reward.{name}.{error}") from None
    return given


def build_labeller(
    config: TrainConfig, store_path: str, spec: PromptSpec, run_id: str | None = None
) -> tuple[LabelStore, Labeller]:
    """A label store, and a labeller that writes it; both are the caller's to close.

    Args:
        config: the run's.
        store_path: the label store; several labellers may write one.
        spec: what is asked.
        run_id: whose budget is spent, the same after a resume; None = a run of its own.

    Raises:
        LabelStoreError: the store cannot be written.
    """
    labels = config.labels
    client = build_client(labels.client, config.llm)
    store = LabelStore(store_path)
    return store, Labeller(store, client, spec, labels.labeller, run_id)
