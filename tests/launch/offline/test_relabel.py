"""Columns made by playing a log again: rewards of a run and of a program, observations, and the check of it all."""

import json

import numpy as np
import pytest

from envs.datasets import Dataset, DatasetWriter
from envs.datasets.manifest import column_path
from envs.replaying import Replay, games_of, logged_episodes
from envs.spec import GamesConfig
from launch.errors import UserError
from launch.evaluation.policies import RandomSource, RunSource
from launch.offline.recording import Recording, record
from launch.offline.relabel import ProgramRewards, RunRewards, observe, relabel, verify
from rewards.auto.language.admission import admit
from tests.launch.running import trained
from tests.launch.training.test_driver import UPDATE, small_run
from tests.launch.training.test_heron import SMALL

TASK = "MiniHack-KeyRoom-S5-v0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with ONI's and HERON's rewards."""
    heron = {
        "kind": "tree",
        "weight": 0.1,
        "ranking": ["success", "alive", "new_tiles", "-turns"],
        "segment_steps": 8,
        "model": SMALL,
    }
    path = tmp_path_factory.mktemp("runs")
    config = small_run(path, total_steps=5 * UPDATE, reward={"heron": heron})
    trained(config)
    return config.runs / config.name


@pytest.fixture(scope="module")
def recorded(run, tmp_path_factory):
    """A log of that run's policy and of random play; to be copied before it is changed."""
    source = RunSource.of(run)
    path = tmp_path_factory.mktemp("recorded") / "data"
    games = source.games.replace(features=(), obs_keys=("glyphs_crop", "map_summary"))
    record(
        Recording(
            data=path,
            sources=(source, RandomSource(games=games)),
            shares=(1.0, 1.0),
            games=games,
            num_steps=900,
            num_workers=0,
            games_per_worker=3,
        )
    )
    return path


@pytest.fixture
def data(recorded, tmp_path):
    """A copy of it."""
    import shutil

    return shutil.copytree(recorded, tmp_path / "data")


