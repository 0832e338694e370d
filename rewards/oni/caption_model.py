"""What ONI's three rewards have in common: a model of captions that learns from an annotator's answers.

A caption model lives in one place, where captions and answers come together (the driver of a run). Learners
hold a :class:`~rewards.oni.caption_reward.CaptionValues` of what it says, since there are few captions and many
steps: a caption is judged once for each version of the model, however often it is read.

    observed captions -> model.questions() -> annotator -> answers -> model.learn() -> model.take_values() -> learners
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from envs.protocols import State
from rewards.labels.questions import Answer, Question

Values = Sequence[tuple[int, float]]
"""(caption id, value) pairs."""


class CaptionModel(Protocol):
    """What a caption is worth, before its count in the episode has a say.

    The conformance suite (``tests/rewards/oni/caption_models.py``) holds every implementation to this: all
    that was asked is asked once; answers may come in any order, late, twice, or never; the same calls give
    the same values, also with a ``state_dict`` and a ``load_state_dict`` in between.
    """

    def meet(self, captions: Mapping[int, str]) -> None:
        """Take in captions ``{caption_id: canonical text}`` observed in play; known ones change nothing."""
        ...

    def count(self, counts: Mapping[int, int]) -> None:
        """Take in how often captions came since the last call ``{caption_id: occurrences}``."""
        ...

    def questions(self) -> list[Question]:
        """What the annotator should be asked now; nothing is returned twice."""
        ...

    def unanswered(self) -> list[Question]:
        """What was asked and not answered: to be asked again after an outage or a resume."""
        ...

    def learn(self, answers: Iterable[Answer]) -> None:
        """Take in answers, and train for a bounded number of steps; called once an update.

        Answers about captions that were not observed here (a store that other runs filled) count too.
        """
        ...

    def take_values(self) -> Values:
        """Values that are new or have changed since the last call, of observed captions."""
        ...

    def value(self, caption_id: int) -> float | None:
        """What a caption is worth now; None where the model cannot say."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """How good the model is now, by the names of the glossary (``oni_kind``) without ``reward_model/``."""
        ...

    def state_dict(self) -> State:
        """All of it: data, weights, optimiser, random state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        ...
