"""Questions of a run to its annotator, update after update."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from envs.protocols import State
from rewards.labels.questions import Answer, PromptSpec, Question
from rewards.teacher import Event, LabelFeed, TeachingContext


class Inquiry:
    """What an annotator is asked about during a run: new questions out, answers in, each outage reported once.

    Args:
        feed: the labeller; closed with this.
        about: what is asked about, for events: ``captions``, ``play``.
        waits: each update waits for its answers (``labels.mode=barrier``).
        again_s: questions without an answer are asked again after so long.
        grace_s: a problem that is over sooner, such as one refused call of a busy server, is no outage.
        clock: seconds.
    """

    def __init__(
        self,
        feed: LabelFeed,
        about: str,
        *,
        waits: bool,
        again_s: float = 10.0,
        grace_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feed, self._about, self._waits = feed, about, waits
        self._again_s, self._grace_s, self._clock = again_s, grace_s, clock
        self._asked_again_s = clock()
        self._problem_since_s: float | None = None
        self._is_outage = False
        self._events: list[Event] = []

    @classmethod
    def opened(cls, context: TeachingContext, about: str, spec: PromptSpec) -> Inquiry:
        """With a labeller of its own, as the run is configured.

        Args:
            context: the run's.
            about: what is asked about (see ``RewardKind.questions``).
            spec: the wording.
        """
        return cls(context.open_feed(about, spec), about, waits=context.labels.mode == "barrier")

    def ask(self, new: Sequence[Question], unanswered: Callable[[], Iterable[Question]]) -> Sequence[Answer]:
        """Ask, and take what answers there are.

        Args:
            new: questions that were not asked before.
            unanswered: says which were asked, these included, and not answered. A run that waits has all their answers
                when this returns; another asks them again now and then: they may have been dropped from a full queue,
                given up in an outage, or cut by a stop.
        """
        if self._waits:
            answers = self._feed.drain(unanswered())
            self._feed.poll()
        else:
            self._feed.submit(new)
            answers = self._feed.poll()
            if self._clock() - self._asked_again_s >= self._again_s:
                self.ask_again(unanswered())
        self._watch()
        return answers

    def ask_again(self, questions: Iterable[Question]) -> None:
        """Ask what may have been lost; a run that waits has no such questions."""
        self._asked_again_s = self._clock()
        if not self._waits:
            self._feed.submit(questions)

    def stored(self) -> Sequence[Answer]:
        """What the store had when the run began."""
        return self._feed.flush()

    def late(self) -> Sequence[Answer]:
        """Answers that arrived since the last ``ask``, as the labeller knows them; none where each update waits."""
        return () if self._waits else self._feed.flush()

    def _watch(self) -> None:
        problem, now = self._feed.problem(), self._clock()
        if problem is None:
            if self._is_outage:
                note = f"labels of {self._about} come again"
                self._events.append(Event(kind="labels_resumed", fields={"about": self._about}, note=note))
            self._problem_since_s, self._is_outage = None, False
            return
        if self._problem_since_s is None:
            self._problem_since_s = now
        if not self._is_outage and now - self._problem_since_s >= self._grace_s:
            note = f"{problem}; training goes on with the labels of {self._about} there are"
            fields = {"about": self._about, "cause": problem}
            self._events.append(Event(kind="labels_stopped", fields=fields, note=note))
            self._is_outage = True

    def events(self) -> list[Event]:
        """Outages that began or ended since the last call."""
        events, self._events = self._events, []
        return events

    def metrics(self) -> dict[str, float]:
        """The labeller's counters, ``labels/...``."""
        return {f"labels/{name}": value for name, value in self._feed.metrics().items()}

    def state_dict(self) -> State:
        """The budget that was spent."""
        return self._feed.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._feed.load_state_dict(state)

    def close(self) -> None:
        """End the labeller."""
        self._feed.close()
