"""Logged episodes, played again, show what they showed; what goes another way is named."""

from dataclasses import replace

import numpy as np
import pytest

from envs.captions import canonical_of_raw, caption_id
from envs.datasets import Dataset, DatasetWriter, Manifest
from envs.replaying import DIGESTED_KEYS, Digests, Replay, games_of, lanes_of, logged_episodes
from envs.seeding import TrainingSeeds
from envs.spec import GamesConfig
from envs.tasks import make, specs_of

_MAZE = "Yendor-Maze2D-Umaze-v0"
_KEPT = ("glyphs", "glyphs_crop", "message")


class _Seeds(TrainingSeeds):
    """Remembers what it gave last."""

    def __init__(self, num_games):
        super().__init__(7, 0, num_games)
        self.given = {}

    def next(self, game):
        self.given[game] = super().next(game)
        return self.given[game]


def _recorded(path, tasks=_MAZE, num_games=3, num_steps=70, **changes):
    """Random play of so many steps a game, the last episodes unfinished; returns captions of each step too."""
    config = GamesConfig(task=tasks, obs_keys=tuple(dict.fromkeys((*_KEPT, *DIGESTED_KEYS))), **changes)
    seeds = _Seeds(num_games)
    games, rng, digests = make(config, num_games, seeds), np.random.default_rng(5), Digests(num_games)
    kept = {key: games.spec.obs[key] for key in _KEPT}
    obs, said = games.reset(), [[] for _ in range(num_games)]
    with DatasetWriter.create(
        path, Manifest.of_games(config, specs_of(config), kept, [{"policy": "random"}])
    ) as writer:
        shards = [writer.shard(f"{b}", b % len(config.task_ids)) for b in range(num_games)]
        for b, shard in enumerate(shards):
            shard.begin(seeds.given[b])
        for t in range(num_steps):
            actions = rng.integers(0, 8, num_games)
            before = {key: rows.copy() for key, rows in obs.items()}
            played = games.step(actions)
            for b, shard in enumerate(shards):
                digests.add(b, {key: before[key][b] for key in DIGESTED_KEYS})
                said[b].append(caption_id(canonical_of_raw(played.messages[b])) if played.messages[b] else 0)
                shard.step(
                    action=int(actions[b]),
                    log_prob=None,
                    policy=0,
                    reward=float(played.reward[b]),
                    terminated=bool(played.terminated[b]),
                    truncated=bool(played.truncated[b]),
                    end_status=int(played.end_status[b]),
                    obs={key: before[key][b] for key in _KEPT},
                )
                if b in played.final_obs or t == num_steps - 1:
                    last = played.final_obs.get(b) or {key: rows[b] for key, rows in played.obs.items()}
                    digests.add(b, last)
                    shard.end(last, digests.take(b))
                    if t < num_steps - 1:
                        shard.begin(seeds.given[b])
            obs = played.obs
    games.close()
    return Dataset.open(path), said


@pytest.fixture(scope="module")
def maze(tmp_path_factory):
    """70 random steps of three games, and the captions of each."""
    return _recorded(tmp_path_factory.mktemp("data") / "maze")


def _rows(chunks, column):
    """What lanes showed where they were logged, ``[steps of lane b, ...]`` for each."""
    chunks = list(chunks)
    num_lanes = chunks[0].logged.shape[1]
    return [np.concatenate([column(chunk)[chunk.logged[:, b], b] for chunk in chunks]) for b in range(num_lanes)]


def _shard_rows(data, column, shard):
    starts = np.cumsum([0, *(s.num_steps for s in data.shards)])
    return data.read(column, int(starts[shard]), int(starts[shard + 1]))


def test_observations_captions_and_columns_are_made_again(maze):
    data, said = maze
    lanes, shards = lanes_of(data, range(3))
    config = games_of(data, obs_keys=("glyphs_crop", "glyphs"), features=("info.step_in_episode",))
    with Replay(config, lanes) as replay:
        assert list(replay.spec.obs) == ["glyphs_crop", "glyphs"] and replay.num_steps == data.num_steps
        chunks = list(replay.chunks(32, captions=True))
    assert [len(chunk.logged) for chunk in chunks] == [32, 32, 6] and shards == [0, 1, 2]
    for key in ("glyphs", "glyphs_crop"):
        for b, rows in enumerate(_rows(chunks, lambda chunk, key=key: chunk.rollout.obs[key][:-1])):
            np.testing.assert_array_equal(rows, _shard_rows(data, f"obs.{key}", b))
    for b, ids in enumerate(_rows(chunks, lambda chunk: chunk.rollout.caption_id)):
        assert ids.tolist() == said[b]
    steps = _rows(chunks, lambda chunk: chunk.rollout.features["info.step_in_episode"])
    assert steps[0].tolist()[:3] == [0, 1, 2]
    assert _rows(chunks, lambda chunk: chunk.rollout.step_in_episode)[0].tolist() == steps[0].tolist()
    rewards = _rows(chunks, lambda chunk: chunk.rollout.env_reward)
    assert rewards[2].tolist() == _shard_rows(data, "reward.env", 2).tolist()


