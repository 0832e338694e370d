"""A finished offline run as a planner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from agents.planner import LoggedWindows, PlanningPolicy
from agents.policy import translated
from envs.protocols import GamesSpec, ObsSpec, Policy
from launch.errors import UserError
from launch.offline.learning import build_planning_model
from launch.runs import checkpoint as checkpoints

if TYPE_CHECKING:
    from launch.evaluation.policies import PlannerSource


def build_planner(source: PlannerSource, games_spec: GamesSpec) -> Policy:
    """The networks and the critic of a checkpoint, planning as ``source`` says.

    Raises:
        UserError: the head cannot plan so, or these games do not show what plans need.
    """
    saved = checkpoints.load(source.path / "checkpoints" / f"{source.step:012d}")
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
