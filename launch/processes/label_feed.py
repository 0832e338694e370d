"""The labeller beside a run: on a thread of the driver's process, or in an async Ray actor.

The driver hands questions over and goes on; answers come back when they are there. Only ``drain`` waits,
and only a run with ``labels.mode=barrier`` asks for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from envs.protocols import State
from launch.config.train_config import TrainConfig
from rewards.labels.labeller import Labeller
from rewards.labels.questions import Answer, PromptSpec, Question
from rewards.labels.store import LabelStore

T = TypeVar("T")


def _sorted(answers: Iterable[Answer]) -> list[Answer]:
    return sorted(answers, key=lambda answer: answer.question.ids)


class ThreadFeed:
    """A labeller on an event loop of its own, in a thread; closes the store with it."""

    def __init__(self, store: LabelStore, labeller: Labeller) -> None:
        self._store, self._labeller = store, labeller
        self._cursor = 0
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="labeller", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(labeller.start(), self._loop).result()

    def _call(self, method: Callable[..., T], *args: Any) -> T:
        """Call a plain method on the labeller's loop."""

        async def call() -> T:
            return method(*args)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def submit(self, questions: Iterable[Question]) -> None:
        """Ask; returns at once."""
        if questions := list(questions):
            self._call(self._labeller.submit, questions)

    def poll(self) -> Sequence[Answer]:
        """Answers that arrived since the last call."""
        answers, self._cursor = self._call(self._labeller.labels_since, self._cursor)
        return answers

    def drain(self, questions: Iterable[Question]) -> Sequence[Answer]:
        """Wait until each of these questions has its answer."""
        return _sorted(asyncio.run_coroutine_threadsafe(self._labeller.drain(questions), self._loop).result())

    def flush(self) -> Sequence[Answer]:
        """Answers that arrived since the last call."""
        return self.poll()

    def problem(self) -> str | None:
        """Why no labels come."""
        return self._call(lambda: self._labeller.problem)

    def metrics(self) -> Mapping[str, float]:
        """The labeller's counters."""
        return self._call(self._labeller.metrics)

    def state_dict(self) -> State:
        """The budget that was spent."""
        return self._call(self._labeller.state_dict)

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._call(self._labeller.load_state_dict, state)

    def close(self) -> None:
        """End the labeller, its loop and its thread."""
        if self._is_closed:
            return
        self._is_closed = True
        with ExitStack() as stack:  # whatever fails, the thread ends and the store is closed
            stack.callback(self._end_loop)
            stack.callback(self._store.close)
            asyncio.run_coroutine_threadsafe(self._labeller.close(), self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class LabellerReport:
    """What a labeller in another process reports."""

    answers: Sequence[Answer] = ()
    cursor: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None


@ray.remote(num_cpus=0, max_restarts=0)
class LabellerActor:
    """A thin async shell around ``Labeller``; owns the label store."""

    def __init__(self, config_json: str, store_path: str, spec: PromptSpec, run_id: str | None) -> None:
        from launch.processes.wiring import build_labeller

        config = TrainConfig.model_validate_json(config_json)
        self._store, self._labeller = build_labeller(config, store_path, spec, run_id)

    async def start(self) -> None:
        """Begin to answer."""
        await self._labeller.start()

    async def submit(self, questions: Sequence[Question]) -> None:
        """Ask."""
        self._labeller.submit(questions)

    async def since(self, cursor: int) -> LabellerReport:
        """Answers after ``cursor``, with the labeller's counters and its problem."""
        answers, cursor = self._labeller.labels_since(cursor)
        return LabellerReport(answers, cursor, self._labeller.metrics(), self._labeller.problem)

    async def drain(self, questions: Sequence[Question]) -> Sequence[Answer]:
        """Wait for the answers to these questions."""
        return await self._labeller.drain(questions)

    async def state_dict(self) -> State:
        """The budget that was spent."""
        return self._labeller.state_dict()

    async def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._labeller.load_state_dict(state)

    async def close(self) -> None:
        """End the labeller and close its store."""
        try:
            await self._labeller.close()
        finally:
            self._store.close()


class RayFeed:
    """A labeller in a Ray actor; one request for its report is always outstanding and never waited for.

    The actor lives on the driver's node: the label store's file is there, and a server at a loopback address.

    Args:
        config: the run's.
        store_path: the label store.
        spec: what is asked.
        run_id: whose budget is spent; None = a run of its own.
    """

    def __init__(self, config: TrainConfig, store_path: str, spec: PromptSpec, run_id: str | None = None) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor: Any = LabellerActor.options(scheduling_strategy=here).remote(
            config.model_dump_json(), store_path, spec, run_id
        )
        self._is_closed = False
        ray.get(self._actor.start.remote())
        self._last = LabellerReport()
        self._submitted: list[Any] = []
        self._next = self._actor.since.remote(0)

    def submit(self, questions: Iterable[Question]) -> None:
        """Ask; returns at once."""
        if questions := list(questions):
            self._submitted.append(self._actor.submit.remote(questions))

    def poll(self) -> Sequence[Answer]:
        """Answers that arrived since the last call; a labeller that died raises its cause here."""
        taken, self._submitted = ray.wait(self._submitted, num_returns=len(self._submitted), timeout=0)
        ray.get(taken)
        ready, _ = ray.wait([self._next], timeout=0)
        return self._take_report() if ready else []

    def _take_report(self) -> Sequence[Answer]:
        report: Any = ray.get(self._next)
        self._last = report
        self._next = self._actor.since.remote(self._last.cursor)
        return self._last.answers

    def flush(self) -> Sequence[Answer]:
        """As ``poll``, but waits for the labeller to report (not for the annotator to answer)."""
        # The first answer may have been given before the last questions were submitted; the second was not.
        return [*self._take_report(), *self._take_report()]

    def drain(self, questions: Iterable[Question]) -> Sequence[Answer]:
        """Wait until each of these questions has its answer."""
        answers: Any = ray.get(self._actor.drain.remote(list(questions)))
        return _sorted(answers)

    def problem(self) -> str | None:
        """Why no labels came, as of the last report."""
        return self._last.problem

    def metrics(self) -> Mapping[str, float]:
        """The counters as of the last report."""
        return self._last.metrics

    def state_dict(self) -> State:
        """The budget that was spent."""
        state: Any = ray.get(self._actor.state_dict.remote())
        return state

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        ray.get(self._actor.load_state_dict.remote(state))

    def close(self) -> None:
        """End the labeller and its actor."""
        if self._is_closed:
            return
        self._is_closed = True
        # A labeller that died has said so by raising elsewhere, and has nothing left to close.
        ray.wait([self._actor.close.remote()], timeout=10.0)
        ray.kill(self._actor)
