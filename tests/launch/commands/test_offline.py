"""``yendor offline``: what is said of data sets, and one sentence and exit code 2 for what is wrong."""

import json

import numpy as np
import pytest

from envs.datasets import Dataset, DatasetWriter
from envs.recording import EpisodeRecord
from envs.seeding import evaluation_seeds
from launch.cli import main
from launch.evaluation.evaluation import Evaluation, run_evaluation
from launch.evaluation.policies import RandomSource
from launch.offline.relabel import verify

TASK = "Yendor-Maze2D-Umaze-v0"
HERE = ["--workers", "0", "--games-per-worker", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """200 steps of random play and of a walker that goes to the stairs."""
    path = tmp_path_factory.mktemp("offline") / "data"
    keys = ["--obs-keys", "glyphs_crop", "blstats"]
    policies = ["--policy", "random", "walker", "--shares", "1", "3", "--to-stairs", "--epsilon", "0.1"]
    assert main(["offline", "record", str(path), *policies, "--task", TASK, "--steps", "200", *keys, *HERE]) == 0
    return path


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records of six episodes of random play."""
    evaluation = Evaluation(
        source=RandomSource(runs=tmp_path_factory.mktemp("runs")),
        task=TASK,
        seeds=evaluation_seeds(6),
        num_workers=0,
        games_per_worker=3,
        record=True,
    )
    run_evaluation(evaluation)
    return [evaluation.record_file(seeds) for seeds in evaluation.seeds]


def test_what_is_in_a_data_set(data, capsys):
    assert main(["offline", "show", str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["tasks"], found["shards"], found["never_closed"]) == (200, [TASK], 4, [])
    assert [policy["steps"] for policy in found["policies"]] == [50, 150]
    walker = found["policies"][1]
    assert walker["provenance"] == {"policy": "walker", "epsilon": 0.1, "trip_steps": None, "to_stairs": True}
    assert walker["success"] == 1.0 and 0.9 < walker["returns"]["env"] <= 1.0
    assert found["bytes"].keys() > {"obs.glyphs_crop", "last.blstats", "reward.env", "action"}
    assert found["unlabelled"] == {"env": 0}
    assert main(["offline", "show", str(data)]) == 0
    assert "200 steps" in capsys.readouterr().out


def test_columns_come_and_go(data, capsys):
    assert main(["offline", "observe", str(data), "--keys", "message", "--workers", "0"]) == 0
    assert "message" in Dataset.open(data).manifest.obs_keys
    assert main(["offline", "verify", str(data), "--episodes", "3"]) == 0
    assert "3 episodes of" in capsys.readouterr().out
    assert main(["offline", "drop", str(data), "--columns", "obs.message"]) == 0
    assert "message" not in Dataset.open(data).manifest.obs_keys


def test_records_become_a_data_set(records, tmp_path, capsys):
    path = tmp_path / "data"
    assert main(["offline", "import", str(path), *map(str, records), "--obs-keys", "glyphs", "blstats"]) == 0
    data = Dataset.open(path, verify=True)
    by_seeds = {data.episodes.seeds_of(i): i for i in range(len(data.episodes))}
    assert set(by_seeds) == set(evaluation_seeds(6)) and data.episodes.finished.all()
    for file in records:
        record = EpisodeRecord.load(file)
        i = by_seeds[record.seeds]
        rows = slice(int(data.episodes.first[i]), int(data.episodes.first[i]) + record.num_steps)
        np.testing.assert_array_equal(data.read("action")[rows], record.actions)
        np.testing.assert_array_equal(data.read("reward.env")[rows], record.env_reward)
        hero = data.read("obs.blstats")[rows][:, :2]
        assert record.columns["obs.x"][:-1].tolist() == hero[1:, 0].tolist(), "it shows what is seen before an action"
    assert np.isnan(data.read("log_prob")).all()
    assert data.manifest.policies == ({"policy": "random", "imported_from": "random-sampled"},)
    assert verify(path, 10).steps == data.num_steps
    assert "6 episodes" in capsys.readouterr().out


def _refused(capsys, *arguments):
    """The one sentence, without who says it."""
    assert main(["offline", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("yendor: ") and said.count("\n") == 1, said
    return said.removeprefix("yendor: ")


def test_records_that_cannot_be_imported(records, tmp_path, capsys):
    record = EpisodeRecord.load(records[0])
    arrays = dict(np.load(records[0]))
    actions = (record.actions + 1) % 8
    other = tmp_path / "other.npz"
    np.savez(other, **arrays | {"actions": actions})
    said = _refused(capsys, "import", tmp_path / "data", other)
    assert "other.npz does not replay: at step" in said and not (tmp_path / "data").exists()
    np.savez(other, **arrays | {"task": np.array("MiniHack-Room-5x5-v0")})
    assert "is of MiniHack-Room-5x5-v0, and" in _refused(capsys, "import", tmp_path / "data", records[1], other)
    assert "action table" in _refused(capsys, "import", tmp_path / "data", _renamed(arrays, other))
    other.write_bytes(b"PK")
    assert "is not an episode record" in _refused(capsys, "import", tmp_path / "data", other)
    said = _refused(capsys, "import", tmp_path / "data", tmp_path / "game.ttyrec3.bz2")
    assert "hold neither glyphs nor seeds" in said


def _renamed(arrays, path):
    names = arrays["action_names"].copy()
    names[0] = "dance"
    np.savez(path, **arrays | {"action_names": names})
    return path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["record", "{new}"], "--policy is missing"),
        (["record", "{new}", "--policy", "random"], "--task is missing"),
        (["record", "{new}", "--policy", "random", "--task", "Yendor-Maze2D-Tiny-v0"], "--task: unknown task"),
        (["record", "{new}", "--policy", "random", "--task", TASK, "--shares", "1", "2"], "2 shares do not fit 1"),
        (["record", "{new}", "--policy", "random", "--task", TASK, "--obs-keys", "smell"], "unknown observation key"),
        (["record", "{new}", "--policy", "nowhere"], "nowhere"),
        (["record", "{data}", "--policy", "random", "--task", TASK], "is there already"),
        (["record", "{new}", "--policy", "walker", "--task", TASK, "--epsilon", "2"], "epsilon"),
        (["show", "{new}"], "is not a data set: it holds no manifest.json"),
        (["relabel", "{data}"], "name one of --reward-of RUN and --program SHA"),
        (["relabel", "{data}", "--reward-of", "nowhere"], "nowhere"),
        (["relabel", "{data}", "--program", "nothing.py"], "nothing.py"),
        (["observe", "{data}"], "--keys is missing"),
        (["observe", "{data}", "--keys", "smell"], "unknown observation key 'smell'"),
        (["observe", "{data}", "--keys", "blstats"], "has a column 'obs.blstats' already"),
        (["drop", "{data}", "--columns", "action"], "column 'action' cannot be dropped"),
        (["drop", "{data}", "--columns", "reward.oni@5"], "has no column 'reward.oni@5'"),
        (["import", "{new}"], "needs the records of episodes (.npz), or a Minari data set"),
    ],
)
def test_bad_input_is_one_sentence(data, tmp_path, capsys, arguments, sentence):
    places = {"data": data, "new": tmp_path / "new"}
    assert sentence in _refused(capsys, *(argument.format(**places) for argument in arguments))


def test_a_missing_column_is_named(data, tmp_path, capsys):
    with DatasetWriter.open(data) as writer:
        shard = next(iter(writer.manifest.shards))
    path = next(data.glob(f"shards/{shard}/obs.blstats.arrow"))
    moved = path.rename(tmp_path / "kept")
    try:
        assert "obs.blstats.arrow" in _refused(capsys, "verify", data)
    finally:
        moved.rename(path)
