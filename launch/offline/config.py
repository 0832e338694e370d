"""Configuration of a run that learns to plan from logged play (data only)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agents.config import ENCODED_KEYS, CriticConfig, EncoderConfig, MaskedConfig, OfflineConfig, PlanHeadConfig
from envs.data import Config
from launch.config.train_config import CheckpointConfig, LoggingConfig

KIND = "offline"
"""What ``kind`` says in the ``config.json`` of such a run; runs that play have no such key."""


class OfflineRunConfig(Config):
    """Everything that fixes an offline run but its data set's content."""

    kind: Literal["offline"] = KIND
    """Of the run: learned from logged play."""
    preset: str = "offline"
    """Names the run, and whose seeds 'yendor compare' averages."""
    data: Path = Path()
    """The data set."""
    data_sha256: str = ""
    """Of what is learned from; found out when the run starts."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    name: str | None = None
    """Name of the run; none = the next free number."""
    seed: int = 0
    """Fixes weights and every draw."""
    total_updates: Annotated[int, Field(gt=0)] = 3_000
    """Gradient steps."""
    device: str = "auto"
    """Where it computes: cpu, cuda, or auto."""
    threads: Annotated[int, Field(gt=0)] = 1
    """Threads of arithmetic on a CPU."""
    obs_keys: tuple[str, ...] | None = None
    """Observation columns that the networks read; none = all that they can read."""
    encoder: EncoderConfig = EncoderConfig(hidden=128)
    encoder_from: Path | None = None
    """A training run whose encoder is taken as it is and not learned any further; it must read the same observations.
    Its sizes take the place of ``encoder``."""
    critic_from: Path | None = None
    """An offline run whose critic is taken as it is and not learned any further; it must be of the same observations.
    Its configuration takes the place of ``critic``."""
    head: PlanHeadConfig = MaskedConfig()
    learn: OfflineConfig = OfflineConfig()
    critic: CriticConfig = CriticConfig()
    logging: LoggingConfig = LoggingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        unread = [key for key in self.obs_keys or () if key not in ENCODED_KEYS]
        if unread:
            raise ValueError(f"obs_keys: the networks cannot read '{unread[0]}'; they read {', '.join(ENCODED_KEYS)}")
        if self.learn.goals == "none" and self.critic.reward == "goal":
            raise ValueError("critic.reward=goal needs learn.goals=hindsight: without goals there is none to reach")
        return self


_MAY_CHANGE_ON_RESUME = frozenset(
    {
        "data",
        "name",
        "runs",
        "device",
        "threads",
        "logging.interval_s",
        "logging.tensorboard",
        "checkpoint.interval_s",
        "checkpoint.interval_updates",
        "checkpoint.keep",
    }
)


def may_change_on_resume(config: OfflineRunConfig) -> frozenset[str]:
    """Fields that do not change what is learned, up to where the run now ends; the data set may have moved."""
    # Annealed step sizes depend on where the run is to end.
    return _MAY_CHANGE_ON_RESUME | ({"total_updates"} if config.learn.anneal == "none" else set())
