"""ONI's third model: a score of captions, learnt from comparisons.

Zheng et al. 2024 (arXiv 2410.23022), section "ranking", after Motif (Klissarov et al. 2023, arXiv 2310.00166): the
score follows the Bradley-Terry model, ``p(a is better than b) = sigmoid(score(a) - score(b))``. What is paid is the
normalised score where it exceeds a quantile and the mean, else 0. Both are applied here, which the public code of ONI
means to do and does not. Compared are new captions first, unlike ones, and those of which the model is unsure.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.protocols import State
from rewards.ensemble import AGGREGATES, disagreement
from rewards.labels.questions import Answer, Question
from rewards.oni.calibration import log_loss, sigmoid
from rewards.oni.config import RankingConfig
from rewards.oni.learned import LearnedModel
from rewards.oni.networks import weighted_cross_entropy

Pair = tuple[int, int]
"""Two captions by number: in the order in which they are shown, or the lower one first where order does not matter."""

_PARTNERS = 32
"""Partners considered for each caption."""
_SAME_TEMPLATE = 4.0
"""What it costs a pair that its captions share a template: more than all else can make up for, so that such a pair
is asked only where no other is left."""

_TIE = 0.5
"""Of a verdict, not of a soft target: an annotator that says "equal" is rarely exactly sure of it."""

_OBSERVED_ANEW = 1.1
"""Values are normalised anew, also by an unchanged score, when so many times as many captions were observed."""


@dataclass(frozen=True)
class PairPool:
    """N captions to choose from."""

    numbers: np.ndarray
    """int [N]: the number that stands for each in pairs."""
    comparisons: np.ndarray
    """int [N]: comparisons that were asked for with each."""
    templates: np.ndarray
    """int [N]: number of each one's template."""
    scores: np.ndarray
    """float [K, N]: each member's score; nan where it left the caption out, or never scored it."""

    def pair(self, one: int, other: int) -> Pair:
        """The numbers of two positions, the lower one first."""
        return unordered(int(self.numbers[one]), int(self.numbers[other]))

    def appeal(self, anchor: int, partners: np.ndarray) -> np.ndarray:
        """How much a comparison with each of the partners [M] would tell, [M].

        The sum of: the closeness to 1/2 of the win probability, ``p (1 - p)``, at most 1/4; four times the members'
        standard deviation of it, at most 2 (both together 1 where there is no score yet); the partner's novelty,
        ``1 / (1 + comparisons)``, in (0, 1]; less the price of a shared template. Closeness counts little: pairs
        that are known to be ties have it too.
        """
        wins = sigmoid(self.scores[:, [anchor]] - self.scores[:, partners])
        is_scored = ~np.isnan(wins)
        num_scored = np.maximum(is_scored.sum(0), 1)
        win = np.where(is_scored, wins, 0).sum(0) / num_scored
        std = np.sqrt(np.where(is_scored, (wins - win) ** 2, 0).sum(0) / num_scored)
        unsure = np.where(is_scored.any(0), win * (1 - win) + 4 * std, 1.0)
        novelty = 1 / (1 + self.comparisons[partners])
        return unsure + novelty - _SAME_TEMPLATE * (self.templates[partners] == self.templates[anchor])


def select_pairs(
    pool: PairPool, asked: Container[Pair], limit: int, max_comparisons: int, rng: np.random.Generator
) -> list[Pair]:
    """Pairs to be compared, in random order within each pair, since annotators may favour a position.

    The captions that were compared least each get the partner of most appeal among some drawn at random.

    Args:
        pool: the captions.
        asked: pairs, lower number first, that are not asked again; those returned are not added here.
        limit: most pairs.
        max_comparisons: a caption compared so often gets no comparison for its own sake.
        rng: where chance comes from.

    Returns:
        At most ``limit`` pairs of numbers, no two the same in either order.
    """
    waiting = np.flatnonzero(pool.comparisons < max_comparisons)
    jitter = rng.random(len(waiting))
    # Small pools run out of partners for some captions, so a few more than needed are tried.
    anchors = waiting[np.lexsort((jitter, pool.comparisons[waiting]))][: 4 * limit]
    chosen: dict[Pair, Pair] = {}
    for anchor in anchors.tolist():
        if len(chosen) == limit:
            break
        pair = _best_pair(anchor, pool, asked, chosen, rng)
        if pair is not None:
            chosen[pair] = pair if rng.random() < 0.5 else (pair[1], pair[0])
    return list(chosen.values())


