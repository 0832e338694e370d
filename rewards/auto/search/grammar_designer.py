"""Designers that use no language model: programs of the grammar, guided by recorded play, or at random.

Example:
    >>> proposals = GrammarDesigner().propose(brief, 4)
    >>> print(proposals[0].source)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rewards.auto.program import SHORT_SHA
from rewards.auto.search.analyzer import PROGRESS, idle_components
from rewards.auto.search.evidence import Evidence, GuidedDraw
from rewards.auto.search.grammar import GrammarProgram, NotOfGrammarError, parse_program
from rewards.auto.search.play_statistics import Play
from rewards.auto.search.proposal import Brief, Costs, Proposal, Tried
from rewards.auto.search.variation import cross, drawn_components, mutate, random_program, uniform_draw
from rewards.auto.search.vocabulary import Vocabulary

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
    """Names of its components that were no use."""


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
        mended = self._mended(parent)
        if mended is not None:
            how = f"{parent.sha[:SHORT_SHA]} without what was no use: {', '.join(sorted(parent.idle))}"
            return _Made(mended, how, (parent.sha,))
        changed = mutate(parent.program, self._draw, self._rng)
        return _Made(changed, f"{parent.sha[:SHORT_SHA]} with a change", (parent.sha,))

    def _mended(self, parent: Parent) -> GrammarProgram | None:
        """Components that were no use replaced; None where all were of use."""
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
    told = [f"- {one.comment}" for one in made.program.components]
    return "\n".join([f"Made so: {made.how}.", *told])
