"""HERON's preference tree: which of two segments is better, by the most important factor that distinguishes them.

Bukharin et al. 2023 (arXiv 2309.02632): factors are ranked; the first one by which two segments differ by more than
its margin decides, and where none does they are tied. With margins that order can be intransitive. Values rounded
down to whole margins first ("bins") order all segments: a transitive total preorder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Mode = Literal["margin", "bins"]

_ROUNDING = 1e-12
"""Of the values: a difference below it is the rounding of sums, such as 0.1 + 0.2 beside 0.3. It decides nothing."""
_DROPPED_BITS = 13
"""Of the 53 of a value, where each value is rounded by itself: about the same precision."""
_BORDER = 1e-9
"""Of a margin, and of a bin's number: what is so close to the border counts as on it, however it was rounded."""
_MAX_LEVELS = np.iinfo(np.int8).max


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One factor's place in the ranking.

    Raises:
        ValueError: the sign is neither +1 nor -1, or the margin is not a number of 0 or more.
    """

    name: str
    """The factor's."""
    sign: int
    """+1 more is better, -1 less is better."""
    margin: float
    """Difference that must be exceeded, or width of the bins, in the factor's unit; 0 = any difference decides."""

    def __post_init__(self) -> None:
        if self.sign not in (1, -1):
            raise ValueError(f"the sign of factor {self.name!r} is {self.sign}, it must be 1 or -1")
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"the margin of factor {self.name!r} is {self.margin}, it must be a number of 0 or more")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """What the tree says of P pairs."""

    outcome: np.ndarray
    """int8 [P]: 1 the first is better, -1 the second, 0 a tie."""
    level: np.ndarray
    """int8 [P]: index of the level that decided; -1 = a tie."""
    strength: np.ndarray
    """float32 [P]: margins (in bins mode: bins) between the two at that level; 1 where its margin is 0; 0 of a tie."""

    def __len__(self) -> int:
        """P."""
        return len(self.outcome)

    def take(self, which: np.ndarray) -> Comparison:
        """Some of the pairs, int [Q], in that order."""
        return Comparison(outcome=self.outcome[which], level=self.level[which], strength=self.strength[which])


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelVerdict:
    """What one level says of one pair."""

    level: Level
    first: float
    """The factor's value of the first segment."""
    second: float
    outcome: int
    """1 the first is better, -1 the second, 0 the level does not tell them apart."""
    strength: float
    """As in ``Comparison``."""
    reached: bool
    """No level before it decided; the first level that is reached and has an outcome decides."""


