"""The results of play and training, in figures and in plain sentences, for the brief of the next round.

The trajectory analyzer of Auto MC-Reward (Li et al. 2023, arXiv 2312.09238) with the reward reflection of Eureka (Ma
et al. 2023, arXiv 2310.12931): how episodes ended and how far failures got, and of each component how often it fired
and how it went over training. Nothing here asks a language model.

Example:
    >>> print(analyse(episodes).text)
    20 episodes: 18 out of time, 2 death; 0 successes. ...
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from envs.episode_memory import FAR
from envs.recording import EpisodeRecord
from rewards.auto.composition import OTHER
from rewards.auto.program import NUMBER_COMPONENT, Program
from rewards.auto.search.auc import share_in_order
from rewards.auto.search.play import MIN_OF_EACH, Play
from rewards.auto.search.terms import Said

MAX_TEXT_CHARS = 2000
"""Of the text; sentences that would not fit are left out, the least important first."""

NUM_CHECKPOINTS = 10
"""Points of training at which components are reported, evenly spaced."""

SATURATED_SHARE = 0.5
"""Share of steps on which a dense component fires from which on it says nothing."""

DOMINANT_SHARE = 0.8
"""Share of the signs of all dense components, up and down, from which on one of several dominates."""

STUCK_STEPS = 20
"""Steps without any change from which on an episode counts as stuck."""

TELLING_AUC = 0.2
"""Distance from a half from which on a difference between successes and failures is reported."""

PROGRESS: Mapping[str, tuple[str, str]] = {
    "cells_seen": ("info.tiles_seen", "cells seen"),
    "cells_visited": ("info.tiles_visited", "cells visited"),
    "depth": ("info.max_depth", "deepest level"),
    "experience": ("obs.xp_points", "experience points"),
    "gold": ("obs.gold", "gold"),
}
"""Measures of how far an episode got: the highest value of a column, and its name in sentences."""

_DEATH_WORDS = re.compile(r"\s*You die\.\.\.\s*")
_MAX_QUOTED = 70
_MAX_WORDS = 4


@dataclass(frozen=True, kw_only=True)
class ComponentReport:
    """Statistics of one component; it fires where its value is not 0."""

    kind: str
    """sparse or dense."""
    mean: float | None = None
    """Over steps of the recorded play; None, like the next five, where the program was not run on it."""
    lowest: float | None = None
    highest: float | None = None
    fired_share: float | None = None
    """Of steps, 0 to 1."""
    fired_episodes: int | None = None
    episode_sum: float | None = None
    """Mean sum over an episode."""
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """``mean``, ``raw/mean`` and ``episode_sum`` at so many points of training as there were rows, at most
    ``NUM_CHECKPOINTS``; ``step`` says where."""
    never_fired: bool = False
    saturates: bool = False
    dominates: bool = False


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What was found."""

    text: str
    """Plain sentences, at most ``MAX_TEXT_CHARS`` characters."""
    num_episodes: int
    endings: Mapping[str, int]
    """``EpisodeRecord.ending`` to a number of episodes."""
    deaths: Mapping[str, int]
    """What the game said last, before a death, to a number of episodes."""
    steps: Mapping[str, float]
    """``mean``, ``least`` and ``most`` steps of an episode."""
    mean_return: float
    """Undiscounted, of the environment's own reward."""
    progress: Mapping[str, float]
    """``PROGRESS``, and ``messages`` (different ones): means over episodes of the most that was reached."""
    closest: Mapping[str, float]
    """Of each class of things that was on the map in a failure: the median, over failures, of the least distance."""
    components: Mapping[str, ComponentReport]

    @property
    def figures(self) -> dict[str, float]:
        """For ``Tried.figures``: ``progress/NAME``, and of useless components ``component/NAME/WHY`` = 1."""
        found = {f"progress/{name}": value for name, value in self.progress.items()}
        for name, report in self.components.items():
            found |= {f"component/{name}/{why}": 1.0 for why in _IDLE if getattr(report, why)}
        return found

    def as_json(self) -> dict[str, Any]:
        """For the archive."""
        return asdict(self) | {"figures": self.figures}


