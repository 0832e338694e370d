"""The columns that factors and reward models may read, and how the steps of a segment become one number.

NetHack's are those of the published schema (``envs.features``). Of a game with one vector they are its components:
``obs.0`` (after the action, the last one of an episode included), ``prev_obs.0`` (before it) and ``action.0`` (as the
policy gave it, before any clipping). ``info.succeeded``, ``info.died``, ``info.terminated`` and ``info.timed_out`` are
there for both. The environment's reward is no column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np

from envs.data import Rollout
from envs.features import COLUMNS, check_names, rollout_columns

_VECTOR = "vector"
"""Observation key of games whose observation is one vector."""
_COMPONENT = re.compile(r"(obs|prev_obs|action)\.(0|[1-9][0-9]{0,5})")


def _before(rollout: Rollout) -> np.ndarray:
    return rollout.obs[_VECTOR][:-1]


def _after(rollout: Rollout) -> np.ndarray:
    return rollout.reached(_VECTOR)


def _actions(rollout: Rollout) -> np.ndarray:
    return rollout.actions.reshape(*rollout.env_reward.shape, -1)


_VECTORS: Mapping[str, Callable[[Rollout], np.ndarray]] = {"obs": _after, "prev_obs": _before, "action": _actions}
"""Group to its vectors [T, B, D]."""


def check_columns(names: Iterable[str]) -> None:
    """Refuse what is neither a column of the schema nor a component of a vector.

    Raises:
        ValueError: a name is unknown; the message says the nearest ones.
    """
    check_names(name for name in names if not _COMPONENT.fullmatch(name))


def is_text(name: str) -> bool:
    """Whether a column holds strings; all others hold numbers or booleans."""
    return name in COLUMNS and COLUMNS[name].dtype == "str"


def columns_of(rollout: Rollout, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Columns [T, B] of a rollout, read-only, each name once.

    Args:
        rollout: with NetHack's columns among its ``features``, or with the observation key ``vector``.
        names: qualified column names.

    Raises:
        ValueError: a name is unknown, or the rollout does not hold it.
    """
    names = tuple(dict.fromkeys(names))
    parts = {name: match for name in names if (match := _COMPONENT.fullmatch(name))}
    columns = rollout_columns(rollout, (name for name in names if name not in parts))
    groups = {match[1] for match in parts.values()}
    if _VECTOR not in rollout.obs and groups:
        raise ValueError(f"the rollout holds no column '{next(iter(parts))}': its observation is not one vector")
    vectors = {group: _VECTORS[group](rollout) for group in groups}
    for name, match in parts.items():
        vector, component = vectors[match[1]], int(match[2])
        if component >= vector.shape[-1]:
            raise ValueError(
                f"the rollout holds no column '{name}': there are {vector.shape[-1]} components, from 0 on"
            )
        columns[name] = vector[..., component]
    return {name: _read_only(columns[name]) for name in names}


def _read_only(column: np.ndarray) -> np.ndarray:
    """A view that factors of the user's own cannot write to by mistake."""
    view = column.view()
    view.flags.writeable = False
    return view


class Reduction(Protocol):
    """Reduces N segments at once."""

    def __call__(self, steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """float64 [N, ...] of float64 [M, ...], one segment after the other, and int64 [N], all at least 1."""
        ...


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths


def _sum(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.add.reduceat(steps, _starts(lengths), axis=0)


def _mean(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return _sum(steps, lengths) / lengths.reshape(-1, *(1,) * (steps.ndim - 1))


def _last(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return steps[np.cumsum(lengths) - 1]


def _max(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.maximum.reduceat(steps, _starts(lengths), axis=0)


def _min(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.minimum.reduceat(steps, _starts(lengths), axis=0)


REDUCTIONS: Mapping[str, Reduction] = {"sum": _sum, "mean": _mean, "last": _last, "max": _max, "min": _min}
