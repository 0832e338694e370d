"""Designers that use no language model: programs of the grammar, guided by recorded play, or at random.

Guidance is a weight for each component of the grammar: how much it says about recorded play. Where there are
successes, what came more often in them; where there are none, what marks rare states: few steps, some episodes and not
others, next to something, with consequences that are rare elsewhere.

Example:
    >>> proposals = GrammarDesigner().propose(brief, 4)
    >>> print(proposals[0].source)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log10

import numpy as np

from envs.episode_memory import FAR
from rewards.auto.program import SHORT_SHA
from rewards.auto.search.analyzer import PROGRESS, idle_components
from rewards.auto.search.grammar import (
    Component,
    GrammarProgram,
    NotOfGrammarError,
    Vocabulary,
    parse_program,
    thing_of,
)
from rewards.auto.search.play import Firing, Play, is_recorded, reads_message
from rewards.auto.search.proposal import Brief, Costs, Proposal, Tried
from rewards.auto.search.terms import Acted, Body, Event, Said
from rewards.auto.search.variation import Draw, cross, drawn_components, mutate, random_program, uniform_draw

UNSEEN_WEIGHT = 0.1
"""Of what never happened in recorded play: it may yet, but nothing speaks for it."""

UNSEEN_PROGRESS_WEIGHT = 0.5
"""The same of new ground: such a component is there to reward what no policy has reached."""

SATURATED_SHARE = 0.25
"""Share of steps from which on a term says little: it uses up what dense components may pay."""

SATURATED_WEIGHT = 0.02
ONCE_WEIGHT = 0.3
"""Factor of what came in a single episode of several."""

PLACE_FACTOR = 4.0
"""A message that only comes next to something, with harm, or with new cells weighs up to so many times more."""

CONSEQUENCE_FACTOR = 8.0
"""The same of an action that, next to something, leads to such messages."""

BOUND = 0.4
"""From here on (``Play.place_of``) a message is taken to come from the thing that is near."""

LINKED = 0.3
"""Lift from which on harm, or new cells, are taken to come with a term; the first makes it bad."""

SHARPNESS = 4
"""Power of weights within a family: a hundred components that say a little would else be drawn more often than the
few that say much."""

TELLING_AUC = 0.25
"""Distance of ``Firing.success_auc`` from a half from which on it decides the sign."""

ENOUGH_OF_EACH = 5
"""Successes, and failures, with which what tells them apart counts for half of what it says."""

FAILED_FACTOR = 0.2
"""Of a component that never fired, or that saturated, when it was trained with."""

_PROGRESS_COLUMNS = frozenset({"info.new_tiles_seen", "info.tiles_visited", "info.max_depth"})

WITHIN = 3
"""Steps from an action on in which consequences are looked for: a prompt and its answer lie between."""


class Evidence:
    """Weights of components, by recorded play.

    Args:
        play: of the task.
    """

    def __init__(self, play: Play) -> None:
        self.play = play

    def judged(self, component: Component) -> tuple[Component, float]:
        """The component with the sign that play suggests, and its weight, more than 0."""
        body, play = component.body, self.play
        if not is_recorded(play, body):
            return component, UNSEEN_WEIGHT
        values = play.values(body)
        firing = play.firing(values)
        if not firing.num_episodes:
            is_progress = not _PROGRESS_COLUMNS.isdisjoint(body.columns)
            return component, UNSEEN_PROGRESS_WEIGHT if is_progress else UNSEEN_WEIGHT * self._presence(body)
        if firing.step_share > SATURATED_SHARE and isinstance(body, Event):
            return component, SATURATED_WEIGHT
        weight = _interest(firing, len(play.episodes)) * self._presence(body) * self._meaning(body, values != 0)
        return self._signed(component, firing, values), weight * self._telling(firing)

    def _telling(self, firing: Firing) -> float:
        """0.1 to 1 by how well successes and failures are told apart; 1 where that is not known, near it with few."""
        if firing.success_auc is None:
            return 1.0
        num = self.play.num_of_each
        return 1 - num / (num + ENOUGH_OF_EACH) * 0.9 * (1 - abs(2 * firing.success_auc - 1))

    def _signed(self, component: Component, firing: Firing, values: np.ndarray) -> Component:
        """Successes decide; where they do not, harm does, of words and actions, whose usual sign is a guess."""
        lead = 0.0 if firing.success_auc is None else firing.success_auc - 0.5
        if abs(lead) >= TELLING_AUC:
            return replace(component, sign=1 if lead > 0 else -1)
        if isinstance(component.body, Event) and _is_guess(component.body):
            hurt = self.play.soon(self.play.hurt, WITHIN) if _acts(component.body) else self.play.hurt
            return replace(component, sign=-1) if self.play.lift(values != 0, hurt) > LINKED else component
        return component

    def _presence(self, body: Body) -> float:
        """How much the thing that a body is about is there to be reached; 1 where it is about none.

        The share of steps with one on the map, as a square root, times the share of episodes that do not begin next
        to one; at least ``UNSEEN_WEIGHT``.
        """
        thing = thing_of(body)
        column = f"info.{thing}_distance"
        if thing is None or not self.play.has([column]):
            return 1.0
        on_map = float((self.play.column(column) < FAR).mean())
        return max(UNSEEN_WEIGHT, on_map**0.5 * (1 - self.play.near_at_first.get(thing, 0.0)))

    def _meaning(self, body: Body, hits: np.ndarray) -> float:
        """More than 1 for what comes from a thing that is near, with harm or with new cells, or leads to that."""
        if not isinstance(body, Event):
            return 1.0
        if reads_message(body):
            bound = self.play.place_of(hits)[1]
            linked = max(self.play.lift(hits, self.play.hurt), self.play.lift(hits, self.play.gained))
            return 1.0 + PLACE_FACTOR * max(bound * (bound >= BOUND), linked * (linked >= LINKED))
        thing = thing_of(body)
        if thing is not None and _acts(body):
            return 1.0 + CONSEQUENCE_FACTOR * self._consequence(thing, hits)
        return 1.0

    def _consequence(self, thing: str, hits: np.ndarray) -> float:
        """How much more often a message of the near thing follows than where other things are done near it, 0 to 1."""
        follows = self._messages_of.get(thing)
        if follows is None:
            return 0.0
        near = self.play.near[thing]
        return max(0.0, self.play.lift(hits, follows) - self.play.lift(near, follows))

    @cached_property
    def _messages_of(self) -> Mapping[str, np.ndarray]:
        """``{class: bool [M]}``: steps that are soon followed by a message that comes from being next to it."""
        found: dict[str, np.ndarray] = {}
        for text in self.play.texts:
            hits = self.play.holds(Said(text))
            thing, bound = self.play.place_of(hits)
            if bound >= BOUND and hits.sum() > 1:
                found[thing] = found.get(thing, False) | hits
        return {thing: self.play.soon(hits, WITHIN) for thing, hits in found.items()}


def _interest(firing: Firing, num_episodes: int) -> float:
    """Rare steps, in some episodes and not in others, or more in some than in others; 0.1 to 1."""
    rarity = min(1.0, -log10(firing.step_share) / 2)
    varies = max(4 * firing.episode_share * (1 - firing.episode_share), min(1.0, firing.variation))
    once = ONCE_WEIGHT if firing.num_episodes == 1 < num_episodes else 1.0
    return (0.1 + 0.9 * rarity * (0.5 + 0.5 * varies)) * once


def _acts(event: Event) -> bool:
    return any(isinstance(atom, Acted) for atom in event.atoms)


def _is_guess(event: Event) -> bool:
    return _acts(event) or any(isinstance(atom, Said) for atom in event.atoms)


class GuidedDraw:
    """Draws components by weight.

    Args:
        vocabulary: what may be drawn.
        evidence: None = everything weighs the same.
        failed: labels of components that were useless when they were trained with.
    """

    def __init__(self, vocabulary: Vocabulary, evidence: Evidence | None, failed: Sequence[str] = ()) -> None:
        self._families: dict[str, tuple[tuple[Component, ...], np.ndarray]] = {}
        for name, components in vocabulary.families.items():
            judged = [(one, 1.0) if evidence is None else evidence.judged(one) for one in components]
            factors = [FAILED_FACTOR if one.label in failed else 1.0 for one, _ in judged]
            weights = np.array([weight for _, weight in judged]) * factors
            self._families[name] = tuple(one for one, _ in judged), weights

    def __call__(self, rng: np.random.Generator) -> Component:
        """From any family; one weighs as much as its best component, so that many poor ones do not drown it."""
        best = np.array([weights.max() for _, weights in self._families.values()])
        return self.of(list(self._families)[rng.choice(len(best), p=best / best.sum())], rng)

    def of(self, family: str, rng: np.random.Generator) -> Component:
        """From one family."""
        components, weights = self._families[family]
        shares = (weights / weights.max()) ** SHARPNESS
        return components[rng.choice(len(components), p=shares / shares.sum())]

    def among(self, families: Sequence[str]) -> Draw:
        """A draw from some families, by even chance; those that this task has nothing for are left out."""
        there = [name for name in families if name in self._families] or list(self._families)
        return lambda rng: self.of(there[rng.integers(len(there))], rng)

    def ranked(self, family: str) -> list[tuple[float, Component]]:
        """A family's components with their weights, heaviest first."""
        components, weights = self._families[family]
        return sorted(zip(weights.tolist(), components, strict=True), key=lambda pair: -pair[0])