def test_ends_last_observations_and_digests_are_made_again(maze):
    data, _ = maze
    lanes, _ = lanes_of(data, range(3))
    with Replay(games_of(data, obs_keys=("glyphs",)), lanes) as replay:
        found = {b: [] for b in range(3)}
        for chunk in replay.chunks(25):
            reached = chunk.rollout.reached("glyphs")
            for (t, b), digest in zip(chunk.ends.tolist(), chunk.digests.tolist(), strict=True):
                found[b].append((digest, reached[t, b].tobytes()))
    episodes, last = data.episodes, data.last("glyphs")
    for b in range(3):
        own = np.flatnonzero(episodes.shard == b)
        assert found[b] == [(int(episodes.digest[i]), last[i].tobytes()) for i in own]
        assert not episodes.finished[own[-1]] and episodes.finished[own[:-1]].all()


def test_lanes_may_be_of_different_lengths_and_deal_episodes_otherwise(maze):
    data, _ = maze
    finished = np.flatnonzero(data.episodes.finished)
    lanes = [logged_episodes(data, finished[:1]), logged_episodes(data, finished[1:])]
    with Replay(games_of(data, obs_keys=("message",)), lanes) as replay:
        digests = [int(d) for chunk in replay.chunks() for d in chunk.digests]
    assert sorted(digests) == sorted(data.episodes.digest[finished].tolist())


def test_games_of_several_tasks_are_dealt_as_they_were_recorded(tmp_path):
    data, _ = _recorded(tmp_path / "data", f"{_MAZE},MiniHack-KeyRoom-S5-v0", num_games=3, num_steps=40)
    lanes, shards = lanes_of(data, range(3))
    assert shards == [0, 1, 2, -1]
    with Replay(games_of(data, obs_keys=("glyphs",)), lanes) as replay:
        chunks = list(replay.chunks())
    for b in range(3):
        np.testing.assert_array_equal(
            _rows(chunks, lambda chunk: chunk.rollout.obs["glyphs"][:-1])[b], _shard_rows(data, "obs.glyphs", b)
        )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"digest": 5}, r"episode 0 of .* at step \d+, the game has shown something else by then"),
        (
            {"rewards": None},
            r"at step 3, the game pays .* for it, and paid 0.5; were NLE, MiniHack or the level changed",
        ),
        ({"end_status": 1}, r"at step \d+, the game is \w+ after it, and was DEATH"),
    ],
)
def test_a_replay_that_differs_names_episode_and_step(maze, change, sentence):
    data, _ = maze
    (episode,) = logged_episodes(data, [0])
    if "rewards" in change:
        wrong = episode.rewards.copy()
        wrong[3] = 0.5
        change = {"rewards": wrong}
    with (
        Replay(games_of(data, obs_keys=("message",)), [[replace(episode, **change)]]) as replay,
        pytest.raises(ValueError, match=sentence),
    ):
        list(replay.chunks())


def test_what_cannot_be_played_again_is_one_sentence(maze):
    data, _ = maze
    unfinished = np.flatnonzero(~data.episodes.finished)
    with pytest.raises(ValueError, match="was left unfinished: only the last one of a lane may be"):
        Replay(games_of(data, obs_keys=("message",)), [logged_episodes(data, unfinished)])
    actions = data.manifest.actions
    renamed = (actions[0].__class__(name="north", key=1, token=0), *actions[1:])
    other = Dataset(data.path, data.manifest.replace(actions=renamed), data.shards)
    with pytest.raises(ValueError, match=r"another action table: action 0 is 'north' \(key 1\)"):
        games_of(other, obs_keys=("message",))
    with pytest.raises(ValueError, match="does not say how its games were configured"):
        games_of(Dataset(data.path, data.manifest.replace(games={}), data.shards), obs_keys=("message",))


def test_a_digest_is_of_every_observation_and_of_nothing_else():
    first, second = Digests(1), Digests(2)
    rows = [{key: np.full(4, n, np.int16) for key in DIGESTED_KEYS} for n in range(3)]
    for row in rows:
        first.add(0, row)
        second.add(1, row | {"other": np.zeros(3)})
    digest = first.take(0)
    assert digest == second.take(1) and 0 <= digest < 1 << 63
    for row in (rows[0], rows[2], rows[1]):
        first.add(0, row)
    assert first.take(0) != digest
