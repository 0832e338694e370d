"""Pairs of segments, described in words, to an annotator; its answers, as judged pairs, to the trainer.

trainer.undecided -> describe -> questions -> labeller
trainer.take <- judged pairs <- answers
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from envs.captions import caption_id
from envs.protocols import State
from rewards.heron.factors import Factor, FactorTable
from rewards.heron.preferences import PairBatch
from rewards.heron.segments import Segments
from rewards.inquiry import Inquiry
from rewards.labels.questions import Answer, Ids, Question
from rewards.teacher import Event

SOURCE = "labeller"
"""Who judged, in reports."""

_MAX_PENDING_UPDATES = 16
"""While so many updates' pairs wait for their answer, no others are asked about: they would be old when it comes."""

_MAX_MESSAGES = 32
"""Different messages in a description; of more, the first and the last half of as many."""
_NO_TEXT = "(a message that was not kept)"


class JudgedTrainer(Protocol):
    """What of a ``PreferenceTrainer`` is needed here."""

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


class PairLabelling:
    """Has pairs of segments compared by an annotator, update after update.

    No pair is asked about twice, where two pairs are the same if their texts are. Two segments of one text are a tie,
    of which nobody is asked. Which of the two is shown first is left to chance.

    Args:
        trainer: says which pairs, and learns from the answers.
        table: the ranked factors; their values stand in every description.
        inquiry: the annotator.
        pairs_per_update: asked about in one update, at most.
        seed: of the order in which two segments are shown.
    """

    def __init__(
        self,
        trainer: JudgedTrainer,
        table: FactorTable,
        inquiry: Inquiry,
        *,
        pairs_per_update: int,
        seed: int,
    ) -> None:
        self._trainer, self._table, self._inquiry = trainer, table, inquiry
        self._num = pairs_per_update
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
        new, ties = self._choose(texts)
        self._untaken |= {answer.question.ids: answer for answer in self._inquiry.ask(new, self._unanswered)}
        judged = [(pair, self._untaken.pop(ids)) for ids, pair in self._pending.items() if ids in self._untaken]
        for pair, _ in judged:
            del self._pending[pair.question.ids]
        self._hand_over(ties, judged)

    def _choose(self, texts: Mapping[int, str]) -> tuple[list[Question], list[tuple[Segments, Segments]]]:
        """Choose pairs: the questions to ask, and the pairs that are ties without asking."""
        room = min(self._num, _MAX_PENDING_UPDATES * self._num - len(self._pending))
        if room <= 0:
            return [], []
        first, second = self._trainer.undecided(room)
        if not len(first):
            return [], []
        both = Segments.joined([first, second])
        shown = self._rng.permuted(np.arange(len(both)).reshape(2, -1), axis=0)
        described = describe(both, self._table, texts)
        new, ties = [], []
        for one, other in shown.T.tolist():
            ids = caption_id(described[one]), caption_id(described[other])
            known = (min(ids), max(ids))
            if known in self._met:
                continue
            self._met.add(known)
            segments = both.take(np.array([one])), both.take(np.array([other]))
            if described[one] == described[other]:
                ties.append(segments)
            else:
                new.append(Question.pair(described[one], described[other]))
                self._pending[ids] = _Pair(new[-1], *segments)
        self._asked += len(new)
        return new, ties

    def _unanswered(self) -> list[Question]:
        return [pair.question for pair in self._pending.values()]

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
        """Figures of the pairs, ``heron/...``, and the labeller's counters."""
        figures = {
            "heron/asked_pairs": float(self._asked),
            "heron/unanswered_pairs": float(len(self._pending)),
            "heron/unjudged_pairs": float(self._unjudged),
            "heron/alike_pairs": float(self._tied),
            **self._inquiry.metrics(),
        }
        return figures | ({"heron/first_shown_better": self._first_better / self._decided} if self._decided else {})

    def events(self) -> Sequence[Event]:
        """Outages of the annotator."""
        return self._inquiry.events()

    def state_dict(self) -> State:
        """What was asked, the segments that wait for an answer, counts, and the budget that was spent."""
        pending = list(self._pending.values())
        return {
            "met": np.array(sorted(self._met), np.int64).reshape(-1, 2),
            "texts": [[pair.question.text, pair.question.second_text] for pair in pending],
            "segments": [[pair.first.state_dict(), pair.second.state_dict()] for pair in pending],
            "counts": [self._asked, self._unjudged, self._tied, self._decided, self._first_better],
            "generator": dict(self._rng.bit_generator.state),
            "labeller": self._inquiry.state_dict(),
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
        self._inquiry.load_state_dict(state["labeller"])
        self._inquiry.ask_again(self._unanswered())

    def close(self) -> None:
        """End the labeller."""
        self._inquiry.close()


def describe(segments: Segments, table: FactorTable, texts: Mapping[int, str]) -> list[str]:
    """One text a segment, the same for the same play: its length, its end, its factors, its messages.

    How an episode ended shows in what the factors count, such as ``success``, and in its last messages.

    Args:
        segments: N of them.
        table: the factors that they hold.
        texts: of captions by their id; a page a line.

    Returns:
        N texts. Segments of one text differ in nothing that an annotator could go by.
    """
    captions = np.split(segments.caption_id, segments.offsets[1:])
    return [
        "\n".join(
            [_length(len(observed), ended=ended), *_values(table.factors, values), *_messages(observed.tolist(), texts)]
        )
        for observed, ended, values in zip(captions, segments.ended.tolist(), segments.factors.tolist(), strict=True)
    ]


def _length(steps: int, *, ended: bool) -> str:
    taken = "1 action" if steps == 1 else f"{steps} actions"
    return f"{taken}; the episode {'ended with the last one' if ended else 'went on after them'}."


def _values(factors: Sequence[Factor], values: Sequence[float]) -> list[str]:
    """Four digits each; no zero with a sign."""
    return [
        f"{factor.name}: {value + 0.0:.4g}" + (f" ({factor.description.rstrip('.')})" if factor.description else "")
        for factor, value in zip(factors, values, strict=True)
    ]


def _messages(captions: Sequence[int], texts: Mapping[int, str]) -> list[str]:
    counts = Counter(caption for caption in captions if caption)  # in the order in which they first came
    if not counts:
        return ["Messages: none."]
    lines = [f"{count} x {_one_line(texts.get(caption, _NO_TEXT))}" for caption, count in counts.items()]
    if len(lines) > _MAX_MESSAGES:
        half = _MAX_MESSAGES // 2
        lines = [*lines[:half], f"({len(lines) - 2 * half} other messages)", *lines[-half:]]
    return ["Messages:", *lines]


def _one_line(text: str) -> str:
    return " / ".join(text.split("\n"))
