"""Wrappers that keep a dense learned reward from paying for length.

A reward that pays at every step can be collected by going on: by loops, by steps that do nothing. Gao et al. 2024
(arXiv 2410.15115) bound what a trajectory can earn by clipping each reward from above, or by paying differences between
consecutive rewards, whose sum telescopes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from envs.data import RewardOutput, RewardPart, Rollout
from envs.protocols import RewardModel, State
from rewards.parts import PartConfig


class _Bounded:
    """Delegates everything but what a step is paid.

    Args:
        model: whose every part is bounded.
    """

    def __init__(self, model: RewardModel) -> None:
        self._model = model

    @property
    def version(self) -> int:
        """The model's."""
        return self._model.version

    @property
    def part_names(self) -> Sequence[str]:
        """The model's."""
        return self._model.part_names

    def initial_state(self, num_games: int) -> State:
        """The model's."""
        return self._model.initial_state(num_games)

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """The model's parts [T, B], bounded, and its memory after the rollout."""
        parts, state = self._model.score(rollout, state)
        return {name: self._paid(part, rollout) for name, part in parts.items()}, state

    def _paid(self, part: RewardPart, rollout: Rollout) -> RewardPart:
        raise NotImplementedError

    def take(self, news: Any) -> None:
        """The model's."""
        self._model.take(news)

    def evidence(self, rollout: Rollout, output: RewardOutput, state: State) -> tuple[Any, State]:
        """The model's."""
        return self._model.evidence(rollout, output, state)

    def state_dict(self) -> State:
        """The model's."""
        return self._model.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._model.load_state_dict(state)

    def own_state(self) -> State:
        """The model's."""
        return self._model.own_state()

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``own_state``."""
        self._model.load_own_state(state)

    def close(self) -> None:
        """End what the model started."""
        self._model.close()


class Clipped(_Bounded):
    """Pays ``min(r - threshold, 0)``: only what falls short of a threshold is fined, so that no step earns anything.

    Args:
        model: what is bounded.
        threshold: reward from which a step costs nothing.
    """

    def __init__(self, model: RewardModel, threshold: float) -> None:
        super().__init__(model)
        self._threshold = np.float32(threshold)

    def _paid(self, part: RewardPart, rollout: Rollout) -> RewardPart:
        return replace(part, value=np.minimum(part.value - self._threshold, np.float32(0)))


class Delta(_Bounded):
    """Pays ``r_k - r_{k+1}``, and ``r_K`` at the last step of an episode, ended or truncated.

    The undiscounted sum from step k to the end is r_k, however many steps follow.

    A step is valid if its own reward and the next step's are. The last step of a rollout whose episode goes on has no
    next step yet and is invalid: it pays nothing and is not made up for in the next rollout. Of rollouts of one step,
    as Stable-Baselines3's wrapper makes them, only the last step of an episode pays: Delta is for rollouts of many.
    """

    def _paid(self, part: RewardPart, rollout: Rollout) -> RewardPart:
        own = np.where(part.valid, part.value, np.float32(0))
        following, is_known = np.zeros_like(own), np.zeros_like(part.valid)
        following[:-1], is_known[:-1] = own[1:], part.valid[1:]
        following[rollout.done], is_known[rollout.done] = 0, True
        valid = part.valid & is_known
        return replace(part, value=np.where(valid, own - following, np.float32(0)), valid=valid)


BOUNDS: Mapping[str, Callable[[RewardModel, PartConfig], RewardModel]] = {
    "none": lambda model, config: model,
    "clip": lambda model, config: Clipped(model, config.bound_at),
    "delta": lambda model, config: Delta(model),
}
"""What each name of ``PartConfig.bound`` makes of a model."""


def bounded(model: RewardModel, config: PartConfig) -> RewardModel:
    """The model, bounded as its part's configuration says."""
    return BOUNDS[config.bound](model, config)
