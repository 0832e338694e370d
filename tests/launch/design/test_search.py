"""The steps of a search, one by one: with designers, critics and trials that are not real."""

import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from launch.config.presets import preset
from launch.design.config import DesignConfig, ReportConfig
from launch.design.journal import JOURNAL_FILE, Journal, Proposed, briefed_recordings
from launch.design.search import Rounds, SearchParts, choose, run
from launch.design.startup import EndRecorder, build_parts
from launch.design.summary import command_of, pooled, print_summary
from launch.design.trials import Broken, Outcome, Plans, Screening, with_absolute_paths
from launch.errors import RunError, UserError
from launch.runs.folder import RunFolder, read_events
from rewards.auto.archive import Archive
from rewards.auto.audit import AuditLog, read
from rewards.auto.config import AutoConfig, CompositionConfig, ContainmentConfig
from rewards.auto.episodes import builtin_transitions
from rewards.auto.language.admission import admit
from rewards.auto.program import sha_of
from rewards.auto.sandbox.contained import ContainedProgram
from rewards.auto.search.proposal import Costs, Finding, Proposal, Verdict

PAYS = """COMPONENTS = {{"walk": "dense"}}
def reward(obs, prev_obs, action, info):
    return {{"walk": {0} if obs["x"] != prev_obs["x"] else 0.0}}
"""
LOOKS = """COMPONENTS = {"look": "dense"}
def reward(obs, prev_obs, action, info):
    return {"look": 1.0 if obs["y"] != prev_obs["y"] else 0.0}
"""
ONCE, TWICE = PAYS.format("1.0"), PAYS.format("2.0")


class Designer:
    """Proposes what it was given, round by round."""

    name, costs = "scripted", Costs()

    def __init__(self, *rounds):
        self.rounds, self.briefs = rounds, []

    def propose(self, brief, num):
        self.briefs.append(brief)
        return [Proposal(source=source, by="scripted", prompt="Write.") for source in self.rounds[brief.round - 1]]


class Critic:
    """Accepts all but what it was told to refuse."""

    def __init__(self, *refused):
        self.refused = refused

    def critique(self, source, episodes):
        if source in self.refused:
            return None, Verdict(findings=[Finding(test="admission", outcome="fail", reason="no", code="E22")])
        return None, Verdict(findings=[])


def figures(success, env_return=0.0, episodes=10):
    return {
        "success": success, "success_low": 0.0, "success_high": 1.0, "env_return": env_return, "episodes": episodes,
    }  # fmt: skip


def outcome(trial, success=0.5, *, env_return=0.0, records=(), quarantined=()):
    return Outcome(
        key=trial.key, role=trial.role, seed=trial.seed, figures=figures(success, env_return), steps=1000,
        evaluation_steps=30, train_s=1.0, records=tuple(map(str, records)), quarantined=tuple(quarantined),
    )  # fmt: skip


class Runs:
    """Ends runs as it was told to: by their names, one end after the other; otherwise well."""

    def __init__(self, **ends):
        self.ends, self.asked = {name: list(some) for name, some in ends.items()}, []

    def __call__(self, trials, parallel):
        for trial in trials:
            self.asked.append(trial.key)
            ends = self.ends.get(trial.key.replace("-", "_")) or self.ends.get(f"p{trial.key}")
            end = ends.pop(0) if ends else outcome
            yield end(trial)


def breaks(trial):
    return Broken(trial=trial, cause="OSError: no room", interrupted=False)


def is_stopped(trial):
    return Broken(trial=trial, cause="TrialInterruptedError: SIGTERM", interrupted=True)


@pytest.fixture
def recorded(tmp_path):
    """Three recorded episodes below the search's folder."""
    names = []
    for i, record in enumerate(builtin_transitions()[:3]):
        record.save(tmp_path / f"{i}.npz")
        names.append(f"{i}.npz")
    return names


@pytest.fixture
def parts(tmp_path, recorded):
    """Makes a search's parts; a second call is a second session."""
    made = []

    def make(designer, runs, critic=None, **changes):
        for one in made:
            one.journal.close()
        reward = AutoConfig(archive=tmp_path / "archive", **changes.pop("reward", {}))
        config = DesignConfig(preset="room", reward=reward, rounds=len(designer.rounds), **changes)
        journal, audit = Journal(tmp_path), AuditLog(tmp_path / "audit.jsonl")
        if ("play", "") not in journal:
            journal.add("play", "", {"records": recorded, "steps": 40})
        said = []
        found = SearchParts(
            config=config, train=preset("room"), training=(), goal="find the stairs", folder=tmp_path,
            designer=designer, critic=cast(Any, critic or Critic()), journal=journal, audit=audit,
            say=said.append, attempt=runs,
        )  # fmt: skip
        made.append(found)
        return found

    yield make
    for one in made:
        one.journal.close()