# ---- designers

FAMILIES_OF_FRESH: tuple[tuple[str, ...], ...] = (
    ("exploration", "approach"),
    ("novelty", "exploration"),
    ("approach", "messages", "novelty"),
    ("use", "messages", "approach"),
)
"""Families of fresh candidates by place in the round, a component of each: different ways to make progress."""

_EXTRA = 0.5
"""Chance of one more component, from anywhere, in a fresh program."""

_TRIES = 200
"""Programs that are made at most to find one that is not there already."""

_NO_NEW = "the grammar found no program that was not proposed before"


@dataclass(frozen=True)
class Parent:
    """A program of an earlier round that was trained with."""

    sha: str
    program: GrammarProgram
    fitness: float
    """Share of successes."""
    idle: frozenset[str]
    """Names of its useless components."""


@dataclass(frozen=True)
class _Made:
    """A program, and how it came about."""

    program: GrammarProgram
    how: str
    parents: tuple[str, ...] = ()


class RandomGrammarDesigner:
    """Uniform random programs: what guidance is measured against."""

    name = "random grammar"

    @property
    def costs(self) -> Costs:
        """No language model, no costs."""
        return Costs()

    def propose(self, brief: Brief, num: int) -> Sequence[Proposal]:
        """See ``Designer``. Words come from recorded play, and nothing else."""
        rng = _generator(brief)
        play = Play(brief.episodes) if brief.episodes else None
        draw = uniform_draw(_vocabulary(brief, play))
        makers = [lambda: _Made(random_program(draw, rng), "drawn at random")] * num
        return list(_proposals(makers, brief, self.name))