class PreferenceTree:
    """Compares segments factor by factor, the most important first.

    A pair's outcome depends on that pair alone, and swapping the two turns it round. Differences at float precision
    (1e-12 of the values) count as none, so that rescaling a factor together with its margin changes no outcome.

    Args:
        levels: the factors, the most important first; at most 127.
        mode: "margin": at each level, better by more than the margin decides. "bins": a value becomes
            ``floor(value / margin)``, or with a margin of 0 the value itself, and any difference decides.

    Raises:
        ValueError: no levels or too many, two of one name, or an unknown mode.
    """

    def __init__(self, levels: Sequence[Level], mode: Mode) -> None:
        names = [level.name for level in levels]
        if not 1 <= len(names) <= _MAX_LEVELS:
            raise ValueError(f"a preference tree has 1 to {_MAX_LEVELS} levels, not {len(names)}")
        twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
        if twice is not None:
            raise ValueError(f"factor {twice!r} is ranked twice; each has one place in the ranking")
        if mode not in _RULES:
            raise ValueError(f"comparison mode {mode!r} is unknown, it must be one of {', '.join(_RULES)}")
        self.levels = tuple(levels)
        self.mode: Mode = mode
        self._rule = _RULES[mode]

    def compare(self, first: np.ndarray, second: np.ndarray) -> Comparison:
        """Which of each pair is better.

        Args:
            first: float64 [P, F], one column a level, as the factors are (no sign applied).
            second: as many.

        Raises:
            ValueError: the shapes do not fit, or a value is not finite; the message names the factor.
        """
        first, second = self._checked(first), self._checked(second)
        if first.shape != second.shape:
            raise ValueError(f"{len(first)} first segments cannot be compared with {len(second)} second ones")
        P = len(first)
        outcome, level, strength = np.zeros(P, np.int8), np.full(P, -1, np.int8), np.zeros(P, np.float32)
        undecided = np.arange(P)
        for number, at in enumerate(self.levels):
            one, other = first[:, number].take(undecided), second[:, number].take(undecided)
            lead = at.sign * self._rule(one, other, at.margin)
            decides = lead != 0
            decided, lead = undecided.compress(decides), lead.compress(decides)
            outcome[decided], level[decided], strength[decided] = np.sign(lead), number, np.abs(lead)
            undecided = undecided.compress(~decides)
            if not len(undecided):
                break
        return Comparison(outcome=outcome, level=level, strength=strength)

    def explain(self, first: np.ndarray, second: np.ndarray) -> list[LevelVerdict]:
        """What every level says of one pair, those after the deciding one too.

        Args:
            first: float64 [F].
            second: as many.

        Raises:
            ValueError: as ``compare``.
        """
        firsts, seconds = self._checked(first[None]), self._checked(second[None])
        verdicts, reached = [], True
        for number, level in enumerate(self.levels):
            one, other = firsts[:, number], seconds[:, number]
            lead = level.sign * float(self._rule(one, other, level.margin)[0])
            verdict = LevelVerdict(
                level=level,
                first=float(one[0]),
                second=float(other[0]),
                outcome=int(np.sign(lead)),
                strength=abs(lead),
                reached=reached,
            )
            verdicts.append(verdict)
            reached = reached and not verdict.outcome
        return verdicts

    def bins(self, values: np.ndarray) -> np.ndarray:
        """float64 [N, F]: the bin of each value [N, F]. In either mode no level tells values of one bin apart.

        Raises:
            ValueError: as ``compare``.
        """
        values = self._checked(values)
        return np.stack([_bin(values[:, number], level.margin) for number, level in enumerate(self.levels)], axis=1)

    def _checked(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.levels):
            raise ValueError(f"values of {len(self.levels)} factors were expected, not an array {values.shape}")
        finite = np.isfinite(values)
        if not finite.all():
            name = self.levels[int(np.argmin(finite.all(0)))].name
            raise ValueError(f"factor {name!r} has a value that is not finite; it cannot be compared")
        return values


def _by_margin(first: np.ndarray, second: np.ndarray, margin: float) -> np.ndarray:
    """Margins by which the first is more than the second, float64 [P]; 0 where that is not above 1."""
    difference = first - second
    rounding = _ROUNDING * (np.abs(first) + np.abs(second)) + _BORDER * margin
    more = np.abs(difference) > margin + rounding
    return np.where(more, difference / margin if margin else np.sign(difference), 0.0)


def _by_bin(first: np.ndarray, second: np.ndarray, margin: float) -> np.ndarray:
    """Bins by which the first is more than the second, float64 [P]; with a margin of 0: 1, 0 or -1."""
    difference = _bin(first, margin) - _bin(second, margin)
    return difference if margin else np.sign(difference)


def _bin(values: np.ndarray, margin: float) -> np.ndarray:
    """float64 [N]: a non-decreasing function of the values, constant over a bin."""
    if not margin:
        # The mantissa's last bits are those of the number read as an integer; half of what they hold rounds it.
        return ((values.view(np.int64) + (1 << _DROPPED_BITS - 1)) & (-1 << _DROPPED_BITS)).view(np.float64)
    widths = values / margin
    return np.floor(widths + _BORDER * (1 + np.abs(widths)))


_RULES: Mapping[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {"margin": _by_margin, "bins": _by_bin}
"""By mode: by how much the first value is more than the second, 0 where the level does not decide."""