# ---- what a program's recordings say


def test_a_program_without_an_answer_on_the_recordings_ends_no_search(parts):
    designer = Designer([ONCE], [LOOKS])
    runs = Runs(**{f"p{sha_of(ONCE)}": [lambda trial: outcome(trial, records=[Path(trial.archive).parent / "0.npz"])]})
    made = parts(designer, runs, reward={"containment": ContainmentConfig(batch_s=1e-6)})
    found = run(made)
    (told,) = designer.briefs[1].tried
    assert told.analysis.startswith("no answer on the recordings: ") and told.fitness == 0.5
    assert found["chosen"] == sha_of(ONCE)


def test_what_a_quarantined_program_came_to_is_not_kept_as_its_own(parts):
    why = f"{sha_of(ONCE)[:12]}: it gave no answer"
    end = [lambda trial: outcome(trial, 1.0, quarantined=[why], records=[Path(trial.archive).parent / "0.npz"])]
    designer = Designer([ONCE, LOOKS], [TWICE])
    made = parts(designer, Runs(**{f"p{sha_of(ONCE)}": end}), reward={"containment": ContainmentConfig(batch_s=1e-6)})
    found = run(made)
    told = designer.briefs[1].tried[0]
    assert told.analysis.startswith(f"quarantined in its trial: {why}; it pays nothing to keep that")
    assert told.fitness is None and told.figures == {} and "no answer on" not in told.analysis
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


# ---- runs that break or are stopped


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


# ---- nothing depends on who is faster


def test_what_a_round_is_told_does_not_depend_on_which_trial_ended_first(tmp_path):
    def told(order):
        folder = tmp_path / "".join(order)
        folder.mkdir()
        journal = Journal(folder)
        journal.add("play", "", {"records": [f"play{i}" for i in range(20)], "steps": 0})
        for number, sources in enumerate(("ab", "cd"), start=1):
            proposals = [Proposal(source=source, by="x").__dict__ for source in sources]
            journal.add("proposed", str(number), proposals)
        for name in order:
            records = tuple(f"{name}{i}" for i in range(25))
            tried = Outcome(
                key=sha_of(name), role="trial", seed=1, figures=figures(0.5), steps=1, evaluation_steps=1, train_s=1.0,
                records=records, quarantined=(),
            )  # fmt: skip
            journal.add("tried", sha_of(name), tried.as_json())
        journal.close()
        return [path.name for path in briefed_recordings(journal, folder, 4)]

    found = told("abcd")
    assert found == told("dcab") == told("bdac")
    assert found == [f"{name}{i}" for name in "abcd" for i in range(15)], "15 of each trial, and no random play"


def test_of_equal_programs_the_one_that_was_proposed_first_is_chosen(parts):
    class Backwards(Runs):
        def __call__(self, trials, parallel):
            yield from super().__call__(list(reversed(trials)), parallel)

    third = LOOKS.replace("look", "gaze")
    made = parts(Designer([ONCE, LOOKS, third]), Backwards(**{f"p{sha_of(third)}": [lambda t: outcome(t, 0.4)]}))
    Rounds(made).run(1)
    assert choose(made) == sha_of(ONCE)


# ---- screening


def test_a_program_that_pays_what_another_pays_is_not_trained_again(parts):
    designer, runs = Designer([ONCE, TWICE], [LOOKS]), Runs()
    made = parts(designer, runs, reward={"composition": CompositionConfig(values="signs")})
    found = run(made)
    assert [key for key in runs.asked if "seed" not in key] == [sha_of(ONCE), sha_of(LOOKS)]
    assert [row["same_as"] for row in found["programs"]] == [None, sha_of(ONCE), None]
    assert designer.briefs[1].tried[1].analysis == (
        f"not trained: on all recorded play it pays what {sha_of(ONCE)} pays, step by step"
    )


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


# ---- the journal, costs, the audit log


