"""Factors: numbers that tell what was good about a stretch of play, and the rankings that users write of them.

A factor gives one number a step and says how the steps of a segment become one; nothing is normalised. Everything in
``CATALOGUE`` has the sign +1, whether more of it is good or not: the sign of a ranking is the one that is written
there, so that ``turns`` prefers more turns and ``-turns`` fewer.

Example:
    >>> @factor("obs.message", over="sum")
    ... def doors(columns):
    ...     "Doors kicked open."
    ...     return np.char.find(columns["obs.message"], "crashes open") >= 0
    >>> table = FactorTable(parse_ranking(["success", "alive", doors, "-turns@5"]))
    >>> table.per_step(rollout).shape  # [T, B, F]
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np

from envs.data import Rollout
from rewards.heron.columns import REDUCTIONS, Reduction, check_columns, columns_of
from rewards.heron.expressions import parse_expression

__all__ = ["CATALOGUE", "REDUCTIONS", "Factor", "FactorError", "FactorTable", "Reduction", "factor", "parse_ranking"]

Columns = Mapping[str, np.ndarray]
PerStep = Callable[[Columns], np.ndarray]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMPORT = re.compile(rf"({_NAME.pattern}(?:\.{_NAME.pattern})*) *: *({_NAME.pattern})")
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")


class FactorError(ValueError):
    """A factor cannot be computed over what was played; one sentence that names it. A run cannot go on from there."""


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One number a step, and how a segment's steps become one.

    Raises:
        ValueError: a field is not as described; the message names the factor.
    """

    name: str
    """Letters, digits and underscores."""
    columns: tuple[str, ...]
    """What ``per_step`` reads, by the names of ``rewards.heron.columns``; at least one."""
    per_step: PerStep
    """Columns [T, B] to bool, int or float [T, B]; each step by itself, so that cuts between rollouts do not matter."""
    over: str = "sum"
    """Key of ``REDUCTIONS``."""
    sign: int = 1
    """1 more is better, -1 less is better."""
    margin: float | None = None
    """In bins mode (the default) the width of a bin, in margin mode the difference that must be exceeded; None = from
    data, 0 = any difference counts."""
    description: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"'{self.name}' cannot name a factor: names are letters, digits and underscores")
        if not self.columns:
            raise ValueError(f"factor '{self.name}' reads no column, so it would be the same at every step")
        try:
            check_columns(self.columns)
        except ValueError as error:
            raise ValueError(f"factor '{self.name}': {error}") from None
        if self.over not in REDUCTIONS:
            raise ValueError(f"factor '{self.name}' has over='{self.over}', allowed are {', '.join(REDUCTIONS)}")
        if self.sign not in (1, -1):
            raise ValueError(f"factor '{self.name}' has the sign {self.sign}, allowed are 1 and -1")
        if self.margin is not None and not 0 <= self.margin < np.inf:
            raise ValueError(f"factor '{self.name}' has the margin {self.margin}, expected a number of at least 0")


def factor(
    *columns: str, over: str = "sum", name: str | None = None, margin: float | None = None
) -> Callable[[PerStep], Factor]:
    """Make a factor of a function of columns [T, B]; the first line of its docstring describes it.

    Args:
        *columns: names of the columns that the function reads.
        over: key of ``REDUCTIONS``.
        name: of the factor; None = the function's.
        margin: see ``Factor``.

    Raises:
        ValueError: the decorator stands without names of columns, or the factor is refused (see ``Factor``).
    """
    if not columns or not all(isinstance(column, str) for column in columns):
        raise ValueError("@factor needs the names of the columns that are read, as @factor('obs.hp', 'obs.max_hp')")

    def made(function: PerStep) -> Factor:
        lines = (function.__doc__ or "").strip().splitlines()
        return Factor(
            name=name or getattr(function, "__name__", ""),
            columns=columns,
            per_step=function,
            over=over,
            margin=margin,
            description=lines[0] if lines else "",
        )

    return made


@factor("info.succeeded", name="success", margin=0)
def _success(columns: Columns) -> np.ndarray:
    """1 where the task ends in success."""
    return columns["info.succeeded"]


@factor("info.died", name="alive", margin=0)
def _alive(columns: Columns) -> np.ndarray:
    """0 while alive, -1 where the episode ends in death or failure."""
    return -columns["info.died"].astype(np.int64)


@factor("obs.depth", name="max_depth", over="max")
def _max_depth(columns: Columns) -> np.ndarray:
    """Greatest depth in the segment, levels below the surface."""
    return columns["obs.depth"]


@factor("obs.xp_level", "prev_obs.xp_level", name="xp_level")
def _xp_level(columns: Columns) -> np.ndarray:
    """Experience levels gained, less those lost."""
    return columns["obs.xp_level"] - columns["prev_obs.xp_level"]


