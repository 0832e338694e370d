"""What a program pays for whole recorded episodes, composed as in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from envs.recording import EpisodeRecord
from rewards.auto.composition import Composer, Steps
from rewards.auto.config import CompositionConfig
from rewards.auto.program import Program
from rewards.auto.sandbox.contained import Runner, Values, run_in_batches
from rewards.auto.transitions import transitions_of

_SIDE_BY_SIDE = 32
"""Episodes composed together: padded to the longest, they take memory."""


@dataclass(frozen=True, eq=False)
class Pay:
    """What one episode of T steps is paid."""

    reward: np.ndarray
    """float64 [T]; 0 where invalid."""
    valid: np.ndarray
    """bool [T]: the program has an answer."""

    def discounted(self, gamma: float) -> float:
        """The discounted return from the first step on; what is invalid pays nothing."""
        return float(self.reward @ gamma ** np.arange(len(self.reward)))

    @property
    def per_step(self) -> float:
        """Mean over the valid steps; nan where there is none."""
        return float(self.reward.sum() / self.valid.sum()) if self.valid.any() else float("nan")


def pay_of(
    runner: Runner, program: Program, episodes: Sequence[EpisodeRecord], composition: CompositionConfig, gamma: float
) -> list[Pay]:
    """What each episode is paid, in order.

    Raises:
        EngineError: the program has no answer for a batch.
        ValueError: an episode does not hold what the program reads.
    """
    columns, num = transitions_of(episodes, program.needed_columns)
    values = run_in_batches(runner, columns, num)
    composer = Composer(composition, tuple(program.components), gamma=gamma)
    ends = np.cumsum([0, *(episode.num_steps for episode in episodes)])
    found: list[Pay] = []
    for first in range(0, len(episodes), _SIDE_BY_SIDE):
        some = episodes[first : first + _SIDE_BY_SIDE]
        places = [np.arange(ends[first + i], ends[first + i + 1]) for i in range(len(some))]
        found += _composed(composer, program, values, some, places)
    return found


def _composed(
    composer: Composer,
    program: Program,
    values: Values,
    episodes: Sequence[EpisodeRecord],
    places: Sequence[np.ndarray],
) -> list[Pay]:
    """Episodes side by side; where one has ended, steps are invalid."""

    def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
        table = np.zeros((max(map(len, arrays)), len(arrays)), arrays[0].dtype)
        for b, array in enumerate(arrays):
            table[: len(array), b] = array
        return table

    steps = Steps(
        valid=padded([values.valid[at] for at in places]),
        terminated=padded([episode.terminated for episode in episodes]),
        truncated=padded([episode.truncated for episode in episodes]),
    )
    given = {name: padded([value[at] for at in places]) for name, value in values.components.items()}
    composed, _ = composer.compose(given, program.components, steps, composer.initial_state(len(episodes)))
    return [Pay(composed.total[: len(at), b], values.valid[at]) for b, at in enumerate(places)]
