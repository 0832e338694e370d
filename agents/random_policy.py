"""The floor: every allowed action equally likely."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from envs.protocols import GamesSpec, Noise, PolicyStep


class RandomPolicy:
    """Draws among the allowed actions; continuous actions uniformly within their bounds."""

    version = 0

    def __init__(self, spec: GamesSpec) -> None:
        self._spec = spec

    def initial_state(self, num_games: int) -> None:
        """No memory."""

    def act(
        self,
        obs: Mapping[str, np.ndarray],
        recurrent_state: np.ndarray | None,
        action_mask: np.ndarray | None,
        noise: Noise,
        *,
        deterministic: bool = False,
    ) -> PolicyStep:
        """Uniform actions; ``deterministic`` changes nothing."""
        spec = self._spec
        if not spec.num_actions:
            level = noise.uniform(int(np.prod(spec.action_shape)))
            level = level.reshape(-1, *spec.action_shape)
            low, high = np.asarray(spec.action_low), np.asarray(spec.action_high)
            return PolicyStep(actions=(low + level * (high - low)).astype(spec.action_dtype))
        level = noise.uniform(1)[:, 0]
        if action_mask is None:
            return PolicyStep(actions=(level * spec.num_actions).astype(np.int64))
        cumulative = action_mask.cumsum(1)
        wanted = np.floor(level * cumulative[:, -1]) + 1
        return PolicyStep(actions=(cumulative < wanted[:, None]).sum(1))
