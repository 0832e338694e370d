"""Where an evaluated policy comes from: small records that cross processes and build it there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from envs.protocols import GamesSpec, Policy
from envs.tasks import GamesConfig
from launch.config.flags import validate
from launch.config.train import TrainConfig
from launch.errors import UserError
from launch.runs import checkpoint as checkpoints
from launch.runs.folder import read_config


class PolicySource(Protocol):
    """Says what is evaluated, and builds it in whichever process plays."""

    @property
    def name(self) -> str:
        """Short, fit for a folder: which policy, at which step."""
        ...

    @property
    def step(self) -> int | None:
        """Environment steps it was trained for; None where that is not known."""
        ...

    @property
    def folder(self) -> Path:
        """Where its evaluations are kept."""
        ...

    @property
    def games(self) -> GamesConfig:
        """The games as the policy knows them (observation keys, crop)."""
        ...

    def build(self, games_spec: GamesSpec) -> Policy:
        """The policy, ready to play games of this specification."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What a reader of the figures needs to find the policy again."""
        ...


@dataclass(frozen=True)
class RandomSource:
    """The random policy: the floor under every figure."""

    runs: Path = Path("runs")
    games: GamesConfig = field(default_factory=GamesConfig)
    name: str = "random"
    step: int | None = None

    @property
    def folder(self) -> Path:
        """``runs/random/eval``."""
        return self.runs / "random" / "eval"

    def build(self, games_spec: GamesSpec) -> Policy:
        """Uniform over allowed actions."""
        from agents.random_policy import RandomPolicy

        return RandomPolicy(games_spec)

    def provenance(self) -> dict[str, Any]:
        """Nothing to find."""
        return {"policy": "random"}


@dataclass(frozen=True)
class RunSource:
    """A checkpoint of a training run.

    Use ``of`` to choose it.
    """

    path: Path
    step: int
    config: TrainConfig
    precision: str = "fp32"

    @classmethod
    def of(cls, path: Path, step: int | None = None) -> RunSource:
        """The run's newest valid checkpoint, or the one of a step.

        Raises:
            UserError: there is no run, or no such checkpoint.
        """
        config = validate(TrainConfig, read_config(path))
        known = checkpoints.steps_of(path)
        if step is not None and step not in known:
            raise UserError(f"run {path} has no checkpoint of step {step}; it has {', '.join(map(str, known))}")
        if step is None:
            newest = checkpoints.load_latest(path, lambda text: print(f"yendor: {text}"))
            if newest is None:
                raise UserError(f"run {path} has no checkpoint yet")
            step = newest.step
        return cls(path, step, config)

    @property
    def name(self) -> str:
        """The checkpoint's step, and the first digits of its weights' checksum."""
        manifest = json.loads((self._weights_file() / "manifest.json").read_text())
        return f"step-{self.step:012d}-{manifest['files']['model.safetensors']['sha256'][:8]}"

    @property
    def folder(self) -> Path:
        """``eval`` in the run's folder."""
        return self.path / "eval"

    @property
    def games(self) -> GamesConfig:
        """As trained on."""
        return self.config.env

    def _weights_file(self) -> Path:
        return self.path / "checkpoints" / f"{self.step:012d}"

    def build(self, games_spec: GamesSpec) -> Policy:
        """The checkpoint's network, its actions translated where these games have others."""
        import torch

        from agents.policy import TorchPolicy
        from agents.translation import translated
        from launch.training.driver import games_spec as spec_of
        from launch.training.wiring import build_model

        saved = checkpoints.load(self._weights_file())
        trained = games_spec if games_spec.tasks[:1] == (self.config.env.task,) else spec_of(self.config)
        num_streams = len(saved.tensors["model"]["value.bias"])
        model = build_model(self.config, trained, num_streams)
        policy = TorchPolicy(model, torch.device("cpu"), self.precision, version=self.step)
        policy.load(saved.tensors["model"], self.step)
        return translated(policy, trained.action_names, games_spec.action_names)

    def provenance(self) -> dict[str, Any]:
        """Run, step, checksum and seed."""
        manifest = json.loads((self._weights_file() / "manifest.json").read_text())
        return {
            "policy": "run",
            "run": self.path.name,
            "preset": self.config.preset,
            "step": self.step,
            "train_seed": self.config.seed,
            "train_task": self.config.env.task,
            "checkpoint_files": manifest["files"],
        }
