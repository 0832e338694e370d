"""Terms: what components of the grammar are made of, as code, as words, and over recorded columns.

An atom is a condition on one transition; an event is up to three atoms that must all hold; a measure is a number of
which the sign counts. Each is written by ``code`` and read back from the syntax tree by ``event_of`` and
``measure_of``: nothing is kept beside the source.

Example:
    >>> event = Event((Said("WHAMM"), Compare("info.message_count", "<=", 3)))
    >>> event.code
    "'WHAMM' in obs['message'] and info['message_count'] <= 3"
    >>> event_of(event.code) == event
    True
"""

from __future__ import annotations

import ast
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from envs.features import COLUMNS
from rewards.auto.program import read_as

Columns = Mapping[str, np.ndarray]

MAX_ATOMS = 3
"""Conditions that one event may join."""

OPERATORS: Mapping[str, tuple[Callable[[np.ndarray, np.ndarray | int], np.ndarray], str, str]] = {
    "==": (operator.eq, "is", "is"),
    "<=": (operator.le, "is at most", "to"),
    ">=": (operator.ge, "is at least", "from"),
    "<": (operator.lt, "is below", "below"),
    ">": (operator.gt, "is above", "over"),
}
"""Comparisons: what they do, in words, and in names of components."""

CHANGES: Mapping[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], str, str]] = {
    ">": (operator.gt, "rises", "rises"),
    "<": (operator.lt, "falls", "falls"),
    "==": (operator.eq, "stays the same", "stays"),
}
"""Changes of a field from ``prev_obs`` to ``obs``: the same three things."""

_READING = r"(obs|info)\['(\w+)'\]"
_INTEGER = r"(-?\d{1,9})"


def _label(column: str) -> str:
    return column.rpartition(".")[2]


_SHORT = {"message_count": "said", "steps_since_change": "still", "steps_since_new_tile": "no_new_tile"}
"""Fields with a shorter name in names of components, which hold 40 letters at most."""


def _short(column: str) -> str:
    label = _label(column).removesuffix("_distance")
    return _SHORT.get(label, label)


def _known(group: str, name: str, *dtypes: str) -> str:
    """The qualified column.

    Raises:
        ValueError: the schema has none of these types.
    """
    column = f"{group}.{name}"
    if column not in COLUMNS or COLUMNS[column].dtype not in dtypes:
        raise ValueError(f"{read_as(column)} is no field of type {' or '.join(dtypes)}")
    return column


class _Description(NamedTuple):
    code: str
    words: str
    label: str
    columns: tuple[str, ...]


class Atom(ABC):
    """A condition on one transition; equal ones are the same condition."""

    @property
    def code(self) -> str:
        """As Python, in the form of ``ast.unparse``."""
        return self._described.code

    @property
    def words(self) -> str:
        """The condition in English: "hp falls"."""
        return self._described.words

    @property
    def label(self) -> str:
        """Part of a component's name."""
        return self._described.label

    @property
    def columns(self) -> tuple[str, ...]:
        """Qualified columns that it reads."""
        return self._described.columns

    def holds(self, columns: Columns) -> np.ndarray:
        """Bool [T], of columns [T]."""
        return self._holds(*(columns[name] for name in self.columns))

    def tuned(self, factor: float) -> Atom:
        """The same with its constant, if any, made so many times as large, and moved by one at least."""
        return self

    @property
    @abstractmethod
    def _described(self) -> _Description: ...

    @abstractmethod
    def _holds(self, *read: np.ndarray) -> np.ndarray:
        """As ``holds``, of ``columns`` in their order."""

    @classmethod
    @abstractmethod
    def _matched(cls, match: re.Match[str]) -> Atom:
        """The atom whose code a pattern of ``_PATTERNS`` matched.

        Raises:
            ValueError: it names a field that is not there, or of another type.
        """


@dataclass(frozen=True)
class Compare(Atom):
    """A number field against a constant: ``info['new_tiles_seen'] > 0``."""

    column: str
    op: str
    value: int

    @property
    def _described(self) -> _Description:
        _, words, label = OPERATORS[self.op]
        return _Description(
            code=f"{read_as(self.column)} {self.op} {self.value}",
            words=f"{_label(self.column)} {words} {self.value}",
            label=f"{_short(self.column)}_{label}_{self.value}",
            columns=(self.column,),
        )

    def _holds(self, *read: np.ndarray) -> np.ndarray:
        return OPERATORS[self.op][0](read[0], self.value)

    @classmethod
    def _matched(cls, match: re.Match[str]) -> Compare:
        return cls(_known(match[1], match[2], "int"), match[3], int(match[4]))

    def tuned(self, factor: float) -> Compare:
        """With another constant; counters that stand for "the first time" stay as they are."""
        return self if self.op == "==" else replace(self, value=_tuned(self.value, factor, least=0))