class GrammarDesigner:
    """Draws by what recorded play shows; later rounds vary the best programs and add fresh ones.

    The first round covers ``FAMILIES_OF_FRESH``. As long as nothing has ever solved the task, later rounds do the same
    again, with what play shows by then, but for one candidate: the program that got farthest, with a change. From
    then on they take turns: the best with a change, the two best crossed, one of the better half with a change, a
    fresh one. Components that never fired, or saturated, are replaced first.
    """

    name = "grammar"

    @property
    def costs(self) -> Costs:
        """No language model, no costs."""
        return Costs()

    def propose(self, brief: Brief, num: int) -> Sequence[Proposal]:
        """See ``Designer``. Without recorded play nothing weighs more than anything else."""
        play = Play(brief.episodes) if brief.episodes else None
        parents = parents_of(brief.tried)
        idle = {name for parent in parents for name in parent.idle}
        evidence = None if play is None else Evidence(play)
        breeder = _Breeder(GuidedDraw(_vocabulary(brief, play), evidence, sorted(idle)), parents, _generator(brief))
        return list(_proposals([breeder.maker(place) for place in range(num)], brief, self.name))


class _Breeder:
    """Makes programs, from parents where there are some."""

    def __init__(self, draw: GuidedDraw, parents: Sequence[Parent], rng: np.random.Generator) -> None:
        self._draw, self._parents, self._rng = draw, parents, rng
        self._turns: tuple[Callable[[], _Made], ...] = (
            self._best_changed, self._crossed, self._one_changed, self._fresh,
        )  # fmt: skip

    def maker(self, place: int) -> Callable[[], _Made]:
        """How the candidate at a place of the round is made."""
        if self._parents and self._parents[0].fitness > 0:
            return self._turns[place % len(self._turns)]
        if self._parents and place == 0:
            return self._best_changed
        families = FAMILIES_OF_FRESH[place % len(FAMILIES_OF_FRESH)]
        return lambda: self._of_families(families)

    def _of_families(self, families: Sequence[str]) -> _Made:
        """A component of each family, and perhaps one from anywhere."""
        draws = [self._draw.among([family]) for family in families]
        draws += [self._draw] if self._rng.random() < _EXTRA else []
        found = {one.body: one for draw in draws for one in drawn_components(draw, 1, self._rng)}
        return _Made(GrammarProgram(tuple(found.values())), f"fresh, of {', '.join(families)}")

    def _fresh(self) -> _Made:
        return _Made(random_program(self._draw, self._rng), "fresh")

    def _best_changed(self) -> _Made:
        return self._changed(self._parents[0])

    def _one_changed(self) -> _Made:
        """Of the better half, by even chance."""
        return self._changed(self._parents[int(self._rng.integers((len(self._parents) + 1) // 2))])

    def _changed(self, parent: Parent) -> _Made:
        repaired = self._repaired(parent)
        if repaired is not None:
            how = f"{parent.sha[:SHORT_SHA]} without what was no use: {', '.join(sorted(parent.idle))}"
            return _Made(repaired, how, (parent.sha,))
        changed = mutate(parent.program, self._draw, self._rng)
        return _Made(changed, f"{parent.sha[:SHORT_SHA]} with a change", (parent.sha,))

    def _repaired(self, parent: Parent) -> GrammarProgram | None:
        """Useless components replaced; None where there are none."""
        named = list(zip(parent.program.names, parent.program.components, strict=True))
        kept = {one.body: one for name, one in named if name not in parent.idle}
        if len(kept) == len(named):
            return None
        for component in drawn_components(self._draw, len(named), self._rng):
            if len(kept) < len(named):
                kept.setdefault(component.body, component)
        return GrammarProgram(tuple(kept.values()))

    def _crossed(self) -> _Made:
        if len(self._parents) < 2:
            return self._best_changed()
        first, second = self._parents[:2]
        shas = first.sha, second.sha
        how = f"{first.sha[:SHORT_SHA]} crossed with {second.sha[:SHORT_SHA]}"
        child = cross(first.program, second.program, self._rng)
        if child in (first.program, second.program):
            child = mutate(child, self._draw, self._rng)
            how += ", with a change"
        return _Made(child, how, shas)


def parents_of(tried: Sequence[Tried]) -> list[Parent]:
    """The accepted and trained programs of the grammar, best first; what a language model wrote is passed over.

    Ordered by fitness; of equal ones by progress, the mean rank over ``PROGRESS``.
    """
    trained = [one for one in tried if one.fitness is not None and one.verdict.accepted]
    progress = _mean_ranks(trained)
    order = sorted(range(len(trained)), key=lambda place: (-(trained[place].fitness or 0.0), -progress[place]))
    found = []
    for place in order:
        one = trained[place]
        try:
            program = parse_program(one.source)
        except NotOfGrammarError:
            continue
        idle = idle_components(one.figures) & frozenset(program.names)
        found.append(Parent(one.sha, program, one.fitness or 0.0, idle))
    return found


def _mean_ranks(trained: Sequence[Tried]) -> np.ndarray:
    """Float64 [N]: of each program the mean, over measures of progress, of the programs that it is ahead of."""
    ranks = np.zeros(len(trained))
    for name in PROGRESS:
        values = np.array([one.figures.get(f"progress/{name}", -np.inf) for one in trained])
        ranks += (values[:, None] > values[None, :]).sum(1) / len(PROGRESS)
    return ranks


def _generator(brief: Brief) -> np.random.Generator:
    return np.random.default_rng([brief.seed, brief.round])


def _vocabulary(brief: Brief, play: Play | None) -> Vocabulary:
    return Vocabulary(brief.action_names, () if play is None else play.texts)


def _proposals(makers: Sequence[Callable[[], _Made]], brief: Brief, by: str) -> Iterator[Proposal]:
    """One proposal a maker; none with a source that was tried, or that this round has already."""
    taken = {one.source for one in brief.tried}
    for maker in makers:
        drafts = (maker() for _ in range(_TRIES))
        made = next((draft for draft in drafts if draft.program.source not in taken), None)
        if made is None:
            yield Proposal(source="", by=by, problem=_NO_NEW)
            continue
        source = made.program.source
        taken.add(source)
        yield Proposal(source=source, by=by, parents=made.parents, thoughts=_thoughts(made))


def _thoughts(made: _Made) -> str:
    lines = [f"- {one.comment}" for one in made.program.components]
    return "\n".join([f"Made so: {made.how}.", *lines])
