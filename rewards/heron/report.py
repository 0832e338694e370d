"""What is known of a HERON reward: how its tree decides, and how well its model has learned that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from envs.files import unreadable
from rewards.heron.factors import Factor
from rewards.heron.judgement import Judgement

REPORT_FILE = "heron.json"
"""``HeronReport.as_json()``, beside a run's configuration; written with its checkpoints."""
_Z_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class LevelReport:
    """One factor of the ranking, counted over random pairs of held-out segments of one task."""

    name: str
    sign: int
    """+1 more is better, -1 less is better."""
    margin: float | None
    """In the factor's unit: width of a bin in bins mode, difference that must be exceeded in margin mode; 0 = any
    difference counts, None = not taken yet."""
    description: str
    compared: int
    """Pairs that no level before it decided."""
    decided: int
    """Pairs that it decided."""
    ties: int
    """Pairs that it passed on."""
    right: int
    """Decided pairs that the model orders as the tree does."""
    accuracy: float | None
    """``right / decided``; None where it decided none."""
    accuracy_low: float | None
    """95 % interval of it, see :func:`interval`."""
    accuracy_high: float | None
    independent_pairs: int
    """What the interval counts as independent: decided pairs share segments, so at most half the segments in them."""
    dead: bool
    """The factor tells no two kept segments apart: it never decides."""

    @classmethod
    def of(
        cls, factor: Factor, margin: float | None, found: Judgement | None, level: int, *, dead: bool
    ) -> LevelReport:
        """One level as it was judged; ``found`` is None before anything was."""
        compared, decided, right, independent = (
            (0, 0, 0, 0)
            if found is None
            else (int(x[level]) for x in (found.compared, found.decided, found.right, found.independent))
        )
        accuracy = right / decided if decided else None
        low, high = (None, None) if accuracy is None else interval(accuracy, independent)
        return cls(
            name=factor.name,
            sign=factor.sign,
            margin=margin,
            description=factor.description,
            compared=compared,
            decided=decided,
            ties=compared - decided,
            right=right,
            accuracy=accuracy,
            accuracy_low=low,
            accuracy_high=high,
            independent_pairs=independent,
            dead=dead,
        )


@dataclass(frozen=True, kw_only=True)
class HeronReport:
    """A reward model, as ``yendor rewards show`` prints it."""

    mode: str
    """How the tree compares."""
    version: int
    """0 = none was published yet."""
    segments: int
    """Segments that are kept."""
    held_out_segments: int
    """Those that only accuracy is measured on."""
    levels: tuple[LevelReport, ...]
    """The most important first; none where no tree is used."""
    accuracy: float | None
    """Share of all decided held-out pairs that the model orders as the tree does."""
    tie_share: float | None
    """Share of held-out pairs that no level decides."""
    cycle_share: float | None
    """Share of triples of segments that the tree prefers in a circle; 0 in bins mode."""
    rank_correlation: float | None
    """Spearman's, of held-out segments' rewards with the share of comparisons that they win."""
    judged_accuracy: float | None
    """As ``accuracy``, of held-out pairs that others have judged."""
    sources: Mapping[str, int]
    """Pairs by who judged them: ``tree`` so far, others as many as are kept."""
    uses_tree: bool
    """False: nothing but what others judged is learned from, and what is said of the tree is left out."""

    def as_json(self) -> dict[str, Any]:
        """Nested mappings and lists of plain values."""
        return asdict(self) | {"levels": [asdict(level) for level in self.levels], "sources": dict(self.sources)}


def interval(share: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), trials at least 1."""
    z2 = _Z_95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 / (1 + z2 / trials) * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def read_report(run: Path) -> HeronReport:
    """The newest report of a run's preferences.

    Raises:
        ValueError: there is none yet, or it is damaged; the text names the file.
    """
    path = run / REPORT_FILE
    try:
        values = json.loads(path.read_text())
        return _built(HeronReport, values | {"levels": tuple(_built(LevelReport, v) for v in values["levels"])})
    except FileNotFoundError:
        raise ValueError(f"run {run} has no {REPORT_FILE} yet: it comes with the run's first checkpoint") from None
    except OSError as error:
        raise ValueError(unreadable(path, error)) from None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged, or of another version: {error}") from None


def _built(kind: type, values: Mapping[str, Any]) -> Any:
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def direction(sign: int) -> str:
    """'more' or 'less': what is better of a factor."""
    return "more" if sign > 0 else "less"


def margin(value: float | None, mode: str) -> str:
    """A level's margin: 'bins of 2.5', 'more than 2.5 apart', 'any difference counts', 'no margin yet'."""
    if value is None:
        return "no margin yet"
    if not value:
        return "any difference counts"
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"bins of {shown}" if mode == "bins" else f"more than {shown} apart"
