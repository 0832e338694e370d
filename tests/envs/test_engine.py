import gc
import multiprocessing
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from envs.data import EpisodeSeeds
from envs.engine import native, plain
from envs.engine.protocol import Start
from envs.game import starter
from envs.registered import read_spec
from envs.seeding import ListedSeeds, TrainingSeeds
from envs.spec import NLE_KEYS, GamesConfig
from envs.tasks import make

needs_native = pytest.mark.skipif(native.why_not() is not None, reason=str(native.why_not()))


def games_of(engine, task, num_games=2, seeds=None, **config):
    seeds = seeds or TrainingSeeds(0, 0, num_games)
    return make(GamesConfig(task=task, engine=engine, **config), num_games, seeds)


def random_actions(games, rng):
    if games.action_mask is None:
        return rng.integers(0, games.spec.num_actions, games.num_games)
    return np.array([rng.choice(np.flatnonzero(allowed)) for allowed in games.action_mask])


def shown(obs, messages=()):
    return b"".join(obs[key].tobytes() for key in sorted(obs)) + b"\n".join(messages)


def played(games, num_steps, seed=0):
    """Everything shown and paid over some random steps."""
    rng = np.random.default_rng(seed)
    out = [shown(games.reset())]
    for _ in range(num_steps):
        step = games.step(random_actions(games, rng))
        paid = [a.tobytes() for a in (step.reward, step.terminated, step.truncated, step.end_status)]
        out.append((shown(step.obs, step.messages), paid, step.finished))
    return out


@needs_native
@pytest.mark.parametrize(
    "task, keys, steps",
    [
        ("NetHackScore-v0", NLE_KEYS, 2500),
        ("NetHackScore-v0", ("glyphs", "blstats"), 2500),
        ("NetHackChallenge-v0", NLE_KEYS, 1500),
        ("NetHackStaircase-v0", NLE_KEYS, 1500),
        ("MiniHack-Room-Ultimate-15x15-v0", NLE_KEYS, 1500),
        ("MiniHack-KeyRoom-S5-v0", ("glyphs_crop", "blstats", "message"), 1500),
        ("MiniHack-River-Narrow-v0", ("tty_chars", "tty_colors", "tty_cursor"), 1000),
        ("MiniHack-Quest-Hard-v0", NLE_KEYS, 800),
        ("MiniHack-WoD-Hard-Full-v0", NLE_KEYS, 800),
        ("MiniHack-MultiRoom-N4-v0", NLE_KEYS, 300),
        ("MiniHack-Sokoban4a-v1", NLE_KEYS, 800),
        ("MiniHack-Room-5x5-v0, NetHackScore-v0", ("glyphs", "inv_strs"), 1000),
    ],
)
def test_native_games_are_nles_to_the_bit(task, keys, steps):
    results = []
    for engine in ("plain", "native"):
        games = games_of(engine, task, obs_keys=keys)
        results.append(played(games, steps))
        games.close()
    for t, (expected, found) in enumerate(zip(*results, strict=True)):
        assert found == expected, f"differs at step {t - 1}"


@needs_native
def test_a_random_character_is_drawn_by_the_seed():
    seeds = [EpisodeSeeds(s, s + 1, s + 2) for s in range(6)]
    texts = []
    for engine in ("plain", "native"):
        games = games_of(engine, "NetHackScore-v0", 1, ListedSeeds(seeds), obs_keys=NLE_KEYS, character="@")
        texts.append([])
        games.reset()
        for s in seeds:
            games._games[0].start(s)
            texts[-1].append(shown(games._observations.obs))
        games.close()
    assert texts[0] == texts[1] and len(set(texts[0])) == len(seeds)


def travelling_keys(rng):
    """Keys of a player who travels to the stairs wherever they are known, and else about."""
    chance = rng.random()
    if chance < 0.4:
        return b"\x1b\x1b_>.>"
    if chance < 0.45:
        return b"\x1b\x1b_<.<"
    if chance < 0.9:
        return b"\x1b\x1b" + bytes([b"KLJHUNBYkljhunby"[rng.integers(16)]])
    others = b"kljhunbyKLJHUNBY<>.a\x18@CdDeEFfiIOoPqQrRsTtvwWxXzZ\r"
    return bytes(others[k] for k in rng.integers(len(others), size=6))


@needs_native
def test_going_down_and_up_writes_and_reads_levels_as_nle_does():
    task, num_games = "NetHackChallenge-v0", 3
    keys = read_spec(task).keys
    results = []
    for engine in ("plain", "native"):
        games = games_of(engine, task, num_games, TrainingSeeds(3, 0, num_games), obs_keys=NLE_KEYS)
        games.reset()
        rng, out, deepest = np.random.default_rng(4), [], 0
        for _ in range(400):
            for key in travelling_keys(rng):
                if key not in keys:
                    continue
                step = games.step(np.full(num_games, keys.index(key)))
                out.append((shown(step.obs, step.messages), step.finished))
                deepest = max(deepest, int(step.obs["blstats"][:, 12].max()))
        games.close()
        results.append(out)
        assert deepest >= 2
    assert results[0] == results[1]