_IDLE = ("never_fired", "saturates")


def idle_components(figures: Mapping[str, float]) -> frozenset[str]:
    """Names of the components that never fired, or that saturated, by ``Analysis.figures``."""
    parts = (key.split("/") for key in figures)
    return frozenset(part[1] for part in parts if part[0] == "component" and part[-1] in _IDLE)


def analyse(
    episodes: Sequence[EpisodeRecord],
    program: Program | None = None,
    values: Sequence[Mapping[str, np.ndarray]] | None = None,
    curves: Sequence[Mapping[str, float | None]] = (),
) -> Analysis:
    """Look at recorded play, and at the training that it comes from.

    Args:
        episodes: by one policy or by many.
        program: what was trained with; None where the play is of no one program.
        values: ``{component: float64 [T]}`` of each episode, nan where the program had no answer; None where it was
            not run on them.
        curves: rows of training metrics in order of time: ``step``, and of components
            ``rewards/program/NAME/mean`` and ``.../episode_sum``, and the same of ``rewards/program/NAME/raw``; None,
            or left out, where there was no value.

    Raises:
        ValueError: there are values of more or fewer episodes, or of other lengths.
    """
    _check_lengths(episodes, values)
    reports = _component_reports(program, values, curves)
    if not episodes:
        return Analysis(
            text="No play was recorded.", num_episodes=0, endings={}, deaths={}, steps={}, mean_return=0.0,
            progress={}, closest={}, components=reports,
        )  # fmt: skip
    play = Play(episodes)
    seen = _Observations(play)
    lines = [seen.headline(), *_component_lines(reports), *seen.sentences()]
    return Analysis(
        text=_fitted(lines),
        num_episodes=len(play.episodes),
        endings=dict(seen.endings),
        deaths=dict(seen.deaths),
        steps={"mean": float(play.lengths.mean()), "least": int(play.lengths.min()), "most": int(play.lengths.max())},
        mean_return=seen.mean_return,
        progress={name: float(reached.mean()) for name, reached in seen.reached.items()},
        closest=seen.closest,
        components=reports,
    )


def _check_lengths(episodes: Sequence[EpisodeRecord], values: Sequence[Mapping[str, np.ndarray]] | None) -> None:
    if values is None:
        return
    if len(values) != len(episodes):
        raise ValueError(f"there are values of {len(values)} episodes, and {len(episodes)} episodes")
    for episode, of_one in zip(episodes, values, strict=True):
        for name, array in of_one.items():
            if array.shape != (episode.num_steps,):
                raise ValueError(f"values of '{name}' have shape {array.shape}, expected ({episode.num_steps},)")


def _fitted(lines: Sequence[str]) -> str:
    """The lines that fit, in order."""
    kept, room = [], MAX_TEXT_CHARS
    for line in lines:
        if len(line) < room:
            kept.append(line)
            room -= len(line) + 1
    return "\n".join(kept)


# ---- play


