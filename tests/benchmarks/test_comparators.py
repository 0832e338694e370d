"""What ours is compared with: gymnasium's environments, Stable-Baselines3, sample-factory and vLLM without a server."""

import json
import os
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import psutil
import pytest
import torch

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from agents.encoders import Encoder
from envs.protocols import ObsSpec
from envs.seeding import TrainingSeeds
from envs.spec import GamesConfig
from envs.tasks import make
from launch.bench.harness import alternate
from launch.bench.labelling import LabelRound
from launch.errors import RunError, UserError
from tests.benchmarks.__main__ import run
from tests.benchmarks.comparators import labels
from tests.benchmarks.comparators.games import EnvComparison
from tests.benchmarks.comparators.gym_environments import GlyphsCrop, training_env
from tests.benchmarks.comparators.network import ReferenceEncoder
from tests.benchmarks.comparators.sample_factory import SampleFactoryTraining, installed, settings
from tests.benchmarks.comparators.sb3 import Timed
from tests.benchmarks.comparators.training import TrainComparison

CAPTIONS = Path(__file__).parents[1] / "standin" / "captions.json"
TINY = TrainComparison(
    batch=32,
    games=2,
    sb3_games=2,
    sb3_threads=(1,),
    sample_factory_games=4,
    ppo=PPOConfig(minibatch=16, epochs=1),
    model=ModelConfig(encoder=EncoderConfig(hidden=16)),
)


# ---- games alone


def test_games_are_measured_beside_gymnasiums(tmp_path, capsys):
    out = tmp_path / "env.json"
    flags = ["--rounds", "1", "--seconds", "0.1", "--games", "2", "--gymnasium", "1", "--processes", "1"]
    assert run(["env", *flags, "--json", str(out)]) == 0
    kept = json.loads(out.read_text())
    names = [spec.name for spec in EnvComparison(games=(2,), gymnasium=(1,)).all_specs()]
    assert {"yendor-2", "gymnasium-1", "gymnasium-1-few-keys"} <= set(names)
    assert [m["system"] for m in kept["measurements"]] == names
    assert kept["command"][:4] == ["python", "-m", "tests.benchmarks", "env"] and kept["flags"]["games"] == [2]
    assert kept["summary"]["reference"].startswith("gymnasium-1")
    assert "yendor-2 " in capsys.readouterr().out


def test_both_observe_the_same():
    (ours, *_, few) = EnvComparison(processes=3).all_specs()
    assert {member.config.obs_keys for member in ours.members} == {("glyphs_crop", "blstats")}
    assert {member.obs_keys for member in few.members} == {("glyphs_crop", "blstats")}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"task": "NetHackScoreExtended-v0"}, "Yendor's own"),
        ({"task": "MiniHack-Room-6x6-v0"}, "unknown task 'MiniHack-Room-6x6-v0'"),
    ],
)
def test_games_that_cannot_be_compared_are_refused(flags, said):
    with pytest.raises(UserError, match=said):
        EnvComparison(**flags).all_specs()


# ---- the reference's environments


class GivenGlyphs(gymnasium.Env):
    """Shows what it is given."""

    observation_space = gymnasium.spaces.Dict(
        {
            "glyphs": gymnasium.spaces.Box(0, 5976, (21, 79), np.int16),
            "blstats": gymnasium.spaces.Box(-(2**31), 2**31 - 1, (27,), np.int64),
        }
    )
    action_space = gymnasium.spaces.Discrete(2)


def test_the_reference_cuts_the_crops_that_our_games_cut():
    config = GamesConfig(task="NetHackScore-v0", obs_keys=("glyphs", "blstats", "glyphs_crop"))
    games = make(config, 4, TrainingSeeds(3, 0, 4))
    wrapper = GlyphsCrop(GivenGlyphs())
    actions = np.random.default_rng(0).integers(games.spec.num_actions, size=(200, 4))
    try:
        obs = games.reset()
        for chosen in actions:
            for b in range(4):
                shown = wrapper.observation({"glyphs": obs["glyphs"][b], "blstats": obs["blstats"][b]})
                np.testing.assert_array_equal(shown["glyphs_crop"], obs["glyphs_crop"][b])
                np.testing.assert_array_equal(shown["blstats"], obs["blstats"][b])
            obs = games.step(chosen).obs
    finally:
        games.close()


