"""A circuit breaker: leaves an annotator that keeps failing alone for a while, then tries it with one call.

    closed --N failures in a row--> open --cool-down--> half-open (one probe) --success--> closed
                                      ^----------------- failure (cool-down doubles) --'

Pure bookkeeping: it neither sleeps nor calls; whoever calls asks for a permit first and reports the outcome.
See Nygard, *Release It!* (2007).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make calls, until the breaker opens next."""

    period: int
    """Closed stretch or probe that it was given in; an older one says nothing about the annotator of now."""


class CircuitBreaker:
    """Says when calls may be made.

    Args:
        failures: calls that must fail in a row before it opens.
        cool_down_s: seconds until the first probe; doubles with each probe that fails.
        max_cool_down_s: longest cool-down.
        clock: seconds, never running backwards.
        jitter: numbers in [0, 1); a cool-down is shortened by up to a half, so that runs which share an
            annotator do not all come back at once.
    """

    def __init__(
        self,
        failures: int,
        cool_down_s: float,
        max_cool_down_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._failures, self._first_s, self._longest_s = failures, cool_down_s, max_cool_down_s
        self._clock, self._jitter = clock, jitter
        self._period = 0
        self._in_a_row = 0
        self._cool_down_s = cool_down_s
        self._opens_at_s: float | None = None
        """When a probe may be made; None = closed."""
        self._is_probing = False
        self.opens = 0
        """Times that it opened after having been closed."""

    @property
    def is_open(self) -> bool:
        """The annotator failed, and has not answered since."""
        return self._opens_at_s is not None

    @property
    def wait_s(self) -> float | None:
        """Seconds until a call may be made, 0 = now; None while a probe is under way."""
        if self._opens_at_s is None:
            return 0.0
        return None if self._is_probing else max(0.0, self._opens_at_s - self._clock())

    def enter(self) -> Permit | None:
        """A permit; None while no call may be made."""
        if self.wait_s != 0.0:
            return None
        self._is_probing = self.is_open
        return Permit(self._period)

    def is_valid(self, permit: Permit) -> bool:
        """The breaker has not opened since the permit was given."""
        return permit.period == self._period

    def leave(self, permit: Permit) -> None:
        """Give a permit back without having called: somebody else may probe."""
        if self.is_valid(permit):
            self._is_probing = False

    def succeed(self) -> None:
        """A call was answered, with whatever permit: the annotator is there."""
        self._in_a_row = 0
        self._cool_down_s = self._first_s
        self._opens_at_s, self._is_probing = None, False

    def fail(self, permit: Permit) -> None:
        """A call failed. One that began before the breaker opened says nothing new."""
        if not self.is_valid(permit):
            return
        self._in_a_row += 1
        if self.is_open:
            self._cool_down_s = min(2 * self._cool_down_s, self._longest_s)
        elif self._in_a_row < self._failures:
            return
        else:
            self.opens += 1
        self._period += 1
        self._is_probing = False
        self._opens_at_s = self._clock() + self._cool_down_s * (1.0 - 0.5 * self._jitter())