class _Observations:
    """What recorded play shows."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.endings = Counter(episode.ending for episode in play.episodes)
        self.deaths = Counter(_last_words(episode) for episode in play.episodes if episode.ending == "death")
        self.mean_return = float(np.mean([episode.env_reward.sum() for episode in play.episodes]))
        self.failed = ~play.succeeded
        self.messages = [Counter(text for text in one.captions.tolist() if text) for one in play.episodes]
        self.reached = self._reached()
        self.closest = self._closest()

    def _reached(self) -> dict[str, np.ndarray]:
        """Float64 [E] of each measure of progress that was recorded."""
        found = {"messages": np.array([len(counts) for counts in self.messages], np.float64)}
        for name, (column, _) in PROGRESS.items():
            if self.play.has([column]):
                found[name] = np.maximum.reduceat(self.play.column(column), self.play.starts).astype(np.float64)
        return found

    def _closest(self) -> dict[str, float]:
        least = {
            name: np.minimum.reduceat(self.play.column(f"info.{name}_distance"), self.play.starts)[self.failed]
            for name in self.play.near
        }
        return {name: float(np.median(of_all)) for name, of_all in least.items() if (of_all < FAR).any()}

    def headline(self) -> str:
        """How episodes ended."""
        lengths = self.play.lengths
        ended = ", ".join(f"{count} {ending}" for ending, count in self.endings.most_common())
        return (
            f"{len(lengths)} episodes: {ended}; {self.endings['success']} successes. Steps: {lengths.mean():.0f} on "
            f"average ({lengths.min()} to {lengths.max()}). Return of the task's own reward: {self.mean_return:.2f}."
        )

    def sentences(self) -> Iterator[str]:
        """The rest, the most important first."""
        yield from self._death_lines()
        yield from self._difference_lines()
        if self.failed.any():
            yield from self._progress_lines()
            yield from self._nearness_lines()
            yield from self._stuck_lines()
            yield from self._message_lines()

    def _death_lines(self) -> Iterator[str]:
        clauses = [f"{text} ({count})" for text, count in self.deaths.most_common(3)]
        if clauses:
            yield f"Last words before the {self.deaths.total()} deaths: {'; '.join(clauses)}."

    def _progress_lines(self) -> Iterator[str]:
        words = {name: label for name, (_, label) in PROGRESS.items()} | {"messages": "different messages"}
        clauses = []
        for name, reached in self.reached.items():
            of_failed = reached[self.failed]
            if not of_failed.any():
                continue
            clauses.append(f"{words[name]} {of_failed.mean():.1f} (at most {of_failed.max():.0f})")
        yield f"How far the {self.failed.sum()} failures got, on average: {', '.join(clauses)}."
        if self.play.has(["info.new_tiles_seen"]):
            found = self.play.per_episode(self.play.column("info.new_tiles_seen"))[self.failed] > 0
            if not found.all():
                yield f"In {(~found).sum()} of {len(found)} failures no new cell was ever seen after the start."

    def _nearness_lines(self) -> Iterator[str]:
        clauses = []
        for name in sorted(self.closest, key=lambda name: self.closest[name]):
            column = np.minimum.reduceat(self.play.column(f"info.{name}_distance"), self.play.starts)[self.failed]
            on_map, near = (column < FAR).sum(), (column <= 1).sum()
            clauses.append(f"{name} on the map in {on_map}, next to it in {near}")
        if clauses:
            yield f"Of {self.failed.sum()} failures: {'; '.join(clauses)}."

    def _stuck_lines(self) -> Iterator[str]:
        play = self.play
        if play.has(["info.steps_since_change"]):
            still = play.column("info.steps_since_change")
            worst = np.maximum.reduceat(still, play.starts)[self.failed]
            yield (
                f"{(still > 0).mean():.0%} of steps changed nothing; {(worst >= STUCK_STEPS).sum()} of {len(worst)} "
                f"failures were stuck for {STUCK_STEPS} steps or more, at worst {worst.max()}."
            )
        if play.has(["obs.turn", "prev_obs.turn"]):
            timeless = play.column("obs.turn") == play.column("prev_obs.turn")
            yield f"In {timeless.mean():.0%} of steps no game time passed."

    def _message_lines(self) -> Iterator[str]:
        failures = [counts for counts, failed in zip(self.messages, self.failed, strict=True) if failed]
        times = sum(failures, Counter())
        came = Counter(text for counts in failures for text in counts)
        often = [f"{_quoted(text)} {count} times in {came[text]}" for text, count in times.most_common(4)]
        if often:
            yield f"Most frequent messages ({len(failures)} failures): {'; '.join(often)}."
        bound = [clause for clause in map(self._word_clause, self._telling_words()) if clause]
        if bound:
            yield f"Messages that come from what is near: {'; '.join(bound)}."
        single = sorted((text for text, count in came.items() if count == 1), key=self._consequence, reverse=True)
        if single:
            yield f"Messages of a single failure: {'; '.join(map(_quoted, single[:_MAX_WORDS]))}."

    def _consequence(self, text: str) -> float:
        """How much more often than usual new cells are seen with a message, and something is near; the sum."""
        hits = self._captions == text
        return self.play.lift(hits, self.play.gained) + self.play.place_of(hits)[1]

    @cached_property
    def _captions(self) -> np.ndarray:
        return np.concatenate([one.captions for one in self.play.episodes])

    def _telling_words(self) -> list[str]:
        strength = {text: self.play.place_of(self.play.holds(Said(text)))[1] for text in self.play.texts}
        return sorted(strength, key=lambda text: -strength[text])[:_MAX_WORDS]

    def _word_clause(self, text: str) -> str:
        hits = self.play.holds(Said(text))
        place, _ = self.play.place_of(hits)
        if not place:
            return ""
        near, num = (hits & self.play.near[place]).sum(), (self.play.per_episode(hits.astype(int)) > 0).sum()
        return f"'{text}' in {num} episodes, {near} of {hits.sum()} times next to {place}"

    def _difference_lines(self) -> Iterator[str]:
        """What successes have more of than failures, or less."""
        won = self.play.succeeded
        if self.play.num_of_each < MIN_OF_EACH:
            return
        measures = {"steps": self.play.lengths.astype(np.float64)} | dict(self.reached)
        for text in self.play.texts:
            measures[f"steps with '{text}' in the message"] = self.play.per_episode(
                self.play.holds(Said(text)).astype(np.int64)
            )
        leads = {name: abs(share_in_order(of_all[won], of_all[self.failed]) - 0.5) for name, of_all in measures.items()}
        telling = sorted((name for name in leads if leads[name] >= TELLING_AUC), key=lambda name: -leads[name])
        clauses = []
        for name in telling[: 2 * _MAX_WORDS]:
            ours, theirs = measures[name][won].mean(), measures[name][self.failed].mean()
            clauses.append(f"{name.replace('_', ' ')} {ours:.1f} against {theirs:.1f}")
        if clauses:
            yield f"Successes against failures, on average: {'; '.join(clauses)}."


def _last_words(episode: EpisodeRecord) -> str:
    """What the game said last before it said that the hero died."""
    for text in reversed(episode.captions.tolist()):
        rest = _DEATH_WORDS.sub("", text)
        if rest:
            return _quoted(rest)
    return "nothing"


def _quoted(text: str) -> str:
    line = " / ".join(text.splitlines())
    return f"'{line}'" if len(line) <= _MAX_QUOTED else f"'{line[: _MAX_QUOTED - 3]}...'"


# ---- components


def _component_reports(
    program: Program | None,
    values: Sequence[Mapping[str, np.ndarray]] | None,
    curves: Sequence[Mapping[str, float | None]],
) -> dict[str, ComponentReport]:
    if program is None:
        return {}
    steps_of = {name: _of_episodes(name, values) for name in _names(program, values)}
    weight = {name: _weight(steps) for name, steps in steps_of.items() if program.kind_of(name) == "dense"}
    total = sum(weight.values())
    reports = {}
    for name, steps in steps_of.items():
        kind = program.kind_of(name)
        statistics = _statistics(steps) if steps else {}
        fired = statistics.get("fired_share")
        reports[name] = ComponentReport(
            kind=kind,
            **statistics,
            curves=_checkpoints(name, curves),
            never_fired=fired == 0 and not _fired_in_training(name, program, curves),
            saturates=kind == "dense" and fired is not None and fired >= SATURATED_SHARE,
            dominates=len(weight) > 1 and total > 0 and weight.get(name, 0.0) >= DOMINANT_SHARE * total,
        )
    return reports


def _names(program: Program, values: Sequence[Mapping[str, np.ndarray]] | None) -> list[str]:
    """What the program declares, and what it returned."""
    returned = [NUMBER_COMPONENT] if values is None and not program.components else []
    returned += [name for of_one in values or () for name in of_one]
    return list(dict.fromkeys([*program.components, *returned]))


def _fired_in_training(name: str, program: Program, curves: Sequence[Mapping[str, float | None]]) -> bool:
    """Whether any row of training shows it; undeclared components are one there, of which any may have fired."""
    label = name if name in (program.components or (NUMBER_COMPONENT,)) else OTHER
    keys = [f"rewards/program/{label}/{what}" for what in ("mean", "episode_sum", "raw/mean", "raw/episode_sum")]
    return any(row.get(key) for row in curves for key in keys)  # +1 and -1 may cancel in one of them


def _of_episodes(name: str, values: Sequence[Mapping[str, np.ndarray]] | None) -> list[np.ndarray]:
    """A component's values in each episode, those that there are; empty where there are none at all."""
    found = [of_one[name] for of_one in values or () if name in of_one]
    answered = [one[~np.isnan(one)] for one in found]
    return answered if any(len(one) for one in answered) else []