def test_crops_at_the_corners_are_padded_with_nothing():
    glyphs = np.arange(21 * 79, dtype=np.int16).reshape(21, 79) + 1
    blstats = np.zeros(27, np.int64)
    wrapper = GlyphsCrop(GivenGlyphs(), size=3)
    crop = wrapper.observation({"glyphs": glyphs, "blstats": blstats})["glyphs_crop"]
    assert crop.tolist() == [[0, 0, 0], [0, 1, 2], [0, 80, 81]]
    blstats[:2] = 78, 20
    kept = wrapper.observation({"glyphs": glyphs, "blstats": blstats})["glyphs_crop"]
    assert kept.tolist() == [[1579, 1580, 0], [1658, 1659, 0], [0, 0, 0]]
    assert crop.tolist() == [[0, 0, 0], [0, 1, 2], [0, 80, 81]]  # not written to later


@pytest.mark.parametrize("task", ["MiniHack-Room-5x5-v0", "NetHackScore-v0"])
def test_the_reference_shows_crop_and_statistics_and_nothing_else(task):
    made = training_env(task, -0.001)
    try:
        obs, _ = made.reset()
        assert {key: x.shape for key, x in obs.items()} == {"glyphs_crop": (9, 9), "blstats": (27,)}
        assert made.observation_space["glyphs_crop"].shape == (9, 9)
        assert set(made.observation_space.spaces) == set(obs)
        assert made.unwrapped.penalty_step == -0.001
    finally:
        made.close()


# ---- training


@pytest.mark.parametrize("name", ["sb3-dummy", "sb3-games"])
@pytest.mark.parametrize("task", ["MiniHack-Room-5x5-v0", "NetHackScore-v0"])
def test_training_is_measured_in_whole_updates(name, task):
    (spec,) = TINY.replace(systems=name, task=task).specs()
    system = spec.build()
    try:
        system.warm_up()
        measured = system.run_round(0.2)
    finally:
        system.close()
    assert measured.steps > 0 and measured.steps % 32 == 0 and measured.seconds >= 0.2
    assert all(measured.split[activity] > 0 for activity in ("games", "inference", "learn"))
    assert sum(measured.split.values()) <= 1.001
    assert spec.is_reference == (name == "sb3-dummy")


@pytest.mark.slow
def test_subprocesses_of_sb3_are_measured_in_turn_with_ours():
    specs = TINY.replace(systems="yendor-split,sb3-subproc").specs()
    found = alternate(specs, 2, 0.5, report=lambda text: None)
    assert [len(own) for own in found.values()] == [2, 2]
    assert all(r.steps % 32 == 0 and r.steps > 0 and r.memory_mb > 100 for own in found.values() for r in own)


def test_all_have_the_same_network_batch_and_games():
    flags = TINY.replace(systems="yendor,yendor-split,yendor-symmetric,sb3-dummy")
    *ours, theirs = flags.specs()
    for spec in ours:
        assert spec.config.batch_steps == theirs.config.batch_steps == 32
        assert spec.config.model == theirs.config.model and spec.config.ppo == theirs.config.ppo
        assert spec.config.env == theirs.config.env
    assert [spec.config.rollout.num_workers for spec in ours] == [0, 2, 2]
    assert [spec.config.rollout.games_per_worker for spec in ours] == [2, 1, 1]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_references_have_our_network(stride):
    config = EncoderConfig(glyph_embedding=8, crop_stride=stride, hidden=32)
    shapes = {"glyphs_crop": (9, 9), "blstats": (27,)}
    specs = {key: ObsSpec(shape=shape, dtype=np.dtype(np.int16)) for key, shape in shapes.items()}
    ours, theirs = Encoder(config, specs), ReferenceEncoder(config.model_dump(), shapes)
    theirs.load_state_dict(ours.state_dict())
    rng = np.random.default_rng(0)
    obs = {
        "glyphs_crop": torch.from_numpy(rng.integers(2300, 2400, (40, 9, 9)).astype(np.int16)),
        "blstats": torch.from_numpy(rng.integers(-3, 10_000, (40, 27))),
    }
    torch.testing.assert_close(theirs(obs), ours(obs), rtol=1e-4, atol=1e-5)


def test_each_number_of_threads_of_the_reference_is_a_system():
    specs = TINY.replace(systems="sb3-subproc", sb3_threads=(1, 2)).specs()
    assert [(spec.name, spec.config.threads) for spec in specs] == [("sb3-subproc-1", 1), ("sb3-subproc-2", 2)]


