"""Captions from play with the lexicon's verdicts and grades by hand, and how a judge of captions compares with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from envs.templates import template_of
from launch.errors import UserError
from rewards.labels.lexicon import Lexicon
from rewards.ranks import spearman

LEVELS: Mapping[str, int] = {"helpful": 1, "neutral": 0, "unhelpful": -1}


@dataclass(frozen=True)
class Captions:
    """What is judged, and what is known of it."""

    texts: list[str]
    counts: np.ndarray
    """int64 [N]."""
    levels: np.ndarray
    """int64 [N]: the lexicon's verdict, -1, 0 or 1."""
    grades: np.ndarray
    """float64 [N], nan where it was not graded."""
    templates: np.ndarray
    """int64 [N]: number of the template."""
    folds: np.ndarray
    """int64 [N]."""


def read(captions: Path, grades: Path, num_folds: int) -> tuple[Captions, int]:
    """Captions that the lexicon has a verdict on, and how many it has none on.

    Args:
        captions: ``text`` and ``count``, one JSON object a line.
        grades: ``text`` and ``grade``, one JSON object a line.
        num_folds: folds that the templates are dealt into.

    Raises:
        UserError: a file cannot be read, or holds something else.
    """
    graded = {row["text"]: float(row["grade"]) for row in _lines(grades, ("text", "grade"))}
    rows = _lines(captions, ("text", "count"))
    lexicon = Lexicon.packaged()
    verdicts = [lexicon.judge(row["text"]) for row in rows]
    covered = [(row, verdict) for row, verdict in zip(rows, verdicts, strict=True) if verdict is not None]
    covered.sort(key=lambda pair: (-pair[0]["count"], pair[0]["text"]))
    texts = [row["text"] for row, _ in covered]
    templates = [template_of(text) for text in texts]
    numbers = {template: i for i, template in enumerate(dict.fromkeys(templates))}
    found = Captions(
        texts=texts,
        counts=np.array([row["count"] for row, _ in covered]),
        levels=np.array([LEVELS[verdict] for _, verdict in covered]),
        grades=np.array([graded.get(text, np.nan) for text in texts]),
        templates=np.array([numbers[template] for template in templates]),
        folds=np.array([fold_of(template, num_folds) for template in templates]),
    )
    return found, len(rows) - len(covered)


def _lines(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as JSON lines: {error}") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not set(keys) <= row.keys():
            raise UserError(f"{path}, line {number}: expected an object with {' and '.join(keys)}")
    return rows


def fold_of(template: str, folds: int) -> int:
    """The fold of a template, by its hash."""
    return int.from_bytes(blake2b(template.encode(), digest_size=8).digest(), "big") % folds


def by_hand(opinion: np.ndarray, helpful: np.ndarray | None, captions: Captions) -> dict[str, Any]:
    """A judge beside the grades.

    Args:
        opinion: float [N], higher is better.
        helpful: bool [N], what it calls helpful; None where it only ranks.
        captions: with grades.
    """
    graded = np.flatnonzero(np.isfinite(captions.grades))
    grades, own = captions.grades[graded], opinion[graded]
    groups = captions.templates[graded]
    found = {"rank_correlation": _with_interval(lambda at: _rank_correlation(own[at], grades[at]), groups)}
    if helpful is not None:
        called = helpful[graded]
        found["agreement"] = _with_interval(lambda at: float((called[at] == (grades[at] > 0)).mean()), groups)
    return found


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """As a number that bootstrap intervals can leave out: nan where one side is constant."""
    found = spearman(x, y)
    return float("nan") if found is None else found


def _with_interval(figure: Callable[[np.ndarray], float], groups: np.ndarray, samples: int = 2000) -> dict[str, float]:
    """A figure over rows, and its 95 % bootstrap interval; rows of one group are drawn together."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = [
        figure(np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]))
        for _ in range(samples)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"value": figure(np.arange(len(groups))), "low": float(low), "high": float(high)}
