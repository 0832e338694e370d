"""Which captions to compare next: new ones first, unlike ones, and those of which the model is unsure."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np

from rewards.oni.calibration import sigmoid

Pair = tuple[int, int]
"""Two captions by number: in the order in which they are shown, or the lower one first where order has no say."""

_PARTNERS = 32
"""Partners considered for each caption."""
_SAME_TEMPLATE = 4.0
"""What it costs a pair that its captions share a template: more than all else can make up for, so that such a pair
is asked only where no other is left."""


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
    """float [K, N]: each member's score; nan where it has no say."""

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
        has_say = ~np.isnan(wins)
        voices = np.maximum(has_say.sum(0), 1)
        win = np.where(has_say, wins, 0).sum(0) / voices
        std = np.sqrt(np.where(has_say, (wins - win) ** 2, 0).sum(0) / voices)
        unsure = np.where(has_say.any(0), win * (1 - win) + 4 * std, 1.0)
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
