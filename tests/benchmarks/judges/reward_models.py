"""Caption models trained outside a run, as they would be in one: a few captions an update, the most frequent first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewards.labels.questions import Answer, Question
from rewards.oni.classification import ClassificationModel
from rewards.oni.config import ClassificationConfig, RankingConfig
from rewards.oni.learned import LearnedModel
from rewards.oni.ranking import RankingModel
from tests.benchmarks.judges.captions import Captions


@dataclass(frozen=True)
class Pace:
    """How fast a model meets captions."""

    captions_per_update: int
    """New captions in each update."""
    seed: int
    """Of the model."""


def trained_classifier(
    config: ClassificationConfig, captions: Captions, rows: np.ndarray, pace: Pace
) -> ClassificationModel:
    """A classifier that has met these captions, a few an update, with the lexicon's verdicts."""
    model = ClassificationModel(config, pace.seed)

    def answers(at: Sequence[int]) -> list[Answer]:
        return [Answer(Question.single(captions.texts[i]), float(captions.levels[i] > 0)) for i in at]

    _train(model, captions, rows, pace, answers)
    return model


def _train(
    model: LearnedModel,
    captions: Captions,
    rows: np.ndarray,
    pace: Pace,
    answers: Callable[[Sequence[int]], Sequence[Any]],
) -> None:
    """Updates with a few new captions each, and then without, until the model neither asks nor learns."""
    for start in range(0, len(rows), pace.captions_per_update):
        at = rows[start : start + pace.captions_per_update].tolist()
        met = {Question.single(captions.texts[i]).caption_id: i for i in at}
        model.meet({ident: captions.texts[i] for ident, i in met.items()})
        model.count({ident: int(captions.counts[i]) for ident, i in met.items()})
        model.learn(answers(at))
    steps = -1.0
    while (taken := model.metrics()["gradient_steps"]) > steps:
        steps = taken
        for _ in range(8):
            model.learn(answers([]))


def trained_ranker(config: RankingConfig, captions: Captions, rows: np.ndarray, pace: Pace) -> RankingModel:
    """A ranker that has met these captions, a few an update, and compared the pairs it asked for."""
    model = RankingModel(config, pace.seed)
    level = dict(zip(captions.texts, captions.levels.tolist(), strict=True))

    def answers(_: Sequence[int]) -> list[Answer]:
        return [Answer(q, 0.5 + 0.5 * float(np.sign(level[q.text] - level[q.second_text]))) for q in model.questions()]

    _train(model, captions, rows, pace, answers)
    return model