@dataclass(frozen=True)
class Flag(Atom):
    """A field that is true: ``info['has_key']``."""

    column: str

    @property
    def _described(self) -> _Description:
        label = _label(self.column)
        return _Description(read_as(self.column), f"{label} is true", f"is_{label}", (self.column,))

    def _holds(self, *read: np.ndarray) -> np.ndarray:
        return read[0].astype(bool)

    @classmethod
    def _matched(cls, match: re.Match[str]) -> Flag:
        return cls(_known(match[1], match[2], "bool"))


@dataclass(frozen=True)
class Change(Atom):
    """A field of ``obs`` against what it was before: ``obs['hp'] < prev_obs['hp']``."""

    name: str
    op: str

    @property
    def _described(self) -> _Description:
        _, words, label = CHANGES[self.op]
        return _Description(
            code=f"obs['{self.name}'] {self.op} prev_obs['{self.name}']",
            words=f"{self.name} {words}",
            label=f"{self.name}_{label}",
            columns=(f"obs.{self.name}", f"prev_obs.{self.name}"),
        )

    def _holds(self, *read: np.ndarray) -> np.ndarray:
        return CHANGES[self.op][0](*read)

    @classmethod
    def _matched(cls, match: re.Match[str]) -> Change:
        return cls(_known("obs", match[1], "int").removeprefix("obs."), match[2])


@dataclass(frozen=True)
class Said(Atom):
    """Words in the message: ``'door' in obs['message']``."""

    text: str

    @property
    def _described(self) -> _Description:
        return _Description(
            f"{self.text!r} in obs['message']", f"the message has {self.text!r}", f"says_{self.text}", ("obs.message",)
        )

    def _holds(self, *read: np.ndarray) -> np.ndarray:
        return np.char.find(read[0], self.text) >= 0

    @classmethod
    def _matched(cls, match: re.Match[str]) -> Said:
        return cls(ast.literal_eval(match[1]))


@dataclass(frozen=True)
class Acted(Atom):
    """The action just played: ``action == 'search'``."""

    name: str

    @property
    def _described(self) -> _Description:
        return _Description(f"action == {self.name!r}", f"the action is {self.name}", f"plays_{self.name}", ("action",))

    def _holds(self, *read: np.ndarray) -> np.ndarray:
        return read[0] == self.name

    @classmethod
    def _matched(cls, match: re.Match[str]) -> Acted:
        return cls(ast.literal_eval(match[1]))


@dataclass(frozen=True)
class Crossed(Atom):
    """A count that this step raised has passed a multiple of N: every N-th cell, however many come at once."""

    total: str
    gain: str
    every: int

    @property
    def _described(self) -> _Description:
        label = _label(self.total)
        return _Description(
            code=f"crossed({read_as(self.total)}, {read_as(self.gain)}, {self.every})",
            words=f"{label} passes a multiple of {self.every}",
            label=f"every_{self.every}_{label}",
            columns=(self.total, self.gain),
        )

    def _holds(self, *read: np.ndarray) -> np.ndarray:
        total, gain = read
        return total // self.every > (total - gain) // self.every

    @classmethod
    def _matched(cls, match: re.Match[str]) -> Crossed:
        if int(match[5]) < 1:
            raise ValueError(f"multiples of {match[5]} cannot be passed")
        return cls(_known(match[1], match[2], "int"), _known(match[3], match[4], "int"), int(match[5]))

    def tuned(self, factor: float) -> Crossed:
        """With other multiples, of two at least."""
        return replace(self, every=_tuned(self.every, factor, least=2))


CROSSED = '''def crossed(total, gain, every):
    """Whether a count that has just risen by gain has passed a multiple of every."""
    return total // every > (total - gain) // every
'''
"""The helper that ``Crossed`` calls."""


def _tuned(value: int, factor: float, least: int) -> int:
    moved = round(value * factor)
    if moved == value:
        moved += 1 if factor > 1 else -1
    return max(least, moved)


_PATTERNS: tuple[tuple[re.Pattern[str], type[Atom]], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (rf"{_READING} ({'|'.join(OPERATORS)}) {_INTEGER}", Compare),
        (_READING, Flag),
        (rf"obs\['(\w+)'\] ({'|'.join(CHANGES)}) prev_obs\['\1'\]", Change),
        (r"('.*'|\".*\") in obs\['message'\]", Said),
        (r"action == ('.*'|\".*\")", Acted),
        (rf"crossed\({_READING}, {_READING}, {_INTEGER}\)", Crossed),
    )
)
"""What ``ast.unparse`` makes of each kind of atom."""


