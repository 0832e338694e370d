"""The whole configuration of a run: composes what each package defines, and checks what spans packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from agents.config import ENCODED_KEYS, ModelConfig, PPOConfig
from envs.data import Config
from envs.spec import GamesConfig
from launch.llm.config import ServerConfig
from rewards.config import RewardConfig
from rewards.labels.config import LabelsConfig
from rewards.labels.questions import PromptSpec
from rewards.llm.config import LLMConfig


class RolloutConfig(Config):
    """How experience is collected."""

    num_workers: Annotated[int, Field(ge=0, le=1024)] = 2
    """Ray rollout workers; 0 plays in the driver's own process, for debugging."""
    games_per_worker: Annotated[int, Field(gt=0, le=4096)] = 8
    """Games that each worker steps side by side."""
    num_steps: Annotated[int, Field(gt=0)] = 128
    """Steps of each game in a rollout."""
    max_policy_lag: Annotated[int, Field(ge=0, le=64)] = 0
    """Updates that a rollout may be older than the policy that learns from it; 0 = synchronous."""
    max_worker_deaths: Annotated[int, Field(ge=0)] = 10
    """Worker deaths within ten minutes after which the run ends."""
    recycle_growth_mb: Annotated[float, Field(gt=0)] = 1024.0
    """Memory by which a Ray worker may grow after its first rollout; the next checkpoint puts a fresh process in
    its place, which plays on where it stood."""


class LoggingConfig(Config):
    """What is written while a run goes on."""

    interval_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between lines of metrics."""
    tensorboard: bool = True
    """Write TensorBoard files beside metrics.jsonl."""


class CheckpointConfig(Config):
    """When the run is saved."""

    interval_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds between checkpoints; one is always written at the end and on SIGTERM or Ctrl-C."""
    interval_updates: Annotated[int, Field(gt=0)] | None = None
    """Updates between checkpoints, instead of seconds."""
    keep: Annotated[int, Field(ge=2)] = 3
    """Newest checkpoints that are kept."""