def unordered(one: int, other: int) -> Pair:
    """The lower number first."""
    return (one, other) if one < other else (other, one)


def _best_pair(
    anchor: int, pool: PairPool, asked: Container[Pair], chosen: Container[Pair], rng: np.random.Generator
) -> Pair | None:
    total = len(pool.numbers)
    drawn = np.arange(total) if total <= _PARTNERS else np.unique(rng.integers(total, size=_PARTNERS))
    partners = drawn[drawn != anchor]
    partners = partners[np.argsort(-pool.appeal(anchor, partners), kind="stable")]
    pairs = (pool.pair(anchor, partner) for partner in partners.tolist())
    return next((pair for pair in pairs if pair not in asked and pair not in chosen), None)


def weighted_moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation over the last axis.

    Args:
        values: float [..., N].
        weights: float [N], not all 0.

    Returns:
        Two arrays [...]; a standard deviation of 0 (all alike) is given as 1.
    """
    mean = np.average(values, axis=-1, weights=weights)
    variance = np.average((values - mean[..., None]) ** 2, axis=-1, weights=weights)
    # What rounding leaves of the variance of equal numbers is no spread.
    degenerate = variance <= (1e-6 * np.maximum(np.abs(mean), 1e-6)) ** 2
    return mean, np.where(degenerate, 1.0, np.sqrt(variance))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The least of the values below or at which lies a share of at least ``q`` of the weight.

    Args:
        values: float [N], N at least 1.
        weights: float [N], none negative, not all 0.
        q: in [0, 1].
    """
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    at = np.searchsorted(cumulated, q * cumulated[-1] * (1 - 1e-12), side="left")
    return float(values[order][min(at, len(values) - 1)])


@dataclass(frozen=True)
class Normalisation:
    """``z = (score - mean) / std``, and 0 where ``z`` does not exceed a threshold.

    The threshold is a quantile, but never below the mean: else a caption between the two would be fined, while worse
    ones pay 0.
    """

    mean: float
    std: float
    threshold: float
    """In units of z."""

    @classmethod
    def of(cls, scores: np.ndarray, weights: np.ndarray, quantile: float) -> Normalisation:
        """Moments and quantile of scores [N] that occur with weights [N]."""
        mean, std = (float(x) for x in weighted_moments(scores, weights))
        return cls(mean, std, max(weighted_quantile((scores - mean) / std, weights, quantile), 0.0))

    def values(self, scores: np.ndarray) -> np.ndarray:
        """What scores are worth."""
        z = (scores - self.mean) / self.std
        return np.where(z > self.threshold, z, 0.0)

    def state_dict(self) -> State:
        """The three numbers."""
        return {"mean": self.mean, "std": self.std, "threshold": self.threshold}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Normalisation:
        """The one that was saved."""
        return cls(float(state["mean"]), float(state["std"]), float(state["threshold"]))


