import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from envs.data import EpisodeSeeds
from envs.datasets import Dataset, DatasetWriter
from envs.datasets.manifest import FieldType, column_path, load_manifest
from tests.envs.datasets.made_up_play import OBS, Played, files_in, manifest_of

COLORS = FieldType(dtype="uint8", shape=(2,))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


def record(path, lengths=((3, 70), (150,)), **manifest):
    with DatasetWriter.create(path, manifest_of(**manifest)) as writer:
        for i, own in enumerate(lengths):
            played = Played(writer.shard(f"game{i}"), i)
            for length in own:
                played.episode(length)
    return Dataset.open(path)


# ---- further columns


def add_reward(path, name, values, valid=None):
    writer = DatasetWriter.open(path)
    done = 0
    for shard in Dataset.open(path).shards:
        with writer.column(shard.name, f"reward.{name}") as column:
            assert column.num_rows == shard.num_steps
            for start in range(done, done + shard.num_steps, 50):
                rows = slice(start, min(start + 50, done + shard.num_steps))
                column.append(values[rows], None if valid is None else valid[rows])
        done += shard.num_steps
    writer.publish_reward(name, {"made_by": name})


def test_a_reward_is_added_and_dropped_without_touching_another_file(path):
    record(path)
    before = files_in(path)
    names = ["heron@runs/a b/checkpoints/100", "program:ab12", "é/..%"]
    values = np.random.default_rng(0).random(223)
    valid = values < 0.5
    for name in names:
        add_reward(path, name, values, valid)
    data = Dataset.open(path, verify=True)
    for name in names:
        value, found = data.reward(name)
        assert np.array_equal(found, valid) and np.array_equal(value, np.where(valid, values, 0).astype(np.float32))
    assert data.manifest.reward_names == ("env", *names)
    assert data.manifest.rewards == {name: {"made_by": name} for name in names}
    after = files_in(path)
    assert {place: after[place] for place in before} == before and len(after) == len(before) + 6
    for name in names:
        DatasetWriter.open(path).drop(f"reward.{name}")
    assert files_in(path) == before and Dataset.open(path, verify=True).manifest.reward_names == ("env",)


def test_an_observation_is_dropped_and_made_again(path):
    data = record(path)
    before, rows, last = files_in(path), data.read("obs.glyphs"), data.last("glyphs")
    writer = DatasetWriter.open(path)
    writer.drop("obs.glyphs")
    assert Dataset.open(path).manifest.obs_keys == ("blstats",) and len(files_in(path)) == len(before) - 4
    ends = np.cumsum([0, *(shard.num_steps for shard in data.shards)])
    last_ends = np.cumsum([0, *(len(shard.episodes["first"]) for shard in data.shards)])
    for i, name in enumerate(writer.lacking("obs.glyphs")):
        with writer.column(name, "obs.glyphs", OBS["glyphs"]) as column:
            column.append(rows[ends[i] : ends[i + 1]])
        with writer.column(name, "last.glyphs", OBS["glyphs"]) as column:
            column.append(last[last_ends[i] : last_ends[i + 1]])
    writer.publish_observation("glyphs", OBS["glyphs"])
    assert files_in(path) == before
    again = Dataset.open(path, verify=True)
    assert np.array_equal(again.read("obs.glyphs"), rows) and np.array_equal(again.last("glyphs"), last)


def test_an_interrupted_addition_goes_on_where_it_stopped(path):
    record(path)
    writer = DatasetWriter.open(path)
    with writer.column("game0", "reward.x") as column:
        column.append(np.ones(73))
    with pytest.raises(ZeroDivisionError), writer.column("game1", "reward.x") as column:
        column.append(np.ones(100))
        raise ZeroDivisionError
    assert writer.lacking("reward.x") == ["game1"]
    with pytest.raises(ValueError, match=r"shard 'game1' of .*data has no column 'reward\.x' yet"):
        writer.publish_reward("x", {})
    with pytest.raises(ValueError, match=r"has no column 'reward\.x'"):
        Dataset.open(path).reward("x")
    column_path(path, "game1", "reward.x").write_bytes(b"what a killed process left")
    later = DatasetWriter.open(path)
    with later.column("game1", "reward.x") as column:
        column.append(np.zeros(150))
    later.publish_reward("x", {})
    assert Dataset.open(path, verify=True).reward("x")[0].sum() == 73