def _weight(steps: Sequence[np.ndarray]) -> float:
    """Sum of signs, up and down."""
    return float(sum((one != 0).sum() for one in steps))


def _statistics(steps: Sequence[np.ndarray]) -> dict[str, Any]:
    joined = np.concatenate(steps)
    return {
        "mean": float(joined.mean()),
        "lowest": float(joined.min()),
        "highest": float(joined.max()),
        "fired_share": float((joined != 0).mean()),
        "fired_episodes": sum(bool((one != 0).any()) for one in steps),
        "episode_sum": float(np.mean([one.sum() for one in steps])),
    }


def _checkpoints(name: str, curves: Sequence[Mapping[str, float | None]]) -> dict[str, list[float]]:
    """Curves of a component at evenly spaced rows of training."""
    prefix = f"rewards/program/{name}"
    rows = [row for row in curves if row.get(f"{prefix}/mean") is not None]
    if not rows:
        return {}
    places = np.unique(np.linspace(0, len(rows) - 1, min(NUM_CHECKPOINTS, len(rows))).round().astype(int))
    keys = {what: f"{prefix}/{what}" for what in ("mean", "raw/mean", "episode_sum")} | {"step": "step"}
    chosen = [rows[place] for place in places]
    return {
        what: [float(row[key]) for row in chosen]  # pyright: ignore[reportArgumentType]
        for what, key in keys.items()
        if all(row.get(key) is not None for row in chosen)
    }


def _component_lines(reports: Mapping[str, ComponentReport]) -> Iterator[str]:
    """A line of each component, and one of those that need attention."""
    for name, report in reports.items():
        clauses = [f"Component {name} ({report.kind}):"]
        if report.fired_share is not None:
            clauses.append(
                f"fired on {report.fired_share:.1%} of steps, in {report.fired_episodes} episodes; mean "
                f"{report.mean:.3f}, {report.lowest:g} to {report.highest:g}; {report.episode_sum:.2f} an episode."
            )
        sums = report.curves.get("episode_sum", report.curves.get("mean"))
        if sums:
            clauses.append(f"Paid an episode over training: {' '.join(f'{value:.2f}' for value in sums)}.")
        if len(clauses) > 1:
            yield " ".join(clauses)
    for why, words in _ATTENTION.items():
        named = [name for name, report in reports.items() if getattr(report, why)]
        if named:
            yield f"{words}: {', '.join(named)}."


_ATTENTION = {
    "never_fired": "Never fired",
    "saturates": "Saturate (fire on half of all steps or more)",
    "dominates": "Dominates (most of all that dense components say)",
}
