"""Contenders measured in turn: the harness by hand-made figures, the contenders by short runs."""

import json
import os
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import psutil
import pytest

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from envs.seeding import TrainingSeeds
from envs.spec import GamesConfig
from envs.tasks import make
from launch.bench import env, overhead, paired, rewards, train
from launch.bench.alternate import alternate
from launch.bench.contender import Isolated, Round
from launch.bench.crew import CrewMaker
from launch.bench.gym_reference import GlyphsCrop, training_env
from launch.bench.machine import machine
from launch.bench.memory import PeakMemory, tree_memory_mb
from launch.bench.sample_factory import SampleFactoryTraining, settings
from launch.bench.sb3_training import Timed
from launch.bench.stepped_games import OurGames, SteppedGames
from launch.bench.summary import raw, summarise, table
from launch.commands import bench
from launch.errors import RunError, UserError

TINY = train.TrainBench(
    batch=32,
    games=2,
    sb3_games=2,
    sb3_threads=(1,),
    sample_factory_games=4,
    ppo=PPOConfig(minibatch=16, epochs=1),
    model=ModelConfig(encoder=EncoderConfig(hidden=16)),
)


class Named:
    def __init__(self, name, is_reference):
        self.name, self.is_reference = name, is_reference


def rounds(*speeds, split=None, memory_mb=None):
    return [Round(steps=int(10 * v), seconds=10.0, split=split or {}, memory_mb=memory_mb) for v in speeds]


MAKERS = [Named("ours", False), Named("slow", True), Named("fast", True)]
FOUND = {
    "ours": rounds(300, 200, 400, split={"games": 0.75, "learn": 0.25}, memory_mb=1234.5),
    "slow": rounds(50, 50, 50),
    "fast": rounds(100, 100, 50),
}


# ---- the harness


def test_the_ratio_is_taken_round_by_round_to_the_fastest_reference():
    summary = summarise(MAKERS, FOUND)
    assert summary["reference"] == "fast"
    ours = summary["contenders"]["ours"]
    assert ours["ratios"] == [3.0, 2.0, 8.0]
    assert (ours["ratio_median"], ours["ratio_low"], ours["ratio_high"]) == (3.0, 2.0, 8.0)
    assert (ours["median"], ours["low"], ours["high"]) == (300.0, 200.0, 400.0)
    assert ours["split"] == {"games": 0.75, "learn": 0.25} and ours["memory_mb"] == 1234.5
    assert "ratio_median" not in summary["contenders"]["slow"]


def test_every_reference_has_its_ratios():
    against = summarise(MAKERS, FOUND)["contenders"]["ours"]["against"]
    assert {name: ratios["ratios"] for name, ratios in against.items()} == {
        "slow": [6.0, 4.0, 8.0],
        "fast": [3.0, 2.0, 8.0],
    }


def test_the_table_shows_speeds_ratios_memory_and_splits():
    lines = table(summarise(MAKERS, FOUND)).splitlines()
    assert lines[1].split() == [
        "ours",
        "300",
        "200-400",
        "3.00x",
        "2.00-8.00",
        "1,234",
        "games",
        "75%,",
        "learn",
        "25%",
    ]
    assert lines[3].split() == ["fast", "100", "50-100", "1"]
    assert lines[4] == "ours: 6.00x slow, 3.00x fast"


def test_without_a_reference_there_are_no_ratios():
    summary = summarise(MAKERS[:1], {"ours": FOUND["ours"]})
    assert summary["reference"] is None and "ratios" not in summary["contenders"]["ours"]


def test_every_measurement_is_kept_in_the_order_in_which_it_was_made():
    order = [(row["round"], row["contender"]) for row in raw(FOUND)]
    assert order[:4] == [(0, "ours"), (0, "slow"), (0, "fast"), (1, "ours")]
    assert raw(FOUND)[0]["steps"] == 3000


def test_the_machine_is_described_without_its_name():
    found = machine()
    assert found["cores"] >= 1 and {"torch", "nle", "stable-baselines3"} <= set(found["versions"])
    assert not {"host", "node", "hostname"} & set(found)


