"""Who plays, who learns, and where: the two ways to place the same parts.

    split       rollout workers play; the driver scores and learns        (right where a GPU learns)
    symmetric   every peer plays, scores and learns on one thread;         (the fastest on a few CPU cores)
                gradients are averaged, so that all hold the same network

In both, a batch is one rollout from each worker, and an update is one PPO update on all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from agents.policy import weights_of
from agents.rollout import WorkerRollout
from envs.protocols import State
from launch.processes.learning import Learning, UpdateReport
from launch.processes.workers import Weights, WorkerPool

News = Mapping[str, Any]
"""What teachers have learned since the last batch: ``{kind of reward: news}``, of those that have any."""


class Placement(Protocol):
    """Collects a batch, then learns from it.

    ``collect`` and ``learn`` take turns. In between the placement keeps the rollouts, which are large, where they will
    be learned from (those of a peer never leave its process): only their new captions are returned, and ``learn``
    takes the batch that was collected last.
    """

    @property
    def deaths(self) -> int:
        """Processes that died and were replaced."""
        ...

    @property
    def dropped_rollouts(self) -> int:
        """Rollouts lost with them."""
        ...

    def collect(self) -> Mapping[int, str]:
        """Have a batch collected; returns the captions ``{id: text}`` that its workers had not observed before."""
        ...

    def learn(self, news: News, share: float) -> list[UpdateReport]:
        """Score the collected batch and learn from it.

        Args:
            news: what the rewards' teachers have learned since the last call, by kind; taken in first.
            share: of the run that is over.

        Returns:
            One report for each learner; none if a death undid the update.
        """
        ...

    def drain(self) -> Iterator[Mapping[int, str]]:
        """Batches that are already under way, as from ``collect``; after the last one nothing is."""
        ...

    def weights(self) -> Weights:
        """Copies of the network's weights."""
        ...

    def state_dict(self) -> State:
        """Where everything stands, with nothing under way."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], weights: Weights) -> None:
        """Continue from ``state_dict`` and ``weights``."""
        ...

    def recycle(self, state: Mapping[str, Any]) -> list[int]:
        """Put fresh processes in the place of those that have grown too much; returns which workers they are.

        Args:
            state: ``state_dict``'s answer of this moment.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class SplitPlacement:
    """Workers play, this process learns.

    Args:
        pool: the workers; closed with this.
        learning: scores and learns here.
    """

    def __init__(self, pool: WorkerPool, learning: Learning) -> None:
        self._pool, self._learning = pool, learning
        self._batch: list[WorkerRollout] = []
        """Collected last; what ``learn`` takes."""
        self._publish()

    @property
    def deaths(self) -> int:
        """Workers that died and were replaced."""
        return self._pool.deaths

    @property
    def dropped_rollouts(self) -> int:
        """Rollouts lost with them."""
        return self._pool.dropped_rollouts

    def _publish(self) -> None:
        learner = self._learning.learner
        self._pool.publish(weights_of(learner.model), learner.version)

    def collect(self) -> Mapping[int, str]:
        """Wait for a rollout from every worker."""
        self._batch = self._pool.batch()
        return _new_captions(self._batch)

    def learn(self, news: News, share: float) -> list[UpdateReport]:
        """Score, learn, publish."""
        self._learning.take(news)
        outputs = self._learning.score(self._batch)
        report = self._learning.learn(self._batch, outputs, share)
        self._publish()
        return [report]

    def drain(self) -> Iterator[Mapping[int, str]]:
        """The outstanding rollouts, a batch at a time."""
        for batch in self._pool.drain():
            self._batch = batch
            yield _new_captions(batch)

    def weights(self) -> Weights:
        """Copies of the learner's weights."""
        return weights_of(self._learning.learner.model)

    def state_dict(self) -> State:
        """Learner and workers."""
        learning = self._learning
        return {"common": learning.common_state(), "own": learning.own_state(), "pool": self._pool.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], weights: Weights) -> None:
        """Continue from ``state_dict`` and ``weights``."""
        self._learning.learner.load_weights(weights)
        self._learning.load_common_state(state["common"])
        self._learning.load_own_state(state["own"])
        self._pool.load_state_dict(state["pool"])
        self._publish()

    def recycle(self, state: Mapping[str, Any]) -> list[int]:
        """Workers alone; the driver's own process cannot be replaced."""
        return self._pool.recycle(state["pool"])

    def close(self) -> None:
        """End the workers, and the processes that rewards started."""
        self._pool.close()
        self._learning.close()


def _new_captions(batch: Sequence[WorkerRollout]) -> dict[int, str]:
    return {caption: text for c in batch for caption, text in c.rollout.new_captions.items()}
