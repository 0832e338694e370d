"""The environment's own reward, as one part among others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.data import RewardPart, Rollout
from envs.protocols import State


class EnvReward:
    """Part ``env``: what the game itself pays."""

    part_names = ("env",)
    version = 0

    def initial_state(self, num_games: int) -> State:
        """No memory."""
        return {}

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """The rollout's ``env_reward``."""
        value = rollout.env_reward.astype(np.float32)
        return {"env": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state

    def state_dict(self) -> State:
        """Nothing is learned."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing is learned."""
