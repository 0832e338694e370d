"""Contenders measured in turn: the harness by hand-made figures, the contenders by short runs."""

import json

import pytest

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from launch.bench import env, train
from launch.bench.alternate import alternate, machine, raw, summarise, table
from launch.bench.contender import Isolated, Round
from launch.commands import bench
from launch.errors import RunError, UserError

TINY = train.TrainBench(
    games=2,
    num_steps=16,
    threads=1,
    ppo=PPOConfig(minibatch=16, epochs=1),
    model=ModelConfig(encoder=EncoderConfig(hidden=16)),
)


class Named:
    def __init__(self, name, is_reference):
        self.name, self.is_reference = name, is_reference


def rounds(*speeds, split=None):
    return [Round(steps=int(10 * speed), seconds=10.0, split=split or {}) for speed in speeds]


MAKERS = [Named("ours", False), Named("slow", True), Named("fast", True)]
FOUND = {
    "ours": rounds(300, 200, 400, split={"collect": 0.75, "learn": 0.25}),
    "slow": rounds(50, 50, 50),
    "fast": rounds(100, 100, 50),
}


def test_the_ratio_is_taken_round_by_round_to_the_fastest_reference():
    summary = summarise(MAKERS, FOUND)
    assert summary["reference"] == "fast"
    ours = summary["contenders"]["ours"]
    assert ours["ratios"] == [3.0, 2.0, 8.0]
    assert (ours["ratio_median"], ours["ratio_low"], ours["ratio_high"]) == (3.0, 2.0, 8.0)
    assert (ours["median"], ours["low"], ours["high"]) == (300.0, 200.0, 400.0)
    assert ours["split"] == {"collect": 0.75, "learn": 0.25}
    assert "ratio_median" not in summary["contenders"]["slow"]


def test_the_table_shows_speeds_ratios_and_splits():
    lines = table(summarise(MAKERS, FOUND)).splitlines()
    assert lines[1].split() == [*["ours", "300", "200-400", "3.00x", "2.00-8.00", "collect", "75%,", "learn", "25%"]]
    assert lines[3].split() == ["fast", "100", "50-100", "1"]


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


def test_games_are_measured_in_processes_of_their_own_and_everything_is_kept(tmp_path, capsys):
    out = tmp_path / "deep" / "env.json"
    flags = ["--rounds", "2", "--seconds", "0.1", "--games", "2", "--gymnasium", "1"]
    assert bench.run(["env", *flags, "--json", str(out)]) == 0
    kept = json.loads(out.read_text())
    assert [m["contender"] for m in kept["measurements"]] == ["yendor-2", "gymnasium-1"] * 2
    assert all(m["steps"] > 0 and m["seconds"] >= 0.1 for m in kept["measurements"])
    assert kept["command"][:3] == ["yendor", "bench", "env"] and kept["flags"]["games"] == [2]
    assert kept["summary"]["reference"] == "gymnasium-1"
    assert "yendor-2 " in capsys.readouterr().out


def test_a_contender_that_fails_says_why():
    broken = Isolated(env.OurGames("broken", env.EnvBench(task="MiniHack-Nowhere-v0"), 2))
    try:
        with pytest.raises(RunError, match="contender broken failed: ValueError: unknown task"):
            broken.warm_up()
        with pytest.raises(RunError, match="contender broken died"):
            broken.run_round(0.1)
    finally:
        broken.close()


@pytest.mark.parametrize("name", ["yendor", "sb3-dummy", "sb3-games"])
def test_training_is_measured_in_whole_updates(name):
    (maker,) = train.makers(TINY.model_copy(update={"contenders": name}))
    contender = maker.build()
    try:
        contender.warm_up()
        measured = contender.run_round(0.2)
    finally:
        contender.close()
    assert measured.steps > 0 and measured.steps % 32 == 0 and measured.seconds >= 0.2
    assert measured.split["collect"] > 0 and measured.split["learn"] > 0
    assert sum(measured.split.values()) <= 1.001
    assert maker.is_reference == (name == "sb3-dummy")


@pytest.mark.slow
def test_contenders_of_several_processes_are_measured_in_turn():
    makers = train.makers(TINY.model_copy(update={"contenders": "yendor-ray,sb3-subproc"}))
    found = alternate(makers, 2, 0.5, say=lambda text: None)
    assert [len(own) for own in found.values()] == [2, 2]
    assert all(r.steps % 32 == 0 and r.steps > 0 for own in found.values() for r in own)


def test_both_sides_have_the_same_network_and_batch():
    ours, theirs = train.makers(TINY.model_copy(update={"contenders": "yendor-ray,sb3-dummy"}))
    assert ours.config.batch_steps == theirs.config.batch_steps == 32
    assert ours.config.model == theirs.config.model and ours.config.ppo == theirs.config.ppo
    assert ours.config.env == theirs.config.env


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"contenders": "yendor,sb3-dumy"}, "unknown contender 'sb3-dumy'; did you mean sb3-dummy"),
        ({"task": "NetHackScore-v0"}, "only MiniHack's environments show glyphs_crop"),
        ({"task": "MiniHack-Room-6x6-v0"}, "unknown task 'MiniHack-Room-6x6-v0'"),
        ({"num_steps": 4}, "ppo.minibatch 16 is larger than a batch of 8 steps"),
        ({"games": 5}, "games 5 cannot be dealt evenly over workers 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        train.makers(TINY.model_copy(update=changes))


def test_the_command_names_its_benchmarks(capsys):
    assert bench.run(["--help"]) == 0
    assert "train" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown benchmark 'trian'; did you mean train"):
        bench.run(["trian"])
    with pytest.raises(UserError, match="Yendor's own"):
        env.makers(env.EnvBench(task="NetHackScoreExtended-v0"))
