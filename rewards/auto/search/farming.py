"""Walks that lead nowhere: two recorded steps back and forth, as often as an agent that farms would take them.

Auto MC-Reward (Li et al. 2023, arXiv 2312.09238) saw agents move back and forth to collect reward. A program is run on
such walks and what it says is composed as in training: it may not exceed what dense components are allowed in
an episode. Unless dense="potential" only sparse components can break that, such as one that pays for each descent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from envs.recording import EpisodeRecord
from envs.schema import COLUMNS
from rewards.auto.composition import Composer, Steps
from rewards.auto.config import CompositionConfig
from rewards.auto.episodes import transitions_of
from rewards.auto.program import MAX_COMPONENTS, Program
from rewards.auto.sandbox.contained import Runner, run_in_batches

NUM_STEPS = 500
"""Of each walk."""

MAX_WALKS = 8
"""Walks of each kind that are tried: those that look most lucrative."""

_TOLERANCE = 1e-6

PLACE_COLUMNS = tuple(
    f"{group}.{name}" for group in ("prev_obs", "obs") for name in ("x", "y", "dungeon_number", "dungeon_level")
)
"""Where the hero was before a step, and is after it."""

_STILL = "info.steps_since_change"
_GAINS = ("hp", "energy", "gold", "score", "xp_points", "hunger")
"""What a step may not change if it is to be repeatable: gold lies on the floor once."""
_NEEDED = (
    *PLACE_COLUMNS, _STILL, "info.inventory_change", *(f"{g}.{n}" for n in _GAINS for g in ("prev_obs", "obs")),
)  # fmt: skip


@dataclass(frozen=True)
class Farmed:
    """The most lucrative walk that was tried."""

    total: float
    """What ``NUM_STEPS`` of it are paid."""
    allowed: float
    walks: int
    """How many were tried."""
    rows: tuple[int, int]
    """The transitions that it repeats, counted over all episodes."""
    component: str
    """Which component pays most of it."""

    @property
    def is_too_much(self) -> bool:
        """It pays more than it may."""
        return self.total > self.allowed + _TOLERANCE


def can_tell(episode: EpisodeRecord, program: Program) -> bool:
    """The episode holds what is needed to find walks in it and to run the program on them."""
    needed = (*_NEEDED, *program.needed_columns)
    return all(name in episode.columns or COLUMNS[name].from_rollout for name in needed)


def most_farmed(
    runner: Runner, program: Program, episodes: Sequence[EpisodeRecord], composition: CompositionConfig
) -> Farmed | None:
    """Run a program on walks back and forth, and on standing still; None where the episodes show neither.

    Args:
        runner: what runs the program.
        program: what is run.
        episodes: recorded play, all of which ``can_tell``.
        composition: how components are composed.

    Raises:
        EngineError: the program has no answer for a batch.
    """
    if not episodes:
        return None
    columns, _ = transitions_of(episodes, tuple(dict.fromkeys((*_NEEDED, *program.needed_columns))))
    ended = np.concatenate([episode.terminated | episode.truncated for episode in episodes])
    episode_of = np.repeat(np.arange(len(episodes)), [episode.num_steps for episode in episodes])
    walks = _walks(columns, ~ended & _is_repeatable(columns), episode_of)
    if not walks:
        return None
    chosen = _most_lucrative(runner, program, columns, walks)
    totals, parts = _walked(runner, program, columns, chosen, composition)
    worst = int(totals.argmax())
    return Farmed(
        total=float(totals[worst]),
        allowed=_ALLOWED[composition.dense](composition),
        walks=len(chosen),
        rows=chosen[worst],
        component=max(parts, key=lambda label: parts[label][worst]),
    )


def _walked(
    runner: Runner,
    program: Program,
    columns: Mapping[str, np.ndarray],
    chosen: Sequence[tuple[int, int]],
    composition: CompositionConfig,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What each walk is paid, float64 [walks], and how much of it by each component."""
    first = np.array([walk[0] for walk in chosen])
    second = np.array([walk[1] for walk in chosen])
    rows = np.where(np.arange(NUM_STEPS)[:, None] % 2 == 0, first, second)  # [steps, walks]
    walked = {name: _as_walked(name, columns[name][rows]) for name in program.needed_columns}
    values = run_in_batches(runner, {name: column.ravel() for name, column in walked.items()}, rows.size)
    never = np.zeros(rows.shape, bool)
    composer = Composer(composition, tuple(program.components))  # undiscounted: what goes round comes to nothing
    composed, _ = composer.compose(
        {name: value.reshape(rows.shape) for name, value in values.components.items()},
        program.components,
        Steps(valid=values.valid.reshape(rows.shape), terminated=never, truncated=never),
        composer.initial_state(len(chosen)),
    )
    return composed.total.sum(axis=0), {label: part.sum(axis=0) for label, part in composed.components.items()}


