"""Reward programs in a run: what they pay, and what happens when one fails in the middle."""

import json

import pytest

from launch.cli import main
from launch.config.resolve import prepared
from launch.errors import UserError
from launch.report.build import build_report
from launch.runs.folder import RunFolder, read_events
from launch.runs.metrics import read_metrics
from rewards.auto.audit import read
from rewards.auto.program import sha_of
from rewards.auto.program_kind import PROGRAMS_FOLDER
from rewards.auto.program_teacher import AUDIT_FILE, QUARANTINED
from rewards.auto.sandbox import contained
from tests.launch.running import trained
from tests.launch.training.test_driver import HERE, PEERS, UPDATE, small_run
from tests.rewards.auto.fake_engine import FakeEngine, answering

SOUND = """
COMPONENTS = {"goal": "sparse", "act": "dense"}

def reward(obs, prev_obs, action, info):
    return {"goal": 1.0 if info["succeeded"] else 0.0, "act": obs["turn"] > prev_obs["turn"]}
"""
LATE = """
def reward(obs, prev_obs, action, info):
    if info["step_in_episode"] >= 40:
        {misbehave}
    return 1.0 if info["new_tiles_seen"] > 0 else 0.0
"""
"""Well for the first rollout of 32 steps and some of the second."""
MISBEHAVIOUR = {
    "hangs": ("while True: pass", "timeout"),
    "eats memory": ("x = 'x' * 10 ** 9 * 10", "memory"),
    "returns nan": ("return float('nan')", "failures"),
    "returns 1e300": ("return 1e300", "failures"),
    "returns a text": ("return 'much'", "failures"),
    "raises": ("return 1 / 0", "failures"),
}


def _settled(path, program, fallback=SOUND, *, containment=None, **changes):
    """A run's configuration with a program and another to fall back to, and what puts them into its folder."""
    path.mkdir(parents=True, exist_ok=True)
    for name, source in (("program.py", program), ("fallback.py", fallback)):
        (path / name).write_text(source)
    reward = {
        "oni": {"kind": "retrieval", "weight": 0.0},
        "program": {
            "code": str(path / "program.py"),
            "fallback": [str(path / "fallback.py")],
            "containment": {"batch_s": 0.3, **(containment or {})},
        },
    }
    return prepared(small_run(path, reward=reward, **changes))


def _trained(path, program, *, steps=6 * UPDATE, resume=False, **changes):
    config, keeps = _settled(path, program, total_steps=steps, **changes)
    if not resume:
        with RunFolder.create(config.runs, config.name, config.model_dump_json()):
            for keep in keeps:
                keep(config.runs / config.name)
    return trained(config, resume=True) if resume else _first(config)


def _first(config):
    """Train in the folder that is there already."""
    from rich.console import Console

    from launch.processes.lifecycle import StopRequest
    from launch.runs.progress import progress
    from launch.training.driver import train

    shown = progress(Console(quiet=True), 1.0, total_steps=config.total_steps)
    with RunFolder.open(config.runs / config.name) as folder, StopRequest() as stop, shown:
        return train(config, folder, shown, stop)


def _quarantines(path):
    return [event for event in read_events(path / "run") if event["kind"] == QUARANTINED]


@pytest.mark.parametrize("rollout", [HERE, pytest.param(PEERS, marks=pytest.mark.slow)])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, rollout):
    whole = _trained(tmp_path / "whole", SOUND, rollout=rollout)
    _trained(tmp_path / "cut", SOUND, steps=3 * UPDATE, rollout=rollout)
    resumed = _trained(tmp_path / "cut", SOUND, resume=True, rollout=rollout)
    assert whole.weights_sha256 == resumed.weights_sha256
    assert whole.metrics["rewards/program/valid"] == 1.0
    assert whole.metrics["rewards/program/act/raw/mean"] > 0


def test_what_a_program_pays_is_composed_and_every_component_is_kept(tmp_path):
    _trained(tmp_path, SOUND, env={"max_episode_steps": 20})
    last = read_metrics(tmp_path / "run")[-1]
    acted = last["rewards/program/act/episode_sum"]
    assert 0 < acted <= 0.9 + 1e-6, "dense components stay within their budget"
    assert last["rewards/program/act/raw/episode_sum"] > 0.9
    parts = last["rewards/program/goal/episode_sum"] + acted
    assert last["rewards/program/episode_sum"] == pytest.approx(parts)


@pytest.mark.parametrize("how", MISBEHAVIOUR)
def test_training_goes_on_with_the_fallback_when_a_program_fails_in_the_middle(tmp_path, how):
    statement, code = MISBEHAVIOUR[how]
    summary = _trained(tmp_path, LATE.format(misbehave=statement), steps=8 * UPDATE)
    assert summary.steps == 8 * UPDATE
    (event,) = _quarantines(tmp_path)
    assert event["code"] == code and event["fallback"] == sha_of(SOUND) and event["step"] >= 2 * UPDATE
    assert summary.metrics["rewards/program/valid"] == 1.0, "the fallback answers"
    assert summary.metrics["rewards/program/goal/valid"] == 1.0
    assert read(tmp_path / "run" / PROGRAMS_FOLDER / AUDIT_FILE)


