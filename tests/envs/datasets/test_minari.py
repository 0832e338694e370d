import json
import sys

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from envs.data import EndStatus
from envs.datasets import Dataset, DatasetWriter
from envs.datasets.manifest import STEP_COLUMNS, FieldType, column_path
from envs.datasets.minari import export_minari, import_minari
from tests.envs.datasets.made_up_play import OBS, Played, files_in, manifest_of

OTHER = {
    "flags": FieldType(dtype="bool", shape=(3,)),
    "small": FieldType(dtype="float16"),
    "screen": FieldType(dtype="uint8", shape=(32, 40)),
    "wide": FieldType(dtype="uint64"),
}


@pytest.fixture
def data(tmp_path):
    """Two shards, with a reward that was made later, and an episode that was left unfinished."""
    with DatasetWriter.create(tmp_path / "data", manifest_of(OBS | OTHER)) as writer:
        Played(writer.shard("a"), 0, OBS | OTHER).episode(1).episode(150)
        Played(writer.shard("b/c"), 1, OBS | OTHER).episode(70).episode(20, finished=False)
    writer = DatasetWriter.open(tmp_path / "data")
    rng = np.random.default_rng(0)
    for name in writer.lacking("reward.heron@a/b"):
        with writer.column(name, "reward.heron@a/b") as column:
            column.append(rng.random(column.num_rows), rng.random(column.num_rows) < 0.5)
    writer.publish_reward("heron@a/b", {"run": "a/b"})
    return Dataset.open(tmp_path / "data")


def assert_same(found, given):
    """Every column, every last observation, everything that is said of episodes."""
    assert found.manifest.replace(shards={}) == given.manifest.replace(shards={})
    for column in given.columns:
        assert found.read(column).tobytes() == given.read(column).tobytes(), column
    for key in given.manifest.obs_keys:
        assert found.last(key).tobytes() == given.last(key).tobytes(), key
    for name in ("seeds", "first", "length", "finished", "end_status", "env_return", "policy", "digest", "has_last"):
        assert np.array_equal(getattr(found.episodes, name), getattr(given.episodes, name)), name


def test_a_round_trip_is_exact(data, tmp_path):
    export_minari(data, tmp_path / "out")
    again = import_minari(tmp_path / "out", tmp_path / "again")
    assert_same(again, data)
    again.verify()
    names = {path.relative_to(tmp_path / "again"): content for path, content in files_in(tmp_path / "again").items()}
    assert names == {path.relative_to(tmp_path / "data"): content for path, content in files_in(data.path).items()}


def test_minari_reads_what_was_exported(data, tmp_path):
    export_minari(data, tmp_path / "nethack play")
    found = minari.MinariDataset(tmp_path / "nethack play" / "data")
    assert (found.total_episodes, found.total_steps) == (4, data.num_steps)
    assert found.spec.dataset_id == "nethack_play-v0" and found.action_space == spaces.Discrete(3)
    assert found.observation_space["screen"] == spaces.Box(0, 255, (32, 40), np.uint8)
    for episode in found:
        first, steps = int(data.episodes.first[episode.id]), int(data.episodes.length[episode.id])
        assert len(episode) == steps and np.array_equal(episode.actions, data.read("action", first, first + steps))
        for key in data.manifest.obs_keys:  # JPEG would change "screen"
            rows = np.concatenate([data.read(f"obs.{key}", first, first + steps), data.last(key)[[episode.id]]])
            assert np.array_equal(episode.observations[key], rows) and episode.observations[key].dtype == rows.dtype
        assert np.array_equal(episode.rewards, data.read("reward.env", first, first + steps))
        assert episode.terminations[-1] != episode.truncations[-1]
        assert np.array_equal(episode.infos["yendor"]["key"], data.read("key", first, first + steps))
    assert [bool(episode.truncations[-1]) for episode in found] == [False, False, False, True]
    said = [json.loads(metadata["yendor"]) for metadata in found.storage.get_episode_metadata(range(4))]
    assert [one["seeds"] for one in said] == data.episodes.seeds.tolist()


def test_an_episode_without_its_last_observation_comes_back(tmp_path):
    with DatasetWriter.create(tmp_path / "data", manifest_of()) as writer:
        Played(writer.shard("a")).episode(30).episode(100, ended=False)
    data = Dataset.open(tmp_path / "data")
    export_minari(data, tmp_path / "out")
    again = import_minari(tmp_path / "out" / "data", tmp_path / "again")
    assert_same(again, data)
    assert again.episodes.has_last.tolist() == [True, False]


def long_and_short(path, length):
    with DatasetWriter.create(path, manifest_of()) as writer:
        Played(writer.shard("a")).episode(length).episode(1000).episode(3)
    return Dataset.open(path)


