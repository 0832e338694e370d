"""The journal of a search: nothing is repeated, and nothing depends on which run is faster."""

import json

import pytest

from launch.design.journal import JOURNAL_FILE, Journal, briefed_recordings
from launch.design.trials import Outcome
from rewards.auto.program import sha_of
from rewards.auto.search.proposal import Proposal
from tests.launch.design.scripted import figures


def test_what_a_round_reads_does_not_depend_on_which_trial_ended_first(tmp_path):
    def replayed(order):
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

    found = replayed("abcd")
    assert found == replayed("dcab") == replayed("bdac")
    assert found == [f"{name}{i}" for name in "abcd" for i in range(15)], "15 of each trial, and no random play"


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
