"""Statistics of recorded play, taken as one long column of steps: where terms hold, which words messages have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs.episode_memory import FAR
from envs.features import COLUMNS
from envs.glyphs import NEAREST_CLASSES
from envs.recording import EpisodeRecord
from rewards.auto.search.auc import share_in_order
from rewards.auto.search.terms import Atom, Body, Event, Measure, Said

MAX_EPISODES = 200
"""Of many episodes, so many are looked at: the newest."""

MIN_OF_EACH = 3
"""Successes, and failures, below which the two are not compared."""

NEAR = 1
"""King's moves at which something is near enough to be acted upon."""

_WORD = re.compile(r"[A-Za-z]{4,}")
_MAX_TEXTS = 200
_COMMON = 0.25
"""Share of steps above which a word says little."""


@dataclass(frozen=True, kw_only=True)
class Firing:
    """How often, and where, a term fired in recorded play; a term fires where its value is not 0."""

    step_share: float
    """Of all steps, 0 to 1."""
    episode_share: float
    """Episodes in which it fired at all, 0 to 1."""
    num_episodes: int
    """The same as a number."""
    variation: float
    """Standard deviation of firings per episode, divided by their mean; 0 where it never fired."""
    success_auc: float | None
    """Chance that it fires more often per step in a success than in a failure, 0 to 1, ties count half; None where
    there are too few of either. Last steps of episodes are left out: what comes with success does not lead there."""