def _files(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*.arrow")}


def test_a_log_is_paid_what_each_of_its_episodes_is_paid_alone(run, data):
    before = _files(data)
    source = RunRewards.of(run)
    assert relabel(data, source, 0) == ["oni@640", "heron@640"]
    after = _files(data)
    assert before.items() <= after.items() and len(after) == len(before) + 2 * 6
    logged = Dataset.open(data, verify=True)
    assert logged.manifest.rewards["heron@640"]["run"] == run.name
    paid = {name: logged.reward(name) for name in ("oni@640", "heron@640")}
    assert paid["heron@640"][1].all() and np.ptp(paid["heron@640"][0]) > 0
    for i in (0, len(logged.episodes) - 1):
        rows = slice(int(logged.episodes.first[i]), int(logged.episodes.first[i] + logged.episodes.length[i]))
        with Replay(games_of(logged, **source.seen), [logged_episodes(logged, [i])]) as replay:
            mix = source.build(replay.spec)
            (chunk,) = replay.chunks(1000, captions=True)
        output, _ = mix.score(chunk.rollout, mix.initial_state(1))
        for part, name in source.columns.items():
            np.testing.assert_allclose(paid[name][0][rows], output.parts[part].value[:, 0], atol=1e-6)
            np.testing.assert_array_equal(paid[name][1][rows], output.parts[part].valid[:, 0])


def test_a_program_pays_what_it_says(data):
    source = "def reward(obs, prev_obs, action, info):\n    return 1.0 if action == 'north' else 0.0\n"
    program = admit(f'COMPONENTS = {{"reward": "sparse"}}\n\n{source}')
    names = relabel(data, ProgramRewards(program), 0)
    logged = Dataset.open(data)
    value, valid = logged.reward(names[0])
    assert names[0] == f"program:{program.sha[:12]}" and valid.all()
    np.testing.assert_array_equal(value, logged.read("action") == logged.manifest.action_names.index("north"))
    assert logged.manifest.rewards[names[0]]["source"] == program.source


@pytest.mark.parametrize("key", ["glyphs_crop", "map_summary"])
def test_a_dropped_observation_is_made_again_bit_for_bit(data, key):
    before, manifest = _files(data), Dataset.open(data).manifest
    with DatasetWriter.open(data) as writer:
        writer.drop(f"obs.{key}")
    assert key not in Dataset.open(data).manifest.obs_keys
    observe(data, [key], 0)
    assert _files(data) == before
    again = Dataset.open(data, verify=True).manifest
    assert again.shards == manifest.shards and again.columns == manifest.columns


def test_new_observations_are_those_of_the_game(data):
    observe(data, ["message", "glyphs"], 0)
    logged = Dataset.open(data)
    middle = logged.read("obs.glyphs_crop")[:, 4, 4]
    glyphs, blstats = logged.read("obs.glyphs"), None
    observe(data, ["blstats"], 0)
    blstats = Dataset.open(data).read("obs.blstats")
    np.testing.assert_array_equal(glyphs[np.arange(len(glyphs)), blstats[:, 1], blstats[:, 0]], middle)
    assert verify(data, 100).columns[-1] == "obs.blstats"


def test_a_column_that_was_interrupted_goes_on_where_it_stopped(data, monkeypatch):
    shards = [shard.name for shard in Dataset.open(data).shards]
    monkeypatch.setattr("launch.offline.relabel._LANES", 2)

    def interrupt(steps, so_far=[0]):  # noqa: B006 - counts over calls
        so_far[0] += steps
        if so_far[0] > 320:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observe(data, ["blstats"], 0, interrupt)
    logged = Dataset.open(data)
    assert "blstats" not in logged.manifest.obs_keys
    written = [name for name in shards if "obs.blstats" in logged.manifest.shards[name].files]
    assert written == shards[:2]
    kept = column_path(data, shards[0], "obs.blstats")
    changed = kept.stat().st_mtime_ns
    observe(data, ["blstats"], 0)
    assert kept.stat().st_mtime_ns == changed and verify(data, 100).columns[-1] == "obs.blstats"


def test_what_a_killed_writer_left_can_be_labelled(data):
    manifest = json.loads((data / "manifest.json").read_text())
    name = sorted(manifest["shards"])[0]
    del manifest["shards"][name]  # as if its writer had not lived to say so
    (data / "manifest.json").write_text(json.dumps(manifest))
    observe(data, ["blstats"], 0)
    assert all(shard.closed for shard in Dataset.open(data).shards) and verify(data, 100).episodes > 0


# -- bad input ----------------------------------------------------------------------------------------


def test_rewards_of_another_task_are_refused(run, tmp_path):
    games = GamesConfig(task="MiniHack-Room-5x5-v0", obs_keys=("blstats",))
    other = Recording(
        data=tmp_path / "other",
        sources=(RandomSource(games=games),),
        shares=(1.0,),
        games=games,
        num_steps=20,
        num_workers=0,
        games_per_worker=1,
    )
    record(other)
    with pytest.raises(UserError, match=rf"are of {TASK}, and .*other is of MiniHack-Room-5x5-v0"):
        relabel(other.data, RunRewards.of(run), 0)


def test_a_run_without_rewards_of_its_own_has_none_to_give(tmp_path):
    off = {"oni": {"kind": "retrieval", "weight": 0.0}}
    config = small_run(tmp_path, total_steps=UPDATE, reward=off)
    trained(config)
    with pytest.raises(UserError, match="was paid the environment's own reward and nothing else"):
        RunRewards.of(config.runs / config.name)


def test_a_column_that_is_there_already_is_refused(data):
    with pytest.raises(UserError, match=r"has a column 'obs.map_summary' already; 'yendor offline drop' removes one"):
        observe(data, ["map_summary"], 0)


def test_a_damaged_file_is_named(data):
    path = column_path(data, "00-000-0001", "action")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"00-000-0001/action.arrow is damaged: its SHA-256 is"):
        verify(data, 5)


def test_a_log_of_other_seeds_does_not_replay(data):
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["games"]["penalty_step"] = -0.5
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"episode \d+ of .* does not replay: at step \d+, the game pays -0.5"):
        verify(data, 50)


def test_another_action_table_is_named(data):
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["actions"][1]["name"] = "dance"
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"another action table: action 1 is 'dance' \(key 108\), not 'east'"):
        verify(data, 5)