_ALLOWED: Mapping[str, Callable[[CompositionConfig], float]] = {
    "fading": lambda config: config.dense_budget,
    "budget": lambda config: config.dense_budget,
    # A potential rises from 0 to its highest once.
    "potential": lambda config: max(config.dense_budget, config.dense_weight * MAX_COMPONENTS),
}
"""What a walk may be paid, by ``CompositionConfig.dense``."""


def _is_repeatable(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mask [N] of steps in which nothing was gained or lost and, where the hero stayed, nothing changed at all."""
    same = [columns[f"prev_obs.{name}"] == columns[f"obs.{name}"] for name in _GAINS]
    half = len(PLACE_COLUMNS) // 2
    moved = [columns[b] != columns[a] for b, a in zip(PLACE_COLUMNS[:half], PLACE_COLUMNS[half:], strict=True)]
    idle = np.any(moved, axis=0) | (columns[_STILL] > 0)
    return np.all([*same, idle, columns["info.inventory_change"] == 0], axis=0)


def _walks(columns: Mapping[str, np.ndarray], repeatable: np.ndarray, episode_of: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of steps of one episode that lead there and back, and steps that changed nothing, taken twice.

    Of steps that lead from one place to the same other place only the last counts: what could be had there only once
    has then been had.
    """
    places = [column.tolist() for column in (columns[name] for name in PLACE_COLUMNS)]
    half = len(places) // 2
    last: dict[tuple[object, ...], int] = {}
    found: dict[tuple[object, ...], tuple[int, int]] = {}
    for row, (episode, *where) in enumerate(zip(episode_of.tolist(), *places, strict=True)):
        if not repeatable[row]:
            continue
        before, after = tuple(where[:half]), tuple(where[half:])
        last[episode, before, after] = row
        back = last.get((episode, after, before))
        if back is not None:
            found[episode, *sorted((before, after))] = (back, row)
    return list(found.values())


def _most_lucrative(
    runner: Runner,
    program: Program,
    columns: Mapping[str, np.ndarray],
    walks: Sequence[tuple[int, int]],
) -> list[tuple[int, int]]:
    """By what the two steps of each pay without any budget: those with the most of sparse and of dense components."""
    pairs = np.array(walks)
    used, places = np.unique(pairs, return_inverse=True)
    values = run_in_batches(runner, {name: columns[name][used] for name in program.needed_columns}, len(used))
    chosen: dict[int, None] = {}
    for kind in ("sparse", "dense"):
        signs = [np.sign(value) for name, value in values.components.items() if program.kind_of(name) == kind]
        worth = sum(signs, np.zeros(len(used)))[places.reshape(pairs.shape)].sum(axis=1)
        chosen |= dict.fromkeys(np.argsort(-worth, kind="stable")[:MAX_WALKS].tolist())
    return [walks[i] for i in chosen]


# ---- what the game would show of a walk that it has seen

_Change = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a column [steps, walks], and how many steps were taken before [steps, 1], to the column as it would be."""


def _later(column: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return column[:1] + steps


def _none(column: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return np.zeros_like(column)


def _again(column: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return column + steps // 2


_AS_WALKED: Mapping[str, _Change] = {
    "obs.turn": _later,
    "prev_obs.turn": _later,
    "info.step_in_episode": _later,
    "info.new_tiles_seen": _none,
    "info.steps_since_new_tile": lambda column, steps: column[:1] + steps + 1,
    "info.steps_since_change": lambda column, steps: np.where(column > 0, column + steps, 0),
    "info.visits_here": lambda column, steps: column + 1 + steps // 2,
    "info.message_count": lambda column, steps: np.where(column > 0, _again(column, steps), 0),
    "info.tiles_visited": lambda column, steps: np.broadcast_to(column.max(axis=0), column.shape),
    "info.tiles_seen": lambda column, steps: np.broadcast_to(column.max(axis=0), column.shape),
    "info.max_depth": lambda column, steps: np.broadcast_to(column.max(axis=0), column.shape),
}
"""Columns that count, as they would be."""


def _as_walked(name: str, column: np.ndarray) -> np.ndarray:
    steps = np.arange(len(column))[:, None]
    return np.ascontiguousarray(_AS_WALKED.get(name, lambda column, steps: column)(column, steps))
