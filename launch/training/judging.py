"""From pairs of segments to preferences, beside a run: HERON's annotator, who is told of play in words.

trainer.undecided -> describe -> questions -> feed -> annotator
trainer.take <- judged pairs <- answers
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from envs.captions import caption_id
from envs.protocols import State
from envs.timing import PhaseTimer
from launch.processes.label_feed import LabelFeed, OutageWatch
from rewards.heron.describing import describe
from rewards.heron.factors import FactorTable
from rewards.heron.preferences import PairBatch
from rewards.heron.segments import Segments
from rewards.labels.questions import Answer, Ids, Question

SOURCE = "labeller"
"""Who judged, in reports."""

_MAX_PENDING_UPDATES = 16
"""While so many updates' pairs wait for their answer, no others are asked about: they would be old when it comes."""


class JudgedTrainer(Protocol):
    """What of a ``HeronTrainer`` is needed here."""

    def undecided(self, num: int) -> tuple[Segments, Segments]:
        """Different pairs to ask about, ``num`` at most, possibly none."""
        ...

    def take(self, pairs: PairBatch) -> None:
        """Learn from these, too."""
        ...


@dataclass(frozen=True, eq=False)
class _Pair:
    """What was asked about, in the order in which it was shown."""

    question: Question
    first: Segments
    """One segment."""
    second: Segments


class Judging:
    """What the driver does about pairs that an annotator is to judge, update after update.

    No pair is asked about twice, where two pairs are the same if their texts are. Two segments of one text are a tie,
    of which nobody is asked. Which of the two is shown first is left to chance.

    Args:
        trainer: says which pairs, and learns from the answers.
        table: the ranked factors, which are told of every segment.
        feed: the labeller.
        pairs_per_update: asked about in one update, at most.
        seed: of the order in which two segments are shown.
        waits: each update waits for the answers about its pairs (``labels.mode=barrier``).
        phases: where its time is counted: ``labels``.
        on_outage: as of ``OutageWatch``.
        grace_s: likewise.
        clock: likewise.
    """

    def __init__(
        self,
        trainer: JudgedTrainer,
        table: FactorTable,
        feed: LabelFeed,
        *,
        pairs_per_update: int,
        seed: int,
        waits: bool,
        phases: PhaseTimer,
        on_outage: Callable[[str | None], None],
        grace_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer, self._table, self._feed = trainer, table, feed
        self._num, self._waits, self._phases = pairs_per_update, waits, phases
        self._outages = OutageWatch(feed, on_outage, grace_s, clock)
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 25))))
        self._met: set[Ids] = set()
        """Pairs of texts that were asked about, or need not be; the smaller id first."""
        self._pending: dict[Ids, _Pair] = {}
        """Asked about and not answered, the oldest first."""
        self._untaken: dict[Ids, Answer] = {}
        """Answers to what was not asked yet: the store had them at the start."""
        self._asked = self._unjudged = self._tied = self._decided = self._first_better = 0

    def update(self, texts: Mapping[int, str]) -> None:
        """Ask about some pairs, and hand over those that have been judged.

        Args:
            texts: of all captions so far, by their id.
        """
        with self._phases.measure("labels"):
            new, ties = self._meet(texts)
            self._untaken |= {answer.question.ids: answer for answer in self._ask(new)}
            judged = [(pair, self._untaken.pop(ids)) for ids, pair in self._pending.items() if ids in self._untaken]
            for pair, _ in judged:
                del self._pending[pair.question.ids]
            self._hand_over(ties, judged)
            self._outages.look()

    def _meet(self, texts: Mapping[int, str]) -> tuple[list[Question], list[tuple[Segments, Segments]]]:
        """Choose pairs: the questions to ask, and the pairs that are ties without asking."""
        room = min(self._num, _MAX_PENDING_UPDATES * self._num - len(self._pending))
        if room <= 0:
            return [], []
        first, second = self._trainer.undecided(room)
        if not len(first):
            return [], []
        both = Segments.joined([first, second])
        shown = self._rng.permuted(np.arange(len(both)).reshape(2, -1), axis=0)
        told = describe(both, self._table, texts)
        new, ties = [], []
        for one, other in shown.T.tolist():
            ids = caption_id(told[one]), caption_id(told[other])
            known = (min(ids), max(ids))
            if known in self._met:
                continue
            self._met.add(known)
            segments = both.take(np.array([one])), both.take(np.array([other]))
            if told[one] == told[other]:
                ties.append(segments)
            else:
                new.append(Question.pair(told[one], told[other]))
                self._pending[ids] = _Pair(new[-1], *segments)
        self._asked += len(new)
        return new, ties

    def _ask(self, new: Sequence[Question]) -> Sequence[Answer]:
        if self._waits:
            answers = self._feed.drain(pair.question for pair in self._pending.values())
            self._feed.poll()
            return answers
        self._feed.submit(new)
        return self._feed.poll()

    def ask_again(self) -> None:
        """Questions without an answer (dropped from a full queue, given up in an outage, cut) are asked again."""
        if not self._waits:
            self._feed.submit(pair.question for pair in self._pending.values())

    def _hand_over(self, ties: Sequence[tuple[Segments, Segments]], judged: Sequence[tuple[_Pair, Answer]]) -> None:
        pairs = list(ties)
        targets = [0.5] * len(ties)
        for pair, answer in judged:
            if (value := answer.soft_value) is None:
                self._unjudged += 1
                continue
            pairs.append((pair.first, pair.second))
            targets.append(min(1.0, max(0.0, value)))  # a sum of probabilities may be above 1 by its last bit
            self._decided += targets[-1] != 0.5
            self._first_better += targets[-1] > 0.5
        self._tied += len(ties)
        if pairs:
            first, second = (Segments.joined(side) for side in zip(*pairs, strict=True))
            self._trainer.take(PairBatch(first=first, second=second, target=np.array(targets), source=SOURCE))

    def metrics(self) -> dict[str, float]:
        """Figures by name."""
        figures = {
            "asked_pairs": float(self._asked),
            "unanswered_pairs": float(len(self._pending)),
            "unjudged_pairs": float(self._unjudged),
            "alike_pairs": float(self._tied),
        }
        return figures | ({"first_shown_better": self._first_better / self._decided} if self._decided else {})

    def labeller_metrics(self) -> Mapping[str, float]:
        """The labeller's counters."""
        return self._feed.metrics()

    def state_dict(self) -> State:
        """What was asked, the segments that wait for an answer, counts, and the budget that was spent."""
        pending = list(self._pending.values())
        return {
            "met": np.array(sorted(self._met), np.int64).reshape(-1, 2),
            "texts": [[pair.question.text, pair.question.second_text] for pair in pending],
            "segments": [[pair.first.state_dict(), pair.second.state_dict()] for pair in pending],
            "counts": [self._asked, self._unjudged, self._tied, self._decided, self._first_better],
            "generator": dict(self._rng.bit_generator.state),
            "feed": self._feed.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``; what is still unanswered is asked about again."""
        self._met = {(int(first), int(second)) for first, second in state["met"].tolist()}
        self._pending = {}
        for texts, segments in zip(state["texts"], state["segments"], strict=True):
            pair = _Pair(Question.pair(*texts), *(Segments.from_state(one) for one in segments))
            self._pending[pair.question.ids] = pair
        self._asked, self._unjudged, self._tied, self._decided, self._first_better = map(int, state["counts"])
        self._rng.bit_generator.state = state["generator"]
        self._feed.load_state_dict(state["feed"])
        self.ask_again()
