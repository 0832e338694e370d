"""The queue of questions: urgent ones first, then the newest; bounded."""

from __future__ import annotations

from rewards.labels.questions import Ids, Question


class Backlog:
    """An ordered set of questions.

    Args:
        limit: questions that are queued and not urgent; beyond it the oldest are dropped.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: dict[Ids, Question] = {}
        """Oldest first."""
        self._urgent: dict[Ids, Question] = {}
        """In the order in which they are to be asked; never dropped."""
        self._seen: set[Ids] = set()
        """Questions that have been queued, whether they wait still or not."""
        self._dropped: set[Ids] = set()

    def __len__(self) -> int:
        return len(self._queue) + len(self._urgent)

    @property
    def dropped(self) -> int:
        """Questions dropped so far; one that is queued and dropped again counts once."""
        return len(self._dropped)

    def get(self, ids: Ids) -> Question | None:
        """The waiting question of these ids."""
        return self._queue.get(ids) or self._urgent.get(ids)

    def add(self, question: Question) -> None:
        """Queue a question as the newest; drops the oldest where there are too many.

        One that has been queued before displaces no other: where there is no room it is left out.
        """
        ids = question.ids
        if ids in self._seen and ids not in self._queue and len(self._queue) >= self._limit:
            self._dropped.add(ids)
            return
        self._seen.add(ids)
        self._queue[ids] = question
        while len(self._queue) > self._limit:
            oldest = next(iter(self._queue))
            del self._queue[oldest]
            self._dropped.add(oldest)

    def add_urgent(self, question: Question) -> None:
        """Queue a question whose answer is awaited, or move it up."""
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
