"""Where an evaluated policy comes from: small records that cross processes and build it there."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from envs.protocols import GamesSpec, Policy
from envs.spec import GamesConfig
from launch.config.resolve import saved_config
from launch.config.train_config import TrainConfig
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
        from agents.policy import RandomPolicy

        return RandomPolicy(games_spec)

    def provenance(self) -> dict[str, Any]:
        """Nothing to find."""
        return {"policy": "random"}


@dataclass(frozen=True)
class WalkerSource:
    """The walker (``agents.walker.Walker``): logs of play that no reward has shaped."""

    runs: Path = Path("runs")
    games: GamesConfig = field(default_factory=lambda: GamesConfig(obs_keys=("glyphs", "blstats")))
    epsilon: float = 0.2
    """Share of its actions that are drawn among all."""
    trip_steps: int | None = None
    """Most steps of a trip; None = any number."""
    to_stairs: bool = False
    """Go to the stairs down, which it else keeps off."""
    step: int | None = None

    @property
    def name(self) -> str:
        """With its options."""
        trips = "" if self.trip_steps is None else f"-trips{self.trip_steps}"
        return f"walker{trips}-epsilon{self.epsilon:g}" + ("-stairs" if self.to_stairs else "")

    @property
    def folder(self) -> Path:
        """``runs/walker/eval``."""
        return self.runs / "walker" / "eval"

    def build(self, games_spec: GamesSpec) -> Policy:
        """The walker.

        Raises:
            UserError: it cannot walk in these games, or an option is out of range.
        """
        from agents.walker import Walker

        try:
            return Walker(games_spec, epsilon=self.epsilon, trip_steps=self.trip_steps, to_stairs=self.to_stairs)
        except ValueError as error:
            raise UserError(str(error)) from None

    def provenance(self) -> dict[str, Any]:
        """Its options."""
        return {
            "policy": "walker",
            "epsilon": self.epsilon,
            "trip_steps": self.trip_steps,
            "to_stairs": self.to_stairs,
        }


def checkpoint_of(run: Path, step: int | None) -> int:
    """The step of a run's newest valid checkpoint, or the step asked for.

    Raises:
        UserError: there is no run, or no such checkpoint.
    """
    read_config(run)
    known = checkpoints.steps_of(run)
    if step is not None and step not in known:
        raise UserError(f"run {run} has no checkpoint of step {step}; it has {', '.join(map(str, known))}")
    if step is not None:
        return step
    newest = checkpoints.load_latest(run, lambda text: print(f"yendor: {text}"))
    if newest is None:
        raise UserError(f"run {run} has no checkpoint yet")
    return newest.step


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"{step:012d}"


def checkpoint_manifest(run: Path, step: int) -> dict[str, Any]:
    """What a checkpoint says of its files."""
    return json.loads((checkpoint_folder(run, step) / "manifest.json").read_text())


def checkpoint_name(run: Path, step: int) -> str:
    """Fit for a folder: the step, and the first digits of the weights' checksum."""
    return f"step-{step:012d}-{checkpoint_manifest(run, step)['files']['model.safetensors']['sha256'][:8]}"


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
        return cls(path, checkpoint_of(path, step), saved_config(path))

    @property
    def name(self) -> str:
        """The checkpoint's step, and the first digits of its weights' checksum."""
        return checkpoint_name(self.path, self.step)

    @property
    def folder(self) -> Path:
        """``eval`` in the run's folder."""
        return self.path / "eval"

    @property
    def games(self) -> GamesConfig:
        """As trained on."""
        return self.config.env

    def build(self, games_spec: GamesSpec) -> Policy:
        """The checkpoint's network, its actions translated where these games have others."""
        import torch

        from agents.policy import TorchPolicy, translated
        from launch.processes.wiring import build_model
        from launch.training.driver import games_spec as spec_of

        saved = checkpoints.load(checkpoint_folder(self.path, self.step))
        trained = games_spec if games_spec.tasks[:1] == (self.config.env.task,) else spec_of(self.config)
        num_streams = len(saved.tensors["model"]["value.bias"])
        model = build_model(self.config, trained, num_streams)
        policy = TorchPolicy(model, torch.device("cpu"), self.precision, version=self.step)
        policy.load(saved.tensors["model"], self.step)
        return translated(policy, trained.action_names, games_spec.action_names)

    def provenance(self) -> dict[str, Any]:
        """Run, step, checksum and seed."""
        return {
            "policy": "run",
            "run": self.path.name,
            "preset": self.config.preset,
            "step": self.step,
            "train_seed": self.config.seed,
            "train_task": self.config.env.task,
            "checkpoint_files": checkpoint_manifest(self.path, self.step)["files"],
        }


_TELLTALES = {
    "clip_range": "ppo",
    "exploration_rate": "dqn",
    "target_entropy": "sac",
    "policy_delay": "td3",
    "gae_lambda": "a2c",
}
"""Fields that tell which algorithm saved a model, the most telling first. (DDPG is a TD3.)"""


@dataclass(frozen=True)
class Sb3Source:
    """An SB3 zip and the algorithm that wrote it; use ``of`` to find out the rest.

    The zip holds pickled objects: building the policy runs what its maker put in. It is loaded only because
    the user named the file.
    """

    path: Path
    algorithm: str
    step: int
    """Environment steps that the model was trained for."""
    games: GamesConfig
    """The games as the model knows them."""

    @classmethod
    def of(cls, path: Path, algorithm: str | None = None, games: GamesConfig | None = None) -> Sb3Source:
        """Read what can be read without unpickling anything.

        Args:
            path: the zip.
            algorithm: ``ppo``, ``dqn``, ...: a class of SB3; None = what the model's fields tell.
            games: what the model was trained on; None = what the ``config.json`` beside the zip says, else
                the default games.

        Raises:
            UserError: there is no SB3 model there.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                saved = json.loads(archive.read("data"))
                step = int(saved["num_timesteps"])
        except FileNotFoundError:
            raise UserError(f"there is no Stable-Baselines3 model at {path}") from None
        except (zipfile.BadZipFile, KeyError, ValueError, IsADirectoryError) as error:
            raise UserError(f"{path} is not a model that Stable-Baselines3 saved ({error})") from None
        known = [name for field, name in _TELLTALES.items() if field in saved]
        if algorithm is None and not known:
            raise UserError(f"{path}: cannot tell which Stable-Baselines3 algorithm saved it; name it")
        if games is None:
            beside = path.parent / "config.json"
            games = saved_config(path.parent).env if beside.is_file() else GamesConfig()
        return cls(path, algorithm or known[0], step, games)

    @property
    def name(self) -> str:
        """File, algorithm and step."""
        return f"{self.path.stem}-{self.algorithm}-step-{self.step:012d}"

    @property
    def folder(self) -> Path:
        """``eval`` beside the zip."""
        return self.path.parent / "eval"

    def build(self, games_spec: GamesSpec) -> Policy:
        """The model's policy.

        Raises:
            UserError: the algorithm is unknown, or the model's observations or actions are not the games'.
        """
        from agents.sb3 import Sb3Policy, load_model

        try:
            return Sb3Policy(load_model(self.path, self.algorithm), games_spec)
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from None

    def provenance(self) -> dict[str, Any]:
        """File, checksum, algorithm and step."""
        return {
            "policy": "stable-baselines3",
            "file": self.path.name,
            "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest(),
            "algorithm": self.algorithm,
            "step": self.step,
            "train_task": self.games.task,
        }