class Play:
    """Episodes one after the other, M steps in all.

    Args:
        episodes: at least one; the newest ``MAX_EPISODES`` are kept.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, episodes: Sequence[EpisodeRecord]) -> None:
        if not episodes:
            raise ValueError("there is no recorded play to look at")
        self.episodes = list(episodes)[-MAX_EPISODES:]
        self.lengths = np.array([episode.num_steps for episode in self.episodes])
        """int64 [E]."""
        self.starts = np.cumsum(self.lengths) - self.lengths
        """int64 [E]: place of each episode's first step."""
        self.num_steps = int(self.lengths.sum())
        self.succeeded = np.array([episode.ending == "success" for episode in self.episodes])
        """bool [E]."""
        self.num_of_each = int(min(self.succeeded.sum(), (~self.succeeded).sum()))
        """Successes or failures, whichever are fewer."""
        self._columns: dict[str, np.ndarray] = {}
        self._atoms: dict[Atom, np.ndarray] = {}

    def has(self, columns: Sequence[str]) -> bool:
        """Whether every episode recorded these columns."""
        return all(name in episode.columns for episode in self.episodes for name in columns)

    def column(self, name: str) -> np.ndarray:
        """One column [M].

        Raises:
            KeyError: an episode has not recorded it.
        """
        if name not in self._columns:
            self._columns[name] = np.concatenate([episode.columns[name] for episode in self.episodes])
        return self._columns[name]

    def holds(self, atom: Atom) -> np.ndarray:
        """Bool [M]: where a condition held.

        Raises:
            KeyError: an episode has not recorded a column that it reads.
        """
        if atom not in self._atoms:
            if isinstance(atom, Said):
                texts, places = self._messages
                held = atom.holds({"obs.message": texts})[places]
            else:
                held = atom.holds({name: self.column(name) for name in atom.columns})
            self._atoms[atom] = held
        return self._atoms[atom]

    def values(self, body: Body) -> np.ndarray:
        """Values [M] of a component's body: -1, 0 or 1.

        Raises:
            KeyError: an episode has not recorded a column that it reads.
        """
        if isinstance(body, Measure):
            return body.values({name: self.column(name) for name in body.columns})
        return np.logical_and.reduce([self.holds(atom) for atom in body.atoms]).astype(np.int64)

    def per_episode(self, values: np.ndarray) -> np.ndarray:
        """Sums [E] of values [M]."""
        return np.add.reduceat(values, self.starts)

    def firing(self, values: np.ndarray) -> Firing:
        """How often values [M] are not 0."""
        fired = (values != 0).astype(np.int64)
        counts = self.per_episode(fired)
        mean = counts.mean()
        return Firing(
            step_share=float(fired.mean()),
            episode_share=float((counts > 0).mean()),
            num_episodes=int((counts > 0).sum()),
            variation=float(counts.std() / mean) if mean else 0.0,
            success_auc=self._success_auc(values),
        )

    def _success_auc(self, values: np.ndarray) -> float | None:
        if self.num_of_each < MIN_OF_EACH:
            return None
        inner = values * self._is_inner
        rates = self.per_episode(inner) / np.maximum(self.lengths - 1, 1)
        return share_in_order(rates[self.succeeded], rates[~self.succeeded])

    @cached_property
    def _is_inner(self) -> np.ndarray:
        inner = np.ones(self.num_steps, np.int64)
        inner[self.starts + self.lengths - 1] = 0
        return inner

    @cached_property
    def _messages(self) -> tuple[np.ndarray, np.ndarray]:
        """Different messages [K], and of each step the place of its message in them [M]."""
        texts, places = np.unique(self.column("obs.message"), return_inverse=True)
        return texts, places

    # ---- what play shows

    @cached_property
    def near(self) -> dict[str, np.ndarray]:
        """``{class: bool [M]}``: where the nearest one was next to the hero; of classes that were on the map."""
        found = {}
        for name in NEAREST_CLASSES:
            column = f"info.{name}_distance"
            if self.has([column]) and (self.column(column) < FAR).any():
                found[name] = self.column(column) <= NEAR
        return found

    @cached_property
    def near_at_first(self) -> dict[str, float]:
        """Share of episodes in which each class of ``near`` was next to the hero after the first step, 0 to 1."""
        return {name: float(near[self.starts].mean()) for name, near in self.near.items()}

    @cached_property
    def hurt(self) -> np.ndarray:
        """Steps that cost hit points, bool [M]."""
        if not self.has(["obs.hp", "prev_obs.hp"]):
            return np.zeros(self.num_steps, bool)
        return self.column("obs.hp") < self.column("prev_obs.hp")

    @cached_property
    def gained(self) -> np.ndarray:
        """Steps that showed new cells, bool [M]."""
        if not self.has(["info.new_tiles_seen"]):
            return np.zeros(self.num_steps, bool)
        return self.column("info.new_tiles_seen") > 0

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Words of the messages that are not everywhere; of words that always come together the longest."""
        if not self.has(["obs.message"]):
            return ()
        messages, _ = self._messages
        words = Counter(word for text in messages.tolist() for word in set(_WORD.findall(text)))
        by_hits: dict[bytes, str] = {}
        for word in sorted(words, key=lambda word: (-len(word), word)):
            hits = self.holds(Said(word))
            if hits.mean() <= _COMMON:
                by_hits.setdefault(np.packbits(hits).tobytes(), word)
        counts = np.array([self.holds(Said(word)).sum() for word in by_hits.values()], np.int64)
        order = np.argsort(-counts, kind="stable")[:_MAX_TEXTS]
        chosen = list(by_hits.values())
        return tuple(chosen[place] for place in order)

    def lift(self, hits: np.ndarray, target: np.ndarray) -> float:
        """How much more often than usual something holds where something else happens, -1 to 1.

        The difference of two shares: of the happenings at which it holds, less that of all steps. One imagined
        happening that is like all steps is added, so that few of them count for less.

        Args:
            hits: bool [M], the happenings.
            target: bool [M].
        """
        usual = target.mean()
        return float(((hits & target).sum() + usual) / (hits.sum() + 1) - usual)

    def place_of(self, hits: np.ndarray) -> tuple[str, float]:
        """The class of things that is near where something happens, and the lift; ``("", 0.0)`` where there is none.

        Args:
            hits: bool [M].
        """
        lifts = {name: self.lift(hits, near) for name, near in self.near.items()}
        best = max(lifts, key=lambda name: lifts[name], default="")
        return (best, lifts[best]) if lifts.get(best, 0.0) > 0 else ("", 0.0)

    def soon(self, happens: np.ndarray, within: int) -> np.ndarray:
        """Bool [M]: whether something (bool [M]) happens in this step or the ``within - 1`` after it, same episode."""
        episode = np.repeat(np.arange(len(self.lengths)), self.lengths)
        found = happens.copy()
        for ahead in range(1, within):
            found[:-ahead] |= happens[ahead:] & (episode[:-ahead] == episode[ahead:])
        return found


def is_recorded(play: Play, body: Body) -> bool:
    """Whether play recorded all that a body reads."""
    known = all(name in COLUMNS for name in body.columns)
    return known and play.has(body.columns)


def reads_message(body: Body) -> bool:
    """Whether an event looks for words."""
    return isinstance(body, Event) and any(isinstance(atom, Said) for atom in body.atoms)
