"""What the grammar can say of a task: components in families, made of the schema, of actions' names and of words.

The families hold for every task. Actions come from the task, words from the messages of recorded play.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from envs.features import FIELDS
from envs.glyphs import NEAREST_CLASSES
from rewards.auto.search.grammar import Component
from rewards.auto.search.terms import Acted, Atom, Body, Change, Compare, Crossed, Event, Flag, Measure, Said

NEW_MESSAGE = Compare("info.message_count", "==", 1)
A_MESSAGE = Compare("info.message_count", ">", 0)
FEW_TIMES = Compare("info.message_count", "<=", 3)
NEW_CELL = Compare("info.visits_here", "==", 1)

_NO_PROGRESS_FIELDS = frozenset({"x", "y", "turn"})
"""Fields whose rise or fall is neither good nor bad."""
_STATUS = tuple(field.name for field in FIELDS if field.group == "obs" and field.dtype == "int")
_CHANGING = tuple(name for name in _STATUS if name not in _NO_PROGRESS_FIELDS)
_FLAGS = tuple(field.qualified for field in FIELDS if field.group == "obs" and field.dtype == "bool")
_CARRIED = tuple(field.qualified for field in FIELDS if field.name.startswith("inventory_"))
_LOW_IS_GOOD = frozenset({"armor_class", "burden", "hunger"})
_NEW_TILES = (0, 2, 5, 9)
_CROSSINGS = (10, 25, 50)
_REACHES = (0, 1, 2)
_WAITS = (4, 9, 19)


@dataclass(frozen=True)
class Vocabulary:
    """A task's actions, and words of its messages."""

    actions: tuple[str, ...]
    texts: tuple[str, ...] = ()

    @cached_property
    def families(self) -> Mapping[str, tuple[Component, ...]]:
        """Components that a program may be drawn from, dense and with their usual signs; no family is empty."""
        made = {name: tuple(family(self)) for name, family in FAMILIES.items()}
        return {name: components for name, components in made.items() if components}


def _dense(sign: int, *atoms: Atom) -> Component:
    return Component(kind="dense", sign=sign, body=Event(atoms))


def _measured(sign: int, column: str) -> Component:
    return Component(kind="dense", sign=sign, body=Measure(column))


def _exploration(vocabulary: Vocabulary) -> Iterator[Component]:
    for least in _NEW_TILES:
        yield _dense(1, Compare("info.new_tiles_seen", ">", least))
    for every in _CROSSINGS:
        yield _dense(1, Crossed("info.tiles_seen", "info.new_tiles_seen", every))
    yield _dense(1, NEW_CELL)
    yield _dense(1, Change("depth", ">"))


def _novelty(vocabulary: Vocabulary) -> Iterator[Component]:
    yield _dense(1, NEW_MESSAGE)
    for name in NEAREST_CLASSES:
        near = Compare(f"info.{name}_distance", "<=", 1)
        yield _dense(1, near, NEW_MESSAGE)
        yield _dense(1, near, A_MESSAGE, FEW_TIMES)


def _messages(vocabulary: Vocabulary) -> Iterator[Component]:
    for text in vocabulary.texts:
        yield _dense(1, Said(text))
        yield _dense(1, Said(text), NEW_MESSAGE)
        yield _dense(1, Said(text), FEW_TIMES)


def _approach(vocabulary: Vocabulary) -> Iterator[Component]:
    for name in NEAREST_CLASSES:
        yield _measured(1, f"info.{name}_approach")


def _nearness(vocabulary: Vocabulary) -> Iterator[Component]:
    for name in NEAREST_CLASSES:
        for reach in _REACHES:
            yield _dense(1, Compare(f"info.{name}_distance", "<=", reach))
        yield _dense(1, Compare(f"info.{name}_distance", "<=", 1), NEW_CELL)


def _use(vocabulary: Vocabulary) -> Iterator[Component]:
    for action in vocabulary.actions:
        for name in NEAREST_CLASSES:
            yield _dense(1, Acted(action), Compare(f"info.{name}_distance", "<=", 1))


def _status(vocabulary: Vocabulary) -> Iterator[Component]:
    for name in _CHANGING:
        sign = -1 if name in _LOW_IS_GOOD else 1
        yield _dense(sign, Change(name, ">"))
        yield _dense(-sign, Change(name, "<"))
        yield _measured(sign, f"obs.{name}")
    for column in _FLAGS:
        yield _dense(-1, Flag(column))


def _possession(vocabulary: Vocabulary) -> Iterator[Component]:
    yield _measured(1, "info.inventory_change")
    yield _dense(1, Flag("info.has_key"))
    for column in _CARRIED:
        if column not in ("info.inventory_change", "info.inventory_count"):
            yield _dense(1, Compare("info.inventory_change", ">", 0), Compare(column, ">", 0))


def _waste(vocabulary: Vocabulary) -> Iterator[Component]:
    for least in _WAITS:
        yield _dense(-1, Compare("info.steps_since_change", ">", least))
        yield _dense(-1, Compare("info.steps_since_new_tile", ">", least))
        yield _dense(-1, Compare("info.visits_here", ">", least))
    yield _dense(-1, Flag("info.same_message"))
    yield _dense(-1, Change("turn", "=="))


FAMILIES: Mapping[str, Callable[[Vocabulary], Iterator[Component]]] = {
    "exploration": _exploration,
    "novelty": _novelty,
    "messages": _messages,
    "approach": _approach,
    "nearness": _nearness,
    "use": _use,
    "status": _status,
    "possession": _possession,
    "waste": _waste,
}
"""How the components of each family are made."""


def thing_of(body: Body) -> str | None:
    """The class of things on the map whose distance or approach a body reads, if any."""
    for name in NEAREST_CLASSES:
        if any(column in (f"info.{name}_distance", f"info.{name}_approach") for column in body.columns):
            return name
    return None