def test_a_program_that_answers_equal_inputs_differently_is_quarantined(tmp_path, monkeypatch):
    """No admitted program is known to: an engine that does stands in for one."""
    engines = iter([FakeEngine({2: answering("goal", [-1], 7.0)}), FakeEngine()])
    monkeypatch.setattr(contained, "_built", lambda config: next(engines))
    summary = _trained(tmp_path, SOUND, fallback=LATE.format(misbehave="pass"))
    assert summary.steps == 6 * UPDATE
    assert _quarantines(tmp_path)[0]["code"] == "nondeterministic"


def test_without_a_fallback_steps_have_no_value_rather_than_0(tmp_path):
    program = LATE.format(misbehave="return 1 / 0")
    summary = _trained(tmp_path, program, fallback=program, steps=8 * UPDATE)
    (event,) = _quarantines(tmp_path)
    assert event["fallback"] is None
    assert summary.metrics["rewards/program/valid"] == 0.0
    assert "rewards/program/mean" not in summary.metrics


def test_a_resumed_run_repeats_the_quarantines_of_the_log(tmp_path):
    """The program hangs; the run is cut after that, at a checkpoint before it."""
    program = LATE.format(misbehave="while True: pass")
    saves = {"checkpoint": {"interval_updates": 1, "keep": 9}}
    whole = _trained(tmp_path / "a", program, steps=6 * UPDATE, **saves)
    (event,) = _quarantines(tmp_path / "a")
    run = tmp_path / "a" / "run"
    for folder in sorted((run / "checkpoints").iterdir())[1:]:
        for file in folder.iterdir():
            file.write_bytes(b"damaged")
    again = _trained(tmp_path / "a", program, steps=6 * UPDATE, resume=True, **saves)
    assert again.weights_sha256 == whole.weights_sha256
    assert _quarantines(tmp_path / "a") == [event], "nothing is decided, or reported, a second time"


def test_all_peers_stop_using_a_program_that_one_has_quarantined(tmp_path):
    summary = _trained(tmp_path, LATE.format(misbehave="return 1 / 0"), steps=10 * UPDATE, rollout=PEERS)
    events = _quarantines(tmp_path)
    assert {event["fallback"] for event in events} == {sha_of(SOUND)}
    assert summary.metrics["rewards/program/goal/valid"] == 1.0


def test_the_report_shows_when_and_why(tmp_path):
    _trained(tmp_path, LATE.format(misbehave="return 1 / 0"), steps=8 * UPDATE)
    build_report(tmp_path / "run", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    (event,) = _quarantines(tmp_path)
    assert event["sha"][:12] in page and "ZeroDivisionError" in page and "isolation" in page
    assert "while" not in page and "step_in_episode" in page, "the source is shown"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--reward.program.code", "beef"], "no program beef"),
        (["--reward.program.code", "{missing}"], "cannot be read"),
        (["--reward.program.code", "{bad}"], "is not admitted: E"),
        (["--reward.program.code", "{good}", "--reward.program.fallback", "{bad}"], "is not admitted: E"),
        (["--reward.program.code", "not a sha"], "is no SHA"),
    ],
)
def test_bad_programs_are_refused_before_anything_is_written(tmp_path, capsys, flags, sentence):
    files = {name: tmp_path / f"{name}.py" for name in ("missing", "bad", "good")}
    files["bad"].write_text("import os\ndef reward(obs, prev_obs, action, info):\n    return 1.0\n")
    files["good"].write_text(SOUND)
    flags = [flag.format(**files) for flag in flags]
    runs = ["--runs", str(tmp_path / "runs"), "--reward.program.archive", str(tmp_path / "archive")]
    assert main(["train", "room", *flags, *runs]) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error
    assert not (tmp_path / "runs").exists() and not (tmp_path / "archive").exists()


def test_a_dry_run_shows_the_whole_sha_and_what_the_games_record(tmp_path, capsys):
    (tmp_path / "p.py").write_text(SOUND)
    assert main(["train", "room", "--reward.program.code", str(tmp_path / "p.py"), "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out.partition("\n}\n")[0] + "}")
    assert shown["reward"]["program"]["code"] == sha_of(SOUND)
    assert "info.succeeded" in shown["reward"]["program"]["columns"]


def test_a_program_that_was_edited_in_the_run_folder_is_not_used(tmp_path):
    _trained(tmp_path, SOUND, steps=2 * UPDATE)
    file = tmp_path / "run" / PROGRAMS_FOLDER / f"{sha_of(SOUND)}.py"
    file.write_text(SOUND.replace("1.0", "2.0"))
    with pytest.raises(UserError, match="has been changed"):
        _trained(tmp_path, SOUND, steps=4 * UPDATE, resume=True)
