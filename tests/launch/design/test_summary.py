"""Results of a search, as figures and as tables."""

import io
from pathlib import Path

import pytest

from launch.design.config import ReportConfig
from launch.design.search import run
from launch.design.summary import command_of, pooled, print_summary
from rewards.auto.config import CompositionConfig, ProgramConfig
from rewards.auto.program import sha_of
from rewards.auto.search.proposal import Proposal
from tests.launch.design.scripted import (
    LOOKS,
    ONCE,
    Designer,
    Runs,
    breaks,
    outcome,
)


def test_the_whole_command_that_repeats_a_reward(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reward = ProgramConfig(archive=tmp_path / "runs" / "programs")
    assert command_of("room", "a" * 64, reward, ()) == f"yendor train room --reward.program.code {'a' * 12}"
    changed = reward.replace(archive=Path("/my archive"), composition=CompositionConfig(dense="budget"), weight=0.5)
    assert command_of("room", "a" * 64, changed, ("--ppo.epochs", "2")) == (
        f"yendor train room --reward.program.code {'a' * 12} --reward.program.weight 0.5 "
        "--reward.program.composition.dense budget --reward.program.archive '/my archive' --ppo.epochs 2"
    )


def test_pooled_figures():
    rows = [{"success": share, "episodes": 10, "env_return": share} for share in (0.2, 0.4, 0.6)]
    found = pooled(rows)
    assert found["success"] == pytest.approx(0.4) and found["n"] == 30 and found["each"] == [0.2, 0.4, 0.6]
    assert (found["low"], found["high"]) == pytest.approx((0.4 - 0.4968, 0.4 + 0.4968), abs=1e-3)
    alone = pooled(rows[:1])
    assert 0.05 < alone["low"] < 0.2 < alone["high"] < 0.6


def shown(found):
    from rich.console import Console

    out = io.StringIO()
    print_summary(found, Console(width=250, file=out))
    return out.getvalue()


def test_a_report_leaves_out_runs_whose_program_was_quarantined(parts):
    bad = [lambda trial: outcome(trial, 1.0, quarantined=["abc: slow"])]
    runs = Runs(
        chosen_seed102=bad, chosen_seed101=[lambda t: outcome(t, 0.9)], chosen_seed103=[lambda t: outcome(t, 0.1)]
    )
    found = run(parts(Designer([ONCE]), runs, report=ReportConfig(seeds=(103, 102, 101), sparse=False)))
    assert found["report"]["each"] == [0.9, 0.1] and found["report"]["seeds"] == [101, 103]
    assert found["report"]["success"] == pytest.approx(0.5) and found["report"]["low"] < 0
    text = shown(found)
    assert "quarantined in 1 of 3" in text and "seed 101: 0.900, seed 103: 0.100" in text
    assert "0.000 to 1.000" in text, "a share lies within 0 and 1"


def test_texts_of_others_are_shown_as_they_are(parts):
    class Loud(Designer):
        def propose(self, brief, num):
            return [Proposal(source="", by="llm [red]x[/red]", problem="[/nothing] \x1b[2Jgone")]

    text = shown(run(parts(Loud([]), Runs())))
    assert "llm [red]x[/red]" in text and "[/nothing] ?[2Jgone" in text and "\x1b" not in text
    assert "no program was chosen" in text


def test_what_broke_is_listed_with_its_cause(parts):
    sha = sha_of(ONCE)
    ends = {f"p{sha}": [breaks, breaks], "chosen_seed101": [breaks, breaks], "sparse_seed101": [breaks, breaks]}
    found = run(parts(Designer([ONCE, LOOKS]), Runs(**ends), report=ReportConfig(seeds=(101,))))
    text = shown(found)
    assert f"the trial of {sha[:12]} broke: OSError: no room" in text
    assert "the report's run chosen-seed101 broke: OSError: no room" in text
    assert "every run of the report broke" in text


def test_steps_of_play_and_of_evaluation_are_counted_apart(parts):
    found = run(parts(Designer([ONCE, LOOKS]), Runs()))
    assert (found["trials"], found["evaluation_steps"], found["search_steps"]) == (2, 40 + 2 * 30, 2100)
    assert "2,100 environment steps, of which 100 in evaluation" in shown(found)
