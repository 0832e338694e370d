"""One run of a search: it goes on where it was cut, and says why where it cannot."""

import os
import pickle
import signal
import threading
import time
from pathlib import Path

import pytest

from launch.config.presets import preset
from launch.config.train import TrainConfig
from launch.design.trials import Broken, Trial, TrialInterruptedError, broken_by, opened, run_trial, run_trials
from launch.runs.folder import RunFolder
from launch.training.run import SUMMARY_FILE

STEPS = 2 * 8 * 64


def trial(folder, steps=STEPS):
    config = preset("debug").model_copy(update={"runs": folder, "name": "run", "total_steps": steps})
    checked = TrainConfig.model_validate(config.model_dump())
    return Trial(
        key="run", role="sparse", seed=1, config_json=checked.model_dump_json(), programs=(), archive=str(folder),
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
    ("error", "told", "interrupted"),
    [
        (_RaisedInWorkerError(ValueError("")), "ValueError:", False),
        (_RaisedInWorkerError(OSError("no room\nat all")), "OSError: no room", False),
        (_RaisedInWorkerError(TrialInterruptedError("it was stopped")), "TrialInterruptedError: it was stopped", True),
        (RuntimeError(), "RuntimeError:", False),
    ],
)
def test_why_a_run_broke_is_one_line(tmp_path, error, told, interrupted):
    broken = broken_by(trial(tmp_path), error)
    assert (broken.cause, broken.interrupted) == (told, interrupted)


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
