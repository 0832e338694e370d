import numpy as np
import pytest

from envs.data import EndStatus, EpisodeSeeds
from envs.datasets import Dataset, DatasetWriter, Manifest, action_table
from envs.datasets.manifest import FieldType, recorded_columns

OBS = {"glyphs": FieldType(dtype="int16", shape=(2, 3)), "blstats": FieldType(dtype="int64", shape=(4,))}


def manifest_of(obs=OBS, **changes):
    """A data set of one task with three actions, two of which press the same key."""
    made = Manifest(
        tasks=({"id": "Task-v0"},),
        actions=action_table(["north", "up", "wait"], [107, 107, 46]),
        columns=recorded_columns(obs),
        policies=({"kind": "random"},),
    )
    return made.replace(**changes)


class Played:
    """Writes made-up episodes into a shard and remembers what it wrote."""

    def __init__(self, shard, seed=0, obs=OBS):
        self.shard, self.rng, self.kinds = shard, np.random.default_rng(seed), obs
        self.obs = {key: [] for key in obs}
        self.last = {key: [] for key in obs}
        self.actions, self.rewards, self.lengths, self.seeds = [], [], [], []

    def drawn(self):
        return {key: self.rng.integers(0, 100, kind.shape).astype(kind.dtype) for key, kind in self.kinds.items()}

    def episode(self, length, *, finished=True, ended=True):
        seeds = EpisodeSeeds(*self.rng.integers(0, 1 << 30, 3).tolist())
        self.shard.begin(seeds)
        for t in range(length):
            over = finished and t == length - 1
            obs, action, reward = self.drawn(), int(self.rng.integers(0, 3)), float(self.rng.integers(0, 5))
            self.shard.step(
                action=action,
                log_prob=-1.0,
                policy=0,
                reward=reward,
                terminated=over,
                truncated=False,
                end_status=EndStatus.DEATH if over else EndStatus.RUNNING,
                obs=obs,
            )
            self.actions.append(action)
            self.rewards.append(reward)
            for key, value in obs.items():
                self.obs[key].append(value)
        self.lengths.append(length)
        self.seeds.append(seeds)
        if ended:
            last = self.drawn()
            self.shard.end(last, digest=length)
            for key, value in last.items():
                self.last[key].append(value)
        return self


@pytest.fixture
def written(tmp_path):
    """A data set of two shards, and what was written into them."""
    with DatasetWriter.create(tmp_path / "data", manifest_of()) as writer:
        parts = [Played(writer.shard(f"game{i}"), i) for i in range(2)]
        for length in (1, 70, 3, 200):
            parts[0].episode(length)
        parts[1].episode(64).episode(5).episode(100, finished=False)
    return tmp_path / "data", parts


def test_what_was_written_is_read(written):
    path, parts = written
    data = Dataset.open(path, verify=True)
    assert data.num_steps == 274 + 169
    assert [shard.name for shard in data.shards] == ["game0", "game1"]
    for key in OBS:
        assert np.array_equal(data.read(f"obs.{key}"), [row for part in parts for row in part.obs[key]])
        assert np.array_equal(data.last(key), [row for part in parts for row in part.last[key]])
        assert data.read(f"obs.{key}").dtype == OBS[key].dtype
    actions = np.array([action for part in parts for action in part.actions])
    assert np.array_equal(data.read("action"), np.array([0, 0, 2])[actions])  # "up" is the token of "north"
    assert np.array_equal(data.read("key"), np.array([107, 107, 46])[actions])
    value, valid = data.reward("env")
    assert np.array_equal(value, [reward for part in parts for reward in part.rewards]) and valid.all()


def test_episodes_say_where_they_lie_and_how_they_ended(written):
    path, parts = written
    episodes = Dataset.open(path).episodes
    assert episodes.length.tolist() == [1, 70, 3, 200, 64, 5, 100]
    assert episodes.first.tolist() == [0, 1, 71, 74, 274, 338, 343]
    assert episodes.seeds.tolist() == [list(seeds) for part in parts for seeds in part.seeds]
    assert episodes.finished.tolist() == [True] * 6 + [False]
    assert episodes.end_status.tolist() == [1] * 6 + [0]
    assert episodes.digest.tolist() == episodes.length.tolist()
    assert episodes.has_last.all()
    rewards = np.array([reward for part in parts for reward in part.rewards])
    assert np.array_equal(episodes.env_return, np.add.reduceat(rewards, episodes.first))
