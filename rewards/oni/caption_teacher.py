"""ONI on the driver's side: captions to the annotator, its answers to the caption model, values to the scorers.

new captions -> model.meet -> questions -> labeller
values for scorers <- model.take_values <- model.learn <- answers
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from envs.protocols import State
from envs.timing import PhaseTimer
from rewards.inquiry import Inquiry
from rewards.labels.questions import Answer, Question
from rewards.oni.caption_model import CaptionModel, Values
from rewards.oni.caption_reward import CaptionEvidence
from rewards.teacher import Event, Teacher


class CaptionTeacher(Teacher):
    """Has captions labelled, update after update, and learns what they are worth.

    Args:
        model: what learns from the answers.
        inquiry: the annotator.
        phases: where its time is counted: ``labels`` and ``reward_model``.
        clock: seconds.
    """

    def __init__(
        self,
        model: CaptionModel,
        inquiry: Inquiry,
        phases: PhaseTimer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model, self._inquiry, self._phases, self._clock = model, inquiry, phases, clock
        self._known: set[tuple[int, int]] = set()
        """Questions, of this run or of others that share its store, whose answer has a value."""
        self._untaken: list[Answer] = []
        """Answers that came at a checkpoint and wait for the next update."""
        self._coverage = 1.0
        self._num_at_line, self._line_s = 0, clock()

    def begin(self) -> None:
        """Take in what has been answered so far, by the store at the start of a run."""
        self._keep(self._inquiry.stored())
        self._num_at_line = len(self._known)

    def _keep(self, answers: Sequence[Answer]) -> None:
        """For the next update."""
        self._note(answers)
        self._untaken.extend(answers)

    def update(self, captions: Mapping[int, str]) -> Values:
        """Take a batch's new captions to the annotator, let the model learn, and say which values have changed."""
        with self._phases.measure("labels"):
            self.model.meet(captions)
            new = self._inquiry.ask(self.model.questions(), self.model.unanswered)
            self._note(new)
            answers, self._untaken = [*self._untaken, *new], []
        with self._phases.measure("reward_model"):
            self.model.learn(answers)
            return self.model.take_values()

    def _note(self, answers: Iterable[Answer]) -> None:
        self._known.update(answer.question.ids for answer in answers if answer.value is not None)

    def observe(self, evidence: Sequence[CaptionEvidence]) -> None:
        """Take in how often captions came, and for how many of them the scorers had a value."""
        for one in evidence:
            self.model.count(dict(zip(one.ids.tolist(), one.counts.tolist(), strict=True)))
        spoken = sum(one.num_spoken for one in evidence)
        self._coverage = sum(one.num_valued for one in evidence) / spoken if spoken else 1.0

    def metrics(self) -> dict[str, float]:
        """The labeller's counters and the model's figures."""
        known, now = len(self._known), self._clock()
        speed = (known - self._num_at_line) / max(1e-9, now - self._line_s)
        self._num_at_line, self._line_s = known, now
        return {
            **self._inquiry.metrics(),
            **{f"reward_model/{name}": value for name, value in self.model.metrics().items()},
            "labels/known": float(known),
            "labels/coverage": self._coverage,
            "labels/labels_per_s": speed,
        }

    def events(self) -> Sequence[Event]:
        """Outages of the annotator."""
        return self._inquiry.events()

    def caption_value(self, caption_id: int) -> float | None:
        """What the model makes of a caption."""
        return self.model.value(caption_id)

    def state_dict(self) -> State:
        """The model, the answers that it has not seen, and the budget that was spent."""
        self._keep(self._inquiry.late())
        return {
            "model": self.model.state_dict(),
            "known": np.array(sorted(self._known), np.int64).reshape(-1, 2),
            "untaken": [_packed(answer) for answer in self._untaken],
            "coverage": self._coverage,
            "labeller": self._inquiry.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``; what is still unanswered is asked for again."""
        self.model.load_state_dict(state["model"])
        self._known = {(int(first), int(second)) for first, second in state["known"].tolist()}
        self._untaken = [_unpacked(packed) for packed in state["untaken"]]
        self._coverage = float(state["coverage"])
        self._inquiry.load_state_dict(state["labeller"])
        self._inquiry.ask_again(self.model.unanswered())
        self._num_at_line = len(self._known)

    def close(self) -> None:
        """End the labeller."""
        self._inquiry.close()


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
