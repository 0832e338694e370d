"""The walker, on maps small enough to count its ways by hand."""

import numpy as np
import pytest

from agents.evaluate import EpisodeNoise
from agents.walker import Walker
from envs.glyphs import COLS, ROWS, STONE
from envs.protocols import GamesSpec, ObsSpec
from envs.seeding import TrainingSeeds
from envs.spec import GamesConfig
from envs.tasks import make

_NAMES = ("north", "east", "south", "west", "northeast", "southeast", "southwest", "northwest")
_DELTAS = dict(zip(_NAMES, [(0, -1), (1, 0), (0, 1), (-1, 0), (1, -1), (1, 1), (-1, 1), (-1, -1)], strict=True))
_GLYPHS = {".": STONE + 19, ">": STONE + 24, "|": STONE + 1, "+": STONE + 16, "'": STONE + 13, "@": 337, " ": STONE}
_SHOWN = {
    "glyphs": ObsSpec(shape=(ROWS, COLS), dtype=np.dtype(np.int16)),
    "blstats": ObsSpec(shape=(27,), dtype=np.dtype(np.int64)),
}


class Given:
    """Noise that was written down: what decides on exploring, which action, which square."""

    def __init__(self, *rows):
        self._rows = np.array(rows, np.float32)

    def uniform(self, num, games=None):
        return self._rows


class Drawn:
    """One generator for all games."""

    def __init__(self, num_games, seed=0):
        self._num_games, self._rng = num_games, np.random.default_rng(seed)

    def uniform(self, num, games=None):
        return self._rng.random((self._num_games, num), dtype=np.float32)


def _spec(names=_NAMES, obs=_SHOWN):
    return GamesSpec(tasks=("x",), obs=obs, action_names=tuple(names))


def _obs(*rows, num_games=1):
    """The map that rows of characters draw from the upper left corner, in every game."""
    glyphs = np.full((num_games, ROWS, COLS), STONE, np.int16)
    blstats = np.zeros((num_games, 27), np.int64)
    for y, row in enumerate(rows):
        for x, char in enumerate(row):
            glyphs[:, y, x] = _GLYPHS[char]
            if char == "@":
                blstats[:, :2] = x, y
    return {"glyphs": glyphs, "blstats": blstats}


def _memory(x, y, steps=1):
    return np.array([[y * COLS + x + 1, steps]], np.float32)


def _likelihoods(walker, obs, memory):
    """``{action: probability}``, by giving it every noise of a grid; also checks ``log_prob`` against the counts."""
    levels = (np.arange(200) + 0.5) / 200
    counts, said = {}, {}
    for explore in levels:
        for which in levels[::5]:
            step = walker.act(obs, memory, None, Given([explore, which, 0.5]))
            name = _NAMES[step.actions[0]]
            counts[name] = counts.get(name, 0) + 1
            said[name] = float(np.exp(step.log_prob[0]))
    found = {name: count / (200 * 40) for name, count in counts.items()}
    assert found == pytest.approx(said, abs=2e-2)
    return said


def test_each_shortest_first_move_is_equally_likely():
    obs = _obs("@..", "...", "...")
    said = _likelihoods(Walker(_spec(), epsilon=0.2), obs, _memory(2, 1))
    assert said["east"] == pytest.approx(0.2 / 8 + 0.8 / 2)
    assert said["southeast"] == pytest.approx(0.2 / 8 + 0.8 / 2)
    assert said["north"] == pytest.approx(0.2 / 8)
    assert sum(said.values()) == pytest.approx(1)


def test_without_noise_it_arrives_in_the_fewest_moves():
    walker, memory, at = Walker(_spec(), epsilon=0.0), _memory(4, 2, 0), (0, 0)
    for moves in range(4):
        rows = [list(".. .."), list(".. .."), list(".....")]
        rows[at[1]][at[0]] = "@"
        step = walker.act(_obs(*map("".join, rows)), memory, None, Given([0.9, 0.9, 0.0]))
        memory, delta = step.recurrent_state, _DELTAS[_NAMES[step.actions[0]]]
        at = (at[0] + delta[0], at[1] + delta[1])
        assert memory[0].tolist() == [2 * COLS + 4 + 1, moves + 1]
    assert at == (4, 2)


def test_it_keeps_off_the_stairs_unless_told_to_go_there():
    rows = ("@>.", "...")
    said = _likelihoods(Walker(_spec(), epsilon=0.7), _obs(*rows), _memory(2, 0))
    assert "east" not in said and said["southeast"] == pytest.approx(0.7 / 7 + 0.3)
    told = Walker(_spec(), epsilon=0.0, to_stairs=True)
    assert told.act(_obs(*rows), None, None, Given([0.5, 0.5, 0.5])).actions[0] == _NAMES.index("east")


