"""Scoring rollouts and learning from them: in the driver (split), or in every peer (symmetric)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.ppo import PPOLearner
from agents.rollout import WorkerRollout
from envs.data import EpisodeResult, RewardOutput
from envs.phases import Span
from envs.protocols import State
from launch.training.ledger import CaptionTally, RunningSums
from launch.training.programs import Quarantine
from rewards.auto.reward import ProgramReward
from rewards.heron.cutter import SegmentCutter
from rewards.heron.reward import HeronReward
from rewards.heron.scorer import Scorer
from rewards.heron.segments import Segments
from rewards.mix import RewardMix
from rewards.oni.caption_model import Values
from rewards.oni.values import CaptionValues

CAPTION_PART = "oni"
"""The reward part that pays captions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lessons:
    """What those who score must know before they score a batch: all that the driver has learned since the last."""

    captions: Values = ()
    """Values of captions, those that changed."""
    scorer: Scorer | None = None
    """A new version of HERON's reward."""
    quarantined: Sequence[str] = ()
    """SHAs of reward programs that are to be used no more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Preferring:
    """HERON's side of those who score: the reward, and what cuts the play that its model learns from."""

    reward: HeronReward
    cutter: SegmentCutter


@dataclass(frozen=True, kw_only=True, eq=False)
class UpdateReport:
    """What one learner's update came to: all that the driver must know of it."""

    steps: int
    """Environment steps that were learned from."""
    episodes: list[EpisodeResult]
    captions: list[CaptionTally]
    parts: Mapping[str, tuple[float, int, int]]
    """Of each reward part: the sum of its valid values, how many they are, and of how many steps."""
    part_sums: Mapping[str, list[float]]
    """Of each reward part: its sums over the episodes that ended."""
    segments: Sequence[Segments]
    """Play that HERON's model may learn from."""
    quarantined: Sequence[Quarantine]
    """Reward programs that were taken out of use."""
    covered: tuple[int, int]
    """Caption occurrences that had a value, and how many there were."""
    learned: Mapping[str, float]
    """The learner's metrics."""
    seconds: Mapping[str, float]
    """Where the time went: the workers' phases, their mean, and ``score``, ``learn``, ``exchange``,
    ``segments``, ``account``."""
    spans: Mapping[str, list[Span]]
    """The same, stretch by stretch, by process, while it is kept."""


