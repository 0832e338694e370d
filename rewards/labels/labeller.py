"""Asks an annotator every new question, once, without ever holding up training.

    submit(questions) -> backlog (newest first, bounded) -> workers (batches, several in flight)
       -> claim in the LabelStore (what others have answered or are asking is not asked)
       -> client (behind a circuit breaker) -> LabelStore (append) -> labels_since(cursor)

A plain asyncio class: every method is called on the loop that ``start`` ran on. The store is used by a
thread of its own, so that neither a slow disk nor another run's write holds up the loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar
from uuid import uuid4

from rewards.labels.annotators import BatchRefusedError, LabelClient, LabelClientError, LabelReply, MeteredClient
from rewards.labels.backlog import Backlog
from rewards.labels.config import LabellerConfig
from rewards.labels.questions import Answer, Ids, ParseFailure, PromptSpec, Question
from rewards.labels.retry import Permit, RetryingClient
from rewards.labels.store import CaptionCollisionError, Label, LabelStore, LabelStoreError, label_key

T = TypeVar("T")

_REASON_LENGTH = 200
"""Characters of a refusal that are stored."""


class LabellerError(RuntimeError):
    """Labelling has stopped or cannot answer; the cause is in the message and chained."""


@dataclass(slots=True)
class _Counts:
    from_store: int = 0
    labelled: int = 0
    uncovered: int = 0
    unreadable: int = 0
    refused: int = 0
    latency_s: float = 0.0


class Labeller:
    """Backlog, workers and answers of one annotator with one prompt.

    Args:
        store: where answers go, and come from; other processes may use the same file.
        client: who answers.
        spec: what is asked.
        config: limits.
        run_id: whose budget is spent; one that goes on under the id of an earlier one has what that one left.
            None = a run of its own.

    Raises:
        LabelStoreError: the store cannot be read.
    """

    def __init__(
        self,
        store: LabelStore,
        client: LabelClient,
        spec: PromptSpec | None = None,
        config: LabellerConfig | None = None,
        run_id: str | None = None,
    ) -> None:
        self._store, self._client = store, client
        self._spec, self._config = spec or PromptSpec(), config or LabellerConfig()
        self._owner = uuid4().hex
        """Names our claims in the store: those of an earlier life under the same run id are not ours."""
        self._run_id = run_id or self._owner
        self._spent = store.spent(self._run_id)
        """Questions that the budget went on: those the annotator answered, in earlier lives of the run too. What was
        being asked when one of them ended is not counted, as it will be asked again."""
        self._annotator = RetryingClient(client, self._spec, self._config)
        self._counts = _Counts()
        self._backlog = Backlog(self._config.max_queued)
        self._in_flight: dict[Ids, Question] = {}
        """Taken from the backlog: being claimed, or claimed and being asked."""
        self._elsewhere: dict[Ids, Question] = {}
        """Claimed by another run: its answer is looked for in the store."""
        self._over_budget: set[Ids] = set()
        self._given_up: set[Ids] = set()
        """These count questions, which may be submitted again and again, once each."""
        self._waiters: dict[Ids, list[asyncio.Future[Answer]]] = {}
        """Who waits for which answer: one future for each ``drain``."""
        self._answers: dict[Ids, Answer] = {}
        self._order: list[Answer] = []
        """Answers in the order they came: the cursor of ``labels_since`` counts in it."""
        self._unused: set[Ids] = set()
        """Answers that the store held at the start and that were not asked for yet."""
        self._tasks: list[asyncio.Task[None]] = []
        self._disk: ThreadPoolExecutor | None = None
        self._changed = asyncio.Event()
        """Something happened that a waiting worker may care about."""
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
                if (label.prompt_version, label.model, label.model_revision, label.goal) == mine:
                    self._unused.add(self._record(label).question.ids)

    def _record(self, label: Label) -> Answer:
        """Take in a stored label, and give it to those who wait for it."""
        question = Question(label.caption_id, label.text, label.second_id, label.second_text)
        answer = Answer(question, label.value, label.probability)
        self._answers[question.ids] = answer
        self._order.append(answer)
        self._resolve(answer)
        return answer

    async def start(self) -> None:
        """Start the workers.

        Raises:
            LabellerError: it has been started already.
        """
        if self._tasks:
            raise LabellerError("the labeller has been started already")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="label-store")
        chores = [self._work() for _ in range(self._client.max_in_flight)]
        for chore in (*chores, self._keep_claims(), self._look_elsewhere()):
            task = asyncio.create_task(chore, name="labeller")
            task.add_done_callback(self._on_end)
            self._tasks.append(task)

    async def close(self) -> None:
        """Stop the workers and close the client; the store stays open. What was not answered is forgotten."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_waiters(LabellerError("the labeller was closed"))
        if self._disk is not None:
            with suppress(LabelStoreError):  # a claim that cannot be ended now ends with its lease
                await self._release(self._in_flight.values())
            disk, self._disk = self._disk, None
            disk.shutdown()
        await self._client.close()

    @property
    def problem(self) -> str | None:
        """One sentence: why no labels come, as of the last call that failed; None while they do."""
        return None if self._annotator.failing_since_s is None else f"no labels: {self._annotator.reason}"

    def submit(self, questions: Iterable[Question]) -> None:
        """Queue questions that are neither answered, nor queued, nor in flight; never waits.

        The newest are asked first; where the queue is full, the oldest are dropped and counted. Silence
        (caption id 0) is not asked about.

        Args:
            questions: oldest first.

        Raises:
            LabellerError: labelling has stopped because of an error.
            CaptionCollisionError: the same ids came with another text.
            ValueError: a question about a pair where the prompt asks about single captions, or the reverse.
        """
        self._check()
        for question in questions:
            if self._answer_to(question) is not None or self._is_under_way(question):
                continue
            if self._budget_left() <= 0:
                self._over_budget.add(question.ids)
            else:
                self._backlog.add(question)
        self._changed.set()

    async def drain(self, questions: Iterable[Question]) -> list[Answer]:
        """Wait until each of these questions has an answer.

        Returns:
            Answers in the order asked; value None where the annotator abstained, its reply could not be
            parsed or was a refusal, or the budget is spent. Silence is worth 0.

        Raises:
            LabellerError: labelling stopped, or the annotator gave no answer until the deadline.
            CaptionCollisionError: the same ids came with another text.
            ValueError: a question about a pair where the prompt asks about single captions, or the reverse.
        """
        self._check()
        if not self._tasks:
            raise LabellerError("start the labeller before waiting for labels")
        questions = list(questions)
        known = {question: self._answer_to(question) for question in questions}
        futures = {question: self._wait_for(question) for question, answer in known.items() if answer is None}
        self._changed.set()
        try:
            await self._until_done(futures)
        finally:
            for question, future in futures.items():
                self._stop_waiting(question, future)
        return [known[question] or futures[question].result() for question in questions]

    def _wait_for(self, question: Question) -> asyncio.Future[Answer]:
        if not self._is_under_way(question) or self._backlog.get(question.ids) is not None:
            self._backlog.add_urgent(question)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(question.ids, []).append(future)
        return future

    def _stop_waiting(self, question: Question, future: asyncio.Future[Answer]) -> None:
        waiters = self._waiters.get(question.ids, [])
        if future in waiters:  # neither answered nor failed
            waiters.remove(future)
            if not waiters:
                del self._waiters[question.ids]
                self._backlog.discard(question.ids)

    async def _until_done(self, futures: Mapping[Question, asyncio.Future[Answer]]) -> None:
        """Until all are done; in an outage until the deadline, whether or not their turn has come."""
        limit_s, begin_s = self._config.retry_deadline_s, time.monotonic()
        pending = set(futures.values())
        while pending:
            failing_since_s = self._annotator.failing_since_s
            silent_s = 0.0 if failing_since_s is None else time.monotonic() - max(begin_s, failing_since_s)
            if silent_s >= limit_s:
                late = [question for question, future in futures.items() if not future.done()]
                self._given_up.update(question.ids for question in late if self._backlog.get(question.ids) is not None)
                raise LabellerError(f"no label for {_shown(late[0])}: {self._annotator.reason}")
            _, pending = await asyncio.wait(pending, timeout=limit_s - silent_s)

    def labels_since(self, cursor: int = 0) -> tuple[list[Answer], int]:
        """Answers of this annotator to this prompt, after ``cursor``, in the order they came.

        Those that the store held at the start come first, of all runs; later ones of other runs come where
        they were asked for here too. Every question comes once.

        Returns:
            Answers and the new cursor.

        Raises:
            LabellerError: labelling has stopped because of an error.
        """
        self._check()
        new = self._order[cursor:]
        return new, cursor + len(new)

    def metrics(self) -> dict[str, float]:
        """Counters since the start, and what waits now.

        ``asked`` counts what the annotator has answered for this run, in its earlier lives too, and what is in
        flight: the budget. ``dropped``, ``over_budget`` and ``failed`` count questions, however often they were
        submitted: ``failed`` those whose reply could not be parsed, or that had no answer at a deadline;
        ``refused`` what the annotator would not answer; ``claimed_elsewhere`` questions whose answer another
        run is getting now; ``breaker_open`` is 1 while the annotator is left alone because it failed;
        ``breaker_opens`` counts such outages. Of a client that counts what it uses, also ``llm_requests``,
        ``llm_prompt_tokens`` and so on.

        Raises:
            LabellerError: labelling has stopped because of an error.
        """
        self._check()
        counts = self._counts
        usage = asdict(self._client.usage) if isinstance(self._client, MeteredClient) else {}
        return {
            "queued": float(len(self._backlog)),
            "in_flight": float(len(self._in_flight)),
            "claimed_elsewhere": float(len(self._elsewhere)),
            "asked": float(self._spent + len(self._in_flight)),
            "labelled": float(counts.labelled),
            "failed": float(counts.unreadable + len(self._given_up)),
            "refused": float(counts.refused),
            "uncovered": float(counts.uncovered),
            "retries": float(self._annotator.retries),
            "dropped": float(self._backlog.dropped),
            "over_budget": float(len(self._over_budget)),
            "from_store": float(counts.from_store),
            "breaker_open": float(self._annotator.breaker.is_open),
            "breaker_opens": float(self._annotator.breaker.opens),
            "latency_s": counts.latency_s,
            **{f"llm_{name}": float(value) for name, value in usage.items()},
        }

    def state_dict(self) -> dict[str, int]:
        """What the budget has been spent on; labels are in the store, and so is what this run will have spent."""
        return {"asked": self._spent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the budget of ``state_dict``.

        The store knows the run's answers since then too: they count, as they will not be asked again. The state
        alone counts where the store is another one.
        """
        self._spent = max(self._spent, int(state["asked"]))

    def _check(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise LabellerError(f"labelling stopped: {error}") from error

    def _answer_to(self, question: Question) -> Answer | None:
        """The answer that there is already."""
        if question.is_pair != self._spec.is_pair:
            raise ValueError(
                f"prompt {self._spec.version} asks about {'pairs' if self._spec.is_pair else 'single captions'}, "
                f"and cannot ask {question}"
            )
        if question.caption_id == 0:
            return Answer(question, 0.0)
        if (answer := self._answers.get(question.ids)) is None:
            return None
        _same(question, answer.question)
        if question.ids in self._unused:
            self._unused.remove(question.ids)
            self._counts.from_store += 1
        return answer

    def _is_under_way(self, question: Question) -> bool:
        ids = question.ids
        waiting = self._backlog.get(ids) or self._in_flight.get(ids) or self._elsewhere.get(ids)
        if waiting is None:
            return False
        _same(question, waiting)
        return True

    def _key(self, question: Question) -> str:
        return label_key(
            question.text,
            second_text=question.second_text,
            prompt_version=self._spec.version,
            model=self._client.name,
            model_revision=self._client.revision,
            goal=self._spec.goal,
        )

    def _budget_left(self) -> float:
        limit = self._config.max_labels
        return math.inf if limit is None else limit - self._spent

    def _take(self) -> list[Question]:
        """The next batch."""
        if self._budget_left() <= 0:
            self._end_backlog()
        size = min(self._client.max_batch, max(0, self._budget_left() - len(self._in_flight)))
        if self._config.max_labels_per_s is not None:
            size = min(size, max(1, int(self._config.max_labels_per_s)))
        batch = self._backlog.take(int(size))
        self._in_flight |= {question.ids: question for question in batch}
        return batch

    def _end_backlog(self) -> None:
        """The budget is spent: nothing that waits will be asked."""
        ended = self._backlog.take(len(self._backlog))
        self._over_budget.update(question.ids for question in ended)
        for question in ended:
            self._resolve(Answer(question, None))

    async def _work(self) -> None:
        while True:
            permit = await self._annotator.permit()
            batch = self._take()
            mine = await self._claim(batch) if batch else []
            if mine:
                await self._pace(len(mine))
                await self._answer(mine, permit)
                continue
            self._annotator.leave(permit)
            if not batch:
                self._changed.clear()
                await self._changed.wait()

    async def _in_store(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    async def _claim(self, batch: Sequence[Question]) -> list[Question]:
        """Those of the batch that are ours to ask; what others have answered is taken from the store."""
        keys = {self._key(question): question for question in batch}
        owner, lease_s = self._owner, self._config.lease_s

        def claim() -> tuple[set[str], dict[str, Label]]:
            mine = self._store.claim(keys, owner, lease_s)
            return mine, self._store.get([key for key in keys if key not in mine])

        mine, found = await self._in_store(claim)
        self._take_found(found.values())
        for key, question in keys.items():
            if key not in mine:
                del self._in_flight[question.ids]
                if key not in found:
                    self._elsewhere[question.ids] = question
        self._changed.set()
        return [question for key, question in keys.items() if key in mine]

    def _take_found(self, labels: Iterable[Label]) -> None:
        for label in labels:
            self._record(label)
            self._counts.from_store += 1

    async def _release(self, questions: Iterable[Question]) -> None:
        keys = [self._key(question) for question in questions]
        if keys:
            await self._in_store(lambda: self._store.release(keys, self._owner))

    async def _keep_claims(self) -> None:
        """Renew what is in flight, which may take many times the lease."""
        while True:
            await asyncio.sleep(self._config.lease_s / 3)
            keys = [self._key(question) for question in self._in_flight.values()]
            if keys:
                await self._in_store(lambda keys=keys: self._store.claim(keys, self._owner, self._config.lease_s))

    async def _look_elsewhere(self) -> None:
        """Look for the answers that other runs get; what they do not claim any more is queued again."""
        while True:
            await asyncio.sleep(self._config.lease_poll_s)
            if not self._elsewhere:
                continue
            keys = {self._key(question): question for question in self._elsewhere.values()}

            def look(keys: Sequence[str] = tuple(keys)) -> tuple[dict[str, Label], set[str]]:
                # In this order: a label that is added in between has its claim still, or is found next time.
                claimed = self._store.claimed(keys, besides=self._owner)
                return self._store.get(keys), claimed

            found, claimed = await self._in_store(look)
            self._take_found(found.values())
            for key, question in keys.items():
                if key in found:
                    del self._elsewhere[question.ids]
                elif key not in claimed:
                    del self._elsewhere[question.ids]
                    is_waited_for = question.ids in self._waiters
                    (self._backlog.add_urgent if is_waited_for else self._backlog.add)(question)
            self._changed.set()

    async def _pace(self, size: int) -> None:
        rate = self._config.max_labels_per_s
        if rate is None:
            return
        start_s = max(self._free_at_s, time.monotonic())
        self._free_at_s = start_s + size / rate
        await asyncio.sleep(start_s - time.monotonic())

    async def _answer(self, batch: list[Question], permit: Permit | None) -> None:
        """Ask a batch; what is refused as a whole is asked in halves, until what is bad stands alone."""
        lists = [batch]
        while lists:
            asked = lists.pop()
            begin_s = time.monotonic()
            try:
                replies = await self._annotator.ask(asked, permit)
            except BatchRefusedError as error:
                if len(asked) > 1:
                    half = len(asked) // 2
                    lists += [asked[half:], asked[:half]]
                    continue
                replies = [LabelReply(error=str(error))]
            except LabelClientError:
                unanswered = [*asked, *(question for later in lists for question in later)]
                # In this order: what is still in flight would be claimed again by the next renewal.
                self._give_up(unanswered)
                await self._release(unanswered)
                return
            finally:
                permit = None
            self._note_latency(time.monotonic() - begin_s)
            await self._keep(asked, replies)

    def _note_latency(self, seconds: float) -> None:
        known = self._counts.latency_s
        self._counts.latency_s = 0.9 * known + 0.1 * seconds if known else seconds

    async def _keep(self, asked: Sequence[Question], replies: Sequence[LabelReply]) -> None:
        """Store answers; where another run was first after all, its answer counts."""
        labels = {
            label.key: label
            for label in (self._label(question, reply) for question, reply in zip(asked, replies, strict=True))
        }

        def append() -> dict[str, Label]:
            is_all_new = self._store.append(labels.values(), self._run_id) == len(labels)
            return labels if is_all_new else self._store.get(list(labels))

        stored = await self._in_store(append)
        self._spent += len(labels)
        for key, (question, reply) in zip(labels, zip(asked, replies, strict=True), strict=True):
            label = stored[key]
            del self._in_flight[question.ids]
            self._record(label)
            self._counts.labelled += label.value is not None
            self._counts.refused += reply.error is not None
            self._counts.unreadable += label.failed and reply.error is None
            self._counts.uncovered += label.value is None and not label.failed

    def _label(self, question: Question, reply: LabelReply) -> Label:
        value = self._spec.parse(reply.text) if reply.error is None else ParseFailure(reply.error)
        failed = isinstance(value, ParseFailure)
        refusal = None if reply.error is None else f"refused: {' '.join(reply.error.split())[:_REASON_LENGTH]}"
        return Label(
            key=self._key(question),
            caption_id=question.caption_id,
            text=question.text,
            second_id=question.second_id,
            second_text=question.second_text,
            prompt_version=self._spec.version,
            model=self._client.name,
            model_revision=self._client.revision,
            goal=self._spec.goal,
            value=None if isinstance(value, ParseFailure) else value,
            probability=None if failed or value is None else reply.probability,
            raw_reply=refusal or reply.text,
            failed=failed,
            time_s=time.time(),
        )

    def _give_up(self, questions: Iterable[Question]) -> None:
        """No answer for these: not stored, so that they may be asked again, at once where one is still awaited."""
        for question in questions:
            del self._in_flight[question.ids]
            if question.ids in self._waiters:
                self._backlog.add_urgent(question)
            else:
                self._given_up.add(question.ids)
        self._changed.set()

    def _resolve(self, answer: Answer) -> None:
        for waiter in self._waiters.pop(answer.question.ids, []):
            if not waiter.done():
                waiter.set_result(answer)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            stopped = LabellerError(f"labelling stopped: {error}")
            stopped.__cause__ = error
            self._fail_waiters(stopped)

    def _fail_waiters(self, error: LabellerError) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in (waiter for some in waiters.values() for waiter in some):
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # retrieved: the waiting task may be ending too, which is no reason for a warning


def _same(question: Question, known: Question) -> None:
    if question != known:
        raise CaptionCollisionError(
            f"caption ids {question.ids} stand for {_shown(known)} and cannot also stand for {_shown(question)}"
        )


def _shown(question: Question) -> str:
    return f"{question.text!r} and {question.second_text!r}" if question.is_pair else repr(question.text)
