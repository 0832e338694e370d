"""From captions to what they are worth, beside a run: the annotator's feed, and the caption model that learns from it.

captions of a batch -> model.meet -> questions -> feed -> annotator
values for learners <- model.take_values <- model.learn <- answers
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from envs.protocols import State
from envs.timing import PhaseTimer
from launch.processes.label_feed import LabelFeed, OutageWatch
from launch.training.ledger import CaptionTally
from rewards.labels.questions import Answer, Question
from rewards.oni.caption_model import CaptionModel, Values


class Annotation:
    """What the driver does about captions, update after update.

    Args:
        feed: the labeller.
        model: what learns from its answers.
        waits: each update waits for the answers about its captions (``labels.mode=barrier``).
        phases: where its time is counted: ``labels`` and ``reward_model``.
        on_outage: as of ``OutageWatch``.
        grace_s: likewise.
        clock: likewise.
    """

    def __init__(
        self,
        feed: LabelFeed,
        model: CaptionModel,
        *,
        waits: bool,
        phases: PhaseTimer,
        on_outage: Callable[[str | None], None],
        grace_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feed, self.model = feed, model
        self._waits, self._phases = waits, phases
        self._outages = OutageWatch(feed, on_outage, grace_s, clock)
        self._known: set[tuple[int, int]] = set()
        """Questions whose answer has a value."""
        self._untaken: list[Answer] = []
        """Answers that came at a checkpoint and wait for the next update."""

    @property
    def num_known(self) -> int:
        """Questions, of this run or of others that share its store, whose answer has a value."""
        return len(self._known)

    def begin(self) -> None:
        """Take in what has been answered so far, by the store at the start of a run."""
        late = self._feed.flush()
        self._note(late)
        self._untaken.extend(late)

    def update(self, captions: Mapping[int, str]) -> Values:
        """Take a batch's new captions to the annotator, let the model learn, and say what has changed.

        Args:
            captions: ``{caption_id: text}`` that were met for the first time.
        """
        with self._phases.measure("labels"):
            self.model.meet(captions)
            new = self._ask()
            self._note(new)
            answers, self._untaken = [*self._untaken, *new], []
            self._outages.look()
        with self._phases.measure("reward_model"):
            self.model.learn(answers)
            return self.model.take_values()

    def _ask(self) -> Sequence[Answer]:
        questions = self.model.questions()
        if self._waits:
            answers = self._feed.drain(questions)
            self._feed.poll()
            return answers
        self._feed.submit(questions)
        return self._feed.poll()

    def _note(self, answers: Iterable[Answer]) -> None:
        self._known.update(answer.question.ids for answer in answers if answer.value is not None)

    def count(self, tallies: Iterable[CaptionTally]) -> None:
        """Take in how often captions came."""
        for tally in tallies:
            self.model.count(dict(zip(tally.ids.tolist(), tally.counts.tolist(), strict=True)))

    def ask_again(self) -> None:
        """Questions without an answer (dropped from a full queue, given up in an outage, cut) are asked again."""
        if not self._waits:
            self._feed.submit(self.model.unanswered())

    def metrics(self) -> dict[str, float]:
        """The labeller's counters and the model's figures, by their names in the glossary."""
        found = {f"labels/{name}": value for name, value in self._feed.metrics().items()}
        found |= {f"reward_model/{name}": value for name, value in self.model.metrics().items()}
        return found | {"labels/known": float(self.num_known)}

    def state_dict(self) -> State:
        """The model, the answers that it has not seen, and the budget that was spent."""
        if not self._waits:
            self.begin()
        return {
            "model": self.model.state_dict(),
            "known": np.array(sorted(self._known), np.int64).reshape(-1, 2),
            "untaken": [_packed(answer) for answer in self._untaken],
            "feed": self._feed.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``; what is still unanswered is asked for again."""
        self.model.load_state_dict(state["model"])
        self._known = {(int(first), int(second)) for first, second in state["known"].tolist()}
        self._untaken = [_unpacked(packed) for packed in state["untaken"]]
        self._feed.load_state_dict(state["feed"])
        self.ask_again()


def _packed(answer: Answer) -> dict[str, Any]:
    asked = answer.question
    return {
        "text": asked.text,
        "second_text": asked.second_text,
        "value": answer.value,
        "probability": answer.probability,
    }


def _unpacked(packed: Mapping[str, Any]) -> Answer:
    first, second = packed["text"], packed["second_text"]
    question = Question.pair(first, second) if second else Question.single(first)
    return Answer(question, packed["value"], packed["probability"])