@factor("obs.hp", "obs.max_hp", name="hp", over="mean")
def _hp(columns: Columns) -> np.ndarray:
    """Share of the highest hit points that is left, 0 to 1, on average over the steps."""
    return columns["obs.hp"] / np.maximum(columns["obs.max_hp"], 1)


@factor("obs.gold", "prev_obs.gold", name="gold")
def _gold(columns: Columns) -> np.ndarray:
    """Gold pieces gained, less those lost."""
    return columns["obs.gold"] - columns["prev_obs.gold"]


@factor("info.new_tiles_seen", name="new_tiles")
def _new_tiles(columns: Columns) -> np.ndarray:
    """Map cells seen for the first time."""
    return columns["info.new_tiles_seen"]


@factor("info.inventory_change", name="items")
def _items(columns: Columns) -> np.ndarray:
    """Stacks of items picked up, less those dropped or used up, so that picking up again gains nothing."""
    return columns["info.inventory_change"]


@factor("obs.message", name="kills")
def _kills(columns: Columns) -> np.ndarray:
    """Monsters that the hero kills or destroys, by the game's messages."""
    return np.add(*(np.char.count(columns["obs.message"], phrase) for phrase in _KILL_PHRASES))


@factor("obs.hunger", name="hunger", over="mean")
def _hunger(columns: Columns) -> np.ndarray:
    """Hunger, 0 satiated, 1 not hungry, to 6 starved, on average over the steps; usually written -hunger."""
    return columns["obs.hunger"]


@factor("obs.turn", "prev_obs.turn", name="turns")
def _turns(columns: Columns) -> np.ndarray:
    """Game turns that passed; usually written -turns."""
    return columns["obs.turn"] - columns["prev_obs.turn"]


@factor("info.steps_since_change", name="no_progress")
def _no_progress(columns: Columns) -> np.ndarray:
    """Steps that changed neither map, message nor status; usually written -no_progress."""
    return columns["info.steps_since_change"] > 0


_KILL_PHRASES = ("You kill ", "You destroy ")
"""NetHack's: what is not alive is destroyed. "You are killed" and "The newt is killed" are other events."""

CATALOGUE: Mapping[str, Factor] = {
    known.name: known
    for known in (
        _success, _alive, _max_depth, _xp_level, _hp, _gold,
        _new_tiles, _items, _kills, _hunger, _turns, _no_progress,
    )
}  # fmt: skip
"""Ready-made factors by name; all have the sign +1."""


def parse_ranking(ranking: Sequence[str | Factor]) -> tuple[Factor, ...]:
    """Factors in order of importance.

    Args:
        ranking: ``[-]NAME[=EXPRESSION][@MARGIN]`` each, or a factor as it is. NAME alone is one of ``CATALOGUE``.
            EXPRESSION is of ``rewards.heron.expressions``, or ``module:attribute``, a factor of the user's own. A
            minus makes less the better; without one a factor keeps the sign it has, +1 unless its maker said otherwise.

    Raises:
        ValueError: an entry is not of that form, names what is not there or a name twice; the message says which.
    """
    if isinstance(ranking, str) or not ranking:
        raise ValueError("a ranking is a list of one factor or more, the most important first")
    factors: list[Factor] = []
    for number, entry in enumerate(ranking, 1):
        try:
            factors.append(entry if isinstance(entry, Factor) else _parse_entry(entry))
        except ValueError as error:
            raise ValueError(f"ranking entry {number}: {error}") from error
        if factors[-1].name in {other.name for other in factors[:-1]}:
            raise ValueError(f"ranking entry {number}: there is a factor '{factors[-1].name}' already")
    return tuple(factors)


def _parse_entry(entry: str) -> Factor:
    if not isinstance(entry, str):
        raise ValueError(f"expected [-]NAME[=EXPRESSION][@MARGIN] or a Factor, not {entry!r}")
    text, margin = _split_margin(entry.strip())
    is_less_better = text.startswith("-")
    name, has_expression, expression = (part.strip() for part in text.removeprefix("-").partition("="))
    if not name:
        raise ValueError(f"'{entry}' has no name, expected [-]NAME[=EXPRESSION][@MARGIN]")
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' cannot name a factor: names are letters, digits and underscores")
    found = _defined(name, expression) if has_expression else _known(name)
    return replace(
        found,
        name=name,
        sign=-1 if is_less_better else found.sign,
        margin=found.margin if margin is None else margin,
    )


def _split_margin(entry: str) -> tuple[str, float | None]:
    """What stands before the last ``@`` outside quotes, and the number after it."""
    unquoted = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), entry)
    at = unquoted.rfind("@")
    if at < 0:
        return entry, None
    problem = f"margin '{entry[at + 1 :].strip()}' is not a number of at least 0"
    try:
        margin = float(entry[at + 1 :])
    except ValueError:
        raise ValueError(problem) from None
    if not 0 <= margin < np.inf:
        raise ValueError(problem)
    return entry[:at].strip(), margin


