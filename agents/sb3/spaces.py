"""Specifications of games as gymnasium spaces, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from envs.protocols import GamesSpec, ObsSpec


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
