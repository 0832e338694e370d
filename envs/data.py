"""The data classes that flow between games, agents and rewards.

Shape letters: T steps of a rollout, B games side by side, S reward streams, A actions.
Everything here is frozen, holds numpy arrays only (so that it crosses processes without copies) and
checks its shapes where it is born.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every configuration class: frozen, unknown keys refused, docstrings become help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def replace(self, **changes: Any) -> Self:
        """A copy with these fields changed, validated as a whole; what is not named is kept as it is.

        Raises:
            ValidationError: a field is unknown or out of its range, or fields do not go together.
        """
        return type(self).model_validate({name: getattr(self, name) for name in type(self).model_fields} | changes)


class EndStatus(IntEnum):
    """How an episode stands after a step (the numbers of ``nle.env.NLE.StepStatus``)."""

    ABORTED = -1
    """A time limit or a host decision: the game was cut, not lost. Reported as ``truncated``."""
    RUNNING = 0
    DEATH = 1
    TASK_SUCCESSFUL = 2


class EpisodeSeeds(NamedTuple):
    """What fixes one game of NetHack: ``core`` (dynamics), ``disp`` (display), ``lgen`` (levels)."""

    core: int
    disp: int
    lgen: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeResult:
    """What one finished episode came to; always computed from the game, never from a shaped reward."""

    task: str
    seeds: EpisodeSeeds | None
    """None where the task is not seeded by us."""
    env_return: float
    """Undiscounted sum of the environment's own reward."""
    num_steps: int
    end_status: int
    success: bool
    """``TASK_SUCCESSFUL`` with a positive terminal reward (MiniHack's Memento ends 2 on failure too)."""
    game: Mapping[str, float | str] = field(default_factory=dict)
    """What the game itself says: score, max_depth, max_xp_level, gold, turns, end_reason, ... (NetHack)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GamesStep:
    """What B games answer to one action each.

    ``obs`` are live buffers, valid until the next step. Games restart themselves within the same
    step: where ``terminated | truncated``, ``obs`` already shows the next episode and the last
    observation of the finished one is in ``final_obs``.
    """

    obs: Mapping[str, np.ndarray]
    """``{key: [B, ...]}``."""
    reward: np.ndarray
    """float32 [B]; the environment's own."""
    terminated: np.ndarray
    """bool [B]."""
    truncated: np.ndarray
    """bool [B]."""
    end_status: np.ndarray
    """int8 [B], values of ``EndStatus``."""
    messages: list[bytes] | None = None
    """B raw messages of the observation that resulted from the action, before any restart, every
    ``--More--`` page joined by a newline and, with ``env.captions=changes``, lines that say what changed;
    None for games without messages."""
    final_obs: Mapping[int, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """``{game: {key: [...]}}`` for the games whose episode ended in this step; copies."""
    finished: Mapping[int, EpisodeResult] = field(default_factory=dict)
    """``{game: result}`` for the same games."""
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Published schema features of the resulting observation, ``{name: [B]}``, where asked for."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FinalObs:
    """The last observations of the N episodes that ended inside a rollout."""

    at: np.ndarray
    """int64 [N, 2]: (t, b) of the step that ended the episode, in order of t, then b."""
    obs: Mapping[str, np.ndarray]
    """``{key: [N, ...]}``."""
    values: np.ndarray | None = None
    """float32 [N, S] of the behaviour policy, its memory of the episode included."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rollout:
    """T consecutive steps of B games, played by one policy version or a few.

    Raises:
        ValueError: a field has the wrong leading shape; the message names the field.
    """

    obs: Mapping[str, np.ndarray]
    """``{key: [T+1, B, ...]}``; the last row is the observation after the last action (after a restart
    where that action ended an episode)."""
    actions: np.ndarray
    """[T, B, ...], any dtype and trailing shape."""
    env_reward: np.ndarray
    """float32 [T, B]."""
    terminated: np.ndarray
    """bool [T, B]."""
    truncated: np.ndarray
    """bool [T, B]; time limits, bootstrapped from ``final_obs``."""
    end_status: np.ndarray
    """int8 [T, B]."""
    final_obs: FinalObs
    policy_version: np.ndarray
    """int64 [T, B]."""
    episode_id: np.ndarray
    """int64 [T, B]; unique within a run."""
    step_in_episode: np.ndarray
    """int32 [T, B]; 0 at the first action of an episode."""
    values: np.ndarray | None = None
    """float32 [T+1, B, S] of the behaviour policy; the last row bootstraps the running episodes."""
    log_prob: np.ndarray | None = None
    """float32 [T, B] of the behaviour policy; None for heads without an exact one."""
    head_record: Mapping[str, np.ndarray] = field(default_factory=dict)
    """``{name: [T, B, ...]}``: what the actor head needs to compute its own loss."""
    recurrent_state: np.ndarray | None = None
    """float32 [B, H] before the first step; None without recurrence."""
    action_mask: np.ndarray | None = None
    """bool [T, B, A], True where allowed; None where every action always is."""
    caption_id: np.ndarray | None = None
    """int64 [T, B]: caption of the observation that resulted from the action, so that the last
    message of a game is there too; 0 = no message."""
    caption_count: np.ndarray | None = None
    """int32 [T, B]: how often that caption has occurred in the episode so far, this time included."""
    new_captions: Mapping[int, str] = field(default_factory=dict)
    """``{caption_id: text}`` of captions that this sender had not sent before."""
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    """``{name: [T, B]}``: schema features of the resulting observation, where a reward asks for them."""

    def __post_init__(self) -> None:
        T, B = self.env_reward.shape
        per_step: dict[str, np.ndarray | None] = {
            name: getattr(self, name)
            for name in [
                "actions",
                "terminated",
                "truncated",
                "end_status",
                "policy_version",
                "episode_id",
                "step_in_episode",
                "log_prob",
                "action_mask",
                "caption_id",
                "caption_count",
            ]
        }
        per_step |= {f"head_record[{k}]": v for k, v in self.head_record.items()}
        per_step |= {f"features[{k}]": v for k, v in self.features.items()}
        for name, array in per_step.items():
            if array is not None and array.shape[:2] != (T, B):
                raise ValueError(f"Rollout.{name} has shape {array.shape}, expected [{T}, {B}, ...]")
        for key, array in self.obs.items():
            if array.shape[:2] != (T + 1, B):
                raise ValueError(f"Rollout.obs[{key}] has shape {array.shape}, expected [{T + 1}, {B}, ...]")
        if self.values is not None and self.values.shape[:2] != (T + 1, B):
            raise ValueError(f"Rollout.values has shape {self.values.shape}, expected [{T + 1}, {B}, S]")
        if self.recurrent_state is not None and self.recurrent_state.shape[0] != B:
            raise ValueError(f"Rollout.recurrent_state has {self.recurrent_state.shape[0]} rows, expected {B}")
        num_ends = int((self.terminated | self.truncated).sum())
        if len(self.final_obs.at) != num_ends:
            raise ValueError(f"Rollout.final_obs has {len(self.final_obs.at)} rows for {num_ends} ends")

    @property
    def done(self) -> np.ndarray:
        """Bool [T, B]: the episode ended with this step, by either cause."""
        return self.terminated | self.truncated

    @property
    def num_steps(self) -> int:
        """T."""
        return self.env_reward.shape[0]

    @property
    def num_games(self) -> int:
        """B."""
        return self.env_reward.shape[1]

    def reached(self, key: str) -> np.ndarray:
        """[T, B, ...]: the observation that each action led to, the last one of its episode where it ended."""
        after = self.obs[key][1:].copy()
        t, b = self.final_obs.at.T
        after[t, b] = self.final_obs.obs[key]
        return after


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RewardPart:
    """One named reward over a rollout, unweighted.

    Raises:
        ValueError: shapes differ, or a valid entry is not finite.
    """

    value: np.ndarray
    """float32 [T, B]."""
    valid: np.ndarray
    """bool [T, B]; False = unlabelled or failed. An invalid entry pays nothing and is counted; it is
    never the same as a reward of 0."""
    pays: bool = True
    """False: kept to be looked at, because it is contained in another part; it enters no stream."""

    def __post_init__(self) -> None:
        if self.value.shape != self.valid.shape:
            raise ValueError(f"reward value {self.value.shape} and valid {self.valid.shape} differ in shape")
        if not np.isfinite(self.value[self.valid]).all():
            raise ValueError("a reward part holds a value that is not finite")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RewardOutput:
    """What a rollout is worth: the streams that value heads learn, and the parts that made them.

    Raises:
        ValueError: a shape does not fit or a stream is not finite; the message names it.
    """

    streams: np.ndarray
    """float32 [T, B, S]; weighted, in the order of the value heads."""
    parts: Mapping[str, RewardPart]
    """``{"env": ..., "oni": ...}``, unweighted."""

    def __post_init__(self) -> None:
        if self.streams.ndim != 3 or not np.isfinite(self.streams).all():
            raise ValueError("reward streams must be finite and shaped [T, B, S]")
        for name, part in self.parts.items():
            if part.value.shape != self.streams.shape[:2]:
                raise ValueError(f"reward part '{name}' has shape {part.value.shape}, not {self.streams.shape[:2]}")
