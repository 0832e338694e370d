"""A search step by step, with a designer, a critic and runs that follow a script."""

from dataclasses import replace

import pytest

from launch.design.config import ReportConfig
from launch.design.journal import Proposed
from launch.design.search import Rounds, choose, run
from launch.errors import RunError
from rewards.auto.archive import Archive
from rewards.auto.audit import read
from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.program import sha_of
from rewards.auto.search.proposal import Proposal
from tests.launch.design.scripted import (
    LOOKS,
    ONCE,
    TWICE,
    Critic,
    Designer,
    Runs,
    breaks,
    folder_of,
    is_stopped,
    outcome,
)


def test_a_program_without_an_answer_on_the_recordings_ends_no_search(parts):
    designer = Designer([ONCE], [LOOKS])
    runs = Runs(**{f"p{sha_of(ONCE)}": [lambda trial: outcome(trial, records=[folder_of(trial) / "0.npz"])]})
    made = parts(designer, runs, reward={"containment": ContainmentConfig(batch_s=1e-6)})
    found = run(made)
    (seen,) = designer.briefs[1].tried
    assert seen.analysis.startswith("no answer on the recordings: ") and seen.fitness == 0.5
    assert found["chosen"] == sha_of(ONCE)


def test_what_a_quarantined_program_came_to_is_not_kept_as_its_own(parts):
    why = f"{sha_of(ONCE)[:12]}: it gave no answer"
    end = [lambda trial: outcome(trial, 1.0, quarantined=[why], records=[folder_of(trial) / "0.npz"])]
    designer = Designer([ONCE, LOOKS], [TWICE])
    made = parts(designer, Runs(**{f"p{sha_of(ONCE)}": end}), reward={"containment": ContainmentConfig(batch_s=1e-6)})
    found = run(made)
    seen = designer.briefs[1].tried[0]
    assert seen.analysis.startswith(f"quarantined in its trial: {why}; it pays nothing to keep that")
    assert seen.fitness is None and seen.figures == {} and "no answer on" not in seen.analysis
    assert Archive(made.config.reward.archive).get(sha_of(ONCE)).fitness == {"quarantined": why}
    assert found["programs"][0]["quarantined"] == [why] and found["chosen"] == sha_of(LOOKS)


def test_the_archive_keeps_what_a_program_came_to_and_how_it_was_composed(parts):
    made = parts(Designer([ONCE]), Runs(), report=ReportConfig(seeds=(101, 102), sparse=False))
    run(made)
    fitness = made.archive.get(sha_of(ONCE)).fitness
    assert fitness["selection"]["success"] == 0.5 and fitness["composition"]["dense"] == "fading"
    assert fitness["report"]["each"] == [0.5, 0.5] and fitness["report"]["seeds"] == [101, 102]


def test_a_program_that_another_search_knows_begins_anew(parts):
    made = parts(Designer([ONCE]), Runs(**{f"p{sha_of(ONCE)}": [breaks, breaks]}))
    known = Rounds(made)._entry(Proposed(3, Proposal(source=ONCE, by="somebody")))
    made.archive.put(replace(known, search="other", fitness={"selection": {"success": 1.0}}, analysis={"text": "!"}))
    run(made)
    entry = made.archive.get(sha_of(ONCE))
    assert (entry.search, entry.by, entry.round) == (made.folder.name, "scripted", 1)
    assert entry.fitness == entry.analysis == {}


def test_a_run_that_breaks_is_tried_twice_and_again_in_the_next_session(parts):
    sha = sha_of(ONCE)
    runs = Runs(**{f"p{sha}": [breaks, breaks]}, chosen_seed101=[breaks, breaks], sparse_seed101=[breaks])
    flags = {"report": ReportConfig(seeds=(101,))}
    first = parts(Designer([ONCE]), runs, **flags)
    found = run(first)
    assert runs.asked == [sha, sha] and found["chosen"] is None
    assert found["failed_trials"] == {sha: "OSError: no room"} and found["programs"][0]["broke"] == "OSError: no room"
    found = run(parts(Designer([ONCE]), runs, **flags))
    assert found["chosen"] == sha and found["failed_trials"] == {}
    assert found["report"]["broken"] == {"chosen-seed101": "OSError: no room"} and found["report"]["success"] is None
    assert found["sparse"]["broken"] == {} and found["sparse"]["success"] == 0.5, "once is forgiven"
    found = run(parts(Designer([ONCE]), runs, **flags))
    assert found["report"]["broken"] == {} and found["report"]["each"] == [0.5]


def test_a_run_that_was_only_stopped_is_no_failure(parts):
    sha = sha_of(ONCE)
    runs = Runs(**{f"p{sha}": [is_stopped, is_stopped]})
    made = parts(Designer([ONCE]), runs)
    with pytest.raises(RunError, match=r"1 of the search's runs were interrupted \(.*SIGTERM"):
        run(made)
    again = parts(Designer([ONCE]), runs)
    assert again.journal.of_kind("failed") == {} and again.journal.of_kind("tried") == {}
    assert run(again)["chosen"] == sha


def test_of_equal_programs_the_one_that_was_proposed_first_is_chosen(parts):
    class Backwards(Runs):
        def __call__(self, trials, parallel):
            yield from super().__call__(list(reversed(trials)), parallel)

    third = LOOKS.replace("look", "gaze")
    made = parts(Designer([ONCE, LOOKS, third]), Backwards(**{f"p{sha_of(third)}": [lambda t: outcome(t, 0.4)]}))
    Rounds(made).run(1)
    assert choose(made) == sha_of(ONCE)


def test_a_program_that_pays_what_another_pays_is_not_trained_again(parts):
    designer, runs = Designer([ONCE, TWICE], [LOOKS]), Runs()
    made = parts(designer, runs, reward={"composition": CompositionConfig(values="signs")})
    found = run(made)
    assert [key for key in runs.asked if "seed" not in key] == [sha_of(ONCE), sha_of(LOOKS)]
    assert [row["same_as"] for row in found["programs"]] == [None, sha_of(ONCE), None]
    assert designer.briefs[1].tried[1].analysis == (
        f"not trained: on all recorded play it pays what {sha_of(ONCE)} pays, step by step"
    )


def test_every_proposal_is_in_the_audit_log_with_its_author(parts):
    designer = Designer(["", ONCE, LOOKS])
    made = parts(designer, Runs(), Critic(LOOKS))
    run(made)
    none, good, bad = read(made.folder / "audit.jsonl")
    assert (none["kind"], good["kind"], bad["kind"]) == ("rejected", "admitted", "rejected")
    assert good["by"] == "scripted" and good["source"] == ONCE and good["program"] == sha_of(ONCE)
    assert good["prompt"] == sha_of("Write.") and good["round"] == 1
    assert bad["codes"] == ["E22"] and none["program"] is None


def test_recordings_are_named_as_seen_from_the_searchs_folder(parts, tmp_path):
    end = [lambda trial: outcome(trial, records=[tmp_path / "0.npz"])]
    made = parts(Designer([ONCE]), Runs(**{f"p{sha_of(ONCE)}": end}))
    run(made)
    assert list(made.journal["tried", sha_of(ONCE)]["records"]) == ["0.npz"]
