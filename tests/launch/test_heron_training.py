"""HERON in a run: in this process and in peers, resumed, with its encoder, its events and its file."""

import importlib.util
import json
from pathlib import Path

import pytest

from launch.checks import check_startable
from launch.errors import UserError
from launch.run_folder import read_events

_spec = importlib.util.spec_from_file_location("train_helpers", Path(__file__).parent / "test_train.py")
helpers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(helpers)
UPDATE, HERE, PEERS, _train = helpers.UPDATE, helpers.HERE, helpers.PEERS, helpers._train

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
    return helpers._config(path, reward={"oni": {"kind": "retrieval", "weight": 0.0}, "heron": heron}, **changes)


@pytest.mark.parametrize("rollout", [HERE, PEERS])
@pytest.mark.parametrize("model", [{}, {"encoder": True}])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, rollout, model):
    changes = {"model": model, "rollout": rollout}
    whole = _train(_config(tmp_path / "whole", total_steps=6 * UPDATE, **changes))
    _train(_config(tmp_path / "cut", total_steps=4 * UPDATE, **changes))
    resumed = _train(_config(tmp_path / "cut", total_steps=6 * UPDATE, **changes), resume=True)
    assert whole.weights_sha256 == resumed.weights_sha256
    figures = {name: x for name, x in whole.metrics.items() if name.startswith(("heron/", "rewards/"))}
    assert figures.items() <= resumed.metrics.items()
    assert whole.metrics["heron/version"] > 0 and whole.metrics["rewards/heron/valid"] == 1.0


def test_one_peer_gives_the_same_run_as_none(tmp_path):
    here = _train(_config(tmp_path / "here"))
    there = _train(_config(tmp_path / "there", rollout={"num_workers": 1}, placement="symmetric"))
    assert here.weights_sha256 == there.weights_sha256


def test_what_a_run_says_of_its_tree(tmp_path):
    _train(_config(tmp_path))
    events = {event["kind"]: event for event in read_events(tmp_path / "run")}
    assert set(events["heron_begins"]["margins"]) == {"success", "alive", "new_tiles", "turns"}
    dead = [e["factor"] for e in read_events(tmp_path / "run") if e["kind"] == "factor_dead"]
    assert "alive" in dead  # nothing kills in KeyRoom
    report = json.loads((tmp_path / "run" / "heron.json").read_text())
    assert [level["name"] for level in report["levels"]] == ["success", "alive", "new_tiles", "turns"]


@pytest.mark.parametrize("bound", ["clip", "delta"])
def test_bounds_are_applied(tmp_path, bound):
    summary = _train(_config(tmp_path, heron={"bound": bound}))
    if bound == "clip":
        assert summary.metrics["rewards/heron/mean"] <= 0
    else:
        assert summary.metrics["rewards/heron/valid"] < 1.0  # the last steps of running episodes


@pytest.mark.parametrize("kind", ["weighted_sum", "powers_of_ten"])
def test_sums_of_factors_train(tmp_path, kind):
    summary = _train(
        helpers._config(
            tmp_path, reward={"oni": {"kind": "retrieval", "weight": 0.0}, "heron": {"kind": kind, "weight": 0.1}}
        )
    )
    assert summary.metrics["rewards/heron/valid"] == 1.0


@pytest.mark.parametrize(
    ("heron", "sentence"),
    [
        ({"ranking": ["success", "succes"]}, "succes"),
        ({"ranking": ["success", "success"]}, "success"),
        ({"ranking": ["wet = sum(obs.wet)"]}, "obs.wet"),
        ({"ranking": ["angle = obs[0]"]}, "obs.0"),
        ({"ranking": ["x @ -1 = obs.x"]}, "reward.heron.ranking"),
        ({"model": {"inputs": ["obs.hpp"]}}, "reward.heron.model.inputs.*obs.hpp"),
        ({"model": {"inputs": ["obs.message"]}}, "reward.heron.model.inputs.*text"),
    ],
)
def test_bad_rankings_are_refused_before_anything_is_written(tmp_path, heron, sentence):
    with pytest.raises(UserError, match=sentence):
        check_startable(_config(tmp_path, heron=heron))
    assert not list(tmp_path.iterdir())