@needs_native
@pytest.mark.parametrize("saved, loaded", [("plain", "native"), ("native", "plain")])
def test_saved_games_replay_in_the_other_engine(saved, loaded):
    games = games_of(saved, "MiniHack-KeyRoom-S5-v0, NetHackScore-v0", 4)
    played(games, 300)
    state = games.state_dict()
    others = games_of(loaded, "MiniHack-KeyRoom-S5-v0, NetHackScore-v0", 4)
    others.load_state_dict(state)
    rng = np.random.default_rng(5)
    for _ in range(100):
        actions = random_actions(games, rng)
        one, other = games.step(actions), others.step(actions)
        assert shown(one.obs, one.messages) == shown(other.obs, other.messages)
    games.close()
    others.close()


@needs_native
def test_an_episode_does_not_depend_on_what_was_played_before():
    games = games_of("native", "NetHackScore-v0", 1, obs_keys=NLE_KEYS)
    games.reset()
    game, rng = games._games[0], np.random.default_rng(0)
    seen = []
    for length in (0, 10, 300, 1000):
        for _ in range(length):
            games.step(random_actions(games, rng))
        game.start(EpisodeSeeds(5, 6, 7))
        first = shown(games._buffers.rows(0))
        for key in b"jjllkhn20s":
            game.press(key)
        seen.append(first + shown(games._buffers.rows(0)))
    assert len(set(seen)) == 1
    games.close()


@needs_native
@pytest.mark.parametrize("task", ["NetHackScore-v0", "MiniHack-Room-5x5-v0"])
def test_a_start_writes_what_nles_writes_and_leaves_the_rest(task):
    results = []
    for engine in ("plain", "native"):
        games = games_of(engine, task, 1, obs_keys=NLE_KEYS)
        games.reset()
        rows, nethack = games._buffers.rows(0), games._games[0].nethack
        results.append([])
        for core in range(3):
            for row in rows.values():
                row.fill(101)
            nethack.begin(core, 2, 3)
            results[-1].append({key: row.tobytes() for key, row in rows.items()})
        games.close()
    assert results[0] == results[1]


@needs_native
def test_memory_does_not_grow_with_episodes():
    games = games_of("native", "MiniHack-Room-5x5-v0", 1)
    games.reset()
    game, rss = games._games[0], []
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    for k in range(3000):
        game.start(EpisodeSeeds(k, k, k))
        for key in b"jlkh":
            game.press(key)
        if k in (1000, 2999):
            gc.collect()
            rss.append(psutil.Process().memory_info().rss)
    assert rss[1] - rss[0] < 1 << 20
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files
    games.close()


@needs_native
def test_games_share_their_code():
    games = games_of("native", "MiniHack-Room-5x5-v0", 2)
    games.reset()
    before = psutil.Process().memory_full_info().uss
    more = games_of("native", "MiniHack-Room-5x5-v0", 32)
    more.reset()
    each = (psutil.Process().memory_full_info().uss - before) / 32
    assert each < 1.5 * (1 << 20)
    more.close()
    games.close()


@needs_native
def test_vectors_can_be_closed_and_made_again():
    maps = len(Path("/proc/self/maps").read_text().splitlines())
    for _ in range(5):
        games = [games_of("native", "MiniHack-Room-5x5-v0", 4) for _ in range(2)]
        expected = [played(g, 50) for g in games]
        assert expected[0] == expected[1]
        for g in games:
            g.close()
    assert len(Path("/proc/self/maps").read_text().splitlines()) <= maps + 8


