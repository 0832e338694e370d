"""HERON in a run: in this process and in peers, resumed, with its encoder, its events and its file."""

import json
import sys

import pytest

from launch.cli import main
from launch.config.resolve import check_startable
from launch.errors import RunError, UserError
from launch.runs.folder import read_events
from tests.launch.running import trained
from tests.launch.test_train import HERE, PEERS, UPDATE, small_run

SMALL = {
    "min_segments": 8,
    "batch_pairs": 8,
    "hidden": 8,
    "capacity_segments": 64,
    "held_out_share": 0.3,
    "publish_updates": 1,
}


def _config(path, *, heron=None, model=None, **changes):
    ranking = ["success", "alive", "new_tiles", "-turns"]
    heron = {"kind": "tree", "weight": 0.1, "ranking": ranking, "segment_steps": 8, "model": SMALL | (model or {})} | (
        heron or {}
    )
    return small_run(path, reward={"oni": {"kind": "retrieval", "weight": 0.0}, "heron": heron}, **changes)


@pytest.mark.parametrize(
    ("model", "rollout"),
    [
        ({}, HERE),
        ({"encoder": True}, HERE),
        pytest.param({}, PEERS, marks=pytest.mark.slow),
        pytest.param({"encoder": True}, PEERS, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, model, rollout):
    changes = {"model": model, "rollout": rollout}
    whole = trained(_config(tmp_path / "whole", total_steps=6 * UPDATE, **changes))
    trained(_config(tmp_path / "cut", total_steps=4 * UPDATE, **changes))
    resumed = trained(_config(tmp_path / "cut", total_steps=6 * UPDATE, **changes), resume=True)
    assert whole.weights_sha256 == resumed.weights_sha256
    figures = {name: x for name, x in whole.metrics.items() if name.startswith(("heron/", "rewards/"))}
    assert figures.items() <= resumed.metrics.items()
    assert whole.metrics["heron/version"] > 0 and whole.metrics["rewards/heron/valid"] == 1.0


def test_a_model_may_read_the_columns_of_the_factors_where_it_is_told_to(tmp_path):
    inputs = {"inputs": ["obs.hp"], "see_factors": True}
    check_startable(_config(tmp_path, heron={"ranking": ["hp = obs.hp"], "model": inputs}))


def test_one_peer_gives_the_same_run_as_none(tmp_path):
    here = trained(_config(tmp_path / "here"))
    there = trained(_config(tmp_path / "there", rollout={"num_workers": 1}, placement="symmetric"))
    assert here.weights_sha256 == there.weights_sha256


def test_what_a_run_says_of_its_tree(tmp_path):
    trained(_config(tmp_path))
    events = {event["kind"]: event for event in read_events(tmp_path / "run")}
    assert set(events["heron_begins"]["margins"]) == {"success", "alive", "new_tiles", "turns"}
    dead = [e["factor"] for e in read_events(tmp_path / "run") if e["kind"] == "factor_dead"]
    assert "alive" in dead  # nothing kills in KeyRoom
    report = json.loads((tmp_path / "run" / "heron.json").read_text())
    assert [level["name"] for level in report["levels"]] == ["success", "alive", "new_tiles", "turns"]


def test_that_a_tree_decides_nothing_is_told(tmp_path):
    summary = trained(_config(tmp_path, heron={"ranking": ["alive"]}))  # nothing kills in KeyRoom
    assert summary.metrics["heron/version"] == 0 and summary.metrics["heron/dead_factors"] == 1
    assert "heron/return_correlation" not in summary.metrics  # all were paid the same: nothing
    assert [e["factor"] for e in read_events(tmp_path / "run") if e["kind"] == "factor_dead"] == ["alive"]
    report = json.loads((tmp_path / "run" / "heron.json").read_text())
    assert report["version"] == 0 and report["levels"][0]["dead"]


@pytest.mark.parametrize("bound", ["clip", "delta"])
def test_bounds_are_applied(tmp_path, bound):
    summary = trained(_config(tmp_path, heron={"bound": bound}))
    if bound == "clip":
        assert summary.metrics["rewards/heron/mean"] <= 0
    else:
        assert summary.metrics["rewards/heron/valid"] < 1.0  # the last steps of running episodes


@pytest.mark.parametrize("kind", ["weighted_sum", "powers_of_ten"])
def test_sums_of_factors_train(tmp_path, kind):
    summary = trained(
        small_run(
            tmp_path, reward={"oni": {"kind": "retrieval", "weight": 0.0}, "heron": {"kind": kind, "weight": 0.1}}
        )
    )
    assert summary.metrics["rewards/heron/valid"] == 1.0


LATE = ["success", "late = 1 / (12 - obs.turn)"]


@pytest.mark.parametrize(
    ("kind", "rollout"),
    [
        ("tree", HERE),
        ("weighted_sum", HERE),
        ("weighted_sum", {"num_workers": 1}),
        ("tree", PEERS),
        pytest.param("tree", {"num_workers": 1}, marks=pytest.mark.slow),
        pytest.param("weighted_sum", PEERS, marks=pytest.mark.slow),
    ],
)
def test_a_factor_that_fails_in_the_middle_ends_the_run_in_one_sentence(tmp_path, kind, rollout):
    heron = {"kind": kind, "weight": 0.1, "ranking": LATE}
    reward = {"oni": {"kind": "retrieval", "weight": 0.0}, "heron": heron}
    with pytest.raises(RunError, match=r"factor 'late' is not finite at step [0-9]+ of game [0-9]+: ") as ended:
        trained(small_run(tmp_path, reward=reward, rollout=rollout))
    assert "\n" not in str(ended.value)


def test_whatever_a_users_factor_raises_ends_the_run_in_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "heron_failing_module.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ["--reward.heron.weight", "0.1", "--reward.heron.ranking", "mine = heron_failing_module:mine"]
    small = ["--total-steps", "512", "--rollout.num-workers", "0", "--runs", str(tmp_path), "--name", "run"]
    assert main(["train", "debug", *flags, *small]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == "yendor: factor 'mine' failed: KeyError: 'door'" and "Traceback" not in error
    assert "KeyError" in (tmp_path / "run" / "logs" / "driver.log").read_text()


def test_an_evaluation_needs_no_factors(tmp_path, monkeypatch):
    module = tmp_path / "heron_lost_module.py"
    module.write_text("from rewards.heron.factors import CATALOGUE\nmine = CATALOGUE['gold']\n")
    monkeypatch.syspath_prepend(tmp_path)
    trained(_config(tmp_path, heron={"ranking": ["mine = heron_lost_module:mine"]}, total_steps=UPDATE))
    module.unlink()
    monkeypatch.delitem(sys.modules, "heron_lost_module")
    assert main(f"eval {tmp_path / 'run'} --tasks MiniHack-Room-5x5-v0 --episodes 1 --workers 0".split()) == 0
    assert "heron_lost_module" not in sys.modules


FAILING = """\
from rewards.heron.factors import factor

@factor("obs.turn")
def mine(columns):
    return {}["door"] if columns["obs.turn"].max() > 12 else columns["obs.turn"]
"""


@pytest.mark.parametrize(
    ("heron", "sentence"),
    [
        ({"ranking": ["success", "succes"]}, "succes"),
        ({"ranking": ["success", "success"]}, "success"),
        ({"ranking": ["wet = sum(obs.wet)"]}, "obs.wet"),
        ({"ranking": ["angle = obs[0]"]}, "obs.0"),
        ({"ranking": ["x @ -1 = obs.x"]}, "reward.heron.ranking"),
        ({"ranking": ["x = no_such_module:x"]}, "reward.heron.ranking: .*ModuleNotFoundError.*PYTHONPATH"),
        ({"model": {"inputs": ["obs.hpp"]}}, "reward.heron.model.inputs.*obs.hpp"),
        ({"model": {"inputs": ["obs.message"]}}, "reward.heron.model.inputs.*text"),
        (
            {"ranking": ["hp = obs.hp"], "model": {"inputs": ["obs.hp"]}},
            "reward.heron.model.inputs: the factors read all of these columns",
        ),
    ],
)
def test_bad_rankings_are_refused_before_anything_is_written(tmp_path, heron, sentence):
    with pytest.raises(UserError, match=sentence):
        check_startable(_config(tmp_path, heron=heron))
    assert not list(tmp_path.iterdir())
