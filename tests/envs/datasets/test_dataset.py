import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.datasets import Dataset, DatasetWriter, action_table
from envs.datasets.manifest import FieldType, column_path
from tests.envs.datasets.made_up_play import ACTIONS, OBS, Played, manifest_of

EVERY_DTYPE = {
    dtype: FieldType(dtype=dtype, shape=shape)
    for dtype, shape in {
        **dict.fromkeys(("int8", "int16", "int32", "int64"), ()),
        **dict.fromkeys(("uint8", "uint16", "uint32", "uint64"), (3,)),
        **dict.fromkeys(("float16", "float32", "float64"), (2, 1)),
        "bool": (5, 3),
    }.items()
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A data set of two shards, opened, and what was written into them."""
    path = tmp_path_factory.mktemp("written") / "data"
    with DatasetWriter.create(path, manifest_of()) as writer:
        parts = [Played(writer.shard(f"game{i}"), i) for i in range(2)]
        for length in (1, 70, 3, 200):
            parts[0].episode(length)
        parts[1].episode(64).episode(5).episode(100, finished=False)
    return SimpleNamespace(path=path, parts=parts, data=Dataset.open(path, verify=True))


def together(parts, name, key=None):
    """What the shards were given, one after the other."""
    rows = [getattr(part, name) if key is None else getattr(part, name)[key] for part in parts]
    return np.array([row for own in rows for row in own])


def test_what_was_written_is_read(written):
    data, parts = written.data, written.parts
    assert data.num_steps == 274 + 169
    assert [shard.name for shard in data.shards] == ["game0", "game1"]
    for key in OBS:
        assert np.array_equal(data.read(f"obs.{key}"), together(parts, "obs", key))
        assert np.array_equal(data.last(key), together(parts, "last", key))
    actions = together(parts, "actions")
    assert np.array_equal(data.read("action"), np.array([0, 0, 2])[actions])  # "up" is the token of "north"
    assert np.array_equal(data.read("key"), np.array([107, 107, 46])[actions])
    assert np.array_equal(data.read("log_prob"), together(parts, "log_probs").astype(np.float32), equal_nan=True)
    value, valid = data.reward("env")
    assert np.array_equal(value, together(parts, "rewards")) and valid.all()
    over = np.isin(np.arange(data.num_steps), data.episodes.first + data.episodes.length - 1)
    over[-1] = False  # where the recorder stopped
    assert np.array_equal(data.read("terminated"), over) and not data.read("truncated").any()


def test_episodes_say_where_they_lie_and_how_they_ended(written):
    episodes = written.data.episodes
    assert episodes.length.tolist() == [1, 70, 3, 200, 64, 5, 100]
    assert episodes.first.tolist() == [0, 1, 71, 74, 274, 338, 343]
    assert episodes.seeds.tolist() == [list(seeds) for part in written.parts for seeds in part.seeds]
    assert episodes.finished.tolist() == [True] * 6 + [False]
    assert episodes.end_status.tolist() == [1] * 6 + [0]
    assert episodes.digest.tolist() == episodes.length.tolist()
    assert episodes.has_last.all() and episodes.shard.tolist() == [0] * 4 + [1] * 3
    assert np.array_equal(episodes.env_return, np.add.reduceat(together(written.parts, "rewards"), episodes.first))
    assert episodes.seeds_of(1) == written.parts[0].seeds[1] and len(episodes) == 7


def test_every_dtype_comes_back_bit_for_bit(tmp_path):
    with DatasetWriter.create(tmp_path / "data", manifest_of(EVERY_DTYPE)) as writer:
        played = Played(writer.shard("a"), obs=EVERY_DTYPE).episode(70).episode(1)
    data = Dataset.open(tmp_path / "data")
    for key, kind in EVERY_DTYPE.items():
        for found, given_ in ((data.read(f"obs.{key}"), played.obs[key]), (data.last(key), played.last[key])):
            assert found.dtype == np.dtype(kind.dtype) and found.tobytes() == np.array(given_).tobytes(), key


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_windows_are_slices_and_cross_no_end(written, data):
    starts = data.draw(st.lists(st.integers(0, written.data.num_steps - 1), min_size=1, max_size=8))
    length = data.draw(st.integers(1, 90))
    columns = ["obs.glyphs", "action", "reward.env", "valid.env", "terminated"]
    found, valid = written.data.windows(np.array(starts), length, columns)
    episodes = written.data.episodes
    for n, start in enumerate(starts):
        episode = int(np.flatnonzero(episodes.first <= start)[-1])
        stop = min(start + length, int(episodes.first[episode] + episodes.length[episode]))
        assert valid[n].tolist() == [True] * (stop - start) + [False] * (length - stop + start)
        assert not found["terminated"][n, : stop - start - 1].any()
        for name in columns:
            assert np.array_equal(found[name][n, : stop - start], written.data.read(name, start, stop))
            assert not found[name][n, stop - start :].any()


def test_any_steps_and_last_observations_in_any_order(written):
    index = np.array([442, 0, 63, 64, 63, 300])
    assert np.array_equal(written.data.take("obs.blstats", index), together(written.parts, "obs", "blstats")[index])
    assert np.array_equal(
        written.data.last("blstats", np.array([6, 0, 3])), together(written.parts, "last", "blstats")[[6, 0, 3]]
    )
    assert written.data.episode_of(np.array([0, 1, 70, 71, 442])).tolist() == [0, 1, 1, 2, 6]
    assert written.data.take("action", np.zeros(0, int)).shape == (0,)
    assert {name: len(rows) for name, rows in written.data.load(["action", "valid.env"]).items()} == {
        "action": 443,
        "valid.env": 443,
    }


def test_a_full_cache_forgets_and_decodes_again(written):
    small = Dataset.open(written.path, cache_bytes=1)
    for _ in range(2):
        assert np.array_equal(small.read("obs.glyphs"), together(written.parts, "obs", "glyphs"))


def test_a_shard_without_steps_leaves_nothing(tmp_path):
    with DatasetWriter.create(tmp_path / "data", manifest_of()) as writer:
        writer.shard("idle").begin(None)
    data = Dataset.open(tmp_path / "data")
    assert data.num_steps == 0 and len(data.episodes) == 0 and not list((tmp_path / "data" / "shards").iterdir())
    assert data.read("obs.glyphs").shape == (0, 2, 3)


# ---- one sentence each


def test_what_is_not_there_is_named(written):
    with pytest.raises(ValueError, match=r"data has no column 'reward\.oni'; it has action, key, .*valid\.env$"):
        written.data.read("reward.oni")
    with pytest.raises(ValueError, match=r"has no column 'last.colors'"):
        written.data.last("colors")
    with pytest.raises(ValueError, match="there is no step 443 among 443"):
        written.data.windows(np.array([443]), 4, ["action"])
    with pytest.raises(ValueError, match="there is no step -1 among 443"):
        written.data.take("action", np.array([3, -1]))
    with pytest.raises(ValueError, match="there are no steps 440 to 444 among 443"):
        written.data.read("action", 440, 444)
    with pytest.raises(ValueError, match="there is no episode 7 among 7"):
        written.data.last("glyphs", np.array([7]))


def test_other_data_are_refused(written):
    written.data.manifest.require(tasks=["Task-v0"], actions=ACTIONS)
    with pytest.raises(ValueError, match=r"^the data are of Task-v0, not of Other-v0$"):
        written.data.manifest.require(tasks=["Other-v0"])
    with pytest.raises(ValueError, match=r"action 2 is 'wait' \(key 46\), not 'wait' \(key 115\)"):
        written.data.manifest.require(actions=action_table(["north", "up", "wait"], [107, 107, 115]))
    with pytest.raises(ValueError, match=r"^the data have 3 actions, not 1$"):
        written.data.manifest.require(actions=ACTIONS[:1])


@pytest.fixture
def small(tmp_path):
    with DatasetWriter.create(tmp_path / "data", manifest_of()) as writer:
        Played(writer.shard("a")).episode(100)
    return tmp_path / "data"


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}'])
def test_a_damaged_manifest_is_one_sentence(small, content):
    (small / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest.json is damaged: "):
        Dataset.open(small)


def test_another_format_is_refused(small):
    manifest = json.loads((small / "manifest.json").read_text())
    (small / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ValueError, match=r"data is a data set of format 99; this program reads format 1$"):
        Dataset.open(small)
    with pytest.raises(ValueError, match=r"is not a data set: it holds no manifest\.json$"):
        Dataset.open(small / "shards")


def test_damage_names_the_file(small):
    path = column_path(small, "a", "obs.glyphs")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-200] ^= 1
    path.write_bytes(flipped)
    Dataset.open(small)  # the size fits
    with pytest.raises(ValueError, match=r"obs\.glyphs\.arrow is damaged: its SHA-256 is [0-9a-f]{64}, not "):
        Dataset.open(small, verify=True)
    path.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=rf"is damaged: it has {len(whole) - 9} bytes, not {len(whole)}$"):
        Dataset.open(small)
    path.unlink()
    with pytest.raises(ValueError, match=r"obs\.glyphs\.arrow cannot be read: no such file or directory$"):
        Dataset.open(small)


def test_numbers_that_are_none_come_back(tmp_path):
    with DatasetWriter.create(tmp_path / "data", manifest_of({"x": FieldType(dtype="float32")})) as writer:
        shard = writer.shard("a")
        shard.begin(None)
        step = {"log_prob": None, "policy": 0, "terminated": False, "end_status": 0}
        for t, x in enumerate([math.nan, -math.inf, -0.0]):
            shard.step(action=0, reward=1, truncated=t == 2, obs={"x": np.float32(x)}, **step)
        shard.end({"x": np.float32(math.inf)})
    data = Dataset.open(tmp_path / "data")
    assert np.array_equal(data.read("obs.x"), [math.nan, -math.inf, 0], equal_nan=True)
    assert np.signbit(data.read("obs.x"))[2] and data.last("x").tolist() == [math.inf]
    assert np.isnan(data.read("log_prob")).all() and data.episodes.seeds.tolist() == [[-1, -1, -1]]
    assert data.episodes.finished.all() and data.episodes.env_return.tolist() == [3]
