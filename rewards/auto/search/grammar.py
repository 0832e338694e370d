"""The grammar of reward programs: up to five named components over the schema, written as readable Python.

One grammar for all tasks. A program is rendered as source code, and read back from its syntax tree, so that stored
sources can be varied (``rewards.auto.search.variation``); what a language model wrote is not of the grammar, and
``parse_program`` says so. Components come in families, made of the schema, of the task's actions, and of words from the
messages of recorded play.

Example:
    >>> seen = Component(kind="dense", sign=1, body=Event((Compare("info.new_tiles_seen", ">", 0),)))
    >>> program = GrammarProgram((seen,))
    >>> parse_program(program.source) == program
    True
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from envs.features import FIELDS
from envs.glyphs import NEAREST_CLASSES
from rewards.auto.program import DECLARATION, ComponentKind
from rewards.auto.search.terms import (
    CROSSED,
    Acted,
    Atom,
    Body,
    Change,
    Compare,
    Crossed,
    Event,
    Flag,
    Measure,
    Said,
    body_of,
)

MAX_DRAWN_COMPONENTS = 5
"""Components of a program, that of the goal aside."""

GOAL = "goal"
"""The component that every program has: success and failure."""

_HEADER = "# A reward program of the grammar: each component is worth its sign where its condition holds."
_GOAL_VALUE = "1.0 if info['succeeded'] else -1.0 if info['died'] else 0.0"
_ARGUMENTS = ("obs", "prev_obs", "action", "info")
_SIGNS = {1: "Good", -1: "Bad"}
_MAX_CHARS = 8_000
"""Of a source that is parsed; five components of three conditions stay below it."""
_MAX_LABEL = 36
"""Of a name; with what tells equal ones apart it stays within the 40 letters that are admitted."""


class NotOfGrammarError(ValueError):
    """A source is none that the grammar renders, so it cannot be varied."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One term with a sign.

    Raises:
        ValueError: another kind or sign, or a sparse component that could be earned without end.
    """

    kind: ComponentKind
    sign: int
    """1 good, -1 bad."""
    body: Body

    def __post_init__(self) -> None:
        if self.sign not in _SIGNS or self.kind not in get_args(ComponentKind):
            raise ValueError(f"a component is sparse or dense, 1 or -1, not {self.kind} and {self.sign}")
        # Sparse components have no budget: one that can be had again and again would be worth more than success.
        if self.kind == "sparse" and not self.body.is_latched:
            raise ValueError("a sparse component beside the goal needs the condition info['message_count'] == 1")

    @property
    def label(self) -> str:
        """A name in lower case; two components of one program may share it."""
        return re.sub(r"[^a-z0-9]+", "_", self.body.label.lower()).strip("_")[:_MAX_LABEL].rstrip("_")

    @property
    def comment(self) -> str:
        """What it is about, in a line."""
        return f"{_SIGNS[self.sign]}: {self.body.words}."


@dataclass(frozen=True)
class GrammarProgram:
    """The goal and one to ``MAX_DRAWN_COMPONENTS`` components, no two about the same.

    Raises:
        ValueError: there are more or none, or two have the same body.
    """

    components: tuple[Component, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.components) <= MAX_DRAWN_COMPONENTS:
            raise ValueError(f"a program has 1 to {MAX_DRAWN_COMPONENTS} components, not {len(self.components)}")
        if len({component.body for component in self.components}) < len(self.components):
            raise ValueError("two components have the same condition")

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each component, all different."""
        seen: Counter[str] = Counter()
        names = []
        for component in self.components:
            seen[component.label] += 1
            number = seen[component.label]
            names.append(component.label if number == 1 else f"{component.label}_v{number}")
        return tuple(names)

    @property
    def source(self) -> str:
        """The program as Python."""
        named = list(zip(self.names, self.components, strict=True))
        declared = [f"    {GOAL!r}: 'sparse',", *(f"    {name!r}: {one.kind!r}," for name, one in named)]
        lines = [_HEADER, "", f"{DECLARATION} = {{", *declared, "}", "", ""]
        if self._calls_crossed:
            lines += [*CROSSED.splitlines(), "", ""]
        lines += [f"def reward({', '.join(_ARGUMENTS)}):", "    # The task's own end.", f"    {GOAL} = {_GOAL_VALUE}"]
        for name, one in named:
            lines += [f"    # {one.comment}", f"    {name} = {one.body.valued(one.sign)}"]
        returned = [f"        {name!r}: {name}," for name in (GOAL, *self.names)]
        return "\n".join([*lines, "    return {", *returned, "    }"]) + "\n"

    @property
    def _calls_crossed(self) -> bool:
        bodies = (component.body for component in self.components)
        return any(isinstance(atom, Crossed) for body in bodies if isinstance(body, Event) for atom in body.atoms)


def parse_program(source: str) -> GrammarProgram:
    """The program that a source is, read from its code; comments do not matter.

    Raises:
        NotOfGrammarError: the grammar renders no such program; one sentence says why.
    """
    if len(source) > _MAX_CHARS:
        raise NotOfGrammarError(f"the source has more than {_MAX_CHARS} characters")
    try:
        tree = ast.parse(source)
        kinds, values = _declared(tree), _assigned(tree)
        if ast.unparse(values.pop(GOAL)) != _GOAL_VALUE or kinds.pop(GOAL) != "sparse":
            raise ValueError(f"there is no component '{GOAL}' for the task's own end")
        program = GrammarProgram(tuple(_component(kinds[name], value) for name, value in values.items()))
        if ast.dump(ast.parse(program.source)) != ast.dump(tree):
            raise ValueError("it has names or code beside its components")
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise NotOfGrammarError(f"not a program of the grammar, so it cannot be varied: {error}") from None
    return program


def _component(kind: ComponentKind, value: ast.expr) -> Component:
    sign, body = body_of(value)
    return Component(kind=kind, sign=sign, body=body)


def _declared(tree: ast.Module) -> dict[str, ComponentKind]:
    """What the source declares of its components."""
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict() as value) if name == DECLARATION:
                return ast.literal_eval(value)
    raise ValueError(f"it declares no {DECLARATION}")


def _assigned(tree: ast.Module) -> dict[str, ast.expr]:
    """Name and value of each component."""
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name="reward", body=[*assignments, ast.Return()]):
                return dict(map(_assignment, assignments))
    raise ValueError("it has no function 'reward' that assigns components and returns them")


def _assignment(statement: ast.stmt) -> tuple[str, ast.expr]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
    raise ValueError(f"line {statement.lineno} assigns no component")


# ---- vocabulary: what the grammar can say of a task

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
