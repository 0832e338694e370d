"""What annotators are asked, and what they answer: about one caption, or about an ordered pair of captions."""

from __future__ import annotations

from dataclasses import dataclass

from envs.captions import caption_id

Ids = tuple[int, int]
"""Caption ids of a question; the second is 0 where the question is about a single caption."""


@dataclass(frozen=True, slots=True)
class Question:
    """One caption, or two in the order in which they are shown.

    Made by :meth:`single` and :meth:`pair`, which take the ids from the texts.
    """

    caption_id: int
    text: str
    """Canonical text of the caption."""
    second_id: int = 0
    """Second caption of an ordered pair; 0 = the question is about one caption."""
    second_text: str = ""

    @classmethod
    def single(cls, text: str) -> Question:
        """The question about one canonical caption."""
        return cls(caption_id(text), text)

    @classmethod
    def pair(cls, first: str, second: str) -> Question:
        """The question which of two canonical captions is better.

        Raises:
            ValueError: they are the same caption, or one of them is empty.
        """
        if not first or not second or first == second:
            raise ValueError(f"a pair needs two different captions, got {first!r} and {second!r}")
        return cls(caption_id(first), first, caption_id(second), second)

    @property
    def ids(self) -> Ids:
        """Names the question within one labeller: what is asked is the same for all."""
        return self.caption_id, self.second_id

    @property
    def is_pair(self) -> bool:
        """Two captions are compared."""
        return self.second_id != 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the annotator said to one question."""

    question: Question
    value: float | None
    """In [0, 1]. Of one caption: what it is worth. Of a pair: 1 the first is better, 0 the second, 0.5 neither.
    None: the annotator abstained, or its reply could not be read."""
    probability: float | None = None
    """Soft value: the annotator's expectation of ``value``; None where it gives none, or ``value`` is None."""

    @property
    def soft_value(self) -> float | None:
        """The probability where there is one, else the value; None where the annotator gave no answer."""
        return self.value if self.value is None or self.probability is None else self.probability
