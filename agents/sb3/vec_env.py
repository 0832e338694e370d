"""Our games as a ``VecEnv`` of Stable-Baselines3, and their specification as gymnasium spaces."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvStepReturn

from envs.data import GamesStep
from envs.protocols import Games, GamesSpec, ObsSpec


class GamesVecEnv(VecEnv):
    """B games under SB3: observations are dicts, so policies are ``MultiInputPolicy``.

    Where an episode ends, ``info`` holds SB3's ``terminal_observation``, ``TimeLimit.truncated`` and
    ``is_success``, what a ``Monitor`` would add as ``episode``, and the ``EpisodeResult`` as ``result``.
    Other infos are empty.

    Args:
        games: the games; closed with this.

    Raises:
        ValueError: some game lacks some action, which SB3's policies cannot express.
    """

    def __init__(self, games: Games) -> None:
        check_mask(games.action_mask)
        self.games = games
        self.last_step: GamesStep | None = None
        """What the games answered last."""
        self._actions = np.zeros(0)
        self._started_s = time.monotonic()
        super().__init__(games.num_games, observation_space(games.spec), action_space(games.spec))

    def reset(self) -> dict[str, np.ndarray]:
        """Begin an episode in every game."""
        self.last_step = None
        return {key: array.copy() for key, array in self.games.reset().items()}

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Play them.

        Raises:
            RuntimeError: the seed source has no more episodes; SB3 cannot leave games idle.
        """
        if not self.games.active.all():
            raise RuntimeError(
                "the games have no more episodes to play; give them endless seeds, such as TrainingSeeds"
            )
        played = self.last_step = self.games.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for game, result in played.finished.items():
            infos[game] = {
                "terminal_observation": played.final_obs[game],
                "TimeLimit.truncated": bool(played.truncated[game]),
                "is_success": result.success,
                "episode": {
                    "r": result.env_return,
                    "l": result.num_steps,
                    "t": round(time.monotonic() - self._started_s, 6),
                },
                "result": result,
            }
        # Games reuse their arrays, and SB3 writes into the rewards that it is given.
        obs = {key: array.copy() for key, array in played.obs.items()}
        return obs, played.reward.astype(np.float32), played.terminated | played.truncated, infos

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Changes nothing: which episodes are played is up to the games' seed source."""
        return [None] * self.num_envs

    def close(self) -> None:
        """Close the games."""
        self.games.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the games, once for each index.

        Raises:
            AttributeError: they have none of that name.
        """
        value = None if attr_name == "render_mode" else getattr(self.games, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: games are configured when they are built."""
        raise AttributeError(f"'{attr_name}' cannot be set: games are configured when they are built")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Refused: the games are one object."""
        raise AttributeError(f"there is no '{method_name}' for one game alone; use the 'games' attribute")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for ``Monitor``, whose figures are in the infos."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


def check_mask(action_mask: np.ndarray | None) -> None:
    """Refuse games of which some lack some action.

    Raises:
        ValueError: the mask forbids something.
    """
    if action_mask is not None and not action_mask.all():
        game, action = np.argwhere(~action_mask)[0]
        raise ValueError(
            f"game {game} lacks action {action}, and Stable-Baselines3 policies cannot leave actions out; "
            "play tasks with the same actions together"
        )


def observation_space(spec: GamesSpec) -> spaces.Dict:
    """One ``Box`` over the whole range of its number type for each observation key."""
    return spaces.Dict({key: _box(obs) for key, obs in spec.obs.items()})


def _box(obs: ObsSpec) -> spaces.Box:
    dtype = obs.dtype.type
    if np.issubdtype(dtype, np.floating):
        return spaces.Box(-np.inf, np.inf, obs.shape, dtype)
    if dtype is np.bool_:
        return spaces.Box(0, 1, obs.shape, np.uint8)
    limits = np.iinfo(dtype)
    return spaces.Box(limits.min, limits.max, obs.shape, dtype)


def action_space(spec: GamesSpec) -> spaces.Discrete | spaces.Box:
    """``Discrete`` over the named actions, or the box of continuous ones."""
    if spec.num_actions:
        return spaces.Discrete(spec.num_actions)
    low, high = np.asarray(spec.action_low), np.asarray(spec.action_high)
    return spaces.Box(low, high, spec.action_shape, spec.action_dtype.type)


def obs_specs(space: spaces.Space) -> Mapping[str, ObsSpec]:
    """Shape and number type of each key; the key of a plain ``Box`` is ``vector``.

    Raises:
        ValueError: the space is, or holds, something else than a ``Box``.
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {"vector": space}
    specs = {}
    for key, part in parts.items():
        if not isinstance(part, spaces.Box):
            raise ValueError(f"observation '{key}' is a {type(part).__name__}; allowed are Box and a Dict of Boxes")
        specs[key] = ObsSpec(shape=part.shape, dtype=np.dtype(part.dtype))
    return specs
