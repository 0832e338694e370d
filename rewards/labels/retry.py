"""Puts lists of questions to an annotator: retries, and a circuit breaker with what is known about an outage.

The breaker leaves an annotator that keeps failing alone for a while, then tries it with one call:

    closed --N failures in a row--> open --cool-down--> half-open (one probe) --success--> closed
                                      ^----------------- failure (cool-down doubles) --'

It is pure bookkeeping, and neither sleeps nor calls: the caller gets a permit first and reports the outcome.
See Nygard, *Release It!* (2007).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_before_delay, wait_exponential

from rewards.labels.annotators import BatchRefusedError, LabelClient, LabelClientError, LabelReply
from rewards.labels.config import LabellerConfig
from rewards.labels.questions import PromptSpec, Question


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to make calls, until the breaker opens next."""

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
        """Give a permit back without having called: another caller may probe."""
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


class RetryingClient:
    """One annotator behind a circuit breaker.

    The caller gets a permit first, so that nothing is taken from a queue while the annotator is left alone.

    Args:
        client: who answers.
        spec: what is asked.
        config: time limits, retries and the breaker.
    """

    def __init__(self, client: LabelClient, spec: PromptSpec, config: LabellerConfig) -> None:
        self._client, self._spec, self._config = client, spec, config
        self.breaker = CircuitBreaker(
            config.breaker_failures, config.breaker_cool_down_s, config.breaker_max_cool_down_s
        )
        self.retries = 0
        """Calls that were made again."""
        self.reason = ""
        """What the last failed call said."""
        self.failing_since_s: float | None = None
        """Monotonic time of the first failed call since the last one that was answered; None where there is none."""
        self._changed = asyncio.Event()
        self._backoff = wait_exponential(multiplier=config.backoff_min_s, max=config.backoff_max_s)

    async def permit(self, deadline_s: float = float("inf")) -> Permit:
        """A permit, as soon as the breaker gives one.

        Raises:
            LabelClientError: the deadline (monotonic time) came first.
        """
        while (permit := self.breaker.enter()) is None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise LabelClientError(self.reason)
            wait_s = self.breaker.wait_s
            self._changed.clear()
            # Not wait_for: before Python 3.12 it may swallow a cancellation, and the labeller would never close.
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s if wait_s is None else min(left_s, wait_s)):
                    await self._changed.wait()
        return permit

    def leave(self, permit: Permit) -> None:
        """Give back a permit that nothing was asked with."""
        self.breaker.leave(permit)
        self._changed.set()

    async def ask(self, questions: Sequence[Question], permit: Permit | None = None) -> list[LabelReply]:
        """Replies in the order of the questions, however many calls it takes until the deadline.

        Raises:
            LabelClientError: every call failed until ``retry_deadline_s`` had passed.
            BatchRefusedError: the annotator refuses the list because of something in it.
            ValueError: the client gave another number of replies.
        """
        deadline_s = time.monotonic() + self._config.retry_deadline_s

        async def call() -> list[LabelReply]:
            nonlocal permit
            given, permit = permit, None
            if given is None or not self.breaker.is_valid(given):
                given = await self.permit(deadline_s)
            return await self._call(questions, given)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(LabelClientError),
            stop=stop_before_delay(self._config.retry_deadline_s),
            wait=self._pause_s,
            before=self._count_retry,
            sleep=asyncio.sleep,
            reraise=True,
        )
        return await retrying(call)

    def _pause_s(self, state: RetryCallState) -> float:
        # Jitter keeps the batches in flight from coming back all at once.
        return self._backoff(state) * random.uniform(0.5, 1.0)

    def _count_retry(self, state: RetryCallState) -> None:
        self.retries += state.attempt_number > 1

    async def _call(self, questions: Sequence[Question], permit: Permit) -> list[LabelReply]:
        try:
            replies = await self._call_in_time(questions)
        except BatchRefusedError:
            self._note_success()
            raise
        except LabelClientError as error:
            self._note_failure(permit, error)
            raise
        self._note_success()
        return replies

    async def _call_in_time(self, questions: Sequence[Question]) -> list[LabelReply]:
        limit_s = self._config.request_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                replies = await self._client.label(self._spec, questions)
        except TimeoutError as error:
            raise LabelClientError(f"no answer within {limit_s:g} s") from error
        if len(replies) != len(questions):
            raise ValueError(
                f"annotator '{self._client.name}' gave {len(replies)} replies to {len(questions)} questions"
            )
        return replies

    def _note_success(self) -> None:
        self.breaker.succeed()
        self.failing_since_s = None
        self._changed.set()

    def _note_failure(self, permit: Permit, error: LabelClientError) -> None:
        self.breaker.fail(permit)
        self.reason = str(error)
        if self.failing_since_s is None:
            self.failing_since_s = time.monotonic()
        self._changed.set()
