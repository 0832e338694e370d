"""ONI's second model: a classifier of captions, trained on the annotator's verdicts.

Zheng et al. 2024, "Online intrinsic rewards for decision making agents from large language model feedback"
(arXiv 2410.23022), section "classification". Unlike the public code, it weights classes, holds templates out,
calibrates, and says how well it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from envs.protocols import State
from rewards.ensemble import AGGREGATES, disagreement
from rewards.labels.questions import Answer, Question
from rewards.oni.calibration import (
    balanced,
    balanced_accuracy,
    cross_fitted_temperatures,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    sigmoid,
)
from rewards.oni.config import ClassificationConfig
from rewards.oni.learned import LearnedModel
from rewards.oni.networks import weighted_cross_entropy

_POSITIVE_ABOVE = 0.5
"""A soft target above this is a positive, in shares and accuracies and where both classes are waited for."""


class ClassificationModel(LearnedModel):
    """p(helpful | caption), and whether it passes a threshold.

    Targets are the annotator's soft values where it gives them. With ``balance_classes``, positives and negatives
    weigh alike in the loss, in the calibration and in the figures of calibration: p is what it would be if both were
    equally frequent, so that a threshold of 1/2 does not overlook a rare class. A soft value t is t positives and
    1 - t negatives (:func:`~rewards.oni.calibration.balanced`), so that it teaches what hard labels in that mix do.

    The figures of held-out labels are cross-fitted: where several members leave labels out, those of one are judged
    at the temperature of the others'. Values are calibrated on all of them.

    Args:
        config: networks, schedule, threshold, output.
        seed: of the initial weights, the bootstrap and the batches.
    """

    def __init__(self, config: ClassificationConfig, seed: int) -> None:
        super().__init__(config, seed)
        self._classification = config
        self._num_asked = 0
        """Observed captions that ``questions`` has seen."""
        self._asked: set[int] = set()
        self._answered: set[int] = set()
        self._rows: list[int] = []
        """Row of each label."""
        self._targets: list[float] = []
        self._weights: list[np.ndarray] = []
        """float32 [K] of each label."""
        self._positives = 0
        self._positive_mass = 0.0
        """Sum of the targets."""
        self._held_out: list[tuple[int, int]] = []
        """(position of a label, member that leaves it out)."""
        self._temperature = 1.0

    def count(self, counts: Mapping[int, int]) -> None:
        """Nothing: how helpful a caption is does not depend on how often it comes."""

    def questions(self) -> list[Question]:
        """Every observed caption, once."""
        new = [row for row in self._met[self._num_asked :] if self._corpus.ids[row] not in self._answered]
        self._num_asked = len(self._met)
        self._asked.update(self._corpus.ids[row] for row in new)
        return [self._question(row) for row in new]

    def unanswered(self) -> list[Question]:
        """Captions that were asked about, without an answer."""
        waiting = self._asked - self._answered
        return [self._question(row) for row in self._met if self._corpus.ids[row] in waiting]

    def _question(self, row: int) -> Question:
        return Question(self._corpus.ids[row], self._corpus.texts[row])

    def _add(self, answer: Answer) -> bool:
        question = answer.question
        if question.is_pair:
            raise ValueError(f"classification learns from single captions, got a comparison with {question.text!r}")
        if question.caption_id in self._answered:
            return False
        self._answered.add(question.caption_id)
        target = answer.soft_value
        if answer.value is None or target is None:
            return False
        self._append(self._corpus.add(question.caption_id, question.text), float(target))
        return True

    def _append(self, row: int, target: float) -> None:
        self._held_out += [(len(self._rows), member) for member in self._left_out_by((row,))]
        self._rows.append(row)
        self._targets.append(target)
        self._weights.append(self._example_weights((row,)))
        self._positives += target > _POSITIVE_ABOVE
        self._positive_mass += target

    def _can_learn(self) -> bool:
        return len(self._rows) >= self._classification.min_labels and 0 < self._positives < len(self._rows)

    def _balanced(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets [N] as they count, and their weights [N], 1 on average over all labels."""
        if not self._classification.balance_classes:
            return targets, np.ones(len(targets))
        half = 0.5 * len(self._rows)
        return balanced(targets, half / self._positive_mass, half / (len(self._rows) - self._positive_mass))

    def _step(self) -> None:
        at = self._batch(len(self._rows)).tolist()
        targets, balance = self._balanced(np.array([self._targets[i] for i in at]))
        weights = np.stack([self._weights[i] for i in at], 1) * balance
        encoded = self._corpus.encodings(self._rows[i] for i in at)
        self._ensemble.step(encoded, lambda logits: weighted_cross_entropy(logits, targets, weights))

    def _held_out_rows(self) -> Iterable[int]:
        return (self._rows[i] for i, _ in self._held_out)

    def _fit(self) -> dict[str, float]:
        figures = {"labels": float(len(self._rows)), "positive_share": self._positives / len(self._rows)}
        if self._held_out:
            figures |= self._judge_held_out()
        opinions = self._opinions(self._scores_of(self._met))
        return {**figures, "temperature": self._temperature, "disagreement": float(disagreement(opinions).mean())}

    def _judge_held_out(self) -> dict[str, float]:
        """Calibrate on what members left out, and say how well they do there."""
        at, member = np.array(self._held_out).T
        logits = self._scores[member, np.array(self._rows)[at]]
        labels = np.array(self._targets)[at]
        actual = labels > _POSITIVE_ABOVE
        targets, weights = self._balanced(labels)
        temperatures = np.ones(len(at))
        if len(at) >= self._classification.min_calibration_labels and 0 < actual.sum() < len(at):
            self._temperature = fit_temperature(logits, targets, weights)
            temperatures = cross_fitted_temperatures(logits, targets, weights, member)
        logits = logits / temperatures
        p = sigmoid(logits)
        predicted = p > self._classification.threshold
        return {
            "held_out_labels": float(len(at)),
            "held_out_accuracy": float((predicted == actual).mean()),
            "held_out_balanced_accuracy": balanced_accuracy(predicted, actual),
            "held_out_log_loss": log_loss(logits, targets, weights),
            "held_out_calibration_error": expected_calibration_error(p, targets, weights),
        }

    def _opinions(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [K, N] of logits [K, N]."""
        return sigmoid(logits / self._temperature)

    def _opinion(self, scores: np.ndarray) -> np.ndarray:
        return np.clip(AGGREGATES[self._classification.aggregate](self._opinions(scores)), 0.0, 1.0)

    def _worth(self, scores: np.ndarray) -> np.ndarray:
        p = self._opinion(scores)
        return p if self._classification.output == "probability" else p > self._classification.threshold

    def state_dict(self) -> State:
        """The base's, labels, questions, temperature."""
        return {
            "learned": super().state_dict(),
            "num_asked": self._num_asked,
            "asked": np.array(sorted(self._asked), np.int64),
            "answered": np.array(sorted(self._answered), np.int64),
            "rows": np.array(self._rows, np.int64),
            "targets": np.array(self._targets, np.float64),
            "temperature": self._temperature,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``.

        Raises:
            ValueError: the state is that of other networks.
        """
        super().load_state_dict(state["learned"])
        self._num_asked = int(state["num_asked"])
        self._asked = {int(ident) for ident in state["asked"]}
        self._answered = {int(ident) for ident in state["answered"]}
        self._rows, self._targets, self._weights, self._held_out = [], [], [], []
        self._positives, self._positive_mass = 0, 0.0
        for row, target in zip(state["rows"], state["targets"], strict=True):
            self._append(int(row), float(target))
        self._temperature = float(state["temperature"])