class TrainConfig(Config):
    """A training run."""

    preset: str
    """Name of the preset that this configuration began as."""
    name: str | None = None
    """Name of the run's folder; none = the preset's name and the next free number."""
    runs: Path = Path("runs")
    """Folder that holds the runs."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games, noise, initial weights and minibatches."""
    total_steps: Annotated[int, Field(gt=0)] = 500_000
    """Steps of the environment, over all games."""
    placement: Literal["auto", "split", "symmetric"] = "auto"
    """Who learns: the driver, from what rollout workers play (split; right for a GPU), or every worker by
    itself, with gradients averaged (symmetric; the fastest on a few CPU cores). auto = symmetric where the
    learner computes on CPUs, is synchronous and has workers, else split."""
    device: str = "auto"
    """Where the learner computes: cpu, cuda, or auto."""
    threads: Annotated[int, Field(gt=0)] = 1
    """Threads of the learner's arithmetic on a CPU. More than one helps only large networks on idle cores:
    threads that wait for a busy core cost more than they bring."""
    ray_address: str | None = None
    """Ray cluster to join; none = start one on this machine for the run."""
    profile: bool = False
    """Write the run folder's profile/: where the time of every process goes, as a table and as a trace."""
    env: GamesConfig = GamesConfig()
    rollout: RolloutConfig = RolloutConfig()
    model: ModelConfig = ModelConfig()
    ppo: PPOConfig = PPOConfig()
    reward: SerializeAsAny[RewardConfig] = RewardConfig()  # a class of its own where there are custom kinds
    labels: LabelsConfig = LabelsConfig()
    llm: LLMConfig = LLMConfig()
    llm_server: ServerConfig = ServerConfig()
    logging: LoggingConfig = LoggingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    @property
    def num_rollouts(self) -> int:
        """Rollouts in each batch: one a worker."""
        return max(1, self.rollout.num_workers)

    @property
    def batch_steps(self) -> int:
        """Environment steps in each update."""
        return self.num_rollouts * self.rollout.games_per_worker * self.rollout.num_steps

    @property
    def can_be_symmetric(self) -> bool:
        """Nothing but the device can still speak against ``placement=symmetric``."""
        return self._against_symmetric() is None

    def _against_symmetric(self) -> str | None:
        workers, minibatch = self.rollout.num_workers, self.ppo.minibatch
        if workers == 0:
            return "rollout.num_workers of at least 1: peers are rollout workers that learn"
        if self.rollout.max_policy_lag > 0:
            return "rollout.max_policy_lag 0: peers learn from what they played last"
        if minibatch % workers:
            return f"ppo.minibatch {minibatch} to be a multiple of rollout.num_workers {workers}: peers share it"
        if self.model.core != "none" and minibatch // workers < self.rollout.num_steps:
            return (
                f"a share of ppo.minibatch {minibatch} for each of {workers} peers that holds a whole sequence "
                f"of rollout.num_steps {self.rollout.num_steps}, because the core is recurrent"
            )
        return None

    @property
    def features(self) -> tuple[str, ...]:
        """Columns of the schema that the games record: those asked for, and those that rewards read."""
        read = [column for kind, part in self.reward.paid.values() for column in kind.columns(part)]
        return tuple(dict.fromkeys((*self.env.features, *read)))

    @property
    def questions(self) -> Mapping[str, PromptSpec]:
        """What an annotator is asked by the rewards: ``{what about: wording}``.

        Raises:
            ValueError: the annotator or the wording does not suit a reward.
        """
        found: dict[str, PromptSpec] = {}
        for name, (kind, part) in self.reward.paid.items():
            try:
                found |= kind.questions(part, self.labels, self.llm)
            except ValueError as error:
                raise ValueError(f"reward.{name}.{error}") from None
        return found

    @property
    def uses_labels(self) -> bool:
        """An annotator is asked."""
        return bool(self.questions)

    @property
    def asks_language_model(self) -> bool:
        """A language model is asked for labels."""
        return self.uses_labels and self.labels.client.asks_language_model(self.llm)

    @model_validator(mode="after")
    def _across_packages(self) -> Self:
        unread = [key for key in self.env.obs_keys if key not in ENCODED_KEYS]
        if unread:
            raise ValueError(f"env.obs_keys: the network cannot read '{unread[0]}'; it reads {', '.join(ENCODED_KEYS)}")
        if self.rollout.num_workers == 0 and self.rollout.max_policy_lag > 0:
            raise ValueError(
                "rollout.max_policy_lag above 0 needs rollout.num_workers of at least 1: "
                "the driver cannot collect while it learns"
            )
        if self.placement == "symmetric" and (needs := self._against_symmetric()) is not None:
            raise ValueError(f"placement=symmetric needs {needs}")
        if self.placement == "symmetric" and self.device.startswith("cuda"):
            raise ValueError("placement=symmetric computes on CPUs; for a GPU set placement to split")
        if self.ppo.minibatch > self.batch_steps:
            raise ValueError(
                f"ppo.minibatch {self.ppo.minibatch} is larger than a batch of {self.batch_steps} steps "
                "(workers x games_per_worker x num_steps)"
            )
        if self.model.core != "none" and self.ppo.minibatch < self.rollout.num_steps:
            raise ValueError(
                f"ppo.minibatch {self.ppo.minibatch} holds no whole sequence of rollout.num_steps "
                f"{self.rollout.num_steps}, which a recurrent core needs"
            )
        if self.labels.mode == "barrier" and self.rollout.max_policy_lag > 0:
            raise ValueError("labels.mode=barrier is for synchronous runs: set rollout.max_policy_lag to 0")
        if self.asks_language_model and not self.llm.is_named:
            raise ValueError("labels.client.kind=llm needs a language model: give llm.base_url or llm.serve")
        if not self.reward.streams:
            names = " or ".join(f"reward.{name}.weight" for name in self.reward.kinds)
            raise ValueError(f"every reward has weight 0: set {names} above 0")
        return self


_MAY_CHANGE_ON_RESUME = frozenset(
    {
        "total_steps",
        "name",
        "runs",
        "device",
        "threads",
        "ray_address",
        "env.engine",
        "profile",
        "logging.interval_s",
        "logging.tensorboard",
        "checkpoint.interval_s",
        "checkpoint.interval_updates",
        "checkpoint.keep",
        "rollout.max_worker_deaths",
        "llm.base_url",
        "llm.required",
        "llm.api_key_env",
        "llm.max_batch",
        "llm.max_in_flight",
        "llm_server.*",
        "rollout.recycle_growth_mb",
    }
)


def may_change_on_resume(config: TrainConfig) -> frozenset[str]:
    """Fields that do not change what is learned, up to where the run now ends.

    Another device or number of threads changes the last bits of sums.
    """
    # An annealed learning rate depends on where the run is to end.
    fixed = {"total_steps"} if config.ppo.anneal != "none" else set()
    return _MAY_CHANGE_ON_RESUME - fixed
