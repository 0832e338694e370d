"""From logged play to plans: one small run, and everything that is done with it."""

import json

import numpy as np
import pytest

from envs.recording import EpisodeRecord
from launch.cli import main

UMAZE = "Yendor-Maze2D-Umaze-v0"
SMALL = [
    *("--obs-keys", "blstats", "--head.horizon", "6", "--head.width", "32", "--head.layers", "1"),
    *("--critic.hidden", "32", "--critic.chunk-steps", "3", "--encoder.hidden", "32", "--learn.batch", "32"),
    *("--learn.goals", "hindsight", "--critic.reward", "goal", "--no-logging.tensorboard"),
    *("--learn.anneal", "none", "--critic.batch", "32"),
]
HERE = ["--workers", "0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    played = ["--policy", "walker", "--task", UMAZE, "--steps", "1500", "--games-per-worker", "4"]
    assert main(["offline", "record", str(folder / "data"), *played, "--obs-keys", "blstats", "message", *HERE]) == 0
    place = ["--runs", str(folder), "--name", "run", "--total-updates", "12"]
    assert main(["offline", "train", str(folder / "data"), *SMALL, *place]) == 0
    return folder


@pytest.fixture(scope="module")
def recorded(runs):
    """Records of an evaluation with plans."""
    flags = ["--episodes", "3", "--record", "--planner.candidates", "4", "--planner.decoding.kind", "passes"]
    assert main(["eval", str(runs / "run"), *flags, *HERE, "--json", str(runs / "eval.json")]) == 0
    return sorted((runs / "run" / "eval" / UMAZE).glob("*/*.npz"))


def refused(capsys, *argv):
    """The one sentence with which a command is refused."""
    capsys.readouterr()
    assert main(list(argv)) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def test_a_run_that_was_cut_goes_on_bit_for_bit(runs):
    place = ["--runs", str(runs), "--name", "cut", "--total-updates", "5"]
    assert main(["offline", "train", str(runs / "data"), *SMALL, *place]) == 0
    assert main(["offline", "train", "--resume", str(runs / "cut"), "--total-updates", "12"]) == 0
    weights = [json.loads((runs / name / "summary.json").read_text())["weights_sha256"] for name in ("run", "cut")]
    assert weights[0] == weights[1]


def test_an_evaluation_says_how_it_planned(runs, recorded):
    (only,) = json.loads((runs / "eval.json").read_text())["evaluations"]
    assert only["provenance"]["planner"]["candidates"] == 4
    assert only["provenance"]["head"]["kind"] == "masked"
    assert len(only["episodes"]) == 3 == len(recorded)


def test_other_settings_are_another_evaluation(runs, recorded):
    settings = [["--planner.candidates", "2"], ["--planner.candidates", "2", "--planner.refuse", "0"]]
    for flags in settings:
        assert main(["eval", str(runs / "run"), "--episodes", "1", *flags, *HERE]) == 0
    folders = [path for path in (runs / "run" / "eval" / UMAZE).iterdir() if path.is_dir()]
    assert len(folders) >= 3


def test_a_record_keeps_every_plan(recorded):
    record = EpisodeRecord.load(recorded[0])
    plans = record.plans
    assert plans.step[0] == 0 and (np.diff(plans.step) > 0).all() and plans.step[-1] < record.num_steps
    assert plans.candidates.shape[1:] == (4, 6)
    for step, candidates, taken in zip(plans.step, plans.candidates, plans.taken, strict=True):
        assert candidates[taken][0] == record.actions[step]


def test_plans_are_shown_over_the_screen(recorded, capsys):
    assert main(["offline", "plans", str(recorded[0])]) == 0
    shown = capsys.readouterr().out
    assert "step 0" in shown and "taken" in shown and "@" in shown
    assert "no plan was made there" in refused(capsys, "offline", "plans", str(recorded[0]), "--step", "999")


def test_an_audit_executes_every_candidate(runs, recorded, capsys):
    out = runs / "audit.json"
    argv = ["offline", "audit", *map(str, recorded), "--decisions", "3", "--json", str(out)]
    assert main(argv) == 0
    found = json.loads(out.read_text())
    assert len(found["decisions"]) == 3
    for decision in found["decisions"]:
        assert len(decision["outcomes"]) == 4 == len(decision["scores"])
    assert [row["candidates"] for row in found["summary"]["by_candidates"]] == [1, 2, 4]
    first = found["decisions"]
    assert main(argv) == 0
    assert json.loads(out.read_text())["decisions"] == first


def test_offline_runs_and_runs_that_play_are_told_apart(runs, capsys):
    assert "is an offline run" in refused(capsys, "train", "--resume", str(runs / "run"))
    assert "does not plan" in refused(
        capsys, "eval", "random", "--tasks", UMAZE, "--planner.mode", "fk", "--episodes", "1"
    )


def test_a_report_shows_how_it_was_learned(runs):
    assert main(["report", str(runs / "run")]) == 0
    page = (runs / "run" / "report.html").read_text()
    assert "Plan head" in page and "updates" in page


def test_bad_input_is_one_sentence(runs, capsys):
    data, place = str(runs / "data"), ["--runs", str(runs), "--name", "never"]
    train = ("offline", "train")
    assert "no column 'reward.heron'" in refused(capsys, *train, data, *place, "--critic.reward", "heron")
    assert "learn.goals=hindsight" in refused(capsys, *train, data, *place, "--critic.reward", "goal")
    assert "obs.map_summary" in refused(capsys, *train, data, *place, "--obs-keys", "map_summary")
    assert "data set comes first" in refused(capsys, *train, *place)
    assert "know no returns" in refused(
        capsys, "eval", str(runs / "run"), "--planner.ask-return", "1", "--episodes", "1", *HERE
    )
    assert not (runs / "never").exists()


def test_a_head_that_cannot_be_steered_says_so(runs, capsys):
    place = ["--runs", str(runs), "--name", "ar", "--total-updates", "2", "--head.kind", "autoregressive"]
    assert main(["offline", "train", str(runs / "data"), *place, *SMALL]) == 0
    said = refused(capsys, "eval", str(runs / "ar"), "--planner.mode", "fk", "--episodes", "1", *HERE)
    assert "autoregressive" in said


def test_another_data_set_is_not_resumed_from(runs, capsys):
    played = ["--policy", "random", "--task", UMAZE, "--steps", "300", "--games-per-worker", "2"]
    other = runs / "other"
    assert main(["offline", "record", str(other), *played, "--obs-keys", "blstats", *HERE]) == 0
    said = refused(capsys, "offline", "train", "--resume", str(runs / "run"), "--data", str(other))
    assert "data_sha256" in said
