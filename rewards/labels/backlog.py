"""Questions that wait to be asked: what somebody waits for first, then the newest; bounded."""

from __future__ import annotations

from rewards.labels.questions import Ids, Question


class Backlog:
    """An ordered set of questions.

    Args:
        limit: questions that may wait without anybody waiting for them; beyond it the oldest are dropped.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: dict[Ids, Question] = {}
        """Oldest first."""
        self._urgent: dict[Ids, Question] = {}
        """In the order in which they are to be asked; never dropped."""
        self.dropped = 0
        """Questions dropped so far."""

    def __len__(self) -> int:
        return len(self._queue) + len(self._urgent)

    def get(self, ids: Ids) -> Question | None:
        """The waiting question of these ids."""
        return self._queue.get(ids) or self._urgent.get(ids)

    def add(self, question: Question) -> None:
        """Queue a question as the newest; drops the oldest where there are too many."""
        self._queue[question.ids] = question
        while len(self._queue) > self._limit:
            del self._queue[next(iter(self._queue))]
            self.dropped += 1

    def add_urgent(self, question: Question) -> None:
        """Queue a question that somebody waits for, or move it up."""
        self._queue.pop(question.ids, None)
        self._urgent.setdefault(question.ids, question)

    def discard(self, ids: Ids) -> None:
        """Forget a question, where it still waits."""
        self._queue.pop(ids, None)
        self._urgent.pop(ids, None)

    def take(self, count: int) -> list[Question]:
        """The next questions, at most ``count``; they wait no longer."""
        taken: list[Question] = []
        while len(taken) < count and self._urgent:
            taken.append(self._urgent.pop(next(iter(self._urgent))))
        while len(taken) < count and self._queue:
            taken.append(self._queue.popitem()[1])
        return taken
