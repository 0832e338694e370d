"""How well rewards order segments that the model has not learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.protocols import State
from envs.statistics import spearman
from rewards.heron.pairs import distinct_pairs, random_tuples
from rewards.heron.tree import PreferenceTree


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """Counts over P pairs, one entry a level of the tree."""

    pairs: int
    """P."""
    decided: np.ndarray
    """int64 [F]."""
    right: np.ndarray
    """int64 [F]: decided pairs that the rewards order alike."""
    independent: np.ndarray
    """int64 [F]: how many of the decided pairs can at most be disjoint, going by the segments in them."""
    rank_correlation: float | None
    """Spearman's, of rewards with the share of comparisons won, a tie being half a win; None where one is constant."""

    @property
    def compared(self) -> np.ndarray:
        """int64 [F]: pairs that reach each level."""
        return self.pairs - np.cumsum(self.decided) + self.decided

    def figures(self, names: Sequence[str]) -> dict[str, float]:
        """Shares by name, those that are known: ``tie_share``, ``accuracy``, and both of each level.

        Args:
            names: of the F levels.
        """
        found = {"tie_share": 1 - int(self.decided.sum()) / self.pairs}
        if self.decided.any():
            found["accuracy"] = int(self.right.sum()) / int(self.decided.sum())
        if self.rank_correlation is not None:
            found["rank_correlation"] = self.rank_correlation
        for name, decided, right in zip(names, self.decided.tolist(), self.right.tolist(), strict=True):
            found[f"decided/{name}"] = decided / self.pairs
            if decided:
                found[f"accuracy/{name}"] = right / decided
        return found

    def state_dict(self) -> State:
        """Every count."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Judgement:
        """What ``state_dict`` described."""
        counts = {name: np.array(state[name], np.int64) for name in ("decided", "right", "independent")}
        return cls(pairs=int(state["pairs"]), rank_correlation=state["rank_correlation"], **counts)


def judge(
    tree: PreferenceTree,
    factors: np.ndarray,
    group: np.ndarray,
    returns: np.ndarray,
    num_pairs: int,
    rng: np.random.Generator,
) -> Judgement | None:
    """Compare what the tree says with rewards, on random pairs; None where there is no pair.

    Args:
        tree: what decides.
        factors: float64 [N, F].
        group: int [N]; only segments of one group are compared.
        returns: float64 [N]: sum of the rewards over each segment.
        num_pairs: pairs drawn; each counts once.
        rng: where chance comes from.
    """
    first, second = distinct_pairs(random_tuples(group, 2, num_pairs, rng))
    if not len(first):
        return None
    found = tree.compare(factors[first], factors[second])
    right = np.sign(returns[first] - returns[second]) == found.outcome
    levels = range(len(tree.levels))
    at = [found.level == level for level in levels]
    return Judgement(
        pairs=len(first),
        decided=np.array([where.sum() for where in at], np.int64),
        right=np.array([right[where].sum() for where in at], np.int64),
        independent=np.array([_disjoint(first[where], second[where]) for where in at], np.int64),
        rank_correlation=_rank_correlation(first, second, found.outcome, returns),
    )


def segment_returns(rewards: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """float64 [N]: sums of rewards [M] over the steps of each segment; lengths int64 [N] sum up to M."""
    return np.bincount(np.repeat(np.arange(len(lengths)), lengths), rewards, minlength=len(lengths))


def _disjoint(first: np.ndarray, second: np.ndarray) -> int:
    return min(len(first), len(np.unique(np.concatenate([first, second]))) // 2)


def _rank_correlation(first: np.ndarray, second: np.ndarray, outcome: np.ndarray, returns: np.ndarray) -> float | None:
    number = len(returns)
    won = np.bincount(first, (1 + outcome) / 2, number) + np.bincount(second, (1 - outcome) / 2, number)
    met = np.bincount(first, minlength=number) + np.bincount(second, minlength=number)
    return spearman((won / np.maximum(met, 1))[met > 0], returns[met > 0])