def test_a_contender_that_fails_says_why():
    config = GamesConfig(task="MiniHack-Nowhere-v0")
    broken = Isolated(OurGames("broken", config, 2, seed=1))
    try:
        with pytest.raises(RunError, match="contender broken failed: ValueError: unknown task"):
            broken.warm_up()
        with pytest.raises(RunError, match="contender broken died"):
            broken.run_round(0.1)
    finally:
        broken.close()


def test_memory_is_that_of_a_process_and_its_descendants():
    holding = "b = bytearray(b'x' * 64_000_000)"
    waiting = "print('ready', flush=True); input()"
    inner = f"{holding}; {waiting}"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    process = subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    with PeakMemory(process.pid) as peak:
        found = tree_memory_mb(process.pid)
    process.communicate(b"\n")
    assert 64 < found < 200
    assert peak.mb == pytest.approx(found, rel=0.2)
    assert tree_memory_mb(process.pid) == 0


# ---- games alone


def test_games_are_measured_in_processes_of_their_own_and_everything_is_kept(tmp_path, capsys):
    out = tmp_path / "deep" / "env.json"
    flags = ["--rounds", "2", "--seconds", "0.1", "--games", "2", "--gymnasium", "1"]
    assert bench.run(["env", *flags, "--json", str(out)]) == 0
    kept = json.loads(out.read_text())
    names = [maker.name for maker in env.makers(env.EnvBench(games=(2,), gymnasium=(1,)))]
    assert {"yendor-2", "gymnasium-1", "gymnasium-1-few-keys"} <= set(names)
    assert [m["contender"] for m in kept["measurements"]] == names * 2
    assert all(m["steps"] > 0 and m["seconds"] >= 0.1 and m["memory_mb"] > 50 for m in kept["measurements"])
    assert kept["command"][:3] == ["yendor", "bench", "env"] and kept["flags"]["games"] == [2]
    assert kept["summary"]["reference"].startswith("gymnasium-1")
    assert "yendor-2 " in capsys.readouterr().out


class FakeMaker:
    """Says how many steps it does in a round, and how long that takes."""

    is_reference = False

    def __init__(self, name, steps, seconds):
        self.name, self.steps, self.seconds = name, steps, seconds

    def build(self):
        return self

    def warm_up(self):
        pass

    def run_round(self, seconds):
        return Round(steps=self.steps, seconds=self.seconds + seconds)

    def close(self):
        pass


def test_a_crew_does_the_steps_of_all_in_the_time_of_the_slowest():
    crew = CrewMaker("crew", [FakeMaker("a", 10, 1.0), FakeMaker("b", 30, 2.0)], is_reference=False).build()
    try:
        crew.warm_up()
        measured = crew.run_round(0.5)
    finally:
        crew.close()
    assert (measured.steps, measured.seconds) == (40, 2.5)


def test_the_processes_of_a_contender_play_games_of_their_own():
    (maker, *_) = env.makers(env.EnvBench(processes=3))
    assert [member.stream for member in maker.members] == [0, 1, 2]
    assert {member.config.obs_keys for member in maker.members} == {("glyphs_crop", "blstats")}


def test_blocks_of_actions_are_played_over_and_over():
    played = []
    games = SteppedGames(lambda actions: played.append(actions.tolist()), lambda: None, np.arange(6).reshape(3, 2))
    assert games.run_round(0.0).steps == 6
    games.run_round(0.0)
    assert played == [[0, 1], [2, 3], [4, 5]] * 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"task": "NetHackScoreExtended-v0"}, "Yendor's own"),
        ({"task": "MiniHack-Room-6x6-v0"}, "unknown task 'MiniHack-Room-6x6-v0'"),
    ],
)
def test_games_that_cannot_be_compared_are_refused(flags, said):
    with pytest.raises(UserError, match=said):
        env.makers(env.EnvBench(**flags))


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


@pytest.mark.parametrize("name", ["yendor", "sb3-dummy", "sb3-games"])
@pytest.mark.parametrize("task", ["MiniHack-Room-5x5-v0", "NetHackScore-v0"])
def test_training_is_measured_in_whole_updates(name, task):
    (maker,) = train.makers(TINY.model_copy(update={"contenders": name, "task": task}))
    contender = maker.build()
    try:
        contender.warm_up()
        measured = contender.run_round(0.2)
    finally:
        contender.close()
    assert measured.steps > 0 and measured.steps % 32 == 0 and measured.seconds >= 0.2
    assert all(measured.split[activity] > 0 for activity in ("games", "inference", "learn"))
    assert sum(measured.split.values()) <= 1.001
    assert maker.is_reference == (name == "sb3-dummy")


