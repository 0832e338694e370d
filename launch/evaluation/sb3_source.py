"""A Stable-Baselines3 model file as the source of an evaluated policy."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.protocols import GamesSpec, Policy
from envs.tasks import GamesConfig
from launch.config.flags import validate
from launch.config.train import TrainConfig
from launch.errors import UserError
from launch.runs.folder import read_config

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
            games = validate(TrainConfig, read_config(path.parent)).env if beside.is_file() else GamesConfig()
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
