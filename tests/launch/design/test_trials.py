"""One run of a search: it goes on where it was cut, and says why where it cannot."""

import json
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import pytest

from launch.config.presets import preset
from launch.config.train_config import TrainConfig
from launch.design.config import DesignConfig, ReportConfig
from launch.design.trials import (
    Broken,
    Plans,
    Screening,
    Trial,
    TrialInterruptedError,
    broken_by,
    opened,
    run_trial,
    run_trials,
    with_absolute_paths,
)
from launch.errors import UserError
from launch.runs.folder import RunFolder
from launch.training.run import SUMMARY_FILE
from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.language.admission import admit
from rewards.auto.sandbox.contained import ContainedProgram
from tests.launch.design.scripted import (
    LOOKS,
    ONCE,
    TWICE,
    Designer,
    Runs,
)

STEPS = 2 * 8 * 64


def trial(folder, steps=STEPS):
    config = preset("debug").replace(runs=folder, name="run", total_steps=steps)
    checked = TrainConfig.model_validate(config.model_dump())
    return Trial(
        key="run", role="sparse", seed=1, config_json=checked.model_dump_json(),
        episodes=2, episode_list=0, recorded=1,
    )  # fmt: skip


def test_a_run_that_was_killed_before_its_summary_goes_on_to_write_it(tmp_path):
    first = run_trial(trial(tmp_path))
    assert first.steps == STEPS and first.evaluation_steps >= 2 and Path(first.records[0]).exists()
    (tmp_path / "run" / SUMMARY_FILE).unlink()
    again = run_trial(trial(tmp_path))
    assert (again.steps, again.figures, again.records) == (first.steps, first.figures, first.records)


def test_a_run_that_was_asked_to_stop_is_interrupted_and_goes_on(tmp_path):
    def stop():
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(TrialInterruptedError, match="stopped by SIGTERM"):
        run_trial(trial(tmp_path, 100 * STEPS))
    stopper.join()
    ended = run_trial(trial(tmp_path))
    assert ended.steps >= STEPS


def test_a_folder_that_an_earlier_process_is_in_is_waited_for(tmp_path):
    folder = RunFolder.create(tmp_path, "run", "{}")
    with pytest.raises(TrialInterruptedError, match="in use by process"):
        opened(folder.path, wait_s=0.01)
    threading.Timer(0.3, folder.close).start()
    opened(folder.path, wait_s=20).close()


class _RaisedInWorkerError(Exception):
    """As Ray wraps what a worker raised."""

    def __init__(self, cause):
        super().__init__("a long\ntraceback")
        self.cause = cause


@pytest.mark.parametrize(
    ("error", "cause", "interrupted"),
    [
        (_RaisedInWorkerError(ValueError("")), "ValueError:", False),
        (_RaisedInWorkerError(OSError("no room\nat all")), "OSError: no room", False),
        (_RaisedInWorkerError(TrialInterruptedError("it was stopped")), "TrialInterruptedError: it was stopped", True),
        (RuntimeError(), "RuntimeError:", False),
    ],
)
def test_why_a_run_broke_is_one_line(tmp_path, error, cause, interrupted):
    broken = broken_by(trial(tmp_path), error)
    assert (broken.cause, broken.interrupted) == (cause, interrupted)


def test_what_a_worker_raises_can_travel():
    assert str(pickle.loads(pickle.dumps(TrialInterruptedError("it was stopped")))) == "it was stopped"


def test_what_breaks_is_tried_once_more_after_the_others(tmp_path):
    asked = []

    def attempt(trials, parallel):
        for one in trials:
            asked.append(one.key)
            yield Broken(trial=one, cause=f"try {len(asked)}", interrupted=False)

    ended = list(run_trials([trial(tmp_path)], 2, attempt))
    assert [one.cause for one in ended if isinstance(one, Broken)] == ["try 2"] and asked == ["run", "run"]
    assert list(run_trials([], 2, attempt)) == []


def test_what_recorded_play_cannot_tell_apart_is_not_called_the_same(tmp_path, recorded):
    never = 'COMPONENTS = {"walk": "dense", "gold": "sparse"}\n' + ONCE.split("\n", 1)[1].replace(
        "else 0.0}", 'else 0.0, "gold": 1.0 if obs["gold"] > 10 ** 9 else 0.0}'
    )
    programs = [admit(source) for source in (ONCE, never, TWICE, LOOKS)]
    screening = Screening(lambda one: ContainedProgram(one, ContainmentConfig()), CompositionConfig(), 0.99)
    files = [tmp_path / name for name in recorded]
    first, rare, same, other = programs
    assert screening.same_as(rare, [first], files) is None, "gold may come in training"
    assert screening.same_as(same, [other, first], files) == first.sha
    assert screening.same_as(other, [first, rare], files) is None


def test_what_a_run_of_the_search_trains_is_checked_before_anything_is_written(tmp_path):
    train = preset("room")
    big = train.model_copy(update={"ppo": train.ppo.model_copy(update={"minibatch": 4096})})
    with pytest.raises(UserError, match=r"ppo.minibatch 4096 is larger than a batch of 2048"):
        Plans(DesignConfig(preset="room"), big, tmp_path).check()
    unpaid = train.reward.model_copy(update={"env": train.reward.env.model_copy(update={"weight": 0.0})})
    bare = train.model_copy(update={"reward": unpaid})
    with pytest.raises(UserError, match="every reward has weight 0"):
        Plans(DesignConfig(preset="room"), bare, tmp_path).check()
    Plans(DesignConfig(preset="room", report=ReportConfig(sparse=False)), bare, tmp_path).check()


def test_workers_elsewhere_find_every_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(DesignConfig(preset="room", replies=Path("r.jsonl")))
    assert config.runs == tmp_path / "runs" and config.replies == tmp_path / "r.jsonl"
    assert config.reward.archive == tmp_path / "runs" / "programs" and config.designing.wording is None


def test_every_update_of_a_trial_has_a_row_of_metrics(parts):
    made = parts(Designer([ONCE]), Runs())
    trial = made.plans.report(None, 101)
    trained = json.loads(trial.config_json)
    assert trained["logging"]["interval_s"] <= 0.01 and trained["runs"] == str(made.folder / "runs")
    assert (trial.key, trial.role, trial.seed, trained["reward"]["program"]["code"]) == (
        "sparse-seed101",
        "sparse",
        101,
        None,
    )
