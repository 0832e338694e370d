"""A reward of one's own, in a file outside the packages: trained with, resumed, reported, and held to the promises."""

from pathlib import Path

import numpy as np
import pytest

from launch.cli import main
from launch.config.train_config import TrainConfig
from launch.report.build import build_report
from launch.runs.glossary import glossary
from launch.runs.metrics import read_metrics
from rewards.conformance import check_reward_model, sample_rollout
from rewards.kinds import ScoringContext, custom_kind
from tests.launch.running import trained

FILE = Path(__file__).parents[2] / "rewards" / "my_reward.py"
UPDATE = 2 * 4 * 32
HERE = {"num_workers": 0, "games_per_worker": 8, "num_steps": 32}
ON_RAY = {"num_workers": 2, "games_per_worker": 4, "num_steps": 32}


def _config(path, *, updates=6, rollout=HERE, placement="split", custom=f"{FILE}:RNDKind", **rnd):
    return TrainConfig.model_validate(
        {
            "preset": "debug",
            "runs": str(path),
            "name": "run",
            "total_steps": updates * UPDATE,
            "device": "cpu",
            "placement": placement,
            "env": {"task": "MiniHack-Room-Random-5x5-v0"},
            "rollout": rollout,
            "ppo": {"minibatch": 64, "epochs": 1, "precision": "fp32"},
            "reward": {"custom": [custom], "rnd": {"weight": 0.2, **rnd}},
            "logging": {"interval_s": 0.01, "tensorboard": False},
        }
    )


@pytest.mark.parametrize(
    ("rollout", "placement"),
    [
        pytest.param(HERE, "split", id="one process"),
        pytest.param(ON_RAY, "split", id="split", marks=pytest.mark.slow),
        pytest.param(ON_RAY, "symmetric", id="symmetric", marks=pytest.mark.slow),
    ],
)
def test_it_trains_and_resumes_bit_for_bit(tmp_path, rollout, placement):
    how = {"rollout": rollout, "placement": placement}
    whole = trained(_config(tmp_path / "whole", **how))
    trained(_config(tmp_path / "cut", updates=3, **how))
    resumed = trained(_config(tmp_path / "cut", **how), resume=True)
    assert whole.weights_sha256 == resumed.weights_sha256
    assert whole.metrics["rewards/rnd/valid"] == 1.0
    lines = read_metrics(tmp_path / "whole" / "run")
    assert lines[-1]["rnd/loss"] < lines[0]["rnd/loss"] / 2, "the predictor learns where play has been"
    assert lines[-1]["rewards/rnd/mean"] < lines[0]["rewards/rnd/mean"] / 2, "and what is known pays less"
    unpaid = trained(_config(tmp_path / "unpaid", weight=0.0, **how))
    assert unpaid.weights_sha256 != whole.weights_sha256


def test_it_appears_in_glossary_and_report(tmp_path):
    config = _config(tmp_path)
    assert "rnd/loss" in glossary(config.reward)
    trained(config)
    build_report(tmp_path / "run", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Random network distillation" in page and "rnd per step" in page
    assert "Mean error of the predictor" in page


def test_it_keeps_the_promises_of_a_reward_model():
    kind = custom_kind(f"{FILE}:RNDKind")
    rollout = sample_rollout(columns=kind.columns(kind.config()))
    context = ScoringContext(spec=None, seed=3)
    check_reward_model(lambda: kind.model(kind.config(), context), rollout)


def test_a_broken_promise_is_found():
    kind = custom_kind(f"{FILE}:RNDKind")
    rollout = sample_rollout(columns=kind.columns(kind.config()))

    class PaysByBatch(type(kind.model(kind.config(), ScoringContext(spec=None)))):
        def score(self, rollout, state):
            parts, state = super().score(rollout, state)
            parts["rnd"].value[:] += np.arange(rollout.num_games)
            return parts, state

    with pytest.raises(AssertionError, match="pays something else"):
        check_reward_model(lambda: PaysByBatch(kind.config(), 3), rollout)


def test_flags_of_a_kind_of_ones_own(tmp_path, capsys):
    flags = [
        "--reward.custom",
        f"{FILE}:RNDKind",
        "--reward.rnd.weight",
        "0.5",
        "--reward.rnd.width",
        "16",
        "--dry-run",
    ]
    assert main(["train", "debug", *flags]) == 0
    shown = capsys.readouterr().out
    assert '"width": 16' in shown and "my_reward.py:RNDKind" in shown


@pytest.mark.parametrize(
    ("custom", "sentence"),
    [
        ("nowhere.py:RNDKind", "there is no file"),
        (f"{FILE}:Nothing", "names no kind of reward"),
        (f"{FILE}:RNDTeacher", "names no kind of reward"),
        ("no_such_module:Kind", "cannot be imported"),
        ("{here}/broken.py:Kind", "cannot be imported: SyntaxError: '(' was never closed"),
        ("{here}/lacking.py:Kind", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("rnd", "neither PATH.py:KIND nor module:KIND nor an entry point"),
    ],
)
def test_what_is_no_kind_is_refused_in_a_sentence(tmp_path, capsys, custom, sentence):
    (tmp_path / "broken.py").write_text("Kind = (\n")
    (tmp_path / "lacking.py").write_text("import no_such_module\n")
    custom = custom.format(here=tmp_path)
    assert main(["train", "debug", "--reward.custom", custom, "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
