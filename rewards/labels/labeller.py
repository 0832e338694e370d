"""Asks an annotator about every new caption, once, without ever holding up training.

    submit(captions) -> queue (newest first, bounded) -> workers (batches, several in flight)
                     -> client -> LabelStore (append) -> labels_since(cursor)

A plain asyncio class: every method is called on the loop that ``start`` ran on.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.labels.clients import LabelClient, LabelClientError, LabelReply, LabelRequest
from rewards.labels.config import LabellerConfig
from rewards.labels.prompts import ParseFailure, PromptSpec
from rewards.labels.store import CaptionCollisionError, Label, LabelStore, label_key


class LabellerError(RuntimeError):
    """Labelling has stopped or cannot answer; the cause is in the message and chained."""


@dataclass(slots=True)
class _Counts:
    from_store: int = 0
    asked: int = 0
    labelled: int = 0
    uncovered: int = 0
    failed: int = 0
    retries: int = 0
    dropped: int = 0
    over_budget: int = 0
    latency_s: float = 0.0


class Labeller:
    """Queue, workers and answers of one annotator with one question.

    Args:
        store: where answers go; this labeller is its only writer.
        client: who answers.
        spec: what is asked.
        config: limits.
    """

    def __init__(
        self,
        store: LabelStore,
        client: LabelClient,
        spec: PromptSpec | None = None,
        config: LabellerConfig | None = None,
    ) -> None:
        self._store, self._client = store, client
        self._spec, self._config = spec or PromptSpec(), config or LabellerConfig()
        self._counts = _Counts()
        self._queue: dict[int, str] = {}
        """Waiting captions, oldest first."""
        self._urgent: dict[int, str] = {}
        """Captions that ``drain`` waits for: asked before the queue, never dropped."""
        self._in_flight: dict[int, str] = {}
        self._waiters: dict[int, asyncio.Future[float | None]] = {}
        self._answers: dict[int, tuple[str, float | None]] = {}
        """``{caption_id: (key, value)}`` of everything answered."""
        self._order: list[int] = []
        """Caption ids in the order of their answers: the cursor of ``labels_since`` counts in it."""
        self._workers: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._free_at_s = 0.0
        self._load_answers()

    def _load_answers(self) -> None:
        mine = (self._spec.version, self._client.name, self._client.revision, self._spec.goal)
        cursor = 0
        while True:
            labels, cursor = self._store.since(cursor)
            if not labels:
                return
            for label in labels:
                asked = (label.prompt_version, label.model, label.model_revision, label.goal)
                if asked == mine and not label.second_id:
                    self._record(label)

    def _record(self, label: Label) -> None:
        self._answers[label.caption_id] = (label.key, label.value)
        self._order.append(label.caption_id)

    async def start(self) -> None:
        """Start the workers.

        Raises:
            LabellerError: it has been started already.
        """
        if self._workers:
            raise LabellerError("the labeller has been started already")
        for number in range(self._client.max_in_flight):
            task = asyncio.create_task(self._work(), name=f"labeller-{number}")
            task.add_done_callback(self._on_end)
            self._workers.append(task)

    async def close(self) -> None:
        """Stop the workers and close the client; the store stays open. What was not answered is forgotten."""
        workers, self._workers = self._workers, []
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._fail_waiters(LabellerError("the labeller was closed"))
        await self._client.close()

    def submit(self, captions: Mapping[int, str]) -> None:
        """Queue captions that are neither answered, nor queued, nor in flight; never waits.

        The newest are asked first; where the queue is full, the oldest are dropped and counted.

        Args:
            captions: ``{caption_id: canonical text}``, oldest first.

        Raises:
            LabellerError: labelling has stopped because of an error.
            CaptionCollisionError: an id was answered for another text.
        """
        self._check()
        for ident, text in captions.items():
            if ident == 0 or self._is_known(ident, text):
                continue
            if self._budget_left() <= 0:
                self._counts.over_budget += 1
                continue
            self._queue[ident] = text
        while len(self._queue) > self._config.max_queued:
            del self._queue[next(iter(self._queue))]
            self._counts.dropped += 1
        self._wake.set()

    async def drain(self, captions: Mapping[int, str]) -> dict[int, float | None]:
        """Wait until each of these captions has an answer.

        Returns:
            ``{caption_id: value}`` in the order given; value None where the annotator abstained, its
            reply could not be parsed, or the budget is spent.

        Raises:
            LabellerError: labelling stopped, or the annotator gave no answer until the deadline.
            CaptionCollisionError: an id was answered for another text.
        """
        self._check()
        if not self._workers:
            raise LabellerError("start the labeller before waiting for labels")
        futures: dict[int, asyncio.Future[float | None]] = {}
        for ident, text in captions.items():
            if ident == 0:
                continue
            if not self._is_known(ident, text):
                self._urgent[ident] = text
            elif ident in self._queue:
                self._urgent[ident] = self._queue.pop(ident)
            if ident not in self._answers:
                futures[ident] = self._waiters.setdefault(ident, asyncio.get_running_loop().create_future())
        self._wake.set()
        if futures:
            # wait, not gather: another caller may wait for the same answer when this one is cancelled.
            await asyncio.wait(futures.values())
        errors = [error for future in futures.values() if (error := future.exception()) is not None]
        if errors:
            raise errors[0]
        waited = {ident: future.result() for ident, future in futures.items()}
        silence = {0: 0.0}
        known = {i: self._answers[i][1] for i in captions if i in self._answers}
        return {ident: (silence | known | waited)[ident] for ident in captions}

    def labels_since(self, cursor: int = 0) -> tuple[list[tuple[int, float | None]], int]:
        """Answers of this annotator to this question, after ``cursor``, in the order they came.

        Those that the store held at the start come first. Every caption comes once.

        Returns:
            ``[(caption_id, value or None)]`` and the new cursor.

        Raises:
            LabellerError: labelling has stopped because of an error.
        """
        self._check()
        new = self._order[cursor:]
        return [(ident, self._answers[ident][1]) for ident in new], cursor + len(new)

    def metrics(self) -> dict[str, float]:
        """Counters since the start, and what waits now.

        ``failed`` counts replies that could not be parsed and captions without an answer at the deadline.

        Raises:
            LabellerError: labelling has stopped because of an error.
        """
        self._check()
        counts = self._counts
        return {
            "queued": float(len(self._queue) + len(self._urgent)),
            "in_flight": float(len(self._in_flight)),
            "asked": float(counts.asked),
            "labelled": float(counts.labelled),
            "failed": float(counts.failed),
            "uncovered": float(counts.uncovered),
            "retries": float(counts.retries),
            "dropped": float(counts.dropped),
            "over_budget": float(counts.over_budget),
            "from_store": float(counts.from_store),
            "latency_s": counts.latency_s,
        }

    def state_dict(self) -> dict[str, int]:
        """What the budget has been spent on; labels are in the store."""
        return {"asked": self._counts.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the budget of ``state_dict``."""
        self._counts.asked = int(state["asked"])

    def _check(self) -> None:
        for task in self._workers:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise LabellerError(f"labelling stopped: {error}") from error

    def _is_known(self, ident: int, text: str) -> bool:
        waiting = self._queue.get(ident) or self._urgent.get(ident) or self._in_flight.get(ident)
        if waiting is not None:
            if waiting != text:
                raise CaptionCollisionError(f"caption id {ident} stands for {waiting!r} and for {text!r}")
            return True
        if ident not in self._answers:
            return False
        if self._answers[ident][0] != self._key(text):
            raise CaptionCollisionError(f"caption id {ident} was answered for another text than {text!r}")
        self._counts.from_store += 1
        return True

    def _key(self, text: str) -> str:
        return label_key(
            text,
            prompt_version=self._spec.version,
            model=self._client.name,
            model_revision=self._client.revision,
            goal=self._spec.goal,
        )

    def _budget_left(self) -> float:
        limit = self._config.max_labels
        return float("inf") if limit is None else limit - self._counts.asked

    def _take(self) -> dict[int, str]:
        """The next batch: what is waited for in the order asked, then the newest."""
        size = int(min(self._client.max_batch, self._budget_left()))
        if size <= 0:
            self._give_up_waiting()
            return {}
        if self._config.max_labels_per_s is not None:
            size = min(size, max(1, int(self._config.max_labels_per_s)))
        batch: dict[int, str] = {}
        while len(batch) < size and (self._urgent or self._queue):
            if self._urgent:
                ident = next(iter(self._urgent))
                batch[ident] = self._urgent.pop(ident)
            else:
                ident, text = self._queue.popitem()
                batch[ident] = text
        self._counts.asked += len(batch)
        self._in_flight |= batch
        return batch

    def _give_up_waiting(self) -> None:
        """The budget is spent: nothing that waits will be asked."""
        self._counts.over_budget += len(self._queue) + len(self._urgent)
        for ident in self._urgent:
            self._resolve(ident, None)
        self._queue.clear()
        self._urgent.clear()

    async def _work(self) -> None:
        while True:
            batch = self._take()
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._pace(len(batch))
            await self._answer(batch)

    async def _pace(self, size: int) -> None:
        rate = self._config.max_labels_per_s
        if rate is None:
            return
        start_s = max(self._free_at_s, time.monotonic())
        self._free_at_s = start_s + size / rate
        await asyncio.sleep(start_s - time.monotonic())

    async def _answer(self, batch: dict[int, str]) -> None:
        begin_s = time.monotonic()
        requests = [LabelRequest(self._spec, text) for text in batch.values()]
        try:
            replies = await self._ask(requests)
        except LabelClientError as error:
            self._give_up(batch, str(error))
            return
        seconds = time.monotonic() - begin_s
        self._counts.latency_s = seconds if not self._order else 0.9 * self._counts.latency_s + 0.1 * seconds
        refused = {i: r.error for i, r in zip(batch, replies, strict=True) if r.error is not None}
        labels = [
            self._label(ident, text, reply)
            for (ident, text), reply in zip(batch.items(), replies, strict=True)
            if ident not in refused
        ]
        self._store.append(labels)
        for label in labels:
            self._record(label)
            self._in_flight.pop(label.caption_id)
            self._resolve(label.caption_id, label.value)
            self._counts.labelled += label.value is not None
            self._counts.failed += label.failed
            self._counts.uncovered += label.value is None and not label.failed
        for ident, reason in refused.items():
            self._give_up({ident: batch[ident]}, str(reason))

    async def _ask(self, requests: Sequence[LabelRequest]) -> list[LabelReply]:
        deadline_s = time.monotonic() + self._config.retry_deadline_s
        wait_s = self._config.backoff_min_s
        while True:
            try:
                return await self._call(requests)
            except LabelClientError:
                # Jitter keeps the batches in flight from coming back all at once.
                pause_s = wait_s * random.uniform(0.5, 1.0)
                if time.monotonic() + pause_s >= deadline_s:
                    raise
                self._counts.retries += 1
                await asyncio.sleep(pause_s)
                wait_s = min(2 * wait_s, self._config.backoff_max_s)

    async def _call(self, requests: Sequence[LabelRequest]) -> list[LabelReply]:
        limit_s = self._config.request_timeout_s
        call: Coroutine[Any, Any, list[LabelReply]] = self._client.label(requests)
        try:
            replies = await asyncio.wait_for(call, limit_s)
        except TimeoutError as error:
            raise LabelClientError(f"no answer within {limit_s:g} s") from error
        if len(replies) != len(requests):
            raise ValueError(f"annotator '{self._client.name}' gave {len(replies)} replies to {len(requests)} requests")
        return replies

    def _label(self, ident: int, text: str, reply: LabelReply) -> Label:
        value = self._spec.parse(reply.text)
        failed = isinstance(value, ParseFailure)
        return Label(
            key=self._key(text),
            caption_id=ident,
            text=text,
            prompt_version=self._spec.version,
            model=self._client.name,
            model_revision=self._client.revision,
            goal=self._spec.goal,
            value=None if isinstance(value, ParseFailure) else value,
            probability=None if failed else reply.probability,
            raw_reply=reply.text,
            failed=failed,
            time_s=time.time(),
        )

    def _give_up(self, batch: Mapping[int, str], reason: str) -> None:
        """No answer for these: counted, not stored, so that they may be asked again later."""
        self._counts.failed += len(batch)
        for ident, text in batch.items():
            del self._in_flight[ident]
            if (waiter := self._waiters.pop(ident, None)) is not None:
                waiter.set_exception(LabellerError(f"no label for {text!r}: {reason}"))

    def _resolve(self, ident: int, value: float | None) -> None:
        if (waiter := self._waiters.pop(ident, None)) is not None and not waiter.done():
            waiter.set_result(value)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            stopped = LabellerError(f"labelling stopped: {error}")
            stopped.__cause__ = error
            self._fail_waiters(stopped)

    def _fail_waiters(self, error: LabellerError) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            if not waiter.done():
                waiter.set_exception(error)