@pytest.mark.slow
def test_contenders_of_several_processes_are_measured_in_turn():
    contenders = "yendor-split,yendor-symmetric,sb3-subproc"
    makers = train.makers(TINY.model_copy(update={"contenders": contenders}))
    found = alternate(makers, 2, 0.5, say=lambda text: None)
    assert [len(own) for own in found.values()] == [2, 2, 2]
    assert all(r.steps % 32 == 0 and r.steps > 0 and r.memory_mb > 100 for own in found.values() for r in own)
    assert "wait" in found["yendor-split"][0].split


def test_all_have_the_same_network_batch_and_games():
    flags = TINY.model_copy(update={"contenders": "yendor,yendor-split,yendor-symmetric,sb3-dummy"})
    *ours, theirs = train.makers(flags)
    for maker in ours:
        assert maker.config.batch_steps == theirs.config.batch_steps == 32
        assert maker.config.model == theirs.config.model and maker.config.ppo == theirs.config.ppo
        assert maker.config.env == theirs.config.env
    assert [maker.config.rollout.num_workers for maker in ours] == [0, 2, 2]
    assert [maker.config.rollout.games_per_worker for maker in ours] == [2, 1, 1]


def test_the_default_is_the_reference_network():
    from agents.model import ActorCritic
    from envs.protocols import GamesSpec, ObsSpec

    config = train.TrainBench().train_config(16)
    shapes = {
        "glyphs_crop": ObsSpec(shape=(9, 9), dtype=np.dtype(np.int16)),
        "blstats": ObsSpec(shape=(27,), dtype=np.dtype(np.int64)),
    }
    assert set(config.env.obs_keys) == set(shapes)
    spec = GamesSpec(tasks=("a",), obs=shapes, action_names=tuple("abcdefgh"), has_messages=False)
    num_parameters = sum(p.numel() for p in ActorCritic(config.model, spec, 1).parameters())
    assert 0.88e6 < num_parameters < 0.91e6
    assert (config.batch_steps, config.ppo.minibatch, config.ppo.epochs) == (2048, 512, 1)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_references_have_our_network(stride):
    import torch

    from agents.encoders import Encoder
    from envs.protocols import ObsSpec
    from launch.bench.reference_network import ReferenceEncoder

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


def test_each_number_of_threads_of_the_reference_is_a_contender():
    makers = train.makers(TINY.model_copy(update={"contenders": "sb3-subproc", "sb3_threads": (1, 2)}))
    assert [(maker.name, maker.config.threads) for maker in makers] == [("sb3-subproc-1", 1), ("sb3-subproc-2", 2)]


