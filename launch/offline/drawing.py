"""Plans over the screens on which they were made, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from envs.recording import EpisodeRecord, RecordedPlans
from envs.seeding import ListedSeeds
from envs.spec import MOVES, GamesConfig
from envs.tasks import make
from launch.show import figure

_BLOCKED = frozenset(" |-")
_MARKS = "123456789abcdefghijklmnopqrstuvwxyz"
_ARROWS = dict(zip(MOVES, "↑→↓←↗↘↙↖", strict=True))


def drawn_plans(record: EpisodeRecord, step: int | None = None, num_candidates: int = 8) -> Iterator[str]:
    """Each plan of an episode as text: the way of the one that was taken over the screen, and the candidates.

    The screens come from replaying the episode, because a record has none of before the first action.

    Args:
        record: an episode with plans.
        step: draw the plan of this step alone; None = all.
        num_candidates: how many candidates are listed, the best by the critic.
    """
    plans = record.plans
    assert plans is not None
    config = GamesConfig(task=record.task, obs_keys=("tty_chars", "blstats"))
    games = make(config, 1, ListedSeeds([record.seeds]))
    try:
        obs = games.reset()
        wanted = {int(s): place for place, s in enumerate(plans.step.tolist()) if step in (None, int(s))}
        for t, action in enumerate(record.actions.tolist()):
            if t in wanted:
                hero = obs["blstats"][0, :2].tolist()
                screen = _with_way(obs["tty_chars"][0], hero, _taken(plans, wanted[t]), record.action_names)
                listed = _candidates(plans, wanted[t], record.action_names, num_candidates)
                yield "\n".join([f"step {t}", *screen, *listed, ""])
            if t < record.num_steps - 1:
                obs = games.step(np.array([action])).obs
    finally:
        games.close()


def _taken(plans: RecordedPlans, place: int) -> list[int]:
    return plans.candidates[place, plans.taken[place]].tolist()


def _with_way(screen: np.ndarray, hero: Sequence[int], plan: Sequence[int], names: Sequence[str]) -> list[str]:
    """The lines of a screen that show anything, with the squares that a plan leads over numbered in its order."""
    rows = [list(bytes(row).decode("ascii", "replace")) for row in screen]
    column, row = hero[0], hero[1] + 1  # the message stands above the map
    for place, token in enumerate(plan):
        if token >= len(names):
            break
        dx, dy = MOVES.get(names[token], (0, 0))
        if 0 <= column + dx < len(rows[0]) and rows[row + dy][column + dx] not in _BLOCKED:
            column, row = column + dx, row + dy
        if (column, row) != (hero[0], hero[1] + 1):
            rows[row][column] = _MARKS[min(place, len(_MARKS) - 1)]
    return [line for line in ("".join(row).rstrip() for row in rows) if line]


def _candidates(plans: RecordedPlans, place: int, names: Sequence[str], num: int) -> list[str]:
    """A line for each of the best candidates, and for the one that was taken."""
    scores = plans.scores[place]
    best = np.argsort(-scores, kind="stable").tolist()
    taken = int(plans.taken[place])
    shown = sorted({*best[:num], taken}, key=lambda i: -scores[i])
    lines = ["  candidate    score   log p"]
    for i in shown:
        note = "taken" if i == taken else "refused" if plans.refused[place, i] else ""
        tokens = plans.candidates[place, i].tolist()
        actions = [str(names[t]) for t in tokens if t < len(names)]
        words = " ".join(_ARROWS.get(action, action) for action in actions)
        over = " (over)" if len(tokens) and tokens[-1] >= len(names) else ""
        log_prob = figure(float(plans.log_prob[place, i]))
        lines.append(f"  {i:>9} {figure(float(scores[i])):>8} {log_prob:>7}  {words}{over}  {note}".rstrip())
    return lines
