"""Where rollouts come from: worker pools, in the driver's process or on Ray.

A pool answers each ``batch()`` with one rollout from every worker, oldest first. Their age is bounded by how early they
are requested:

    max_policy_lag = 0    requested after the newest weights were published; the learner waits
    max_policy_lag = L    every worker has L outstanding requests; whenever a rollout is taken, the next one is
                          requested, with the weights of that moment. While the learner learns, workers play.

A rollout is thus at most L updates older than the policy that learns from it, by construction; the learner measures the
age all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from agents.rollout import RolloutWorker, WorkerRollout
from envs.protocols import State
from launch.config.train_config import TrainConfig
from launch.errors import RunError
from launch.processes.lifecycle import DeathWatch, MemoryGrowth

Weights = Mapping[str, np.ndarray]


class WorkerPool(Protocol):
    """Collects one rollout from each worker at a time."""

    @property
    def deaths(self) -> int:
        """Workers that died and were replaced."""
        ...

    dropped_rollouts: int
    """Rollouts lost with them."""

    def publish(self, weights: Weights, version: int) -> None:
        """Play the rollouts that are requested from now on with these weights."""
        ...

    def batch(self) -> list[WorkerRollout]:
        """One rollout from each worker."""
        ...

    def drain(self) -> Iterator[list[WorkerRollout]]:
        """The outstanding rollouts, one from each worker at a time; afterwards no request is outstanding."""
        ...

    def state_dict(self) -> State:
        """The workers' state; no request may be outstanding."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        ...

    def recycle(self, state: Mapping[str, Any]) -> list[int]:
        """Replace the processes of workers whose memory has grown too much; no request may be outstanding.

        Args:
            state: what ``state_dict`` returns now.

        Returns:
            The streams of the workers that were replaced.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class LocalPool:
    """One worker in this process: for debugging, and where one more process would cost more than it brings."""

    def __init__(self, worker: RolloutWorker) -> None:
        self._worker = worker
        self.deaths = 0
        self.dropped_rollouts = 0

    def publish(self, weights: Weights, version: int) -> None:
        """Play with these weights from the next rollout on."""
        self._worker.load(weights, version)

    def batch(self) -> list[WorkerRollout]:
        """The worker's next rollout."""
        return [self._worker.collect()]

    def drain(self) -> Iterator[list[WorkerRollout]]:
        """Nothing: no request is ever outstanding."""
        return iter(())

    def state_dict(self) -> State:
        """The worker's state."""
        return {"workers": [{"stream": self._worker.stream, "state": self._worker.state_dict()}]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._worker.load_state_dict(state["workers"][0]["state"])

    def recycle(self, state: Mapping[str, Any]) -> list[int]:
        """None: the driver's own process cannot be replaced."""
        return []

    def close(self) -> None:
        """Close the games."""
        self._worker.close()


@ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)
class RolloutActor:
    """A thin shell around ``RolloutWorker`` in a process of its own."""

    def __init__(self, config_json: str, stream: int, num_streams: int) -> None:
        import torch

        from launch.processes.wiring import build_worker

        torch.set_num_threads(1)
        config = TrainConfig.model_validate_json(config_json)
        self._worker = build_worker(config, stream, num_streams)
        self._growth = MemoryGrowth()

    def collect(self, weights: Weights, version: int) -> WorkerRollout:
        """One rollout with these weights."""
        self._worker.load(weights, version)
        collected = self._worker.collect()
        self._growth.settle()
        return collected

    def grown_mb(self) -> float:
        """Growth of the process's memory since the first rollout, in MB."""
        return self._growth.mb

    def state_dict(self) -> State:
        """The worker's state."""
        return self._worker.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._worker.load_state_dict(state)

    def close(self) -> None:
        """Close the games and remove their temporary folders."""
        self._worker.close()


class _Seat:
    """One worker's place in the pool: outlives the actors that take it."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.actor: Any = None
        self.requests: deque[Any] = deque()
        """Outstanding rollouts, the oldest first."""

    def state(self) -> Any:
        """Request the worker's state."""
        return self.actor.state_dict.remote()


