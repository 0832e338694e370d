import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from envs.data import EndStatus, EpisodeSeeds
from envs.levels import CompiledLevel, Dungeon
from envs.registered import read_spec
from envs.seeding import ListedSeeds, TrainingSeeds
from envs.spec import GamesConfig
from envs.tasks import make

KEYS = ("glyphs_crop", "blstats", "message")


def games_of(task, num_games=2, seeds=None, **config):
    config = {"obs_keys": KEYS, **config}
    return make(GamesConfig(task=task, **config), num_games, seeds or TrainingSeeds(0, 0, num_games))


def copied(obs):
    return {key: array.copy() for key, array in obs.items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert np.array_equal(a[key], b[key]), key


def assert_same_step(a, b):
    assert_equal(a.obs, b.obs)
    for name in ("reward", "terminated", "truncated", "end_status"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert a.messages == b.messages and a.finished == b.finished
    assert_equal(a.features, b.features)


def played(task, seeds, actions, **config):
    """Everything shown and paid while playing ``actions`` in one game, as bytes."""
    games = games_of(task, 1, ListedSeeds(seeds), **config)
    shown = [b"".join(a.tobytes() for a in games.reset().values())]
    for action in actions:
        step = games.step(np.array([action]))
        shown.append(b"".join(a.tobytes() for a in step.obs.values()) + step.reward.tobytes() + step.messages[0])
    games.close()
    return shown


def test_crops_are_centred_on_the_hero_and_padded_with_zero():
    games = games_of("NetHackScore-v0", obs_keys=("glyphs", "glyphs_crop", "blstats"), crop=45)
    obs = games.reset()
    for b in range(2):
        x, y = obs["blstats"][b, :2]
        padded = np.pad(obs["glyphs"][b], 22)
        assert np.array_equal(obs["glyphs_crop"][b], padded[y : y + 45, x : x + 45])
    games.close()


def test_time_limits_are_truncations_with_the_last_observation():
    games = games_of("MiniHack-River-v0", max_episode_steps=3)
    games.reset()
    for _ in range(2):
        step = games.step(np.zeros(2, np.int64))
        assert not (step.terminated | step.truncated).any() and not step.final_obs
    step = games.step(np.zeros(2, np.int64))
    assert step.truncated.all() and not step.terminated.any()
    assert (step.end_status == EndStatus.ABORTED).all()
    assert set(step.final_obs) == set(step.finished) == {0, 1}
    assert step.final_obs[0]["blstats"].any()
    result = step.finished[0]
    assert (result.num_steps, result.success, result.game["end_reason"]) == (3, False, "ABORTED")
    assert result.env_return <= 0
    games.close()


def test_limits_can_be_longer_than_the_tasks_own():
    games = games_of("MiniHack-River-v0", 1, max_episode_steps=400)
    games.reset()
    ends = [games.step(np.array([7])).truncated[0] for _ in range(400)]
    assert read_spec("MiniHack-River-v0").max_episode_steps == 350
    assert ends.index(True) == 399
    games.close()


def test_a_lost_game_shows_its_last_blstats_and_says_why():
    games = games_of("MiniHack-Room-Ultimate-15x15-v0", 4)
    games.reset()
    rng = np.random.default_rng(0)
    for _ in range(3000):
        step = games.step(rng.integers(0, 8, 4))
        lost = [b for b, r in step.finished.items() if r.end_status == EndStatus.DEATH]
        if lost:
            break
    b = lost[0]
    game = step.finished[b].game
    assert step.terminated[b] and step.final_obs[b]["blstats"][20] == game["turns"] > 0
    assert game["end_reason"] == "DIED" and game["death_message"].startswith("killed by")
    assert step.messages[b].endswith(b"You die...") and b"\n" in step.messages[b]
    games.close()


def test_a_won_game_pays_and_counts_as_success():
    games = games_of("MiniHack-Room-5x5-v0", 1)
    games.reset()
    total = 0.0
    rng = np.random.default_rng(1)
    while True:
        step = games.step(rng.integers(0, 8, 1))
        total += float(step.reward[0])
        if 0 in step.finished and step.finished[0].success:
            break
        if 0 in step.finished:
            total = 0.0
    result = step.finished[0]
    assert result.end_status == EndStatus.TASK_SUCCESSFUL and step.terminated[0]
    assert result.env_return == pytest.approx(total, abs=1e-4) and step.reward[0] >= 0.99
    games.close()


def test_games_go_idle_when_there_are_no_more_episodes():
    seeds = ListedSeeds([EpisodeSeeds(1, 1, 1), EpisodeSeeds(2, 2, 2), EpisodeSeeds(3, 3, 3)])
    games = games_of("MiniHack-River-v0", 2, seeds, max_episode_steps=4)
    games.reset()
    steps = [games.step(np.array([1, 1])) for _ in range(4)]
    assert games.active.tolist() == [True, False]
    assert [r.seeds.core for r in steps[-1].finished.values()] == [1, 2]
    still = copied(steps[-1].obs)
    for _ in range(4):
        step = games.step(np.array([1, 1]))
        assert np.array_equal(step.obs["glyphs_crop"][1], still["glyphs_crop"][1])
        assert step.reward[1] == 0 and not step.truncated[1] and step.messages[1] == b""
    assert list(step.finished) == [0] and not games.active.any()
    assert not games.step(np.array([1, 1])).finished
    games.close()


def test_shopkeepers_do_not_depend_on_the_wall_clock():
    games = games_of("NetHackScore-v0", 1, ListedSeeds([EpisodeSeeds(77, 1, 1)]))
    games.reset()
    assert games._games[0].nethack.birthday() == 77
    games.close()


def test_a_level_that_does_not_compile_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="the level does not compile: "):
        CompiledLevel("MAZE: no such thing", tmp_path)


def test_a_game_without_its_level_is_an_error():
    games = games_of("MiniHack-Room-5x5-v0", 1)
    game = games._games[0]
    game.level = Dungeon()
    (game.folder / "nhdat").unlink(missing_ok=True)
    with pytest.raises(RuntimeError):
        games.reset()
    games.close()


def test_several_tasks_share_the_union_of_their_actions():
    games = games_of("MiniHack-Room-5x5-v0,MiniHack-KeyRoom-S5-v0", 3)
    assert [t.split("-")[1] for t in games.spec.tasks] == ["Room", "KeyRoom", "Room"]
    assert games.spec.num_actions == 10
    assert games.action_mask.sum(1).tolist() == [8, 10, 8]
    games.reset()
    games.step(np.array([7, 9, 0]))
    with pytest.raises(ValueError, match=r"game 2 \(MiniHack-Room-5x5-v0\) has no action 'apply'"):
        games.step(np.array([7, 9, 9]))
    with pytest.raises(ValueError, match=r"actions must be in 0\.\.9"):
        games.step(np.array([0, 0, 10]))
    games.close()


def test_a_game_in_company_plays_as_it_does_alone():
    seeds = [EpisodeSeeds(s, s, s) for s in (5, 6)]
    alone = played("MiniHack-KeyRoom-S5-v0", seeds[1:], [0, 3, 8, 9, 2] * 4)
    games = games_of("MiniHack-Room-5x5-v0,MiniHack-KeyRoom-S5-v0", 2, ListedSeeds(seeds))
    obs = games.reset()
    own = [games.spec.action_names.index(read_spec("MiniHack-KeyRoom-S5-v0").action_names[a]) for a in [0, 3, 8, 9, 2]]
    assert b"".join(a[1].tobytes() for a in obs.values()) == alone[0]
    for action, expected in zip(own * 4, alone[1:], strict=True):
        step = games.step(np.array([0, action]))
        shown = b"".join(a[1].tobytes() for a in step.obs.values()) + step.reward[1:].tobytes() + step.messages[1]
        assert shown == expected
    games.close()


@pytest.mark.parametrize("task", ["NetHackScoreExtended-v0", "MiniHack-MultiRoom-N2-Monster-v0"])
def test_an_episode_is_a_function_of_its_seeds_and_actions(task):
    actions = np.random.default_rng(2).integers(0, 8, 35).tolist()
    seeds = EpisodeSeeds(11, 12, 13)
    assert played(task, [seeds], actions) == played(task, [seeds], actions)
    assert played(task, [seeds], actions) != played(task, [EpisodeSeeds(11, 12, 14)], actions)


def test_episodes_replay_after_others_and_in_another_process():
    code = (
        "import json, sys, zlib; sys.path[:0] = json.loads(sys.argv[1])\n"
        "from test_vector import checksum_after\n"
        "print(checksum_after(0))"
    )
    paths = json.dumps([str(p) for p in (Path(__file__).parent, *sys.path)])
    there = subprocess.run([sys.executable, "-c", code, paths], capture_output=True, text=True, check=True)
    assert int(there.stdout.split()[-1]) == checksum_after(0) == checksum_after(3)


def checksum_after(num_others):  # also called in another process
    """Checksum of a NetHackScore episode played after ``num_others`` other ones in the same game object."""
    seeds = [EpisodeSeeds(100 + i, 0, i) for i in range(num_others)] + [EpisodeSeeds(7, 7, 7)]
    games = games_of("NetHackScore-v0", 1, ListedSeeds(seeds), max_episode_steps=150)
    games.reset()
    rng = np.random.default_rng(4)
    for _ in range(150 * num_others):
        games.step(rng.integers(0, 23, 1))
    rng, total = np.random.default_rng(5), 0
    assert games.state_dict()["seeds"] == [[7, 7, 7]]
    for _ in range(149):
        step = games.step(rng.integers(0, 23, 1))
        total = zlib.crc32(b"".join(a.tobytes() for a in step.obs.values()), total)
    games.close()
    return total


@pytest.mark.parametrize(
    "task",
    ["MiniHack-KeyRoom-S5-v0,NetHackScore-v0,MiniHack-MultiRoom-N2-v0", "MiniHack-Memento-Short-F2-v0"],
)
def test_saved_games_continue_identically(task):
    config = {"max_episode_steps": 60}
    num_games = 4
    one = games_of(task, num_games, **config)
    one.reset()
    rng = np.random.default_rng(3)

    def actions():
        if one.action_mask is None:
            return rng.integers(0, one.spec.num_actions, num_games)
        return np.array([rng.choice(np.flatnonzero(row)) for row in one.action_mask])

    for _ in range(85):
        shown = copied(one.step(actions()).obs)
    state = one.state_dict()
    other = games_of(task, num_games, **config)
    other.reset()
    assert_equal(other.load_state_dict(state), shown)
    for _ in range(85):
        chosen = actions()
        assert_same_step(one.step(chosen), other.step(chosen))
    one.close()
    other.close()


def test_saved_idle_games_stay_as_they_were():
    seeds = [EpisodeSeeds(1, 1, 1)]
    one = games_of("MiniHack-River-v0", 2, ListedSeeds(seeds), max_episode_steps=9)
    one.reset()
    shown = copied(one.step(np.array([1, 1])).obs)
    other = games_of("MiniHack-River-v0", 2, ListedSeeds([]), max_episode_steps=9)
    assert_equal(other.load_state_dict(one.state_dict()), shown)
    assert other.active.tolist() == [True, False]
    for _ in range(9):
        assert_same_step(one.step(np.array([2, 2])), other.step(np.array([2, 2])))
    one.close()
    other.close()


def test_saved_games_of_other_tasks_are_refused():
    one, other = games_of("MiniHack-River-v0", 1), games_of("MiniHack-Room-5x5-v0", 1)
    one.reset()
    with pytest.raises(ValueError, match="the saved games are of"):
        other.load_state_dict(one.state_dict())
    one.close()
    other.close()


def test_a_replay_that_goes_elsewhere_is_an_error():
    games = games_of("MiniHack-River-v0", 1)
    games.reset()
    state = dict(games.state_dict())
    state["checksums"] = [0]
    with pytest.raises(RuntimeError, match="did not replay"):
        games.load_state_dict(state)
    games.close()


def test_all_pages_of_a_turn_are_in_its_message():
    games = games_of("NetHackScore-v0", 4)
    games.reset()
    dismissed = [[] for _ in range(4)]
    for game, pages in zip(games._games, dismissed, strict=True):
        keep = game.keep_page
        game.keep_page = lambda keep=keep, game=game, pages=pages: (pages.append(game.message()), keep())
    rng = np.random.default_rng(0)
    turns_with_pages = 0
    for _ in range(1500):
        for pages in dismissed:
            pages.clear()
        step = games.step(rng.integers(0, 23, 4))
        for pages, message in zip(dismissed, step.messages, strict=True):
            turns_with_pages += len(pages) > 0
            assert all(page in message for page in pages)
    assert turns_with_pages > 5
    games.close()


def test_map_summary_and_features_are_wired():
    names = ("obs.hp", "obs.message")
    games = games_of("MiniHack-River-v0", obs_keys=("map_summary", "blstats"), features=names)
    obs = games.reset()
    assert obs["map_summary"].shape[0] == 2 and obs["map_summary"].any()
    step = games.step(np.array([0, 1]))
    assert set(step.features) == set(names)
    assert np.array_equal(step.features["obs.hp"], step.obs["blstats"][:, 10])
    games.close()
