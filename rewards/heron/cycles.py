"""How often a preference tree contradicts itself: a better than b, b better than c, c better than a."""

from __future__ import annotations

import numpy as np

from rewards.heron.pairs import random_tuples
from rewards.heron.tree import PreferenceTree


def cycle_rate(
    tree: PreferenceTree,
    factors: np.ndarray,
    rng: np.random.Generator,
    num_triples: int = 4096,
    group: np.ndarray | None = None,
) -> float:
    """Share of random triples of segments whose three comparisons go round in a circle.

    All three comparisons must be strict. Ties that are not transitive (a = b, b = c, a better than c) are what margins
    are for, and not counted. In bins mode it is always 0.

    Args:
        tree: what compares them.
        factors: float64 [N, F], one column a level.
        rng: where chance comes from.
        num_triples: triples of distinct segments drawn.
        group: int [N]; only segments of one group make a triple. None: all are of one group.

    Returns:
        In [0, 1]; 0 where no group has three segments.

    Raises:
        ValueError: a factor is not finite, or the shape does not fit.
    """
    group = np.zeros(len(factors), np.int64) if group is None else group
    a, b, c = (factors[rows] for rows in random_tuples(group, 3, num_triples, rng))
    ab, bc, ca = (tree.compare(one, other).outcome for one, other in ((a, b), (b, c), (c, a)))
    cycles = (ab != 0) & (ab == bc) & (bc == ca)
    return float(cycles.mean()) if len(cycles) else 0.0
