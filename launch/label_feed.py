"""The labeller beside a run: on a thread of the driver's process, or in an async Ray actor.

The driver hands captions over and goes on; labels come back when they are there. Only ``drain`` waits,
and only a run with ``labels.mode=barrier`` asks for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import ray

from envs.protocols import State
from launch.config import TrainConfig
from rewards.labels.labeller import Labeller
from rewards.labels.store import LabelStore

T = TypeVar("T")
Labels = Sequence[tuple[int, float | None]]
"""(caption id, value) pairs, in the order in which they were stored."""


class LabelFeed(Protocol):
    """Captions in, labels out."""

    def submit(self, captions: Mapping[int, str]) -> None:
        """Ask for labels; returns at once."""
        ...

    def poll(self) -> Labels:
        """Labels that arrived since the last call; returns at once."""
        ...

    def drain(self, captions: Mapping[int, str]) -> Labels:
        """Wait until each of these captions has its answer; sorted by caption id."""
        ...

    def flush(self) -> Labels:
        """As ``poll``, but waits for the labeller's word (not for the annotator's)."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """The labeller's counters, possibly a moment old."""
        ...

    def state_dict(self) -> State:
        """The budget that was spent."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        ...

    def close(self) -> None:
        """End the labeller and close its store."""
        ...


class ThreadFeed:
    """A labeller on an event loop of its own, in a thread; closes the store with it."""

    def __init__(self, store: LabelStore, labeller: Labeller) -> None:
        self._store, self._labeller = store, labeller
        self._cursor = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="labeller", daemon=True)
        self._thread.start()
        self._run(_start(labeller))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def submit(self, captions: Mapping[int, str]) -> None:
        """Ask for labels; returns at once."""
        if captions:
            self._run(_submit(self._labeller, captions))

    def poll(self) -> Labels:
        """Labels that arrived since the last call."""
        labels, self._cursor = self._run(_since(self._labeller, self._cursor))
        return labels

    def drain(self, captions: Mapping[int, str]) -> Labels:
        """Wait until each of these captions has its answer."""
        return sorted(self._run(self._labeller.drain(captions)).items())

    def flush(self) -> Labels:
        """Labels that arrived since the last call."""
        return self.poll()

    def metrics(self) -> Mapping[str, float]:
        """The labeller's counters."""
        return self._run(_metrics(self._labeller))

    def state_dict(self) -> State:
        """The budget that was spent."""
        return self._run(_state(self._labeller))

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._run(_load(self._labeller, state))

    def close(self) -> None:
        """End the labeller, its loop and its thread."""
        self._run(self._labeller.close())
        self._store.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _start(labeller: Labeller) -> None:
    await labeller.start()


async def _submit(labeller: Labeller, captions: Mapping[int, str]) -> None:
    labeller.submit(captions)


async def _since(labeller: Labeller, cursor: int) -> tuple[Labels, int]:
    return labeller.labels_since(cursor)


async def _metrics(labeller: Labeller) -> Mapping[str, float]:
    return labeller.metrics()


async def _state(labeller: Labeller) -> State:
    return labeller.state_dict()


async def _load(labeller: Labeller, state: State) -> None:
    labeller.load_state_dict(state)


@ray.remote(num_cpus=0, max_restarts=0)
class LabellerActor:
    """A thin async shell around ``Labeller``; owns the label store."""

    def __init__(self, config_json: str, store_path: str) -> None:
        from launch.wiring import build_labeller

        self._store, self._labeller = build_labeller(TrainConfig.model_validate_json(config_json), store_path)

    async def start(self) -> None:
        """Begin to answer."""
        await _start(self._labeller)

    async def submit(self, captions: Mapping[int, str]) -> None:
        """Ask for labels."""
        self._labeller.submit(captions)

    async def since(self, cursor: int) -> tuple[Labels, int, Mapping[str, float]]:
        """Labels after ``cursor``, the new cursor, and the counters."""
        labels, cursor = self._labeller.labels_since(cursor)
        return labels, cursor, self._labeller.metrics()

    async def drain(self, captions: Mapping[int, str]) -> Mapping[int, float | None]:
        """Wait for the answers to these captions."""
        return await self._labeller.drain(captions)

    async def state_dict(self) -> State:
        """The budget that was spent."""
        return self._labeller.state_dict()

    async def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._labeller.load_state_dict(state)

    async def close(self) -> None:
        """End the labeller and close its store."""
        await self._labeller.close()
        self._store.close()


class RayFeed:
    """A labeller in a Ray actor; one question for news is always under way and never waited for."""

    def __init__(self, config: TrainConfig, store_path: str) -> None:
        self._actor: Any = LabellerActor.remote(config.model_dump_json(), store_path)
        ray.get(self._actor.start.remote())
        self._cursor = 0
        self._metrics: Mapping[str, float] = {}
        self._submitted: list[Any] = []
        self._news = self._actor.since.remote(0)

    def submit(self, captions: Mapping[int, str]) -> None:
        """Ask for labels; returns at once."""
        if captions:
            self._submitted.append(self._actor.submit.remote(dict(captions)))

    def poll(self) -> Labels:
        """Labels that arrived since the last call; a labeller that died raises its cause here."""
        taken, self._submitted = ray.wait(self._submitted, num_returns=len(self._submitted), timeout=0)
        ray.get(taken)
        ready, _ = ray.wait([self._news], timeout=0)
        return self._take_news() if ready else []

    def _take_news(self) -> Labels:
        news: Any = ray.get(self._news)
        labels, self._cursor, self._metrics = news
        self._news = self._actor.since.remote(self._cursor)
        return labels

    def flush(self) -> Labels:
        """As ``poll``, but waits for the labeller's word (not for the annotator's)."""
        # The first answer may have been given before the last captions were submitted; the second was not.
        return [*self._take_news(), *self._take_news()]

    def drain(self, captions: Mapping[int, str]) -> Labels:
        """Wait until each of these captions has its answer."""
        answers: Any = ray.get(self._actor.drain.remote(dict(captions)))
        return sorted(answers.items())

    def metrics(self) -> Mapping[str, float]:
        """The counters as of the last news."""
        return self._metrics

    def state_dict(self) -> State:
        """The budget that was spent."""
        state: Any = ray.get(self._actor.state_dict.remote())
        return state

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        ray.get(self._actor.load_state_dict.remote(state))

    def close(self) -> None:
        """End the labeller and its actor."""
        # A labeller that died has said so by raising elsewhere, and has nothing left to close.
        ray.wait([self._actor.close.remote()], timeout=10.0)
        ray.kill(self._actor)
