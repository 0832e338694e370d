"""What an expression may give: constants, what lies within them, and what is made by the call and may hold some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Parts = frozenset[tuple[str, int, str]]
"""Constants or what lies within them: the name, how many layers of it could be changed, and, where that is certain,
``TABLE`` for a dict in whose keys nothing could be changed, ``PAIRS`` for pairs of such a thing and another."""

TABLE, PAIRS = "table", "pairs"
KINDS = ("", TABLE, PAIRS)

ENDLESS = 9
"""As many layers or more."""

FUNCTION_VALUE = ""
"""Stands among the names of constants for functions such as ``list``, whose methods change what they are given."""


class Value(NamedTuple):
    """What an expression may give."""

    itself: Parts = frozenset()
    """What it may be."""
    holds: Parts = frozenset()
    """What may lie within it, however deep, where it is made by the call."""

    @property
    def within(self) -> Parts:
        """What may be read out of it."""
        layers = ((name, depth if depth == ENDLESS else depth - 1, "") for name, depth, _ in self.itself)
        return self.holds.union(part for part in layers if part[1] > 0)

    @property
    def everything(self) -> Parts:
        """What it may be, and what may lie within it."""
        return self.itself | self.holds

    @property
    def read(self) -> Value:
        """What loops and the like read the elements of: of a dict the keys."""
        return Value(frozenset(part for part in self.itself if part[2] != TABLE), self.holds)

    def view(self, *pairs: str) -> Value:
        """What shows its elements, as parts of tuples perhaps; of things of these kinds ``PAIRS``."""
        layers = (
            (name, depth if depth == 1 else min(depth + 1, ENDLESS), PAIRS if kind in pairs else "")
            for name, depth, kind in self.itself
        )
        return Value(frozenset(layers), self.holds)

    @property
    def copy(self) -> Value:
        """Something new with its elements."""
        return Value(holds=self.within)


CLEAN = Value()
A_FUNCTION = Value(frozenset({(FUNCTION_VALUE, ENDLESS, "")}))


def joined(values: Iterable[Value]) -> Value:
    """What may be any of these."""
    some = list(values)
    return Value(
        Parts().union(*(value.itself for value in some)),
        Parts().union(*(value.holds for value in some)),
    )


def collected(values: Iterable[Value]) -> Value:
    """Something new that holds these."""
    return Value(holds=joined(values).everything)


def constant(name: str, depth: int, *, is_table: bool) -> Value:
    """A constant, or nothing where it cannot be changed."""
    return Value(frozenset({(name, min(depth, ENDLESS), TABLE if is_table else "")})) if depth else CLEAN