class Learning:
    """What turns rollouts into a better network: captions' values, rewards, learner.

    Args:
        values: what captions are worth, which the mix reads.
        mix: the rewards.
        learner: improves the network; its phases are also this object's.
        preferring: HERON's reward, which is one of the mix, and its cutter; None without it.
        program: the reward of reward programs, which is one of the mix; None without it.
        name: of the process, in profiles and events.
    """

    def __init__(
        self,
        values: CaptionValues,
        mix: RewardMix,
        learner: PPOLearner,
        preferring: Preferring | None = None,
        program: ProgramReward | None = None,
        name: str = "learner",
    ) -> None:
        self.values, self.mix, self.learner, self.preferring = values, mix, learner, preferring
        self.program = program
        self.phases = learner.phases
        self._name = name
        self._memories: dict[int, Any] = {}
        """Each worker's reward memory of its running episodes."""
        self._uncut: dict[int, State] = {}
        """Each worker's steps that are in no segment yet."""
        self._segments: list[Segments] = []
        """Of the rollouts that were scored last."""
        self._sums = RunningSums()

    def take(self, lessons: Lessons) -> None:
        """Score with these from now on."""
        self.values.apply(lessons.captions)
        if self.preferring is not None and lessons.scorer is not None:
            self.preferring.reward.take(lessons.scorer)
        if self.program is not None:
            for sha in lessons.quarantined:
                self.program.quarantine(sha)

    def score(self, collected: Sequence[WorkerRollout]) -> list[RewardOutput]:
        """What each rollout was worth; memories move on with their games.

        Each is cut into segments at once, so that these hold what the reward model read when it scored them, also
        where it reads through the network that is about to be improved. They are reported by ``learn``; should that
        break, they are dropped with their rollouts, and the next ones are cut as if they had not been.
        """
        outputs, self._segments = [], []
        for c in collected:
            with self.phases.measure("score"):
                outputs.append(self._score(c))
            with self.phases.measure("segments"):
                self._cut(c)
        return outputs

    def _score(self, collected: WorkerRollout) -> RewardOutput:
        worker, rollout = collected.worker, collected.rollout
        memory = self._memories.get(worker)
        if memory is None:
            memory = self.mix.initial_state(rollout.num_games)
        output, self._memories[worker] = self.mix.score(rollout, memory)
        return output

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
            tallies = [CaptionTally.of(c.rollout, o, CAPTION_PART) for c, o in zip(collected, outputs, strict=True)]
            covered = [self._covered(c) for c in collected]
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
            segments=self._segments,
            quarantined=self._quarantined(),
            covered=(sum(known for known, _ in covered), sum(spoken for _, spoken in covered)),
            learned=learned,
            seconds=seconds,
            spans=spans,
        )

    def _quarantined(self) -> list[Quarantine]:
        taken = () if self.program is None else self.program.take_quarantines()
        return [Quarantine(scorer=self._name, what=what) for what in taken]

    def _cut(self, collected: WorkerRollout) -> None:
        if self.preferring is None:
            return
        worker, rollout, cutter = collected.worker, collected.rollout, self.preferring.cutter
        state = self._uncut.get(worker)
        if state is None:
            state = cutter.initial_state(rollout.num_games)
        segments, self._uncut[worker] = cutter.cut(rollout, state)
        if segments is not None:
            self._segments.append(segments)

    def _episode_sums(
        self, collected: Sequence[WorkerRollout], outputs: Sequence[RewardOutput]
    ) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in self.mix.part_names}
        for c, output in zip(collected, outputs, strict=True):
            for name, sums in self._sums.add(c.worker, c.rollout, output).items():
                found[name].extend(sums)
        return found

    def _covered(self, collected: WorkerRollout) -> tuple[int, int]:
        ids = collected.rollout.caption_id
        if ids is None:
            return 0, 0
        spoken = ids[ids != 0]
        return int(self.values.lookup(spoken)[1].sum()), len(spoken)

    def close(self) -> None:
        """End the process that runs reward programs."""
        if self.program is not None:
            self.program.close()

    def common_state(self) -> State:
        """What all learners of a group have in common: optimiser, normalisers, values (weights are kept apart)."""
        return {"learner": self.learner.state_dict(), "mix": self.mix.state_dict()}

    def load_common_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``common_state``."""
        self.learner.load_state_dict(state["learner"])
        self.mix.load_state_dict(state["mix"])

    def own_state(self) -> State:
        """What belongs to the workers whose rollouts this one scores."""
        return {
            "memories": {str(worker): memory for worker, memory in self._memories.items()},
            "uncut": {str(worker): steps for worker, steps in self._uncut.items()},
            "sums": self._sums.state_dict(),
            "program": None if self.program is None else self.program.own_state(),
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``own_state``."""
        self._memories = {int(worker): memory for worker, memory in state["memories"].items()}
        self._uncut = {int(worker): steps for worker, steps in state["uncut"].items()}
        self._sums.load_state_dict(state["sums"])
        if self.program is not None:
            self.program.load_own_state(state["program"])


def _part(name: str, outputs: Sequence[RewardOutput]) -> tuple[float, int, int]:
    parts = [output.parts[name] for output in outputs]
    total = sum(float(part.value[part.valid].sum(dtype=np.float64)) for part in parts)
    return total, sum(int(part.valid.sum()) for part in parts), sum(part.valid.size for part in parts)


def _mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}
