"""What parts of a run cost: costs by hand, and short runs."""

import json

import numpy as np
import pytest

from agents.config import PPOConfig
from tests.benchmarks.__main__ import run
from tests.benchmarks.overhead import parts, rewards
from tests.benchmarks.overhead.variants import OverheadRun, Spent, cost, median_interval


def test_the_cost_is_the_median_difference_of_pairs():
    on, off = np.array([1.1, 2.2, 3.0]), np.array([1.0, 2.0, 2.7])
    found = cost(on - off, on, steps=1000)
    assert found["us_per_step"] == pytest.approx(200.0)
    assert found["share"] == pytest.approx(0.2 / 2.2)
    assert found["low"] == pytest.approx(0.1 / 2.2) and found["high"] == pytest.approx(0.3 / 2.2)


def test_the_interval_of_a_median_narrows_with_more_values():
    noise = np.random.default_rng(0).normal(size=400)
    low, high = median_interval(noise)
    few_low, few_high = median_interval(noise[:20])
    assert low < np.median(noise) < high
    assert high - low < few_high - few_low


def test_every_part_is_measured_against_the_same_run_without_it():
    flags = parts.OverheadBench()
    variants = parts.variants(flags)
    assert {name for row in parts.ROWS.values() for name in (row.on, row.off)} == set(variants)
    on, off = (variants[name] for name in parts.ROWS["labels"][:2])
    assert (on.captions, on.labels, off.captions, off.labels) == (True, True, True, False)
    on, off = (variants[name] for name in parts.ROWS["ONI retrieval"][:2])
    oni = {"reward.oni.kind": "retrieval", "reward.oni.weight": 0.1}
    assert on.labels and off.labels and on.changes == off.changes | oni


def test_variants_play_the_same_games(tmp_path):
    flags = parts.OverheadBench(batch=64, games=2, ppo=PPOConfig(minibatch=64, epochs=1, learning_rate=1e-12))
    variants = parts.variants(flags)
    seen = {}
    for name in ("bare", "together"):
        (tmp_path / name).mkdir()
        training = OverheadRun(variants[name], flags.train_config(variants[name].changes), tmp_path / name)
        try:
            spent = [training.update() for _ in range(3)]
            seen[name] = training.worker.state_dict()["games"]["actions"]
        finally:
            training.close()
        assert all(s.wall_s > 0 and s.cpu_s > 0 for s in spent)
        assert all(sum(s.phases.values()) == pytest.approx(s.wall_s) for s in spent)
        assert all((s.phases["captions"] > 0) == (name == "together") for s in spent)
    assert [list(log) for log in seen["bare"]] == [list(log) for log in seen["together"]]


def test_the_costs_are_shown_and_kept(tmp_path, capsys):
    out = tmp_path / "overhead.json"
    flags = ["--updates", "2", "--batch", "32", "--games", "2", "--ppo.minibatch", "32", "--model.encoder.hidden", "16"]
    assert run(["overhead", *flags, "--json", str(out)]) == 0
    kept = json.loads(out.read_text())
    assert set(kept["summary"]["costs"]) == set(parts.ROWS)
    assert all(len(own) == 2 and own[0]["cpu_s"] > 0 for own in kept["measurements"].values())
    assert "ONI retrieval" in capsys.readouterr().out


# ---- what learned rewards cost


def _spent(wall_s, **phases):
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
    assert run(["rewards", *flags, "--json", str(out)]) == 0
    kept = json.loads(out.read_text())
    assert set(kept["summary"]["rewards"]) == {*rewards.ONI, rewards.HERON, rewards.BOTH, rewards.PROGRAM}
    assert all(own["phases"]["labels"] > 0 for own in kept["measurements"]["ranking"])
    assert all(own["phases"]["labels"] == 0 for own in kept["measurements"]["plain PPO"])
    assert all(own["phases"]["segments"] > 0 for own in kept["measurements"]["heron"])
    assert "of its speed" in capsys.readouterr().out
