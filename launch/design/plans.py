"""The runs of a search: what each trains, and what its policy plays at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from launch.config.flags import validate
from launch.config.train import TrainConfig
from launch.design.config import DesignConfig
from launch.design.trials import REPORT, SELECTION, Trial
from launch.training.programs import settled
from rewards.auto.program import SHORT_SHA
from rewards.config import RewardConfig

ConfigT = TypeVar("ConfigT", bound=BaseModel)

_SAVED_EVERY_S = 60.0
"""Trials are short: what a kill costs must be, too."""
_LOGGED_EVERY_S = 0.01
"""Every update, whatever the clock says: what is analysed is the same each time."""
_ANY_PROGRAM = "0" * 64


@dataclass(frozen=True)
class Plans:
    """Plans runs.

    Args:
        config: the search's.
        train: the preset's configuration, with flags of the user's.
        folder: the search's, absolute.
    """

    config: DesignConfig
    train: TrainConfig
    folder: Path

    def check(self) -> None:
        """Refuse, before anything is written, what no run could begin with.

        Raises:
            UserError: one sentence that names the field.
        """
        self._settings(self._reward(_ANY_PROGRAM), "trial", self.config.seed, self.config.trial_steps)
        if self.config.report.seeds and self.config.report.sparse:
            self._settings(self._reward(None), "sparse", self.config.report.seeds[0], self.config.report.steps)

    def folder_of(self, sha: str) -> Path:
        """Of the run that a program is chosen by."""
        return self.folder / "runs" / sha[:SHORT_SHA]

    def trial(self, sha: str) -> Trial:
        """The run that a program is chosen by.

        Raises:
            UserError: the program cannot be used.
        """
        config = self.config
        return self._planned(
            sha,
            sha[:SHORT_SHA],
            config.trial_steps,
            key=sha,
            role="trial",
            seed=config.seed,
            episodes=config.trial_episodes,
            episode_list=SELECTION,
            recorded=config.recorded_episodes,
        )

    def report(self, sha: str | None, seed: int) -> Trial:
        """A run that is reported: of a program, or of none.

        Raises:
            UserError: the program cannot be used.
        """
        role = "sparse" if sha is None else "chosen"
        name, report = f"{role}-seed{seed}", self.config.report
        return self._planned(
            sha,
            name,
            report.steps,
            key=name,
            role=role,
            seed=seed,
            episodes=report.episodes,
            episode_list=REPORT,
            recorded=0,
        )

    def _planned(self, sha: str | None, name: str, steps: int, *, seed: int, **what: Any) -> Trial:
        train, entries = settled(self._settings(self._reward(sha), name, seed, steps))
        programs = tuple(entry.sha for entry in entries)
        archive = str(self.config.reward.archive)
        return Trial(config_json=train.model_dump_json(), programs=programs, archive=archive, seed=seed, **what)

    def _reward(self, sha: str | None) -> RewardConfig:
        return self.train.reward.model_copy(update={"program": sha, "auto": self.config.reward})

    def _settings(self, reward: RewardConfig, name: str, seed: int, steps: int) -> TrainConfig:
        train = self.train
        rollout = train.rollout.model_copy(update={"num_workers": 0, "games_per_worker": 16, "max_policy_lag": 0})
        saving = train.checkpoint.model_copy(update={"interval_s": _SAVED_EVERY_S, "interval_updates": None})
        logging = train.logging.model_copy(update={"tensorboard": False, "interval_s": _LOGGED_EVERY_S})
        changed = train.model_copy(
            update={
                "reward": reward,
                "rollout": rollout,
                "logging": logging,
                "checkpoint": saving,
                "placement": "auto",
                "seed": seed,
                "total_steps": steps,
                "runs": self.folder / "runs",
                "name": name,
                "threads": 1,
            }
        )
        return validate(TrainConfig, changed.model_dump())


def with_absolute_paths(config: ConfigT) -> ConfigT:
    """The same from wherever it is read: workers of a cluster have another working directory."""

    def absolute(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return with_absolute_paths(value)
        return value.absolute() if isinstance(value, Path) else value

    return config.model_copy(update={name: absolute(getattr(config, name)) for name in type(config).model_fields})
