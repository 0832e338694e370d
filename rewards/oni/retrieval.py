"""ONI's first model: a caption is worth its label (Zheng et al. 2024, arXiv 2410.23022, section "retrieval")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from envs.protocols import State
from rewards.labels.questions import Answer, Question
from rewards.oni.caption_model import Values


class RetrievalModel:
    """Looks labels up; learns nothing."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        """Observed captions."""
        self._asked: set[int] = set()
        self._labels: dict[int, float | None] = {}
        self._news: list[int] = []
        """Labelled captions whose value was not taken yet."""

    def meet(self, captions: Mapping[int, str]) -> None:
        """Remember them for ``questions``."""
        for ident, text in captions.items():
            if ident and ident not in self._texts:
                self._texts[ident] = text
                if self._labels.get(ident) is not None:
                    self._news.append(ident)

    def count(self, counts: Mapping[int, int]) -> None:
        """Nothing: a label does not depend on how often its caption comes."""

    def questions(self) -> list[Question]:
        """Every caption, once."""
        new = [ident for ident in self._texts if ident not in self._asked and ident not in self._labels]
        self._asked.update(new)
        return [Question(ident, self._texts[ident]) for ident in new]

    def unanswered(self) -> list[Question]:
        """Captions without an answer."""
        waiting = self._asked - self._labels.keys()
        return [Question(ident, text) for ident, text in self._texts.items() if ident in waiting]

    def learn(self, answers: Iterable[Answer]) -> None:
        """Remember labels; the first answer stays."""
        for answer in answers:
            ident = answer.question.caption_id
            if ident not in self._labels:
                self._labels[ident] = answer.value
                if answer.value is not None and ident in self._texts:
                    self._news.append(ident)

    def take_values(self) -> Values:
        """Labels since the last call."""
        news, self._news = self._news, []
        return [(ident, value) for ident in news if (value := self._labels[ident]) is not None]

    def value(self, caption_id: int) -> float | None:
        """The label."""
        return self._labels.get(caption_id)

    def metrics(self) -> Mapping[str, float]:
        """How many labels can be looked up; there is no model to judge."""
        return {"labels": float(sum(value is not None for value in self._labels.values()))}

    def state_dict(self) -> State:
        """Texts, labels, and what was not taken yet."""
        return {
            "texts": {str(ident): text for ident, text in self._texts.items()},
            "asked": sorted(self._asked),
            "labels": {str(ident): value for ident, value in self._labels.items()},
            "news": list(self._news),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._texts = {int(ident): text for ident, text in state["texts"].items()}
        self._asked = set(state["asked"])
        self._labels = {int(ident): value for ident, value in state["labels"].items()}
        self._news = list(state["news"])
