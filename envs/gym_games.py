"""Any gymnasium environment as ``Games``: Pendulum and CartPole are tasks too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.data import EndStatus, EpisodeResult, EpisodeSeeds, GamesStep
from envs.protocols import GamesSpec, ObsSpec, SeedSource, State

EnvFactory = Callable[[], gymnasium.Env]
_Obs = dict[str, np.ndarray]


class GymnasiumGames:
    """B gymnasium environments in one process.

    Observations are flattened to float32 vectors: one key ``vector``, or one key for each entry of a
    ``Dict`` space. A ``TimeLimit`` is a truncation; where an episode is both terminated and truncated,
    it is terminated. An episode is a success only if the environment's last ``info`` says
    ``is_success``; an episode that ends by itself without it has the status ``DEATH``. Continuous
    actions are clipped to their bounds.

    Args:
        envs: a gymnasium id or a function that makes an environment, or several of them, dealt to the
            games in turn; all must have the same spaces.
        num_games: B.
        seeds: which episodes are played; an episode begins with ``reset(seed=core)``.

    Raises:
        ValueError: an id is unknown (says the nearest ones) or cannot be built here, the environments
            differ in their spaces, or the spaces are of a kind that is not supported.
    """

    action_mask: np.ndarray | None = None

    def __init__(self, envs: str | EnvFactory | Sequence[str | EnvFactory], num_games: int, seeds: SeedSource) -> None:
        makers = [envs] if isinstance(envs, str) or callable(envs) else list(envs)
        if not makers or num_games < 1:
            raise ValueError(f"{num_games} games of {len(makers)} environments: there must be some")
        self._envs = [_make(makers[game % len(makers)]) for game in range(num_games)]
        self.spec = _spec(self._envs)
        self.num_games = num_games
        self.active = np.ones(num_games, bool)
        self._seeds = seeds
        self._playing: list[EpisodeSeeds | None] = [None] * num_games
        self._log: list[list[np.ndarray]] = [[] for _ in range(num_games)]
        self._return = np.zeros(num_games, np.float64)
        self._obs: _Obs = {key: np.zeros((num_games, *spec.shape), spec.dtype) for key, spec in self.spec.obs.items()}
        first = self._envs[0].action_space
        self._first_action = int(first.start) if isinstance(first, spaces.Discrete) else 0

    def reset(self) -> Mapping[str, np.ndarray]:
        """Start an episode in every game; see ``Games``."""
        for game in range(self.num_games):
            self._restart(game)
        return self._obs

    def step(self, actions: np.ndarray) -> GamesStep:
        """Play one action in every game; see ``Games``.

        Raises:
            ValueError: there is not one action a game.
        """
        actions = self._checked(actions)
        B = self.num_games
        reward = np.zeros(B, np.float32)
        terminated, truncated = np.zeros((2, B), bool)
        end_status = np.zeros(B, np.int8)
        final_obs: dict[int, _Obs] = {}
        finished: dict[int, EpisodeResult] = {}
        for game in map(int, np.flatnonzero(self.active)):
            reward[game], terminated[game], truncated[game], success = self._play(game, actions[game])
            if not (terminated[game] or truncated[game]):
                continue
            end_status[game] = _end_status(bool(terminated[game]), success)
            final_obs[game] = {key: array[game].copy() for key, array in self._obs.items()}
            finished[game] = EpisodeResult(
                task=self.spec.tasks[game],
                seeds=self._playing[game],
                env_return=float(self._return[game]),
                num_steps=len(self._log[game]),
                end_status=int(end_status[game]),
                success=success,
            )
            self._restart(game)
        return GamesStep(
            obs=self._obs,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            end_status=end_status,
            final_obs=final_obs,
            finished=finished,
        )

    def state_dict(self) -> State:
        """Seeds of the running episodes, the actions since their start, and where the seeds stand."""
        shape, dtype = self.spec.action_shape, self.spec.action_dtype
        return {
            "tasks": list(self.spec.tasks),
            "seed_source": self._seeds.state_dict(),
            "seeds": [None if seeds is None else list(seeds) for seeds in self._playing],
            "actions": [np.array(log, dtype).reshape(-1, *shape) for log in self._log],
            "idle": {
                str(game): {key: array[game].copy() for key, array in self._obs.items()}
                for game in np.flatnonzero(~self.active)
            },
        }

    def load_state_dict(self, state: State) -> Mapping[str, np.ndarray]:
        """Rebuild the games by replaying ``state``; returns the live buffers.

        Raises:
            ValueError: the state is of other tasks.
        """
        if list(state["tasks"]) != list(self.spec.tasks):
            raise ValueError(f"the saved games are of {state['tasks']}, these are of {list(self.spec.tasks)}")
        for game, (seeds, actions) in enumerate(zip(state["seeds"], state["actions"], strict=True)):
            self._begin(game, None if seeds is None else EpisodeSeeds(*(int(seed) for seed in seeds)))
            for action in actions if self.active[game] else ():
                self._play(game, action)
        for game, row in state["idle"].items():
            for key, values in row.items():
                self._obs[key][int(game)] = values
        self._seeds.load_state_dict(state["seed_source"])
        return self._obs

    def close(self) -> None:
        """Close the environments."""
        self.active[:] = False
        for env in self._envs:
            env.close()

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions, self.spec.action_dtype)
        shape = (self.num_games, *self.spec.action_shape)
        if actions.shape != shape:
            raise ValueError(f"actions have shape {actions.shape}, expected {shape}")
        if self.spec.action_low is not None:
            actions = np.clip(actions, self.spec.action_low, self.spec.action_high)
        return actions

    def _restart(self, game: int) -> None:
        self._begin(game, self._seeds.next(game))

    def _begin(self, game: int, seeds: EpisodeSeeds | None) -> None:
        self._playing[game] = seeds
        self.active[game] = seeds is not None
        self._log[game] = []
        self._return[game] = 0
        if seeds is not None:
            self._show(game, self._envs[game].reset(seed=seeds.core)[0])

    def _play(self, game: int, action: np.ndarray) -> tuple[float, bool, bool, bool]:
        """Reward, terminated, truncated, success of one action in one game."""
        self._log[game].append(action)
        played = action if self.spec.action_low is not None else int(action) + self._first_action
        obs, reward, terminated, truncated, info = self._envs[game].step(played)
        self._show(game, obs)
        self._return[game] += float(reward)
        cut, success = bool(truncated and not terminated), bool(info.get("is_success"))
        return float(reward), bool(terminated), cut, success

    def _show(self, game: int, obs: Any) -> None:
        space = self._envs[game].observation_space
        if isinstance(space, spaces.Dict):
            for key, part in space.spaces.items():
                self._obs[key][game] = spaces.flatten(part, obs[key])
        else:
            self._obs["vector"][game] = spaces.flatten(space, obs)


def _end_status(terminated: bool, success: bool) -> EndStatus:
    if not terminated:
        return EndStatus.ABORTED
    return EndStatus.TASK_SUCCESSFUL if success else EndStatus.DEATH


def _make(maker: str | EnvFactory) -> gymnasium.Env:
    if callable(maker):
        return maker()
    try:
        return gymnasium.make(maker)
    except gymnasium.error.UnregisteredEnv:
        near = get_close_matches(maker, gymnasium.registry, n=3, cutoff=0.0)
        raise ValueError(f"unknown gymnasium id '{maker}'; nearest: {', '.join(near)}") from None
    except gymnasium.error.Error as error:
        raise ValueError(f"gymnasium id '{maker}' cannot be built here: {error}") from error


def _spec(envs: list[gymnasium.Env]) -> GamesSpec:
    names = tuple(env.spec.id if env.spec else type(env.unwrapped).__name__ for env in envs)
    first = envs[0]
    for name, env in zip(names, envs, strict=True):
        if env.observation_space != first.observation_space or env.action_space != first.action_space:
            raise ValueError(f"'{name}' and '{names[0]}' differ in their spaces; games side by side must not")
    obs_space, actions = first.observation_space, first.action_space
    parts = obs_space.spaces if isinstance(obs_space, spaces.Dict) else {"vector": obs_space}
    try:
        sizes = {key: spaces.flatdim(part) for key, part in parts.items()}
    except (ValueError, NotImplementedError):
        raise ValueError(f"'{names[0]}' has observations {obs_space}, which have no fixed length") from None
    obs = {key: ObsSpec(shape=(size,), dtype=np.dtype(np.float32)) for key, size in sizes.items()}
    if isinstance(actions, spaces.Discrete):
        return GamesSpec(tasks=names, obs=obs, action_names=tuple(f"action_{i}" for i in range(actions.n)))
    if isinstance(actions, spaces.Box):
        return GamesSpec(
            tasks=names,
            obs=obs,
            action_names=(),
            action_shape=actions.shape,
            action_dtype=np.dtype(np.float32),
            action_low=actions.low.astype(np.float32),
            action_high=actions.high.astype(np.float32),
        )
    raise ValueError(f"'{names[0]}' has actions {actions}; Discrete and Box are supported")