def test_a_timed_function_adds_up_its_calls():
    timed = Timed(lambda x, y: x + y)
    assert timed(1, y=2) == 3
    before = timed.seconds
    timed(1, 2)
    assert timed.seconds > before > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"contenders": "yendor,sb3-dumy"}, "unknown contender 'sb3-dumy'; did you mean sb3-dummy"),
        ({"task": "NetHackScoreExtended-v0"}, "Yendor's own"),
        ({"task": "MiniHack-Room-6x6-v0"}, "unknown task 'MiniHack-Room-6x6-v0'"),
        ({"batch": 8}, "ppo.minibatch 16 is larger than a batch of 8 steps"),
        ({"games": 5}, "batch 32 cannot be dealt evenly over 5 games"),
        ({"games": 1}, "games 1 cannot be dealt evenly over workers 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        train.makers(TINY.model_copy(update=changes))


# ---- sample-factory, which the tests do not have


def test_sample_factory_is_measured_only_where_it_is_installed():
    names = [maker.name for maker in train.makers(TINY)]
    assert ("sample-factory" in names) == (train.installed() is not None)
    elsewhere = TINY.model_copy(update={"sample_factory_python": "/a/python"})
    assert train.makers(elsewhere)[-1].python == "/a/python"


@pytest.mark.skipif(train.installed() is not None, reason="sample-factory is installed")
def test_sample_factory_is_refused_where_it_is_not_installed():
    with pytest.raises(UserError, match="sample-factory is not installed here"):
        train.makers(TINY.model_copy(update={"contenders": "sample-factory"}))


def test_sample_factory_gets_the_same_batch():
    flags = settings(train.TrainBench().train_config(16), "folder")["flags"]
    assert flags["num_workers"] * flags["num_envs_per_worker"] == 16
    assert flags["batch_size"] * flags["num_batches_per_epoch"] == 2048 and flags["batch_size"] == 512
    assert flags["num_epochs"] == 1 and flags["async_rl"]


def fake_python(path, script):
    """An interpreter that runs this instead of what it is told to; ``fd`` is where reports go."""
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\nfd = int(sys.argv[3])\n{script}\n")
    path.chmod(0o700)
    return str(path)


def until_stopped(pid):
    deadline = time.monotonic() + 10
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "it goes on between rounds"
        time.sleep(0.01)


def test_a_contender_that_is_told_to_end_ends_what_it_started(tmp_path):
    contender = Isolated(StartsAnother(tmp_path / "pid"))
    contender.warm_up()
    started = int((tmp_path / "pid").read_text())
    os.kill(contender.pid, signal.SIGTERM)
    with pytest.raises(RunError, match="died"):
        contender.run_round(0.1)
    contender.close()
    assert not psutil.pid_exists(started)


class StartsAnother:
    """A contender with a process in a session of its own."""

    name, is_reference = "starter", False

    def __init__(self, path):
        self.path = path

    def build(self):
        return self

    def warm_up(self):
        self.process = subprocess.Popen(["sleep", "60"], start_new_session=True)
        self.path.write_text(str(self.process.pid))

    def run_round(self, seconds):
        return Round(steps=1, seconds=seconds)

    def close(self):
        self.process.kill()
        self.process.wait()


def test_sample_factory_is_measured_between_its_reports_and_sleeps_between_rounds(tmp_path):
    counting = (
        "n = 0\n"
        "while True:\n"
        "    n += 32\n"
        "    os.write(fd, f'{n} {time.perf_counter()!r}\\n'.encode())\n"
        "    time.sleep(0.01)\n"
    )
    contender = SampleFactoryTraining(TINY.train_config(4), fake_python(tmp_path / "python", counting))
    try:
        contender.warm_up()
        first = contender.run_round(0.2)
        until_stopped(contender._process.pid)
        second = contender.run_round(0.2)
    finally:
        contender.close()
    for measured in (first, second):
        assert measured.seconds >= 0.2 and measured.steps % 32 == 0
        assert 32 * 2 <= measured.steps <= 32 * 40
    with pytest.raises(ProcessLookupError):
        os.kill(contender._process.pid, 0)


def test_sample_factory_that_ends_says_its_last_words(tmp_path):
    dying = "print('no such game'); sys.exit(1)"
    contender = SampleFactoryTraining(TINY.train_config(4), fake_python(tmp_path / "python", dying))
    try:
        with pytest.raises(RunError, match="sample-factory ended: no such game"):
            contender.warm_up()
    finally:
        contender.close()


# ---- what parts of a run cost


def test_the_cost_is_the_median_difference_of_pairs():
    on, off = np.array([1.1, 2.2, 3.0]), np.array([1.0, 2.0, 2.7])
    found = paired.cost(on - off, on, steps=1000)
    assert found["us_per_step"] == pytest.approx(200.0)
    assert found["share"] == pytest.approx(0.2 / 2.2)
    assert found["low"] == pytest.approx(0.1 / 2.2) and found["high"] == pytest.approx(0.3 / 2.2)


def test_the_interval_of_a_median_narrows_with_more_values():
    noise = np.random.default_rng(0).normal(size=400)
    low, high = paired.median_interval(noise)
    few_low, few_high = paired.median_interval(noise[:20])
    assert low < np.median(noise) < high
    assert high - low < few_high - few_low


def test_every_part_is_measured_against_the_same_run_without_it():
    flags = overhead.OverheadBench()
    variants = overhead.variants(flags)
    assert {name for row in overhead.ROWS.values() for name in (row.on, row.off)} == set(variants)
    on, off = (variants[name] for name in overhead.ROWS["labels"][:2])
    assert (on.captions, on.labels, off.captions, off.labels) == (True, True, True, False)
    on, off = (variants[name] for name in overhead.ROWS["ONI retrieval"][:2])
    oni = {"reward.oni.kind": "retrieval", "reward.oni.weight": 0.1}
    assert on.labels and off.labels and on.changes == off.changes | oni


def test_variants_play_the_same_games(tmp_path):
    from launch.bench.overhead_runs import OverheadRun, Variant

    flags = overhead.OverheadBench(batch=64, games=2, ppo=PPOConfig(minibatch=64, epochs=1, learning_rate=1e-12))
    variants = overhead.variants(flags)
    seen = {}
    for name in ("bare", "together"):
        (tmp_path / name).mkdir()
        run = OverheadRun(variants[name], flags.train_config(variants[name].changes), tmp_path / name)
        try:
            spent = [run.update() for _ in range(3)]
            seen[name] = run.worker.state_dict()["games"]["actions"]
        finally:
            run.close()
        assert all(s.wall_s > 0 and s.cpu_s > 0 for s in spent)
        assert all(sum(s.phases.values()) == pytest.approx(s.wall_s) for s in spent)
        assert all((s.phases["captions"] > 0) == (name == "together") for s in spent)
    assert [list(log) for log in seen["bare"]] == [list(log) for log in seen["together"]]
    assert isinstance(variants["bare"], Variant)


def test_the_costs_are_shown_and_kept(tmp_path, capsys):
    out = tmp_path / "overhead.json"
    flags = ["--updates", "2", "--batch", "32", "--games", "2", "--ppo.minibatch", "32", "--model.encoder.hidden", "16"]
    assert bench.run(["overhead", *flags, "--json", str(out)]) == 0
    kept = json.loads(out.read_text())
    assert set(kept["summary"]["costs"]) == set(overhead.ROWS)
    assert all(len(own) == 2 and own[0]["cpu_s"] > 0 for own in kept["measurements"].values())
    assert "ONI retrieval" in capsys.readouterr().out


# ---- what learned rewards cost


def _spent(wall_s, **phases):
    from launch.bench.overhead_runs import Spent

    return Spent(wall_s, wall_s, dict.fromkeys(("captions", "learn", *rewards.LEARNED), 0.0) | phases)


def test_a_reward_is_compared_update_by_update_with_plain_ppo():
    plain = [_spent(0.9, learn=0.4), _spent(1.8, learn=0.8)]
    own = [_spent(1.0, learn=0.4, reward_model=0.1), _spent(2.0, learn=0.7, reward_model=0.1)]
    found = rewards.summarise(own, plain, steps=100)
    assert found["ratio_wall"]["median"] == pytest.approx(0.9)
    assert found["reward_model_share_of_learner"] == pytest.approx(0.2 / 1.3)
    assert found["reward_model_share_of_run"] == pytest.approx(0.2 / 3.0)
    assert found["reward_model"]["us_per_step"] == pytest.approx(0.1 / 100 * 1e6)


def test_every_reward_is_labelled_at_no_cost_and_trained_on(tmp_path, capsys):
    out = tmp_path / "rewards.json"
    flags = ["--updates", "2", "--batch", "64", "--games", "4", "--ppo.minibatch", "64", "--model.encoder.hidden", "16"]
    assert bench.run(["rewards", *flags, "--json", str(out)]) == 0
    kept = json.loads(out.read_text())
    assert set(kept["summary"]["rewards"]) == {*rewards.ONI, rewards.HERON, rewards.BOTH, rewards.PROGRAM}
    assert all(own["phases"]["labels"] > 0 for own in kept["measurements"]["ranking"])
    assert all(own["phases"]["labels"] == 0 for own in kept["measurements"]["plain PPO"])
    assert all(own["phases"]["segments"] > 0 for own in kept["measurements"]["heron"])
    assert "of its speed" in capsys.readouterr().out


# ---- the command


def test_the_command_names_its_benchmarks(capsys):
    assert bench.run(["--help"]) == 0
    assert "train" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown benchmark 'trian'; did you mean train"):
        bench.run(["trian"])
