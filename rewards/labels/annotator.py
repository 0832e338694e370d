"""Puts lists of questions to an annotator: retries, a circuit breaker, and what is known about an outage."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress

from rewards.labels.breaker import CircuitBreaker, Permit
from rewards.labels.clients import BatchRefusedError, LabelClient, LabelClientError, LabelReply, LabelRequest
from rewards.labels.config import LabellerConfig
from rewards.labels.prompts import PromptSpec
from rewards.labels.questions import Question


class Annotator:
    """One annotator behind a circuit breaker.

    Whoever wants to ask gets a permit first, so that nothing is taken from a queue while the annotator is
    left alone.

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

    async def permit(self, deadline_s: float = float("inf")) -> Permit:
        """Leave to call, as soon as the breaker gives it.

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
        requests = [LabelRequest(self._spec, question) for question in questions]
        deadline_s = time.monotonic() + self._config.retry_deadline_s
        wait_s = self._config.backoff_min_s
        while True:
            if permit is None or not self.breaker.is_valid(permit):
                permit = await self.permit(deadline_s)
            try:
                replies = await self._call(requests)
            except BatchRefusedError:
                self._note_success()
                raise
            except LabelClientError as error:
                self._note_failure(permit, error)
                # Jitter keeps the batches in flight from coming back all at once.
                pause_s = wait_s * random.uniform(0.5, 1.0)
                if time.monotonic() + pause_s >= deadline_s:
                    raise
            else:
                self._note_success()
                return replies
            permit = None
            await asyncio.sleep(pause_s)
            self.retries += 1
            wait_s = min(2 * wait_s, self._config.backoff_max_s)

    async def _call(self, requests: Sequence[LabelRequest]) -> list[LabelReply]:
        limit_s = self._config.request_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                replies = await self._client.label(requests)
        except TimeoutError as error:
            raise LabelClientError(f"no answer within {limit_s:g} s") from error
        if len(replies) != len(requests):
            raise ValueError(f"annotator '{self._client.name}' gave {len(replies)} replies to {len(requests)} requests")
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
