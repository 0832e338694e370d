"""What a program pays for whole recorded episodes, composed as in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from envs.recording import EpisodeRecord
from rewards.auto.composition import Composer, Steps
from rewards.auto.config import CompositionConfig
from rewards.auto.contained import Values
from rewards.auto.engine import WorkerDiedError
from rewards.auto.program import Program
from rewards.auto.transitions import transitions_of

_BATCH = 2048
"""Transitions sent together."""
_SIDE_BY_SIDE = 32
"""Episodes composed together: padded to the longest, they take memory."""


class Runner(Protocol):
    """What runs a program: ``ContainedProgram``."""

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Values:
        """Run it on N transitions.

        Raises:
            EngineError: no answer for the whole.
        """
        ...

    def close(self) -> None:
        """End it."""
        ...


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


def run_in_batches(runner: Runner, columns: Mapping[str, np.ndarray], num: int) -> Values:
    """Run a program on any number of transitions; a worker that dies is given one more try.

    Raises:
        EngineError: no answer for a batch.
    """
    starts = range(0, num, _BATCH)
    parts = [_run(runner, {n: c[i : i + _BATCH] for n, c in columns.items()}, min(_BATCH, num - i)) for i in starts]
    names = dict.fromkeys(name for part in parts for name in part.components)
    lacking = [np.zeros(len(part.valid)) for part in parts]
    return Values(
        components={
            name: np.concatenate([part.components.get(name, zero) for part, zero in zip(parts, lacking, strict=True)])
            for name in names
        },
        valid=np.concatenate([np.zeros(0, bool), *(part.valid for part in parts)]),
        why={start + row: why for start, part in zip(starts, parts, strict=True) for row, why in part.why.items()},
    )


def _run(runner: Runner, columns: Mapping[str, np.ndarray], num: int) -> Values:
    try:
        return runner.evaluate(columns, num)
    except WorkerDiedError:  # the machine's doing, or the program's: that shows the second time
        return runner.evaluate(columns, num)


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