@pytest.mark.parametrize("length", [9_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_a_long_episode_before_two_short_ones_comes_back(tmp_path, length):
    data = long_and_short(tmp_path / "data", length)
    export_minari(data, tmp_path / "out")
    assert [len(episode) for episode in minari.MinariDataset(tmp_path / "out" / "data")] == [length, 1000, 3]
    assert_same(import_minari(tmp_path / "out", tmp_path / "again"), data)


# ---- what others made


def others(path, observation_space, action_space, episodes, **options):
    """A data set that Minari wrote: ``(observations, actions, rewards, terminations, truncations)`` an episode."""
    storage = MinariStorage.new(path, observation_space, action_space, **options)
    storage.update_episodes(EpisodeBuffer(None, None, None, *episode) for episode in episodes)
    storage.update_metadata({"dataset_id": "made/by-others-v0", "minari_version": minari.__version__})
    return path


def test_what_minari_wrote_is_imported(tmp_path):
    space = spaces.Dict({"x": spaces.Box(-1, 1, (2,), np.float32), "n": spaces.Discrete(9)})
    obs = [{"x": np.random.default_rng(i).random((4 - i, 2), np.float32), "n": np.arange(4 - i)} for i in range(3)]
    episodes = [
        (obs[0], np.array([1, 3, 2]), [0.0, 0.5, 1.0], [False, False, True], [False] * 3),
        (obs[1], np.array([3, 3]), [1.0, 0.0], [False] * 2, [False, True]),
        (obs[2], np.array([2]), [0.25], [False], [False]),
    ]
    path = others(tmp_path / "theirs", space, spaces.Discrete(3, start=1), episodes)
    data = import_minari(path, tmp_path / "data")
    assert data.read("action").tolist() == data.read("key").tolist() == [0, 2, 1, 2, 2, 1]
    assert np.array_equal(data.read("obs.x"), np.concatenate([o["x"][:-1] for o in obs]))
    assert data.last("n").tolist() == [3, 2, 1]
    assert data.reward("env")[0].tolist() == [0, 0.5, 1, 1, 0, 0.25] and data.reward("env")[1].all()
    assert np.isnan(data.read("log_prob")).all()
    assert data.read("terminated").tolist() == [False, False, True, False, False, False]
    assert data.read("truncated").tolist() == [False, False, False, False, True, False]
    assert data.read("end_status").tolist() == [0, 0, EndStatus.DEATH, 0, EndStatus.ABORTED, 0]
    episodes = data.episodes
    assert episodes.length.tolist() == [3, 2, 1] and episodes.finished.tolist() == [True, True, False]
    assert episodes.env_return.tolist() == [1.5, 1, 0.25] and (episodes.seeds == -1).all()
    assert data.manifest.action_names == ("action 0", "action 1", "action 2")
    assert data.manifest.task_ids == ("made/by-others-v0",)
    assert set(STEP_COLUMNS).issubset(data.columns)


def test_observations_without_keys_are_imported(tmp_path):
    episode = (np.arange(3.0)[:, None], np.array([0, 1]), [0.0, 1.0], [False, True], [False, False])
    path = others(tmp_path / "theirs", spaces.Box(-9, 9, (1,), np.float64), spaces.Discrete(2), [episode])
    assert import_minari(path, tmp_path / "data").read("obs.observation").tolist() == [[0], [1]]


# ---- one sentence each


@pytest.mark.parametrize(
    ("observation_space", "action_space", "options", "sentence"),
    [
        (spaces.Discrete(3), spaces.Box(0, 1, (2,)), {}, "has actions of type Box: only discrete ones"),
        (spaces.Box(0, 255, (32, 32), np.uint8), spaces.Discrete(2), {}, "keeps its images as JPEG"),
        (
            spaces.Dict({"in": spaces.Dict({"x": spaces.Discrete(2)})}),
            spaces.Discrete(2),
            {},
            "within observation 'in'",
        ),
        (spaces.Discrete(3), spaces.Discrete(2), {"data_format": "arrow"}, "Minari data in the format 'arrow'"),
    ],
)
def test_what_a_data_set_cannot_hold_is_refused(tmp_path, observation_space, action_space, options, sentence):
    storage = MinariStorage.new(tmp_path / "theirs", observation_space, action_space, **options)
    if not options:
        obs = [observation_space.sample() for _ in range(2)]
        obs = {"in": {"x": [0, 1]}} if isinstance(observation_space, spaces.Dict) else obs
        storage.update_episodes([EpisodeBuffer(None, None, None, obs, [action_space.sample()], [0.0], [True], [False])])
    with pytest.raises(ValueError, match=sentence):
        import_minari(tmp_path / "theirs", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_damage_is_named(data, tmp_path):
    export_minari(data, tmp_path / "out")
    main = tmp_path / "out" / "data" / "main_data.hdf5"
    with h5py.File(main, "a") as file:
        del file["episode_1/rewards"]
    with pytest.raises(ValueError, match=r"out: episode 1 has 0 rows of rewards, not 150$"):
        import_minari(tmp_path / "out", tmp_path / "again")
    with h5py.File(main, "a") as file:
        del file["episode_1"]
    with pytest.raises(ValueError, match=r"out is damaged: it holds 3 of 4 episodes$"):
        import_minari(tmp_path / "out", tmp_path / "again")
    main.write_bytes(main.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"main_data\.hdf5 is damaged: "):
        import_minari(tmp_path / "out", tmp_path / "again")
    main.unlink()
    with pytest.raises(ValueError, match=r"main_data\.hdf5 cannot be read: no such file or directory$"):
        import_minari(tmp_path / "out", tmp_path / "again")
    with pytest.raises(ValueError, match=r"is not a Minari data set: it holds no metadata\.json$"):
        import_minari(tmp_path / "nowhere", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(ValueError, match="out is there already, and it is not an empty folder"):
        export_minari(data, tmp_path / "out")
    column_path(data.path, "a", "last.small").unlink()
    with pytest.raises(ValueError, match=r"last\.small\.arrow cannot be read: no such file"):
        export_minari(Dataset(data.path, data.manifest, data.shards), tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_a_missing_extra_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"^Minari's files need the extra 'minari' \(pip install 'yendor\[minari\]'\)"):
        export_minari(data, tmp_path / "out")
    with pytest.raises(ValueError, match="need the extra 'minari'"):
        import_minari(tmp_path / "out", tmp_path / "again")
