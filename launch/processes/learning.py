"""Scoring rollouts and learning from them: in the driver (split), or in every peer (symmetric)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.ppo import PPOLearner
from agents.rollout import WorkerRollout
from envs.data import EpisodeResult, RewardOutput
from envs.protocols import State
from envs.timing import Span
from launch.processes.ledger import CaptionTally, RunningSums
from rewards.mix import RewardMix


@dataclass(frozen=True, kw_only=True, eq=False)
class UpdateReport:
    """One learner's update: all that the driver needs of it."""

    steps: int
    """Environment steps that were learned from."""
    episodes: list[EpisodeResult]
    captions: list[CaptionTally]
    parts: Mapping[str, tuple[float, int, int]]
    """Of each reward part: the sum of its valid values, how many they are, and of how many steps."""
    part_sums: Mapping[str, list[float]]
    """Of each reward part: its sums over the episodes that ended."""
    evidence: Mapping[str, list[Any]]
    """Of each kind of reward: what its teacher needs of the rollouts, in their order."""
    learned: Mapping[str, float]
    """The learner's metrics."""
    seconds: Mapping[str, float]
    """Where the time went: the workers' phases, their mean, and ``score``, ``evidence``, ``learn``, ``exchange``,
    ``account``."""
    spans: Mapping[str, list[Span]]
    """The same, stretch by stretch, by process, while it is kept."""


class Learning:
    """What turns rollouts into a better network: rewards and a learner.

    Args:
        mix: the rewards.
        learner: improves the network; its phases are also this object's.
        name: of the process, in profiles and events.
        caption_parts: reward parts that pay captions.
    """

    def __init__(
        self, mix: RewardMix, learner: PPOLearner, name: str = "learner", caption_parts: Sequence[str] = ()
    ) -> None:
        self.mix, self.learner = mix, learner
        self.phases = learner.phases
        self._name, self._caption_parts = name, caption_parts
        self._memories: dict[int, Any] = {}
        """Each worker's reward memory of its running episodes."""
        self._evidence: dict[str, list[Any]] = {}
        """Of the rollouts that were scored last."""
        self._sums = RunningSums()

    def take(self, news: Mapping[str, Any]) -> None:
        """Score with what teachers have learned, ``{kind of reward: news}``, from now on."""
        self.mix.take(news)

    def score(self, collected: Sequence[WorkerRollout]) -> list[RewardOutput]:
        """What each rollout was worth; memories move on with their games.

        Evidence for the teachers is taken at once, so that it shows what the rewards read when they scored, also where
        they read through the network that is about to be improved. It is reported by ``learn``; should that break, it
        is dropped with its rollouts.
        """
        outputs, self._evidence = [], {}
        for c in collected:
            with self.phases.measure("score"):
                output, memory = self.mix.score(c.rollout, self._memory(c))
            with self.phases.measure("evidence"):
                evidence, self._memories[c.worker] = self.mix.evidence(c.rollout, output, memory)
            for kind, own in evidence.items():
                self._evidence.setdefault(kind, []).append(own)
            outputs.append(output)
        return outputs

    def _memory(self, collected: WorkerRollout) -> Any:
        memory = self._memories.get(collected.worker)
        return self.mix.initial_state(collected.rollout.num_games) if memory is None else memory

    def learn(self, collected: Sequence[WorkerRollout], outputs: Sequence[RewardOutput], share: float) -> UpdateReport:
        """One update of the network.

        Args:
            collected: one rollout from each worker, those that were scored last.
            outputs: what they were worth.
            share: of the run that is over, for annealing.
        """
        with self.phases.measure("account"):
            # Before an update that may break: sums over running episodes must miss no rollout.
            part_sums = self._episode_sums(collected, outputs)
        with self.phases.measure("learn"):
            learned = self.learner.update([c.rollout for c in collected], outputs, share)
        with self.phases.measure("account"):
            tallies = [
                CaptionTally.of(c.rollout, o, self._caption_parts) for c, o in zip(collected, outputs, strict=True)
            ]
            parts = {name: _part(name, outputs) for name in self.mix.part_names}
        spent = self.phases.take()
        exchange_s = spent.get("learn/exchange", 0.0)
        seconds = _mean_of([c.seconds for c in collected])
        seconds |= {phase: s for phase, s in spent.items() if "/" not in phase}
        seconds |= {"learn": spent["learn"] - exchange_s, "exchange": exchange_s}
        spans = {f"worker {c.worker}": c.spans for c in collected}
        spans[self._name] = spans.get(self._name, []) + self.phases.take_spans()
        return UpdateReport(
            steps=sum(c.rollout.env_reward.size for c in collected),
            episodes=[episode for c in collected for episode in c.episodes],
            captions=[tally for tally in tallies if tally is not None],
            parts=parts,
            part_sums=part_sums,
            evidence=self._evidence,
            learned=learned,
            seconds=seconds,
            spans=spans,
        )

    def _episode_sums(
        self, collected: Sequence[WorkerRollout], outputs: Sequence[RewardOutput]
    ) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in self.mix.part_names}
        for c, output in zip(collected, outputs, strict=True):
            for name, sums in self._sums.add(c.worker, c.rollout, output).items():
                found[name].extend(sums)
        return found

    def close(self) -> None:
        """End the processes that rewards started."""
        self.mix.close()

    def common_state(self) -> State:
        """What all learners of a group have in common: optimiser, normalisers, what rewards learned; no weights."""
        return {"learner": self.learner.state_dict(), "mix": self.mix.state_dict()}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``common_state``."""
        self.learner.load_state_dict(state["learner"])
        self.mix.load_state_dict(state["mix"])

    def own_state(self) -> State:
        """What belongs to this process, and to the workers whose rollouts it scores."""
        return {
            "memories": {str(worker): memory for worker, memory in self._memories.items()},
            "sums": self._sums.state_dict(),
            "rewards": self.mix.own_state(),
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``own_state``."""
        self._memories = {int(worker): memory for worker, memory in state["memories"].items()}
        self._sums.load_state_dict(state["sums"])
        self.mix.load_own_state(state["rewards"])


def _part(name: str, outputs: Sequence[RewardOutput]) -> tuple[float, int, int]:
    parts = [output.parts[name] for output in outputs]
    total = sum(float(part.value[part.valid].sum(dtype=np.float64)) for part in parts)
    return total, sum(int(part.valid.sum()) for part in parts), sum(part.valid.size for part in parts)


def _mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}
