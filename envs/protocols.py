"""What games, policies, rewards and groups of processes promise each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from envs.data import EpisodeSeeds, GamesStep, RewardOutput, RewardPart, Rollout

State = Mapping[str, Any]
"""A checkpointable state: nested mappings and lists of numpy arrays, numbers, strings and None."""


@dataclass(frozen=True, kw_only=True)
class ObsSpec:
    """Shape (without the game axis) and dtype of one observation key."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True, kw_only=True)
class GamesSpec:
    """What a policy must know of its games before it is built."""

    tasks: tuple[str, ...]
    """Task id of each of the B games."""
    obs: Mapping[str, ObsSpec]
    action_names: tuple[str, ...]
    """One name an action, empty for continuous actions."""
    action_shape: tuple[int, ...] = ()
    action_dtype: np.dtype = field(default_factory=lambda: np.dtype(np.int64))
    action_low: np.ndarray | None = None
    """Bounds of continuous actions; None for discrete ones."""
    action_high: np.ndarray | None = None
    has_messages: bool = False

    @property
    def num_actions(self) -> int:
        """A; 0 for continuous actions."""
        return len(self.action_names)


class SeedSource(Protocol):
    """Says which episode a game plays next."""

    def next(self, game: int) -> EpisodeSeeds | None:
        """Seeds of the next episode of this game; None = no more episodes, the game stays idle."""
        ...

    def state_dict(self) -> State:
        """Where each game stands."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        ...


class Games(Protocol):
    """B games in one process, restarting themselves within the step that ends an episode."""

    spec: GamesSpec
    num_games: int
    action_mask: np.ndarray | None
    """bool [B, A], True where the game's task has the action; None where all have all."""
    active: np.ndarray
    """bool [B]; False once the seed source has no more episodes for that game. Its actions are ignored."""

    def reset(self) -> Mapping[str, np.ndarray]:
        """Start an episode in every game; returns live buffers ``{key: [B, ...]}``."""
        ...

    def step(self, actions: np.ndarray) -> GamesStep:
        """Play one action in every game. ``actions`` [B, ...]."""
        ...

    def state_dict(self) -> State:
        """Seeds of the running episodes and the actions since their start."""
        ...

    def load_state_dict(self, state: State) -> Mapping[str, np.ndarray]:
        """Rebuild the games by replaying ``state``; returns the live buffers."""
        ...

    def close(self) -> None:
        """Free the games and their temporary folders."""
        ...


class Noise(Protocol):
    """Where a policy's randomness comes from: one generator, or one for each episode."""

    def uniform(self, num: int, games: np.ndarray | None = None) -> np.ndarray:
        """float32 [B, num] in [0, 1), fresh at each call.

        Args:
            num: how many for each game.
            games: int64 [N], draw for these games alone: [N, num]; None = for all. Where each episode has noise of its
                own, that of other games stays as it is.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PolicyStep:
    """What a policy answers for B games."""

    actions: np.ndarray
    """[B, ...]."""
    recurrent_state: np.ndarray | None = None
    """float32 [B, H] after this step."""
    values: np.ndarray | None = None
    """float32 [B, S]."""
    log_prob: np.ndarray | None = None
    """float32 [B]."""
    head_record: Mapping[str, np.ndarray] | None = None


class Policy(Protocol):
    """Acts in B games at once."""

    version: int

    def initial_state(self, num_games: int) -> np.ndarray | None:
        """Recurrent state float32 [B, H] at the start of an episode; None without recurrence."""
        ...

    def act(
        self,
        obs: Mapping[str, np.ndarray],
        recurrent_state: np.ndarray | None,
        action_mask: np.ndarray | None,
        noise: Noise,
        *,
        deterministic: bool = False,
    ) -> PolicyStep:
        """Choose actions for observations ``{key: [B, ...]}``."""
        ...


@runtime_checkable
class WatchingGames(Games, Protocol):
    """Games that take note of what the policy that plays them says."""

    def watch(self, acted: PolicyStep) -> None:
        """Called before each step with what the policy answered."""
        ...


class RewardModel(Protocol):
    """Says what each step of a rollout was worth.

    The conformance suite (``rewards.conformance``) holds every implementation to this: an unbroken episode scores the
    same as the same episode cut into rollouts; a reward pays the state that the action reached; memory resets at
    episode ends; results do not depend on batch order. ``rewards.kinds.PlainReward`` has all that a simple model lacks.
    """

    @property
    def version(self) -> int:
        """Rises whenever the same rollout would score differently."""
        ...

    @property
    def part_names(self) -> Sequence[str]:
        """Names of the parts that ``score`` gives, the same at every call; the first is the reward's own."""
        ...

    def initial_state(self, num_games: int) -> State:
        """Memory of the running episodes before their first step; every array is [B, ...]."""
        ...

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """Named, unweighted parts [T, B], and the memory after the rollout."""
        ...

    def take(self, news: Any) -> None:
        """Score with what the reward's teacher has learned, from now on."""
        ...

    def evidence(self, rollout: Rollout, output: RewardOutput, state: State) -> tuple[Any, State]:
        """What the reward's teacher needs of a rollout, and the memory after that; called once after each ``score``.

        Args:
            rollout: the one that was scored last.
            output: what it was worth.
            state: the memory that ``score`` returned.

        Returns:
            Evidence, small and picklable since it crosses processes; None = there is none.
        """
        ...

    def state_dict(self) -> State:
        """Everything learned that all who score have in common, for the checkpoint."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        ...

    def own_state(self) -> State:
        """What belongs to this process alone."""
        ...

    def load_own_state(self, state: State) -> None:
        """Continue from ``own_state``."""
        ...

    def close(self) -> None:
        """End the processes that were started, if any."""
        ...


class Group(Protocol):
    """Processes that learn one thing together; all call the same methods in the same order.

    The conformance suite (``tests/launch/processes/test_groups.py``) holds every implementation to this: all members
    get bit-equal answers, and a group of one changes nothing.
    """

    size: int
    """Number of members."""
    rank: int
    """Which member this is: 0 .. size - 1."""

    def average(self, values: np.ndarray) -> None:
        """Replace float32 [N], contiguous, by its mean over the members."""
        ...

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Every member's array, of the same shape and dtype everywhere: [size, ...] in the order of ranks."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class Alone:
    """A group of one."""

    size = 1
    rank = 0

    def average(self, values: np.ndarray) -> None:
        """The mean of one is itself."""

    def gather(self, values: np.ndarray) -> np.ndarray:
        """[1, ...]."""
        return values[None]

    def close(self) -> None:
        """Nothing to leave."""
