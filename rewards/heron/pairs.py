"""Which segments to compare, and who learns from them: balanced pairs, cycles of the tree, held-out episodes.

Among random pairs one level may decide nearly all and another nearly none: if 3 of 2000 segments hold a success,
success decides 3 random pairs in 1000. Candidates are therefore also drawn level by level. Segments that are alike up
to a level (in the same bins there) reach it; of those, two in different bins of that level are paired, with equal
chances for rare and frequent bins.

Whole episodes are held out, never single segments, as those of one episode are alike. A hash of an episode's number
says which: nothing depends on the order in which they come, and nothing has to be remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rewards.heron.tree import Comparison, PreferenceTree

_LEFT_OUT = 0.2
"""Share of the episodes that each member never learns from."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairSample:
    """P pairs of segments."""

    first: np.ndarray
    """int64 [P]: rows of the segments."""
    second: np.ndarray
    """int64 [P]."""
    comparison: Comparison

    def __len__(self) -> int:
        """P."""
        return len(self.first)


def balanced_pairs(
    tree: PreferenceTree,
    factors: np.ndarray,
    group: np.ndarray,
    num_pairs: int,
    rng: np.random.Generator,
    *,
    tie_share: float = 0.25,
) -> PairSample:
    """Pairs of distinct segments of one group, no two pairs the same in either order, in random order.

    Every level that decides any candidate gets the same number of pairs; what one cannot fill goes to the others.
    Ties count as one level more. Twice as many pairs as are wanted are drawn for each level, for ties and at random.
    Which pairs are drawn depends on all segments, what is said of a pair on it alone.

    Args:
        tree: what compares them.
        factors: float64 [N, F], one column a level.
        group: int [N]; only segments of one group are compared.
        num_pairs: pairs wanted; fewer where there are not as many, possibly none.
        rng: where chance comes from.
        tie_share: most of the pairs returned that may be ties, in [0, 1]; 0 = no ties.

    Raises:
        ValueError: a factor is not finite, or shapes or numbers do not fit.
    """
    if not 0 <= tie_share <= 1:
        raise ValueError(f"the share of ties is {tie_share}, it must be from 0 to 1")
    if len(group) != len(factors):
        raise ValueError(f"{len(group)} groups do not fit {len(factors)} segments")
    candidates = np.concatenate(list(_drawn(tree, factors, group, 2 * num_pairs, rng)), axis=1)
    first, second = distinct_pairs(candidates[:, rng.permutation(candidates.shape[1])])
    comparison = tree.compare(factors[first], factors[second])
    chosen = rng.permutation(_balanced(comparison.level, len(tree.levels), num_pairs, tie_share))
    return PairSample(first=first[chosen], second=second[chosen], comparison=comparison.take(chosen))


def random_tuples(group: np.ndarray, size: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of different members of one group, drawn with replacement between tuples.

    Args:
        group: int [N].
        size: members of a tuple.
        number: how many tuples.
        rng: where chance comes from.

    Returns:
        int64 [size, number]; [size, 0] where no group has so many members. The first member is any of those of large
        enough groups with equal chances, the others are any of its group's.
    """
    _, inverse, counts = np.unique(group, return_inverse=True, return_counts=True)
    eligible = np.flatnonzero(counts[inverse] >= size)
    if not len(eligible):
        return np.zeros((size, 0), np.int64)
    of = inverse[rng.choice(eligible, number)]
    # Members of a group lie together in this order. The k-th draw is among those not drawn before it.
    order, begin, count = np.argsort(inverse, kind="stable"), (np.cumsum(counts) - counts)[of], counts[of]
    drawn = np.zeros((size, number), np.int64)
    for k in range(size):
        place = rng.integers(0, count - k)
        for earlier in np.sort(drawn[:k], axis=0):
            place += place >= earlier
        drawn[k] = place
    return order[begin + drawn]


def _drawn(
    tree: PreferenceTree, factors: np.ndarray, group: np.ndarray, number: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Pairs of rows, int64 [2, number] each: at random, then those that each level can decide, then ties."""
    yield random_tuples(group, 2, number, rng)
    alike = np.unique(group, return_inverse=True)[1]
    for bins in tree.bins(factors).T:
        # A cell: segments alike up to this level and here. Pairs of cells that are alike up to this level.
        _, bin_number = np.unique(bins, return_inverse=True)
        key = alike * (len(bins) + 1) + bin_number
        _, member, cell, sizes = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        cells = random_tuples(alike[member], 2, number, rng)
        order, begin = np.argsort(cell, kind="stable"), np.cumsum(sizes) - sizes
        yield order[begin[cells] + rng.integers(0, sizes[cells])]
        alike = cell
    yield random_tuples(alike, 2, number, rng)


def distinct_pairs(pairs: np.ndarray) -> np.ndarray:
    """Each unordered pair of rows, int64 [2, C], once: as it first comes, in the order in which they do."""
    low, high = np.sort(pairs, axis=0)
    _, at = np.unique(low * (high.max(initial=0) + 1) + high, return_index=True)
    return pairs[:, np.sort(at)]


def _balanced(level: np.ndarray, num_levels: int, num_pairs: int, tie_share: float) -> np.ndarray:
    """Which of the candidates to take, int64: the first ones of each level, as many as its quota."""
    kind = np.where(level < 0, num_levels, level)
    available = np.bincount(kind, minlength=num_levels + 1)
    ties = min(int(available[-1]), int(tie_share * num_pairs))
    quotas = equal_shares(np.append(available[:-1], ties), num_pairs)
    if tie_share < 1:  # where pairs are few, ties are at most this share of what there is
        quotas[-1] = min(quotas[-1], int(quotas[:-1].sum() * tie_share / (1 - tie_share)))
    order = np.argsort(kind, kind="stable")
    place = np.arange(len(order)) - (np.cumsum(available) - available)[kind[order]]
    return order[place < quotas[kind[order]]]


def equal_shares(available: np.ndarray, total: int) -> np.ndarray:
    """int64 [K]: equal shares of the total, each at most what is available; the rest goes to those with more."""
    quotas = np.zeros(len(available), np.int64)
    for done, k in enumerate(np.argsort(available, kind="stable").tolist()):
        quotas[k] = min(int(available[k]), (total - int(quotas.sum())) // (len(available) - done))
    return quotas


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


def held_out(episode_id: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Bool [N]: the episode is one that no member learns from."""
    return _uniform(episode_id, seed, 0) < share


def learned_by(episode_id: np.ndarray, members: int, seed: int) -> np.ndarray:
    """Bool [K, N]: whether a member learns from the episode; a single member learns from all."""
    share = _LEFT_OUT if members > 1 else 0.0
    return np.stack([_uniform(episode_id, seed, 1 + member) >= share for member in range(members)])


def _uniform(ids: np.ndarray, seed: int, salt: int) -> np.ndarray:
    """float64 [N] in [0, 1): the finaliser of SplitMix64 (Steele, Lea and Flood 2014) of an id and a key."""
    key = np.random.SeedSequence((seed, 31, salt)).generate_state(1, np.uint64)
    x = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53