def test_a_column_that_was_never_published_can_be_dropped(path):
    record(path)
    before, writer = files_in(path), DatasetWriter.open(path)
    with writer.column("game0", "reward.x") as column:
        column.append(np.ones(73))
    writer.drop("reward.x")
    assert files_in(path) == before and writer.lacking("reward.x") == ["game0", "game1"]


def test_rows_that_do_not_fit_are_refused(path):
    record(path)
    writer = DatasetWriter.open(path)
    with (
        pytest.raises(ValueError, match=r"^reward\.x\.arrow needs 73 rows, and was given 74$"),
        writer.column("game0", "reward.x") as column,
    ):
        column.append(np.ones(74))
    with (
        pytest.raises(ValueError, match=r"^reward\.x\.arrow needs 73 rows, and was given 72$"),
        writer.column("game0", "reward.x") as column,
    ):
        column.append(np.ones(72))
    with pytest.raises(ValueError, match="a valid reward is not finite"), writer.column("game0", "reward.x") as column:
        column.append(np.full(73, np.nan))
    with (
        pytest.raises(ValueError, match=r"is made of uint8 \[2\], not of uint8 \[3\]"),
        writer.column("game0", "obs.colors", COLORS) as column,
    ):
        column.append(np.zeros((73, 3), np.uint8))
    assert len(files_in(path)) == 2 * 13
    with writer.column("game0", "reward.x") as column:
        column.append(np.full(73, np.nan), np.zeros(73, bool))  # not valid, so it may be anything


def test_columns_that_cannot_be_are_refused(path):
    record(path)
    writer = DatasetWriter.open(path)
    with pytest.raises(ValueError, match=r"shard 'game0' of .*data has a column 'reward.env' already"):
        writer.column("game0", "reward.env")
    with pytest.raises(ValueError, match="has no closed shard 'game7'"):
        writer.column("game7", "reward.x")
    with pytest.raises(ValueError, match="'speed' cannot be added: only rewards, and observations of a known type"):
        writer.column("game0", "speed")
    with pytest.raises(ValueError, match="a name must be of printable characters"):
        writer.column("game0", "reward.a\nb")
    with pytest.raises(ValueError, match=r"'reward.xxx.*' is too long"):
        writer.column("game0", "reward." + "x" * 300)
    for name in ("action", "reward.env", "episodes", "last.glyphs"):
        with pytest.raises(ValueError, match=f"column '{name}' cannot be dropped"):
            writer.drop(name)
    with pytest.raises(ValueError, match=r"has no column 'reward\.x'; it has action"):
        writer.drop("reward.x")


# ---- shards


def test_a_data_set_grows_by_shards_and_policies(path):
    record(path)
    with DatasetWriter.open(path) as writer:
        assert writer.add_policies([{"kind": "walker"}, {"kind": "run"}]) == 1
        Played(writer.shard("later")).episode(5)
        with pytest.raises(ValueError, match="has a shard 'later' already"):
            writer.shard("later")
        with pytest.raises(ValueError, match="there is no task 1 in a data set of 1"):
            writer.shard("other", task=1)
    data = Dataset.open(path, verify=True)
    assert data.num_steps == 228 and [policy["kind"] for policy in data.manifest.policies] == [
        "random",
        "walker",
        "run",
    ]
    with pytest.raises(ValueError, match="data is there already, and it is not an empty folder"):
        DatasetWriter.create(path, manifest_of())


