"""What benchmarks have in common that update several variants of a run in turn, in one process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from agents.config import ModelConfig, PPOConfig
from envs.data import Config
from launch.bench.train import REFERENCE_NETWORK, TrainBench
from launch.config.train import TrainConfig

NO_LEARNING = 1e-12
"""A learning rate with which all variants keep the network that they began with, and so play alike."""

Positive = Annotated[int, Field(gt=0)]


class TurnsBench(Config):
    """Variants of a run that take turns, update by update."""

    task: str = "MiniHack-Room-5x5-v0"
    """A task id."""
    updates: Annotated[int, Field(ge=2)] = 60
    """Updates of each variant that are measured."""
    batch: Positive = 2048
    """Steps in an update, over all games."""
    games: Positive = 16
    """Games side by side."""
    threads: Positive = 1
    """Threads of the learner's arithmetic."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games, weights and the order of turns."""
    ppo: PPOConfig = PPOConfig(minibatch=512, epochs=1, learning_rate=NO_LEARNING)
    model: ModelConfig = REFERENCE_NETWORK

    def train_config(self, changes: Mapping[str, Any]) -> TrainConfig:
        """The run with some fields changed, by dotted path.

        Raises:
            UserError: the flags do not fit together.
        """
        shared = {name: getattr(self, name) for name in ("task", "batch", "threads", "seed", "ppo", "model")}
        return TrainBench(**shared).train_config(self.games, changes)
