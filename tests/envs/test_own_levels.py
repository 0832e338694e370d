"""Levels of ours, measured on the squares that the game itself shows."""

from collections import deque

import numpy as np
import pytest

from envs.glyphs import CLASS_OF_GLYPH, GLYPH_CLASSES
from envs.own_levels import own_levels
from envs.seeding import TrainingSeeds, evaluation_seeds
from envs.spec import GamesConfig
from envs.tasks import make, task

_KEYS = ("glyphs", "blstats", "message")
_MOVES = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]
_COMPASS = {"n": (0, -1), "e": (1, 0), "s": (0, 1), "w": (-1, 0)}


def _games(task_id, num_games=1, seed=0, **changes):
    config = GamesConfig(task=task_id, obs_keys=_KEYS, **changes)
    return make(config, num_games, TrainingSeeds(seed, 0, num_games))


def _squares(glyphs):
    """Where one can stand: floor, stairs and the hero's own square; (column, row)."""
    names = np.array(GLYPH_CLASSES)[CLASS_OF_GLYPH[glyphs]]
    rows, columns = np.nonzero(np.isin(names, ("floor", "stairs_down", "stairs_up", "monster")))
    return set(zip(columns.tolist(), rows.tolist(), strict=True))


def _ways(squares, start):
    """``{square: (king's moves from start, number of shortest plans)}``."""
    found, queue = {start: (0, 1)}, deque([start])
    while queue:
        x, y = queue.popleft()
        steps, plans = found[x, y]
        for dx, dy in _MOVES:
            there = x + dx, y + dy
            if there not in squares:
                continue
            if there not in found:
                found[there] = (steps + 1, 0)
                queue.append(there)
            if found[there][0] == steps + 1:
                found[there] = (steps + 1, found[there][1] + plans)
    return found


@pytest.mark.parametrize(
    ("size", "num_squares", "median", "farthest", "median_plans"),
    [("Umaze", 28, 3, 9, 3), ("Medium", 104, 6, 13, 8), ("Large", 184, 10, 27, 42)],
)
def test_mazes_have_many_shortest_plans(size, num_squares, median, farthest, median_plans):
    games = _games(f"Yendor-Maze2D-{size}-v0")
    squares = _squares(games.reset()["glyphs"][0])
    games.close()
    ways = [way for start in squares for there, way in _ways(squares, start).items() if there != start]
    steps, plans = np.array(ways, float).T
    assert len(squares) == num_squares and len(ways) == num_squares * (num_squares - 1), "all of it is one piece"
    assert (np.median(steps), steps.max(), np.median(plans)) == (median, farthest, median_plans)


def test_start_and_stairs_are_drawn_in_each_episode():
    games = _games("Yendor-Maze2D-Umaze-v0", 4, max_episode_steps=1)
    obs, starts, stairs, squares = games.reset(), [], [], set()
    for _ in range(60):
        for b in range(4):
            shown = _squares(obs["glyphs"][b])
            squares |= shown
            assert len(shown) == 28, "the hero does not begin on the stairs"
            starts.append(tuple(obs["blstats"][b, :2].tolist()))
            y, x = np.nonzero(CLASS_OF_GLYPH[obs["glyphs"][b]] == GLYPH_CLASSES.index("stairs_down"))
            stairs.append((int(x[0]), int(y[0])))
        obs = games.step(np.zeros(4, np.int64)).obs
    games.close()
    assert set(starts) == set(stairs) == squares
    assert max(map(starts.count, squares)) < 25 and max(map(stairs.count, squares)) < 25  # 9 on average


def _walk(games, plan):
    names = {"ne": "northeast", "se": "southeast", "e": "east"}
    for move in plan:
        played = games.step(np.array([games.spec.action_names.index(names[move])]))
    return played


def test_the_fork_has_two_ways_of_ten_steps_and_no_third():
    games = _games("Yendor-Fork-v0")
    obs = games.reset()
    squares, start = _squares(obs["glyphs"][0]), tuple(obs["blstats"][0, :2].tolist())
    assert _ways(squares, start)[start[0] + 10, start[1]] == (10, 2)
    over, under = ["ne"] * 3 + ["e"] * 4 + ["se"] * 3, ["se"] * 3 + ["e"] * 4 + ["ne"] * 3
    for plan in (over, under):
        assert games.reset()["blstats"][0, :2].tolist() == list(start)
        played = _walk(games, plan)
        assert played.terminated[0] and played.finished[0].success and played.finished[0].num_steps == 10
    games.close()


@pytest.mark.parametrize("task_id", own_levels())
def test_episodes_replay(task_id):
    def play(num_games, b):
        source = _Only(b, evaluation_seeds(3)[2])
        games = make(GamesConfig(task=task_id, obs_keys=_KEYS), num_games, source)
        obs, seen, rng = games.reset(), [], np.random.default_rng(3)
        for _ in range(25):
            actions = np.zeros(num_games, np.int64)
            actions[b] = rng.integers(8)
            seen.append(b"".join(obs[key][b].tobytes() for key in _KEYS))
            obs = games.step(actions).obs
        games.close()
        return seen

    assert play(1, 0) == play(3, 2)


class _Only:
    """The same episode in one game again and again, and others beside it."""

    def __init__(self, game, seeds):
        self._game, self._seeds = game, seeds
        self._others = TrainingSeeds(9, 0, 8)

    def next(self, game):
        return self._seeds if game == self._game else self._others.next(game)


def test_limits_and_character_are_those_of_the_task():
    limits = {id_: task(id_).max_episode_steps for id_ in own_levels()}
    assert limits == {
        "Yendor-Maze2D-Umaze-v0": 30,
        "Yendor-Maze2D-Medium-v0": 40,
        "Yendor-Maze2D-Large-v0": 60,
        "Yendor-Fork-v0": 30,
    }
    assert {(task(id_).character, len(task(id_).keys), task(id_).spawn_monsters) for id_ in limits} == {
        ("rog-hum-cha-mal", 8, False)
    }