def test_a_shard_recorded_after_a_reward_was_made_lacks_it(path):
    record(path)
    add_reward(path, "x", np.ones(223))
    with DatasetWriter.open(path) as writer:
        Played(writer.shard("later")).episode(5)
    assert DatasetWriter.open(path).lacking("reward.x") == ["later"]
    data = Dataset.open(path)
    assert data.read("reward.x", 0, 223).sum() == 223
    with pytest.raises(ValueError, match=r"shard 'later' of .*data has no column 'reward\.x': it was recorded later"):
        data.reward("x")


def test_episodes_begin_and_end_in_order(path):
    with DatasetWriter.create(path, manifest_of()) as writer:
        shard = writer.shard("a")
        obs = Played(shard).drawn()
        step = {"action": 0, "log_prob": None, "policy": 0, "reward": 0, "truncated": False, "end_status": 0}
        with pytest.raises(ValueError, match="shard 'a': a step without a running episode"):
            shard.step(terminated=False, obs=obs, **step)
        shard.begin(None)
        with pytest.raises(ValueError, match="shard 'a': an episode began before the one before it was ended"):
            shard.begin(None)
        shard.step(terminated=True, obs=obs, **step)
        with pytest.raises(ValueError, match="a step without a running episode"):
            shard.step(terminated=False, obs=obs, **step)
        shard.end(obs)
        with pytest.raises(ValueError, match="shard 'a': an episode ended before its first step"):
            shard.end(obs)


# ---- writers that were killed


def test_any_file_of_an_open_shard_may_be_torn(path):
    writer = DatasetWriter.create(path, manifest_of())
    played = Played(writer.shard("a"))
    for length in (3, 61, 70, 10, 200, 1):
        played.episode(length)
    columns = {file: file.read_bytes() for file in files_in(path)}
    assert Dataset.open(path).num_steps == 320  # 25 steps are not written yet
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        file = list(columns)[rng.integers(len(columns))]
        file.write_bytes(columns[file][: rng.integers(len(columns[file]) + 1)])
        data = Dataset.open(path)
        file.write_bytes(columns[file])
        steps = data.num_steps
        assert steps % 64 == 0
        seen.add(steps)
        assert data.read("obs.glyphs").tobytes() == np.array(played.obs["glyphs"][:steps], np.int16).tobytes()
        ends = np.cumsum(played.lengths)
        whole = int((ends <= steps).sum())
        assert np.array_equal(data.last("blstats")[:whole], np.array(played.last["blstats"][:whole]).reshape(-1, 4))
        episodes = data.episodes
        assert episodes.length.sum() == steps and episodes.has_last.sum() == episodes.finished.sum() == whole
        assert len(episodes) == whole + (steps > (ends[whole - 1] if whole else 0))
        assert episodes.seeds.tolist() == [list(seeds) for seeds in played.seeds[: len(episodes)]]
        assert episodes.env_return.sum() == sum(played.rewards[:steps])
    assert seen == {0, 64, 128, 192, 256}
    writer.close()


def test_a_shard_whose_end_the_manifest_did_not_hear_of_is_whole(path):
    writer = DatasetWriter.create(path, manifest_of())
    shard = writer.shard("a")
    played = Played(shard).episode(3).episode(99)
    record_ = shard.finish()
    data = Dataset.open(path)
    assert (data.num_steps, data.episodes.length.tolist(), data.shards[0].closed) == (102, [3, 99], False)
    assert np.array_equal(data.last("glyphs"), played.last["glyphs"])
    before = files_in(path)
    assert DatasetWriter.open(path).repair() == ["a"]
    assert files_in(path) == before and load_manifest(path).shards["a"] == record_


