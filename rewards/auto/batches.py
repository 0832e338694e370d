"""Runs programs on any number of transitions, in batches of bounded size, so that ``batch_s`` always means the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rewards.auto.sandbox.contained import Values
from rewards.auto.sandbox.engine import ProgramTimeoutError, WorkerDiedError

BATCH = 2048
"""Transitions sent together at most: what ``ContainmentConfig.batch_s`` is for."""

_FORGIVEN = (WorkerDiedError, ProgramTimeoutError)
"""What may be the machine's doing: somebody else ended the process, or it was suspended or overloaded."""


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


def run_in_batches(runner: Runner, columns: Mapping[str, np.ndarray], num: int) -> Values:
    """Run a program on any number of transitions.

    One batch of them may fail by a death or a timeout and is sent again; the second such failure is the program's.

    Args:
        runner: where it runs; it must survive an ``EngineError``.
        columns: ``{qualified column: [N]}``.
        num: N.

    Raises:
        EngineError: no answer for a batch.
    """
    patient = _Patient(runner)
    rows = batches(num)
    return _joined(rows, [patient.evaluate(part_of(columns, some), len(some)) for some in rows])


def batches(num: int) -> list[range]:
    """Rows 0 to N - 1 in batches."""
    return [range(start, min(start + BATCH, num)) for start in range(0, num, BATCH)]


def part_of(columns: Mapping[str, np.ndarray], rows: range) -> dict[str, np.ndarray]:
    """These rows of columns."""
    return {name: column[rows.start : rows.stop] for name, column in columns.items()}


@dataclass
class _Patient:
    """Sends one batch again."""

    runner: Runner
    has_forgiven: bool = False

    def evaluate(self, columns: Mapping[str, np.ndarray], num: int) -> Values:
        try:
            return self.runner.evaluate(columns, num)
        except _FORGIVEN:
            if self.has_forgiven:
                raise
        self.has_forgiven = True
        return self.runner.evaluate(columns, num)


def _joined(rows: Sequence[range], parts: Sequence[Values]) -> Values:
    """Answers one after the other; a component that one of them lacks is 0 there."""
    names = dict.fromkeys(name for part in parts for name in part.components)
    zeros = [np.zeros(len(part.valid)) for part in parts]
    lacking = {name: np.concatenate([part.lacks(name) for part in parts]) for name in names}
    return Values(
        components={
            name: np.concatenate([part.components.get(name, zero) for part, zero in zip(parts, zeros, strict=True)])
            for name in names
        },
        valid=np.concatenate([np.zeros(0, bool), *(part.valid for part in parts)]),
        why={some.start + row: why for some, part in zip(rows, parts, strict=True) for row, why in part.why.items()},
        lacking={name: rows for name, rows in lacking.items() if rows.any()},
    )