class RayPool:
    """Rollout workers in Ray actors; a dead one is replaced by one with games of its own.

    Args:
        config: the run's; each actor builds its worker from it.
        num_streams: S.
        on_death: called with a worker's stream and what it died of.

    Raises:
        RunError: from ``batch``: workers died more often than ``rollout.max_worker_deaths`` allows, or a
            worker raised an error (which its replacement would raise again).
    """

    def __init__(self, config: TrainConfig, num_streams: int, on_death: Callable[[int, str], None]) -> None:
        self._config, self._num_streams = config, num_streams
        self._watch = DeathWatch(config.rollout.max_worker_deaths, "rollout worker", on_death)
        self._config_json = config.model_dump_json()
        self._depth = max(1, config.rollout.max_policy_lag)
        self._synchronous = config.rollout.max_policy_lag == 0
        self._weights: Any = None
        self._version = 0
        self.dropped_rollouts = 0
        self._seats = [_Seat(stream) for stream in range(config.rollout.num_workers)]
        for seat in self._seats:
            self._start(seat)

    @property
    def deaths(self) -> int:
        """Workers that died and were replaced."""
        return self._watch.deaths

    def _start(self, seat: _Seat) -> None:
        seat.actor = RolloutActor.remote(self._config_json, seat.stream, self._num_streams)

    def publish(self, weights: Weights, version: int) -> None:
        """Put the weights into Ray's object store, once for all workers."""
        self._weights, self._version = ray.put(dict(weights)), version

    def batch(self) -> list[WorkerRollout]:
        """One rollout from each worker, in the order of the workers."""
        self._request_all()
        collected = [self._take(seat) for seat in self._seats]
        if not self._synchronous:
            self._request_all()
        return collected

    def drain(self) -> Iterator[list[WorkerRollout]]:
        """What is outstanding, without new requests."""
        while self._seats[0].requests:
            yield [self._take(seat) for seat in self._seats]

    def _request_all(self) -> None:
        for seat in self._seats:
            self._request(seat, self._depth - len(seat.requests))

    def _request(self, seat: _Seat, num: int) -> None:
        for _ in range(num):
            seat.requests.append(seat.actor.collect.remote(self._weights, self._version))

    def _take(self, seat: _Seat) -> WorkerRollout:
        collected = self._answer(seat, lambda: seat.requests[0])
        seat.requests.popleft()
        return collected

    def _answer(self, seat: _Seat, request: Callable[[], Any]) -> Any:
        """What the seat's actor answers; one that is gone is replaced, and everything is requested again."""
        while True:
            try:
                return ray.get(request())
            except RayTaskError as error:
                raise RunError(f"rollout worker {seat.stream} failed: {error.cause}") from error
            except RayError as error:  # its process, its node or its memory is gone
                num_lost = len(seat.requests)
                self._replace(seat, error)
                self._request(seat, num_lost)

    def _replace(self, seat: _Seat, error: RayError) -> None:
        self.dropped_rollouts += len(seat.requests)
        self._watch.record(seat.stream, error)
        # A stream of its own: the replacement plays other games under other episode ids.
        seat.stream += self._config.rollout.num_workers
        seat.requests.clear()
        self._start(seat)

    def state_dict(self) -> State:
        """Streams and states of the workers."""
        states = [self._answer(seat, seat.state) for seat in self._seats]
        return {
            "workers": [
                {"stream": seat.stream, "state": state} for seat, state in zip(self._seats, states, strict=True)
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        for seat, saved in zip(self._seats, state["workers"], strict=True):
            if saved["stream"] != seat.stream:
                ray.kill(seat.actor)
                seat.stream = int(saved["stream"])
                self._start(seat)
        ray.get(
            [
                seat.actor.load_state_dict.remote(saved["state"])
                for seat, saved in zip(self._seats, state["workers"], strict=True)
            ]
        )

    def recycle(self, state: Mapping[str, Any]) -> list[int]:
        """Restart workers that grew by more than ``rollout.recycle_growth_mb``, each from its own state."""
        grown = ray.get([seat.actor.grown_mb.remote() for seat in self._seats])
        chosen = [i for i, mb in enumerate(grown) if mb > self._config.rollout.recycle_growth_mb]
        for i in chosen:
            seat = self._seats[i]
            ray.get(seat.actor.close.remote())
            ray.kill(seat.actor)
            self._start(seat)
            ray.get(seat.actor.load_state_dict.remote(state["workers"][i]["state"]))
        return [self._seats[i].stream for i in chosen]

    def close(self) -> None:
        """Let the workers close their games, then end them."""
        closing = [seat.actor.close.remote() for seat in self._seats]
        ray.wait(closing, num_returns=len(closing), timeout=10.0)
        for seat in self._seats:
            ray.kill(seat.actor)
