"""What HERON pays a step: the reward model's word on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.data import RewardPart, Rollout
from envs.protocols import State
from rewards.heron.heron_reward import Scorer
from rewards.heron.inputs import StepInputs


class HeronReward:
    """Part ``heron``: what the newest version of the reward model gives a step.

    Until there is a first version, no step has a value: invalid, not 0. The reward has no memory of the episode, so
    stored steps can be scored anew when the model changes. What reads the policy's encoder is an exception: it drifts
    between versions, as the encoder learns.

    Args:
        inputs: what the model reads of a step.
    """

    part_names = ("heron",)

    def __init__(self, inputs: StepInputs) -> None:
        self.inputs = inputs
        self._scorer: Scorer | None = None

    @property
    def version(self) -> int:
        """That of the model; 0 until there is one."""
        return 0 if self._scorer is None else self._scorer.version

    def take(self, scorer: Scorer) -> None:
        """Score with this version from now on."""
        self._scorer = scorer

    def initial_state(self, num_games: int) -> State:
        """No memory."""
        return {}

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """The model's reward of each step."""
        shape = rollout.env_reward.shape
        if self._scorer is None:
            return {"heron": RewardPart(value=np.zeros(shape, np.float32), valid=np.zeros(shape, bool))}, state
        value = self._scorer.score(self.inputs(rollout))
        return {"heron": RewardPart(value=value, valid=np.ones(shape, bool))}, state

    def state_dict(self) -> State:
        """The version that scores."""
        return {"scorer": None if self._scorer is None else self._scorer.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        scorer = state["scorer"]
        self._scorer = None if scorer is None else Scorer.from_state(scorer)
