"""Random programs of the grammar, and programs made from others: mutation and crossing.

What is drawn anew comes from a ``Draw``: uniform, or weighted by what recorded play shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from rewards.auto.program import ComponentKind
from rewards.auto.search.grammar import MAX_DRAWN_COMPONENTS, Component, GrammarProgram, Vocabulary
from rewards.auto.search.terms import MAX_ATOMS, Atom, Event

Draw = Callable[[np.random.Generator], Component]
"""Draws a component; each call by itself, so the same one may come twice."""

Mutation = Callable[[GrammarProgram, Draw, np.random.Generator], tuple[Component, ...] | None]
"""The components after a change; None where this program cannot be changed so."""

NUM_COMPONENTS = (2, 3, 4)
"""Components of a random program, drawn evenly."""

FLIPPED = 0.25
"""Share of uniform draws with the sign that is not the usual one: a random program need not know better."""

_TRIES = 100
_FACTORS = (0.5, 2.0)
_OTHER_KIND: Mapping[ComponentKind, ComponentKind] = {"sparse": "dense", "dense": "sparse"}


def uniform_draw(vocabulary: Vocabulary) -> Draw:
    """A family by even chance, one of its components by even chance, and a sign."""
    families = list(vocabulary.families.values())

    def draw(rng: np.random.Generator) -> Component:
        family = families[rng.integers(len(families))]
        component = family[rng.integers(len(family))]
        return _flipped(component) if rng.random() < FLIPPED else component

    return draw


def random_program(draw: Draw, rng: np.random.Generator) -> GrammarProgram:
    """A program of ``NUM_COMPONENTS`` different components, or of fewer where a draw has no more."""
    return GrammarProgram(drawn_components(draw, int(rng.choice(NUM_COMPONENTS)), rng))


def drawn_components(draw: Draw, num: int, rng: np.random.Generator) -> tuple[Component, ...]:
    """At least one and at most so many components, no two of the same body."""
    found: dict[object, Component] = {}
    for _ in range(_TRIES):
        if len(found) >= num:
            break
        component = draw(rng)
        found.setdefault(component.body, component)
    return tuple(found.values())


def mutate(program: GrammarProgram, draw: Draw, rng: np.random.Generator) -> GrammarProgram:
    """The program with one change, each kind of change that it allows by even chance."""
    kinds = list(MUTATIONS.values())
    while True:  # ends, since the sign of any component can be flipped
        components = kinds[rng.integers(len(kinds))](program, draw, rng)
        changed = None if components is None else _program(components)
        if changed is not None and changed != program:
            return changed


def cross(first: GrammarProgram, second: GrammarProgram, rng: np.random.Generator) -> GrammarProgram:
    """Components of two parents, each by even chance, at least one of either; of two about the same, the first's."""
    chosen = [*_some_of(first, rng), *_some_of(second, rng)]
    by_body = {component.body: component for component in reversed(chosen)}
    order = rng.permutation(len(by_body))[:MAX_DRAWN_COMPONENTS]
    components = list(by_body.values())
    return GrammarProgram(tuple(components[place] for place in sorted(order)))


def _some_of(program: GrammarProgram, rng: np.random.Generator) -> list[Component]:
    taken = rng.random(len(program.components)) < 0.5
    taken[rng.integers(len(taken))] = True
    return [component for component, is_taken in zip(program.components, taken, strict=True) if is_taken]


def _program(components: tuple[Component, ...]) -> GrammarProgram | None:
    """None where there are too many, none, or two about the same."""
    try:
        return GrammarProgram(components)
    except ValueError:
        return None


# ---- mutations


def _add(program: GrammarProgram, draw: Draw, rng: np.random.Generator) -> tuple[Component, ...] | None:
    return (*program.components, draw(rng))


def _drop(program: GrammarProgram, draw: Draw, rng: np.random.Generator) -> tuple[Component, ...] | None:
    place = rng.integers(len(program.components))
    return program.components[:place] + program.components[place + 1 :]


def _replace(program: GrammarProgram, draw: Draw, rng: np.random.Generator) -> tuple[Component, ...] | None:
    return _with(program, rng, lambda _: draw(rng))


def _tune(program: GrammarProgram, draw: Draw, rng: np.random.Generator) -> tuple[Component, ...] | None:
    """A constant becomes half or twice as large."""
    factor = float(rng.choice(_FACTORS))

    def tuned(component: Component) -> Component | None:
        if not isinstance(component.body, Event):
            return None
        atoms = tuple(atom.tuned(factor) for atom in component.body.atoms)
        return _with_atoms(component, atoms)

    return _with(program, rng, tuned)


def _widen(program: GrammarProgram, draw: Draw, rng: np.random.Generator) -> tuple[Component, ...] | None:
    """An event loses one of its conditions."""

    def widened(component: Component) -> Component | None:
        if not isinstance(component.body, Event):
            return None
        atoms = component.body.atoms
        place = rng.integers(len(atoms))
        return _with_atoms(component, atoms[:place] + atoms[place + 1 :])

    return _with(program, rng, widened)


def _narrow(program: GrammarProgram, draw: Draw, rng: np.random.Generator) -> tuple[Component, ...] | None:
    """An event gets one of the conditions of a drawn one."""
    other = draw(rng).body

    def narrowed(component: Component) -> Component | None:
        if not isinstance(component.body, Event) or not isinstance(other, Event):
            return None
        return _with_atoms(component, (*component.body.atoms, other.atoms[rng.integers(len(other.atoms))]))

    return _with(program, rng, narrowed)


def _flip(program: GrammarProgram, draw: Draw, rng: np.random.Generator) -> tuple[Component, ...] | None:
    return _with(program, rng, _flipped)


def _turn(program: GrammarProgram, draw: Draw, rng: np.random.Generator) -> tuple[Component, ...] | None:
    """Sparse becomes dense, and a dense one that comes but a few times sparse."""

    def turned(component: Component) -> Component | None:
        kind = _OTHER_KIND[component.kind]
        return None if kind == "sparse" and not component.body.is_latched else replace(component, kind=kind)

    return _with(program, rng, turned)


MUTATIONS: Mapping[str, Mutation] = {
    "add": _add,
    "drop": _drop,
    "replace": _replace,
    "tune": _tune,
    "widen": _widen,
    "narrow": _narrow,
    "flip": _flip,
    "turn": _turn,
}


def _with(
    program: GrammarProgram, rng: np.random.Generator, change: Callable[[Component], Component | None]
) -> tuple[Component, ...] | None:
    """The components with one of them changed; None where it cannot be."""
    place = rng.integers(len(program.components))
    changed = change(program.components[place])
    if changed is None:
        return None
    return (*program.components[:place], changed, *program.components[place + 1 :])


def _with_atoms(component: Component, atoms: tuple[Atom, ...]) -> Component | None:
    """None where an event cannot have them; what can be had again and again becomes dense."""
    different = tuple(dict.fromkeys(atoms))
    if not 1 <= len(different) <= MAX_ATOMS:
        return None
    body = Event(different)
    return replace(component, body=body, kind=component.kind if body.is_latched else "dense")


def _flipped(component: Component) -> Component:
    return replace(component, sign=-component.sign)