def _known(name: str) -> Factor:
    if name not in CATALOGUE:
        near = get_close_matches(name, CATALOGUE, n=3, cutoff=0.4)
        known = f"nearest: {', '.join(near)}" if near else f"known are {', '.join(CATALOGUE)}"
        raise ValueError(f"unknown factor '{name}'; {known}; a new one is written NAME = EXPRESSION")
    return CATALOGUE[name]


def _defined(name: str, definition: str) -> Factor:
    imported = _IMPORT.fullmatch(definition)
    if imported:
        return _imported(name, imported[1], imported[2])
    expression = parse_expression(name, definition)
    return Factor(
        name=name, columns=expression.columns, per_step=expression, over=expression.over, description=expression.text
    )


def _imported(name: str, module_name: str, attribute: str) -> Factor:
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's code runs here, and may raise anything
        is_absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        advice = "; PYTHONPATH must lead to its folder" if is_absent else ""
        raise ValueError(
            f"cannot import the module '{module_name}' of factor '{name}': {_in_one_line(error)}{advice}"
        ) from error
    if not hasattr(module, attribute):
        there = ", ".join(name for name, value in vars(module).items() if isinstance(value, Factor)) or "none"
        raise ValueError(f"the module '{module_name}' has no '{attribute}'; factors in it: {there}")
    found = getattr(module, attribute)
    if not isinstance(found, Factor):
        kind = type(found).__name__
        raise ValueError(
            f"'{module_name}:{attribute}' is a {kind}, not a Factor: decorate a function with @factor(...)"
        )
    return found


class FactorTable:
    """Computes F factors of rollouts and of segments; signs are not applied.

    Args:
        factors: the most important first.

    Raises:
        ValueError: there is none, or two have one name.
    """

    def __init__(self, factors: Sequence[Factor]) -> None:
        self.factors = tuple(factors)
        self.names: tuple[str, ...] = tuple(one.name for one in self.factors)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"factors need a name of their own each, and there must be one; got {list(self.names)}")
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(name for one in self.factors for name in one.columns))
        self.signs: np.ndarray = np.array([one.sign for one in self.factors], np.int64)
        """int64 [F]."""
        overs = np.array([one.over for one in self.factors])
        self._reductions = [(REDUCTIONS[over], np.flatnonzero(overs == over)) for over in np.unique(overs)]

    def per_step(self, rollout: Rollout) -> np.ndarray:
        """float64 [T, B, F].

        Raises:
            ValueError: the rollout lacks a column.
            FactorError: a factor fails, or is not finite, not numbers or not [T, B]; the message names it.
        """
        columns = columns_of(rollout, self.columns)
        values = np.empty((*rollout.env_reward.shape, len(self.factors)))
        for place, one in enumerate(self.factors):
            values[..., place] = _values(one, columns, rollout.env_reward.shape)
        return values

    def over_segments(self, steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The value of each factor over each segment.

        Args:
            steps: float64 [M, F], one segment after the other.
            lengths: int64 [N], all at least 1; they sum up to M.

        Returns:
            float64 [N, F].

        Raises:
            ValueError: the lengths do not fit.
        """
        if (lengths < 1).any() or lengths.sum() != len(steps):
            raise ValueError(f"segments of {lengths.sum()} steps, each at least 1, do not divide {len(steps)} steps")
        values = np.empty((len(lengths), len(self.factors)))
        for reduction, places in self._reductions:
            values[:, places] = reduction(steps[:, places], lengths)
        return values


class _Declared(dict[str, np.ndarray]):
    """The columns that a factor named; asking for another one is an error that says so."""

    def __init__(self, of: Factor, columns: Columns) -> None:
        super().__init__({name: columns[name] for name in of.columns})
        self._name = of.name

    def __missing__(self, column: str) -> np.ndarray:
        raise FactorError(f"factor '{self._name}' reads '{column}', which it did not name; named: {', '.join(self)}")


def _values(one: Factor, columns: Columns, shape: tuple[int, ...]) -> np.ndarray:
    try:
        values = np.asarray(one.per_step(_Declared(one, columns)))
    except FactorError:
        raise
    except Exception as error:  # the user's code runs here, and may raise anything
        raise FactorError(f"factor '{one.name}' failed: {_in_one_line(error)}") from error
    if values.shape != shape:
        raise FactorError(f"factor '{one.name}' has the shape {list(values.shape)}, expected [T, B] = {list(shape)}")
    if values.dtype.kind not in "biuf":
        raise FactorError(f"factor '{one.name}' gives {values.dtype}, expected numbers or booleans")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        step, game = wrong[0]
        raise FactorError(f"factor '{one.name}' is not finite at step {step} of game {game}: does it divide by zero?")
    return values


def _in_one_line(error: Exception) -> str:
    """Type and text of an error that a user's code has raised."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
