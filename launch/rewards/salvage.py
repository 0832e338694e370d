"""Answers for as many rows as can be had, where a limit is put on batches and one bad row can use all of it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from rewards.auto.sandbox.contained import NonDeterministicError, Runner, Values, batches, part_of
from rewards.auto.sandbox.engine import EngineError

_ALIKE = 3
"""Failures of batches of one size after which no others of that size are tried; one less while none has answered."""
_LEAP = 8
"""How much smaller batches become at once while none has answered: it may be every row that takes too long."""


@dataclass
class _Found:
    """What is known of N rows so far."""

    num: int
    components: dict[str, np.ndarray] = field(default_factory=dict)
    lacking: dict[str, np.ndarray] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)

    def take(self, rows: range, values: Values) -> None:
        for name, value in values.components.items():
            self.components.setdefault(name, np.zeros(self.num))[rows.start : rows.stop] = value
            self.lacking.setdefault(name, np.ones(self.num, bool))[rows.start : rows.stop] = values.lacks(name)
        self.why |= {rows.start + row: why for row, why in values.why.items()}

    def refuse(self, rows: range, why: str) -> None:
        self.why |= dict.fromkeys(rows, why)

    def values(self) -> Values:
        valid = np.ones(self.num, bool)
        valid[list(self.why)] = False
        return Values(components=self.components, valid=valid, why=self.why, lacking=self.lacking)


def salvaged(
    runner: Runner,
    columns: Mapping[str, np.ndarray],
    num: int,
    *,
    retry_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Values:
    """Run a program on rows; a batch without an answer is halved until single rows are left to blame.

    Large batches come first, so that what can be answered soon is. A program that is no function of its inputs gets no
    row answered, whatever it said before.

    Args:
        runner: where it runs; it must survive an ``EngineError``.
        columns: ``{qualified column: [N]}``.
        num: N.
        retry_s: seconds for batches that fail, and for the parts of them; what is left then has no answer.
        clock: seconds, never going back.
    """
    found, failures, cap = _Found(num), Counter[int](), num
    left = deque((rows, False) for rows in batches(num))
    why, spent = "", 0.0
    while left:
        rows, is_retry = left.popleft()
        if spent >= retry_s:
            found.refuse(rows, why)
        elif len(rows) > cap:
            left.extend((half, True) for half in _halves(rows))
        else:
            began = clock()
            try:
                found.take(rows, runner.evaluate(part_of(columns, rows), len(rows)))
            except NonDeterministicError as error:
                found.refuse(range(num), _reason(error))
                break
            except EngineError as error:
                is_retry, why = True, _reason(error)
                failures[len(rows)] += 1
                cap = min(cap, _cap(len(rows), failures[len(rows)], answered=bool(found.components)))
                if len(rows) == 1:
                    found.refuse(rows, why)
                left.extend((half, True) for half in _halves(rows))
            spent += (clock() - began) * is_retry
    return found.values()


def _cap(size: int, failures: int, *, answered: bool) -> int:
    """Rows of the batches that are tried from now on, given failures of batches of one size."""
    if failures < (_ALIKE if answered else _ALIKE - 1):
        return size
    return max(1, size // (2 if answered else _LEAP))


def _halves(rows: range) -> list[range]:
    """Two halves; none of a single row."""
    middle = rows.start + len(rows) // 2
    return [range(rows.start, middle), range(middle, rows.stop)] if len(rows) > 1 else []


def _reason(error: EngineError) -> str:
    return f"{error.code}: {error}"
