"""A finished offline run as a planner."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.config import PlannerConfig
from envs.protocols import GamesSpec, ObsSpec, Policy
from envs.spec import GamesConfig
from launch.config.flags import validate
from launch.errors import UserError
from launch.evaluation.policies import checkpoint_folder, checkpoint_manifest, checkpoint_name, checkpoint_of
from launch.offline.config import OfflineRunConfig
from launch.runs import checkpoint as checkpoints


@dataclass(frozen=True)
class PlannerSource:
    """A checkpoint of an offline run, and how it plans; use ``of`` to choose it."""

    path: Path
    step: int
    """Updates."""
    config: OfflineRunConfig
    planner: PlannerConfig
    games: GamesConfig
    """As its data set's, with what planning reads."""
    keeps_plans: bool = False
    """Tell of every plan (``PolicyStep.head_record``)."""

    @classmethod
    def of(cls, path: Path, step: int | None, planner: PlannerConfig, *, keeps_plans: bool = False) -> PlannerSource:
        """The run's newest valid checkpoint, or the one of an update.

        Raises:
            UserError: there is no run, no such checkpoint, or its head cannot plan so.
        """
        from launch.offline.learning import saved_offline_config

        config = saved_offline_config(path)
        step = checkpoint_of(path, step)
        saved = checkpoints.load(checkpoint_folder(path, step))
        read = dict.fromkeys((*(config.obs_keys or ()), "blstats"))
        if config.learn.goals != "none":
            read["glyphs"] = None
        # How long episodes were that were recorded says nothing of those that are to be planned.
        own = {"obs_keys": tuple(read), "features": (), "max_episode_steps": None}
        games = validate(GamesConfig, saved.state["games"] | own)
        return cls(path, step, config, planner, games, keeps_plans)

    @property
    def name(self) -> str:
        """Checkpoint, mode and candidates, and the first digits of a checksum of all that fixes how plans are made."""
        fixed = hashlib.sha256(self.planner.model_dump_json().encode()).hexdigest()[:8]
        mode = self.planner.mode
        how = mode if mode == "none" else f"{mode}-n{self.planner.candidates}"
        return f"{checkpoint_name(self.path, self.step)}-{how}-{fixed}"

    @property
    def folder(self) -> Path:
        """``eval`` in the run's folder."""
        return self.path / "eval"

    def build(self, games_spec: GamesSpec) -> Policy:
        """The checkpoint's networks and its critic, planning as configured.

        Raises:
            UserError: these games have other actions than were logged, or the head cannot plan so.
        """
        return _build(self, games_spec)

    def provenance(self) -> dict[str, Any]:
        """Run, updates, checksums, and how it plans."""
        return {
            "policy": "planner",
            "run": self.path.name,
            "step": self.step,
            "train_seed": self.config.seed,
            "train_task": self.games.task,
            "head": self.config.head.model_dump(mode="json"),
            "planner": self.planner.model_dump(mode="json"),
            "checkpoint_files": checkpoint_manifest(self.path, self.step)["files"],
        }


def _build(source: PlannerSource, games_spec: GamesSpec) -> Policy:
    """The networks and the critic of a checkpoint, planning as ``source`` says.

    Raises:
        UserError: the head cannot plan so, or these games do not show what plans need.
    """
    import torch

    from agents.planner import LoggedWindows, PlanningPolicy
    from agents.policy import translated
    from launch.offline.learning import build_planning_model

    saved = checkpoints.load(checkpoint_folder(source.path, source.step))
    state, names = saved.state, tuple(saved.state["action_names"])
    obs_spec = {key: ObsSpec(shape=tuple(s), dtype=np.dtype(d)) for key, (s, d) in state["obs_spec"].items()}
    model = build_planning_model(source.config, obs_spec, len(names))
    model.load_state_dict({name: torch.from_numpy(x) for name, x in saved.tensors["model"].items()})
    windows = {name: torch.from_numpy(x) for name, x in state["windows"].items()}
    planner, learn = source.planner, source.config.learn
    if planner.ask_return is not None and not learn.returns:
        raise UserError("--planner.ask-return: this run's plans know no returns (it was learned without learn.returns)")
    num_bins = len(state["return_edges"]) + 1
    asked = 1.0 if planner.ask_return is None else planner.ask_return
    try:
        policy = PlanningPolicy(
            model,
            planner,
            games_spec,
            LoggedWindows(
                obs={name.removeprefix("obs."): x for name, x in windows.items() if name.startswith("obs.")},
                condition={name: windows[name] for name in ("hero", "goal", "return_bin")},
                **{name: windows[name] for name in ("plans", "critic_goal", "chunk", "weight")},
            ),
            knows_goals=learn.goals != "none",
            return_bin=min(int(asked * num_bins), num_bins - 1) if learn.returns else None,
            legal=None if state["legal"] is None else np.array(state["legal"]),
            version=source.step,
            keeps_plans=source.keeps_plans,
        )
    except ValueError as error:
        raise UserError(f"{source.path}: {error}") from None
    return translated(policy, names, games_spec.action_names)
