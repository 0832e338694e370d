"""What ONI pays a step: the value of its caption, over the caption's count in the episode to a power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.data import RewardPart, Rollout
from envs.protocols import State
from rewards.oni.caption_reward import CaptionValues


class CaptionReward:
    """Part ``oni``: ``value(caption) / count(caption in this episode) ** exponent``.

    Zheng et al. 2024, "Online intrinsic rewards for decision making agents from large language model feedback"
    (arXiv 2410.23022).

    Unlike the public code, which reads the message before the action, the caption is that of the
    observation which the action led to, so that the message that ends a game is paid too. A caption
    without a value yet is invalid, not 0; a step without a message is worth 0.

    Args:
        values: what captions are worth; whoever owns it renews it between rollouts.
        count_exponent: 3 in ONI.
    """

    part_names = ("oni",)

    def __init__(self, values: CaptionValues, count_exponent: float = 3.0) -> None:
        self.values = values
        self._exponent = count_exponent

    @property
    def version(self) -> int:
        """That of the values."""
        return self.values.version

    def initial_state(self, num_games: int) -> State:
        """No memory of its own: the within-episode counts travel in the rollout."""
        return {}

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """Values of the resulting captions, decayed by their counts.

        Raises:
            ValueError: the rollout carries no captions.
        """
        if rollout.caption_id is None or rollout.caption_count is None:
            raise ValueError("the ONI reward needs captions; these games give no messages")
        value, valid = self.values.lookup(rollout.caption_id)
        count = np.maximum(rollout.caption_count, 1).astype(np.float32)
        value = (value / count**self._exponent).astype(np.float32)
        return {"oni": RewardPart(value=np.where(valid, value, np.float32(0)), valid=valid)}, state

    def state_dict(self) -> State:
        """The values that this reward knows."""
        return self.values.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.values.load_state_dict(state)