def atom_of(node: ast.expr) -> Atom:
    """The atom that an expression is.

    Raises:
        ValueError: it is none.
    """
    text = ast.unparse(node)
    for pattern, kind in _PATTERNS:
        match = pattern.fullmatch(text)
        if match:
            return kind._matched(match)
    raise ValueError(f"'{text}' is not a condition of the grammar")


# ---- what components are worth


@dataclass(frozen=True)
class Event:
    """One to three atoms that must all hold; worth 1 where they do."""

    atoms: tuple[Atom, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.atoms) <= MAX_ATOMS or len(set(self.atoms)) < len(self.atoms):
            raise ValueError(f"an event joins 1 to {MAX_ATOMS} different conditions")

    @property
    def code(self) -> str:
        """The condition as Python."""
        return " and ".join(atom.code for atom in self.atoms)

    @property
    def words(self) -> str:
        """The condition in English."""
        return " and ".join(atom.words for atom in self.atoms)

    @property
    def label(self) -> str:
        """Name of a component that is made of it alone."""
        return "_".join(atom.label for atom in self.atoms)

    @property
    def columns(self) -> tuple[str, ...]:
        """Qualified columns that it reads."""
        return tuple(dict.fromkeys(name for atom in self.atoms for name in atom.columns))

    @property
    def is_latched(self) -> bool:
        """Whether it can come but a few times in an episode: once for each message."""
        return Compare("info.message_count", "==", 1) in self.atoms

    def valued(self, sign: int) -> str:
        """The value of a component as Python."""
        return f"{float(sign)} if {self.code} else 0.0"

    def values(self, columns: Columns) -> np.ndarray:
        """Int64 [T], 0 or 1."""
        return np.logical_and.reduce([atom.holds(columns) for atom in self.atoms]).astype(np.int64)


@dataclass(frozen=True)
class Measure:
    """A number of which the sign counts: what going back and forth earns cancels out.

    ``info['pet_approach']``, or ``obs['hp'] - prev_obs['hp']``, which is written ``obs.hp`` here.
    """

    column: str

    @property
    def code(self) -> str:
        """The number as Python."""
        return self.valued(1)

    @property
    def words(self) -> str:
        """The number in English."""
        return _label(self.column) if self.column.startswith("info.") else f"gain of {_label(self.column)}"

    @property
    def label(self) -> str:
        """Name of a component that is made of it alone."""
        return _label(self.column) if self.column.startswith("info.") else f"{_label(self.column)}_gain"

    @property
    def columns(self) -> tuple[str, ...]:
        """Qualified columns that it reads."""
        return (self.column,) if self.column.startswith("info.") else (self.column, f"prev_{self.column}")

    is_latched = False

    def valued(self, sign: int) -> str:
        """The value of a component as Python."""
        now, before = read_as(self.column), f"prev_{read_as(self.column)}"
        if len(self.columns) == 1:
            return now if sign > 0 else f"-{now}"
        return f"{now} - {before}" if sign > 0 else f"{before} - {now}"

    def values(self, columns: Columns) -> np.ndarray:
        """Int64 [T]: -1, 0 or 1."""
        now, *before = (columns[name] for name in self.columns)
        return np.sign(now - before[0] if before else now)


Body = Event | Measure

_VALUE = re.compile(r"(-?1\.0) if (.+) else 0\.0")
_PLAIN = re.compile(r"(-?)info\['(\w+)'\]")
_GAIN = re.compile(r"(prev_)?obs\['(\w+)'\] - (prev_)?obs\['\2'\]")


def event_of(code: str) -> Event:
    """The event whose condition this is.

    Raises:
        ValueError: it is not of the grammar.
    """
    node = ast.parse(code, mode="eval").body
    parts = node.values if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And) else [node]
    return Event(tuple(atom_of(part) for part in parts))


def measure_of(text: str) -> tuple[int, Measure] | None:
    """Sign and measure that an expression, as ``ast.unparse`` writes it, is; None where it is neither form of one.

    Raises:
        ValueError: it names a field that is not there, or no number.
    """
    if match := _PLAIN.fullmatch(text):
        return -1 if match[1] else 1, Measure(_known("info", match[2], "int"))
    match = _GAIN.fullmatch(text)
    if match is None or bool(match[1]) == bool(match[3]):
        return None
    return -1 if match[1] else 1, Measure(_known("obs", match[2], "int"))


def body_of(node: ast.expr) -> tuple[int, Body]:
    """Sign and body of a component, from the expression of its value.

    Raises:
        ValueError: it is not of the grammar.
    """
    text = ast.unparse(node)
    match = _VALUE.fullmatch(text)
    if match and isinstance(node, ast.IfExp):
        return (1 if match[1] == "1.0" else -1), event_of(ast.unparse(node.test))
    found = measure_of(text)
    if found is None:
        raise ValueError(f"'{text}' is not a value of the grammar")
    return found