_PLAY_UNTIL_KILLED = """
import sys, time
from itertools import pairwise
from pathlib import Path
from envs.datasets import DatasetWriter
from tests.envs.datasets.made_up_play import Played, manifest_of

writer = DatasetWriter.create(Path(sys.argv[1]), manifest_of())
closed = writer.shard("closed")
Played(closed, 1).episode(5)
closed.close()
Played(writer.shard("open")).episode(100).episode(30).episode(70, ended=False)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_loses_its_last_block_and_no_more(path):
    command = [sys.executable, "-c", _PLAY_UNTIL_KILLED, str(path)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with pytest.raises(ValueError, match=r"shard 'open' of .*data is being written"):
            DatasetWriter.open(path).repair()
        process.kill()

    class Nothing:
        """What is written into it is only remembered."""

        def __getattr__(self, name):
            return lambda *args, **named: None

    played = Played(Nothing()).episode(100).episode(30).episode(70, ended=False)
    data = Dataset.open(path, verify=True)
    assert [(shard.name, shard.closed, shard.num_steps) for shard in data.shards] == [
        ("closed", True, 5),
        ("open", False, 192),
    ]
    check_what_was_left(data, played)
    with pytest.raises(ValueError, match=r"shard 'open' of .*data was never closed"):
        DatasetWriter.open(path).lacking("reward.x")
    assert DatasetWriter.open(path).repair() == ["open"]
    repaired = Dataset.open(path, verify=True)
    assert all(shard.closed for shard in repaired.shards) and load_manifest(path).shards["open"].num_steps == 192
    check_what_was_left(repaired, played)
    add_reward(path, "x", np.ones(197))
    assert Dataset.open(path, verify=True).reward("x")[0].sum() == 197


def check_what_was_left(data, played):
    assert np.array_equal(data.read("obs.glyphs", 5), played.obs["glyphs"][:192])
    assert np.array_equal(data.last("glyphs")[1:3], played.last["glyphs"])
    assert not data.last("glyphs")[3].any()
    episodes = data.episodes
    assert episodes.length.tolist() == [5, 100, 30, 62]
    assert episodes.finished.tolist() == episodes.has_last.tolist() == [True, True, True, False]
    assert episodes.seeds_of(3) == played.seeds[2] != EpisodeSeeds(-1, -1, -1)
    assert episodes.env_return[3] == sum(played.rewards[130:192])


def test_many_steps_at_once_are_what_one_by_one_would_be(tmp_path):
    rng, lengths = np.random.default_rng(3), (5, 130, 64, 1)
    with DatasetWriter.create(tmp_path / "one", manifest_of()) as writer:
        shard = writer.shard("a")
        played = Played(shard)
        for length in lengths:
            played.episode(length)
    one = Dataset.open(tmp_path / "one")
    with DatasetWriter.create(tmp_path / "many", manifest_of()) as writer:
        shard = writer.shard("a")
        for i, length in enumerate(lengths):
            shard.begin(played.seeds[i])
            first = int(one.episodes.first[i])
            cuts = sorted({0, length, *rng.integers(0, length, 2).tolist()})
            for start, stop in pairwise(cuts):
                rows = slice(first + start, first + stop)
                shard.steps(
                    action=np.array(played.actions[rows]),
                    log_prob=np.array(played.log_probs[rows]),
                    policy=0,
                    reward=np.array(played.rewards[rows], np.float32),
                    obs={key: np.array(values[rows]) for key, values in played.obs.items()},
                    **{name: one.read(name)[rows] for name in ("terminated", "truncated", "end_status")},
                )
            with pytest.raises(ValueError, match="a step without a running episode"):
                shard.steps(
                    action=np.zeros(1, int),
                    log_prob=None,
                    policy=0,
                    reward=np.zeros(1, np.float32),
                    obs={},
                    terminated=np.zeros(1, bool),
                    truncated=np.zeros(1, bool),
                    end_status=np.zeros(1, np.int8),
                )
            shard.end({key: values[i] for key, values in played.last.items()}, digest=length)
    files = {path.name: content for path, content in files_in(tmp_path / "one").items()}
    assert files == {path.name: content for path, content in files_in(tmp_path / "many").items()}