@needs_native
def test_vectors_can_be_played_in_threads():
    vectors = [games_of("native", "MiniHack-Room-Ultimate-15x15-v0", 2, obs_keys=NLE_KEYS) for _ in range(3)]
    outs = [[] for _ in vectors]
    threads = [
        threading.Thread(target=lambda games, out: out.append(played(games, 400)), args=(games, out))
        for games, out in zip(vectors, outs, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for games in vectors:
        games.close()
    assert outs[0] == outs[1] == outs[2] and outs[0]


@needs_native
def test_a_game_can_move_between_threads():
    games = games_of("native", "NetHackScore-v0", 1, obs_keys=NLE_KEYS)
    reference = games_of("native", "NetHackScore-v0", 1, obs_keys=NLE_KEYS)
    expected = played(reference, 60)
    found, rng = [], np.random.default_rng(0)

    def one(t):
        if t < 0:
            found.append(shown(games.reset()))
            return
        step = games.step(random_actions(games, rng))
        found.append(shown(step.obs, step.messages))

    for t in range(-1, 60):
        thread = threading.Thread(target=one, args=(t,))
        thread.start()
        thread.join()
    assert found[1:] == [text for text, _, _ in expected[1:]] and found[0] == expected[0]
    games.close()
    reference.close()


def _played_in_child(games, num_steps, queue):
    queue.put(played(games, num_steps))


@needs_native
def test_a_forked_child_plays_on_with_games_of_its_own():
    games = games_of("native", "MiniHack-Room-5x5-v0", 2, ListedSeeds([EpisodeSeeds(k, k, k) for k in range(20)]))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_played_in_child, args=(games, 100, queue))
    child.start()
    in_child = queue.get(timeout=60)
    child.join()
    assert child.exitcode == 0
    assert played(games, 100) == in_child
    folder = games._games[0].folder
    assert folder.is_dir()
    games.close()
    assert not folder.exists()


def start_of(tmp_path, task="MiniHack-Room-5x5-v0", **rows):
    spec = read_spec(task)
    return Start(tmp_path, spec.options, f"Agent-{spec.character}", spec.spawn_monsters, rows)


@needs_native
def test_arrays_of_a_wrong_kind_are_refused(tmp_path):
    good = np.zeros(27, np.int64)
    for wrong in (np.zeros(27, np.int32), np.zeros(26, np.int64), np.zeros(54, np.int64)[::2]):
        with pytest.raises((ValueError, BufferError)):
            native.NativeNetHack(start_of(tmp_path, blstats=wrong))
    with pytest.raises(TypeError, match="fills no 'hp'"):
        native.NativeNetHack(start_of(tmp_path, hp=good))
    good.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        native.NativeNetHack(start_of(tmp_path, blstats=good))


@needs_native
def test_keys_before_the_start_and_after_the_end_are_refused(tmp_path):
    game = native.NativeNetHack(start_of(tmp_path, "NetHackScore-v0"))
    with pytest.raises(RuntimeError, match="without reset"):
        game.press(32)
    with pytest.raises(RuntimeError, match="before set_initial_seeds"):
        game._low.reset()
    game.begin(1, 2, 3)
    for key in b"   #quit\ry" + b" " * 60:
        if game.is_over():
            break
        game.press(key)
    assert game.is_over() and game.how_done().name == "QUIT"
    with pytest.raises(RuntimeError, match="finished"):
        game.press(32)
    game.begin(1, 2, 3)
    assert not game.is_over()
    game.close()
    for use in (game.begin, game.press):
        with pytest.raises(RuntimeError):
            use(*([1, 2, 3] if use == game.begin else [32]))
    game.close()


@needs_native
@pytest.mark.parametrize("engine", ["plain", "native"])
def test_the_birthday_can_be_set(engine):
    games = games_of(engine, "NetHackScore-v0", 1, ListedSeeds([EpisodeSeeds(77, 1, 1)]))
    games.reset()
    assert games._games[0].nethack.birthday() == 77
    games.close()


@needs_native
def test_a_snapshot_is_taken_and_a_new_level_makes_a_new_one(tmp_path):
    games = games_of("native", "MiniHack-MultiRoom-N4-v0", 1)
    games.reset()
    game = games._games[0]
    seen = []
    for lgen in (1, 2, 1):
        game.start(EpisodeSeeds(1, 1, lgen))
        assert game.nethack._low.has_snapshot
        seen.append(shown(games._buffers.rows(0)))
    assert seen[0] == seen[2] != seen[1]
    games.close()


@needs_native
@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(200)])
def test_what_is_no_library_is_refused(tmp_path, content):
    from envs.engine import _native

    path = tmp_path / "lib.so"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"lib\.so "):
        _native.Library(path)
    with pytest.raises(ValueError, match="cannot be opened"):
        _native.Library(tmp_path / "absent.so")


@needs_native
def test_a_library_that_is_not_nethack_is_refused():
    from envs.engine import _native

    other = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so.6" in line)
    with pytest.raises(ValueError, match=r"libc\.so\.6 "):
        _native.Library(other)


def test_another_nle_is_played_plainly(monkeypatch):
    monkeypatch.setattr(native, "version", lambda name: "9.9")
    native._library.cache_clear()
    native.why_not.cache_clear()
    try:
        assert starter("auto") is plain.PlainNetHack
        with pytest.raises(ValueError, match="engine 'native' cannot be had"):
            starter("native")
        games = games_of("auto", "MiniHack-Room-5x5-v0", 1)
        games.reset()
        games.close()
    finally:
        monkeypatch.undo()
        native._library.cache_clear()
        native.why_not.cache_clear()


@needs_native
def test_auto_is_native_where_it_can_be_had():
    assert starter("auto") is starter("native") is native.NativeNetHack
    assert starter("plain") is plain.PlainNetHack


def test_without_the_extension_games_are_played_plainly(monkeypatch):
    import envs.engine

    monkeypatch.delattr(envs.engine, "_native", raising=False)
    monkeypatch.setitem(sys.modules, "envs.engine._native", None)
    native._library.cache_clear()
    native.why_not.cache_clear()
    try:
        assert starter("auto") is plain.PlainNetHack
        with pytest.raises(ValueError, match="was not built"):
            starter("native")
    finally:
        monkeypatch.undo()
        native._library.cache_clear()
        native.why_not.cache_clear()