def test_a_journal_repeats_nothing_and_drops_a_torn_line(tmp_path):
    journal = Journal(tmp_path)
    assert journal.once("tried", "a", lambda: 1) == 1
    journal.close()
    with (tmp_path / JOURNAL_FILE).open("a") as file:
        file.write('{"kind": "tried", "key": "b", "wh')
    journal = Journal(tmp_path)
    assert journal.once("tried", "a", lambda: pytest.fail("it was done before")) == 1
    assert ("tried", "b") not in journal and journal.once("tried", "b", lambda: 2) == 2
    assert journal.of_kind("tried") == {"a": 1, "b": 2}
    journal.close()


def test_a_search_that_is_killed_outright_loses_no_costs(tmp_path):
    spent = {"requests": 0}
    journal = Journal(tmp_path, lambda: spent)
    spent = {"requests": 3}
    journal.add("proposed", "1", [])
    spent = {"requests": 5}  # killed before the next line; the record of replies has them
    journal = Journal(tmp_path, lambda: spent)
    assert journal.costs["requests"] == 3
    journal.add("judged", "a", {})
    journal.add("judged", "b", {})
    assert journal.costs["requests"] == 5 and journal.costs["seconds"] >= 0
    lines = [json.loads(line)["costs"]["requests"] for line in (tmp_path / JOURNAL_FILE).read_text().splitlines()]
    assert lines == [3, 2, 0]
    journal.close()


def test_every_proposal_is_in_the_audit_log_with_its_author(parts):
    designer = Designer(["", ONCE, LOOKS])
    made = parts(designer, Runs(), Critic(LOOKS))
    run(made)
    none, good, bad = read(made.folder / "audit.jsonl")
    assert (none["kind"], good["kind"], bad["kind"]) == ("rejected", "admitted", "rejected")
    assert good["by"] == "scripted" and good["source"] == ONCE and good["program"] == sha_of(ONCE)
    assert good["prompt"] == sha_of("Write.") and good["round"] == 1
    assert bad["codes"] == ["E22"] and none["program"] is None


def test_the_critic_discounts_as_the_stream_does(tmp_path):
    train = preset("room")
    stream = train.reward.intrinsic.model_copy(update={"gamma": 0.7})
    train = train.model_copy(update={"reward": train.reward.model_copy(update={"intrinsic": stream})})
    made = build_parts(DesignConfig(preset="room"), train, (), tmp_path, print)
    made.journal.close()
    assert made.critic._gamma == 0.7


# ---- plans


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
    assert (trial.key, trial.role, trial.seed, trained["reward"]["program"]) == ("sparse-seed101", "sparse", 101, None)


def test_the_whole_command_that_repeats_a_reward(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reward = AutoConfig(archive=tmp_path / "runs" / "programs")
    assert command_of("room", "a" * 64, reward, ()) == f"yendor train room --reward.program {'a' * 12}"
    changed = reward.model_copy(
        update={"archive": Path("/my archive"), "composition": CompositionConfig(dense="budget"), "weight": 0.5}
    )
    assert command_of("room", "a" * 64, changed, ("--ppo.epochs", "2")) == (
        f"yendor train room --reward.program {'a' * 12} --reward.auto.weight 0.5 "
        "--reward.auto.composition.dense budget --reward.auto.archive '/my archive' --ppo.epochs 2"
    )


# ---- the end


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT)]
)
def test_who_stops_a_search_is_told_how_to_go_on(tmp_path, number, code):
    said, before = [], signal.getsignal(number)
    folder = RunFolder.create(tmp_path, "search", "{}")
    with pytest.raises(SystemExit) as stopped, folder, EndRecorder(folder, said.append):
        os.kill(os.getpid(), number)
    assert stopped.value.code == code and signal.getsignal(number) is before
    assert said == [f"stopped; go on with: yendor design --resume {tmp_path / 'search'}"]
    assert read_events(tmp_path / "search")[-1]["kind"] == "stopped"


def test_a_search_that_fails_says_so_in_its_events(tmp_path):
    said = []
    folder = RunFolder.create(tmp_path, "search", "{}")
    with pytest.raises(RunError), folder, EndRecorder(folder, said.append):
        raise RunError("no proposals")
    assert "go on with: yendor design --resume" in said[0]
    last = read_events(tmp_path / "search")[-1]
    assert (last["kind"], last["cause"]) == ("failed", "RunError: no proposals")


# ---- what is shown


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


def test_recordings_are_named_as_seen_from_the_searchs_folder(parts, tmp_path):
    end = [lambda trial: outcome(trial, records=[tmp_path / "0.npz"])]
    made = parts(Designer([ONCE]), Runs(**{f"p{sha_of(ONCE)}": end}))
    run(made)
    assert list(made.journal["tried", sha_of(ONCE)]["records"]) == ["0.npz"]