class RankingModel(LearnedModel):
    """Bradley-Terry scores of captions, normalised over the observed captions.

    Members' scores, which have a zero and a unit of their own, are standardised before they become one. Then
    ``z = (score - mean) / std``, with moments over them, weighted by how often they came; a caption is
    worth z where z exceeds the weighted quantile and 0, else 0.

    Args:
        config: networks, schedule, choice of pairs, quantile.
        seed: of the initial weights, the bootstrap, the batches and the choice of pairs.
    """

    def __init__(self, config: RankingConfig, seed: int) -> None:
        super().__init__(config, seed)
        self._ranking = config
        self._counts: dict[int, int] = {}
        """Occurrences of each caption id."""
        self._observed = self._observed_at_refresh = 0
        self._asked: dict[Pair, Pair] = {}
        """Pairs of rows, the lower one first, that were asked or answered: as they were shown."""
        self._answered: set[Pair] = set()
        self._comparisons: dict[int, int] = {}
        """In how many of them a row is."""
        self._pairs: list[Pair] = []
        """Rows of each comparison, as they were shown."""
        self._targets: list[float] = []
        """p(the first of them is better), the annotator's soft value where it gives one."""
        self._verdicts: list[float] = []
        """What the annotator said: 1 the first is better, 0 the second, 1/2 neither."""
        self._weights: list[np.ndarray] = []
        """float32 [K] of each comparison."""
        self._held_out: list[tuple[int, int]] = []
        """(position of a comparison, member that leaves it out)."""
        self._ties = 0
        self._standard = np.zeros((config.members, 1)), np.ones((config.members, 1))
        """Mean and standard deviation of each member's scores."""
        self._normalisation = Normalisation(0.0, 1.0, 0.0)

    def count(self, counts: Mapping[int, int]) -> None:
        """Add occurrences, the weights of the normalisation."""
        for ident, number in counts.items():
            if ident:
                self._counts[ident] = self._counts.get(ident, 0) + int(number)
                self._observed += int(number)

    def questions(self) -> list[Question]:
        """The pairs that would tell most now, a few an update."""
        rows = np.array(self._met, np.int64)
        pool = PairPool(
            numbers=rows,
            comparisons=np.array([self._comparisons.get(row, 0) for row in self._met], np.int64),
            templates=np.array([self._corpus.templates[row] for row in self._met], np.int64),
            scores=self._informed_scores(rows),
        )
        config = self._ranking
        pairs = select_pairs(pool, self._asked, config.pairs_per_update, config.max_comparisons, self._rng)
        for pair in pairs:
            self._note(pair)
        return [self._question(pair) for pair in pairs]

    def _informed_scores(self, rows: np.ndarray) -> np.ndarray:
        """Scores [K, N] without those of members that leave the caption out: more answers would not help them."""
        scores = self._scores_of(rows)
        if len(scores) > 1:
            folds = np.array([self._corpus.folds[row] for row in rows.tolist()], np.int64)
            scores[folds == np.arange(len(scores))[:, None]] = np.nan
        return scores

    def unanswered(self) -> list[Question]:
        """Pairs that were asked about, without an answer."""
        return [self._question(shown) for pair, shown in self._asked.items() if pair not in self._answered]

    def _question(self, pair: Pair) -> Question:
        return Question.pair(*(self._corpus.texts[row] for row in pair))

    def _note(self, shown: Pair) -> None:
        self._asked[unordered(*shown)] = shown
        for row in shown:
            self._comparisons[row] = self._comparisons.get(row, 0) + 1

    def _add(self, answer: Answer) -> bool:
        question = answer.question
        if not question.is_pair:
            raise ValueError(f"ranking learns from comparisons, got an answer about {question.text!r} alone")
        first = self._corpus.add(question.caption_id, question.text)
        second = self._corpus.add(question.second_id, question.second_text)
        pair = unordered(first, second)
        if pair in self._answered:
            return False
        if pair not in self._asked:
            self._note((first, second))
        self._answered.add(pair)
        target = answer.soft_value
        if answer.value is None or target is None:
            return False
        self._append((first, second), float(target), float(answer.value))
        return True

    def _append(self, pair: Pair, target: float, verdict: float) -> None:
        self._held_out += [(len(self._pairs), member) for member in self._left_out_by(pair)]
        self._pairs.append(pair)
        self._targets.append(target)
        self._weights.append(self._example_weights(pair))
        self._verdicts.append(verdict)
        self._ties += verdict == _TIE

    def _can_learn(self) -> bool:
        return len(self._pairs) >= max(self._ranking.min_labels, self._ties + 1)

    def _step(self) -> None:
        at = self._batch(len(self._pairs)).tolist()
        rows, places = np.unique(np.array([self._pairs[i] for i in at]), return_inverse=True)
        places = places.reshape(-1, 2)
        targets = np.array([self._targets[i] for i in at])
        weights = np.stack([self._weights[i] for i in at], 1)
        encoded = self._corpus.encodings(rows.tolist())
        self._ensemble.step(encoded, lambda scores: bradley_terry_loss(scores, places, targets, weights))

    def _held_out_rows(self) -> Iterable[int]:
        return (row for i, _ in self._held_out for row in self._pairs[i])

    def _is_stale(self) -> bool:
        return super()._is_stale() or self._observed >= _OBSERVED_ANEW * self._observed_at_refresh + 1

    def _fit(self) -> dict[str, float]:
        self._observed_at_refresh = self._observed
        scores = self._scores_of(self._met)
        weights = np.array([max(self._counts.get(self._corpus.ids[row], 0), 1) for row in self._met], np.float64)
        mean, std = weighted_moments(scores, weights)
        self._standard = mean[:, None], std[:, None]
        self._normalisation = Normalisation.of(self._opinion(scores), weights, self._ranking.quantile)
        figures = {
            "labels": float(len(self._pairs)),
            "tie_share": self._ties / len(self._pairs),
            "first_shown_better": self._first_shown_better(),
            "disagreement": float(disagreement(self._opinions(scores)).mean()),
            "paid_share": float(np.average(self._worth(scores) != 0, weights=weights)),
        }
        return figures | (self._judge_held_out() if self._held_out else {})

    def _first_shown_better(self) -> float:
        """Share of the comparisons without ties that went to the caption shown first: 1/2 without position bias."""
        verdicts = np.array(self._verdicts)
        return float((verdicts[verdicts != _TIE] > _TIE).mean())

    def _judge_held_out(self) -> dict[str, float]:
        """How well members do on comparisons with a template that they left out."""
        at, member = np.array(self._held_out).T
        pairs = np.array(self._pairs)[at]
        logits = self._scores[member, pairs[:, 0]] - self._scores[member, pairs[:, 1]]
        targets, verdicts = np.array(self._targets)[at], np.array(self._verdicts)[at]
        figures = {"held_out_labels": float(len(at)), "held_out_log_loss": log_loss(logits, targets)}
        decided = verdicts != _TIE
        if decided.any():
            right = (logits > 0) == (verdicts > _TIE)
            figures["held_out_accuracy"] = float(right[decided].mean())
        return figures

    def _opinions(self, scores: np.ndarray) -> np.ndarray:
        """Standardised scores [K, N] of scores [K, N]."""
        mean, std = self._standard
        return (scores - mean) / std

    def _opinion(self, scores: np.ndarray) -> np.ndarray:
        return AGGREGATES[self._ranking.aggregate](self._opinions(scores))

    def preference(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """float64 [N]: p(the first caption is better than the second) by Bradley and Terry, the mean of the members.

        Args:
            first: canonical captions, observed or not.
            second: as many.
        """
        return sigmoid(self._predict(first) - self._predict(second)).mean(0)

    def _worth(self, scores: np.ndarray) -> np.ndarray:
        return self._normalisation.values(self._opinion(scores))

    def state_dict(self) -> State:
        """The base's, comparisons, questions, counts, normalisation."""
        asked = sorted(self._asked)
        return {
            "learned": super().state_dict(),
            "count_ids": np.array(list(self._counts), np.int64),
            "counts": np.array(list(self._counts.values()), np.int64),
            "observed_at_refresh": self._observed_at_refresh,
            "asked": np.array([self._asked[pair] for pair in asked], np.int64).reshape(-1, 2),
            "answered": np.array([pair in self._answered for pair in asked], bool),
            "pairs": np.array(self._pairs, np.int64).reshape(-1, 2),
            "targets": np.array(self._targets, np.float64),
            "verdicts": np.array(self._verdicts, np.float64),
            "member_mean": self._standard[0].copy(),
            "member_std": self._standard[1].copy(),
            "normalisation": self._normalisation.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``.

        Raises:
            ValueError: the state is that of other networks.
        """
        super().load_state_dict(state["learned"])
        self._counts = dict(zip(state["count_ids"].tolist(), state["counts"].tolist(), strict=True))
        self._observed, self._observed_at_refresh = sum(self._counts.values()), int(state["observed_at_refresh"])
        self._asked, self._answered, self._comparisons = {}, set(), {}
        for first, second in state["asked"].tolist():
            self._note((first, second))
        self._answered = {pair for pair, done in zip(self._asked, state["answered"], strict=True) if done}
        self._pairs, self._targets, self._verdicts, self._weights, self._held_out = [], [], [], [], []
        self._ties = 0
        pairs, targets, verdicts = (state[name].tolist() for name in ("pairs", "targets", "verdicts"))
        for (first, second), target, verdict in zip(pairs, targets, verdicts, strict=True):
            self._append((first, second), target, verdict)
        self._standard = np.array(state["member_mean"]), np.array(state["member_std"])
        self._normalisation = Normalisation.from_state(state["normalisation"])


def bradley_terry_loss(scores: Tensor, pairs: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Tensor:
    """Cross-entropy of ``sigmoid(score of the first - score of the second)``; a tie is a target of 1/2.

    Args:
        scores: float [K, N] of N captions.
        pairs: int [P, 2], positions among the captions.
        targets: float [P], p(the first is better).
        weights: float [K, P].

    Returns:
        The sum over members of their weighted means.
    """
    first, second = (torch.from_numpy(pairs[:, side].copy()) for side in (0, 1))
    return weighted_cross_entropy(scores[:, first] - scores[:, second], targets, weights)