def test_a_timed_function_adds_up_its_calls():
    timed = Timed(lambda x, y: x + y)
    assert timed(1, y=2) == 3
    before = timed.seconds
    timed(1, 2)
    assert timed.seconds > before > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"systems": "yendor,sb3-dumy"}, "unknown system 'sb3-dumy'; did you mean sb3-dummy"),
        ({"task": "NetHackScoreExtended-v0"}, "Yendor's own"),
        ({"task": "MiniHack-Room-6x6-v0"}, "unknown task 'MiniHack-Room-6x6-v0'"),
        ({"batch": 8}, "ppo.minibatch 16 is larger than a batch of 8 steps"),
        ({"games": 5}, "batch 32 cannot be dealt evenly over 5 games"),
        ({"games": 1}, "games 1 cannot be dealt evenly over workers 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        TINY.replace(**changes).specs()


# ---- sample-factory, which the tests do not have


def test_sample_factory_is_measured_only_where_it_is_installed():
    names = [spec.name for spec in TINY.specs()]
    assert ("sample-factory" in names) == (installed() is not None)
    elsewhere = TINY.replace(sample_factory_python="/a/python")
    assert elsewhere.specs()[-1].python == "/a/python"


@pytest.mark.skipif(installed() is not None, reason="sample-factory is installed")
def test_sample_factory_is_refused_where_it_is_not_installed():
    with pytest.raises(UserError, match="sample-factory is not installed here"):
        TINY.replace(systems="sample-factory").specs()


def test_sample_factory_gets_the_same_batch():
    flags = settings(TrainComparison().train_config(16), "folder")["flags"]
    assert flags["num_workers"] * flags["num_envs_per_worker"] == 16
    assert flags["batch_size"] * flags["num_batches_per_epoch"] == 2048 and flags["batch_size"] == 512
    assert flags["num_epochs"] == 1 and flags["async_rl"]


def fake_python(path, script):
    """An interpreter that runs this instead of its arguments; ``fd`` is where reports go."""
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\nfd = int(sys.argv[3])\n{script}\n")
    path.chmod(0o700)
    return str(path)


def until_stopped(pid):
    deadline = time.monotonic() + 10
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "it goes on between rounds"
        time.sleep(0.01)


def test_sample_factory_is_measured_between_its_reports_and_sleeps_between_rounds(tmp_path):
    counting = (
        "n = 0\n"
        "while True:\n"
        "    n += 32\n"
        "    os.write(fd, f'{n} {time.perf_counter()!r}\\n'.encode())\n"
        "    time.sleep(0.01)\n"
    )
    system = SampleFactoryTraining(TINY.train_config(4), fake_python(tmp_path / "python", counting))
    try:
        system.warm_up()
        first = system.run_round(0.2)
        until_stopped(system._process.pid)
        second = system.run_round(0.2)
    finally:
        system.close()
    for measured in (first, second):
        assert measured.seconds >= 0.2 and measured.steps % 32 == 0
        assert 32 * 2 <= measured.steps <= 32 * 40
    with pytest.raises(ProcessLookupError):
        os.kill(system._process.pid, 0)


def test_sample_factory_that_ends_says_its_last_words(tmp_path):
    dying = "print('no such game'); sys.exit(1)"
    system = SampleFactoryTraining(TINY.train_config(4), fake_python(tmp_path / "python", dying))
    try:
        with pytest.raises(RunError, match="sample-factory ended: no such game"):
            system.warm_up()
    finally:
        system.close()


# ---- labels


def test_the_efficiency_is_taken_round_by_round():
    def rounds(*speeds, **more):
        return [
            LabelRound(seconds=1.0, labels_per_s=v, cpu_ms_per_label=100.0 / v, agreement=1.0, **more) for v in speeds
        ]

    found = {"server": rounds(80.0, 90.0, 50.0, requests=5, prefix_hits=0.75), "offline": rounds(100.0, 100.0, 100.0)}
    summary = labels.summarise(found, 50)
    assert summary["efficiency"] == {"median": 0.8, "low": 0.5, "high": 0.9}
    assert summary["systems"]["offline"]["median"] == 100.0
    assert "efficiency 0.80 (0.50-0.90)" in labels.table(summary)


@pytest.mark.vllm
def test_a_short_run_beside_vllm_alone(standin_model, vllm):
    flags = {"model": str(standin_model), "captions": CAPTIONS, "prompts": 300, "rounds": 2}
    server = {"vllm": vllm.executable, "dtype": "float32"}
    shown, results = labels.measure(labels.LabelComparison.model_validate(flags | {"server": server}))
    assert "efficiency" in shown
    for name in ("server", "offline"):
        assert [r["agreement"] >= 0.99 for r in results["measurements"][name]] == [True, True]
    assert results["summary"]["prefix_hits"] > 0.5 and results["summary"]["requests_per_label"] < 0.02
    json.dumps(results)