def test_trips_are_short_and_over_in_time():
    obs = _obs("@.........")
    walker = Walker(_spec(), epsilon=0.0, trip_steps=3)
    drawn = {
        int(walker.act(obs, None, None, Given([0.5, 0.5, where])).recurrent_state[0, 0]) - 1
        for where in np.linspace(0, 0.999, 20)
    }
    assert drawn == {1, 2, 3}
    late = walker.act(obs, _memory(9, 0, steps=3), None, Given([0.5, 0.5, 0.0]))
    assert late.recurrent_state[0].tolist() == [1 + 1, 1]
    arrived = Walker(_spec()).act(obs, _memory(0, 0), None, Given([0.5, 0.5, 0.99]))
    assert arrived.recurrent_state[0].tolist() == [9 + 1, 1]


def test_open_doors_are_passed_straight_and_closed_ones_not_at_all():
    through = ("@|.", ".'.", " | ")
    step = Walker(_spec(), epsilon=0.0).act(_obs(*through), _memory(2, 0), None, Given([0.5, 0.5, 0.5]))
    assert _NAMES[step.actions[0]] == "south"
    shut = Walker(_spec(), epsilon=0.0).act(_obs("@+."), _memory(2, 0), None, Given([0.5, 0.5, 0.5]))
    assert shut.log_prob[0] == pytest.approx(np.log(1 / 8)) and shut.recurrent_state.tolist() == [[0, 0]]


def test_games_side_by_side_do_not_disturb_each_other():
    obs = _obs("@....", ".....", num_games=3)
    obs["blstats"][1, 0], obs["glyphs"][1, 0, :2] = 1, (_GLYPHS["."], _GLYPHS["@"])
    walker, noise = Walker(_spec()), [[0.1, 0.7, 0.2], [0.9, 0.3, 0.8], [0.5, 0.5, 0.4]]
    together = walker.act(obs, None, None, Given(*noise))
    for b in range(3):
        alone = Walker(_spec()).act({key: x[b : b + 1] for key, x in obs.items()}, None, None, Given(noise[b]))
        assert alone.actions[0] == together.actions[b] and alone.log_prob[0] == together.log_prob[b]
        assert alone.recurrent_state[0].tolist() == together.recurrent_state[b].tolist()


def test_masked_actions_are_not_taken():
    mask = np.ones((1, 9), bool)
    mask[0, [_NAMES.index("east"), 8]] = False
    walker = Walker(_spec((*_NAMES, "apply")), epsilon=0.5)
    step = walker.act(_obs("@.."), _memory(2, 0), mask, Given([0.9, 0.99, 0.0]))
    assert step.log_prob[0] == pytest.approx(np.log(1 / 7)) and step.actions[0] == _NAMES.index("northwest")


def test_it_never_ends_an_episode_of_a_maze():
    from envs.seeding import TrainingSeeds
    from envs.spec import GamesConfig
    from envs.tasks import make

    games = make(GamesConfig(task="Yendor-Maze2D-Umaze-v0", obs_keys=tuple(_SHOWN)), 8, TrainingSeeds(0, 0, 8))
    walker, noise, obs, memory, ends = Walker(games.spec, epsilon=0.3), Drawn(8), games.reset(), None, []
    for _ in range(120):
        step = walker.act(obs, memory, games.action_mask, noise)
        played = games.step(step.actions)
        obs, done = played.obs, played.terminated | played.truncated
        memory = np.where(done[:, None], np.float32(0), step.recurrent_state)
        ends += [result.success for result in played.finished.values()]
    games.close()
    assert ends == [False] * 32


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epsilon": 1.5}, "epsilon is a share from 0 to 1, not 1.5"),
        ({"trip_steps": 0}, "at least 1 step, not 0"),
        ({"names": _NAMES[:7]}, "no action 'northwest'"),
        ({"obs": {"blstats": _SHOWN["blstats"]}}, "looks at 'glyphs', which these games do not show"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(change, sentence):
    spec = _spec(change.pop("names", _NAMES), change.pop("obs", _SHOWN))
    with pytest.raises(ValueError, match=sentence):
        Walker(spec, **change)


def test_the_way_to_the_stairs_is_as_long_as_it_takes():
    config = GamesConfig(task="Yendor-Maze2D-Umaze-v0", obs_keys=("glyphs", "blstats"))
    games = make(config, 3, TrainingSeeds(0, 0, 3))
    try:
        obs = games.reset()
        walker = Walker(games.spec, epsilon=0, to_stairs=True)
        ways = walker.steps_to_stairs(obs)
        memory, noise, taken = walker.initial_state(3), EpisodeNoise(3), [0, 0, 0]
        for _ in range(30):
            acted = walker.act(obs, memory, None, noise)
            played = games.step(acted.actions)
            for b, result in played.finished.items():
                taken[b] = taken[b] or (result.num_steps if result.success else -1)
            obs, memory = played.obs, acted.recurrent_state
            memory[played.terminated] = 0
            if all(taken):
                break
        assert taken == ways
    finally:
        games.close()
