"""The search for a reward program: whole, cut and resumed; on Ray, with runs of a few updates."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from launch.cli import main
from launch.design.journal import JOURNAL_FILE, Journal
from launch.design.run import SUMMARY_FILE
from launch.design.summary import pooled
from rewards.auto.archive import Archive
from tests.rewards.fake_llm_server import FakeLLM, FakeLLMServer, Raw

STEPS = 2 * 16 * 128
"""Two updates of a trial's sixteen games."""
SMALL = [
    *("--trial-steps", str(STEPS), "--trial-episodes", "4", "--recorded-episodes", "2"),
    *("--report.steps", str(STEPS), "--report.seeds", "101", "--report.episodes", "4"),
]


def _flags(path, *more):
    return [*SMALL, "--runs", str(path), "--reward.archive", str(path / "archive"), "--name", "search", *more]


def _found(path):
    return json.loads((path / "search" / SUMMARY_FILE).read_text())


def test_a_search_proposes_tries_chooses_and_reports(tmp_path, capsys):
    flags = _flags(tmp_path, "--rounds", "2", "--candidates", "2", "--json", str(tmp_path / "out.json"))
    assert main(["design", "room", *flags]) == 0
    found = _found(tmp_path)
    assert found == json.loads((tmp_path / "out.json").read_text())
    assert [row["round"] for row in found["programs"]] == [1, 1, 2, 2]
    tried = [row for row in found["programs"] if row["selection"]]
    assert tried and found["search_steps"] == len(tried) * STEPS and found["costs"]["requests"] == 0
    assert found["chosen"] in {row["sha"] for row in tried}
    assert found["selection"]["success"] == max(row["selection"]["success"] for row in tried)
    assert found["report"]["steps"] == found["sparse"]["steps"] == [STEPS]
    entry = Archive(tmp_path / "archive").get(found["chosen"])
    assert entry.verdict.accepted and entry.fitness["report"]["success"] == found["report"]["success"]
    assert entry.search == "search" and entry.analysis["text"]
    assert "isolation" in found and found["chosen"][:12] in capsys.readouterr().out


def test_the_chosen_program_can_be_trained_with(tmp_path):
    assert main(["design", "room", *_flags(tmp_path, "--rounds", "1", "--candidates", "1")]) == 0
    sha = _found(tmp_path)["chosen"][:8]
    run = ["--runs", str(tmp_path), "--name", "run", "--rollout.num-workers", "0", "--total-steps", str(STEPS)]
    archive = ["--reward.auto.archive", str(tmp_path / "archive")]
    assert main(["train", "room", *run, *archive, "--reward.program", sha]) == 0
    assert (tmp_path / "run" / "programs" / f"{_found(tmp_path)['chosen']}.py").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 3, 5, 6])
def test_a_search_that_is_killed_goes_on_where_it_was(tmp_path, lines):
    """Killed outright once its journal has so many lines."""
    command = [sys.executable, "-m", "launch.cli", "design", "room"]
    flags = _flags(tmp_path, "--rounds", "2", "--candidates", "2")
    process = subprocess.Popen([*command, *flags], start_new_session=True, stdout=subprocess.DEVNULL)
    journal = tmp_path / "search" / JOURNAL_FILE
    deadline = time.monotonic() + 300
    while not (journal.exists() and len(journal.read_text().splitlines()) >= lines):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = journal.read_text().splitlines()
    assert main(["design", "--resume", str(tmp_path / "search")]) == 0
    after = journal.read_text().splitlines()
    whole = [line for line in before if line.endswith("}")]
    assert after[: len(whole)] == whole, "what was done stays as it was"
    found = _found(tmp_path)
    assert len(found["programs"]) == 4 and found["report"] is not None
    kinds = [json.loads(line)["kind"] for line in after]
    assert kinds.count("proposed") == 2 and kinds.count("chosen") == 1


# ---- with a language model

_PROSE = "I would pay for the goal, and a little for looking around. May I?"
_USES_OS = "```python\nimport os\ndef reward(obs, prev_obs, action, info):\n    return 1.0\n```"
_FARMS = """```python
COMPONENTS = {"walk": "sparse"}
def reward(obs, prev_obs, action, info):
    return {"walk": 1.0 if obs["x"] != prev_obs["x"] else 0.0}
```"""
_SOUND = """Thoughts: reach the stairs, and look around on the way.

```python
COMPONENTS = {"goal": "sparse", "explore": "dense"}


def reward(obs, prev_obs, action, info):
    return {"goal": 1.0 if info["succeeded"] else 0.0, "explore": 1.0 if info["visits_here"] == 1 else 0.0}
```
It cannot be farmed."""


class _Author:
    """A language model that knows a few replies: by what it is asked about, and how often it was asked."""

    def __init__(self):
        self.llm = FakeLLM(fault=self.answer)
        self.asked = []

    def answer(self, path, body):
        if not path.endswith("/chat/completions"):
            return None
        asked = body["messages"][-1]["content"]
        self.asked.append(body["messages"])
        said = {"role": "assistant", "content": self.said(asked, body)}
        usage = {"prompt_tokens": 1000, "completion_tokens": 100}
        return Raw(200, {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage})

    def said(self, asked, body):
        if "Answer with JSON alone" in asked:
            return 'Fine. {"verdict": "accept", "reasons": ["goal first"]}'
        if len(body["messages"]) > 1:  # the reply before was of no use
            return _SOUND.replace("visits_here", "message_count") if "refused" in asked else _SOUND
        return (_PROSE, _USES_OS, _FARMS)[(len(self.asked) - 1) % 3]


def test_a_language_model_writes_the_programs_and_a_recording_repeats_the_search(tmp_path, capsys):
    author = _Author()
    size = ["--rounds", "1", "--candidates", "3", "--opinion", "--designing.max-in-flight", "1"]
    with FakeLLMServer(author.llm) as server:
        assert main(["design", "room", *_flags(tmp_path, *size, "--llm.base-url", server.url)]) == 0
    found = _found(tmp_path)
    by_fate = {row["reason"].partition(":")[0]: row for row in found["programs"]}
    assert {row["by"] for row in found["programs"]} == {"llm tiny"}
    assert any("cycle" in reason for reason in by_fate), "what can be farmed is rejected by an executed test"
    tried = [row for row in found["programs"] if row["selection"]]
    assert tried and max(row["attempts"] for row in found["programs"]) >= 2
    asked = len(author.asked)
    assert found["costs"]["requests"] == asked and found["costs"]["prompt_tokens"] == 1000 * asked
    entry = Archive(tmp_path / "archive").get(found["chosen"])
    assert "succeeded" in entry.prompt and "look around" in entry.thoughts
    assert entry.verdict.findings[-1].test == "opinion" and entry.verdict.findings[-1].outcome == "pass"

    replies = ["--replies", str(tmp_path / "search" / "replies.jsonl")]
    again = [*_flags(tmp_path / "again", *size, *replies)]
    assert main(["design", "room", *again]) == 0
    repeated = json.loads((tmp_path / "again" / "search" / SUMMARY_FILE).read_text())
    assert [row["sha"] for row in repeated["programs"]] == [row["sha"] for row in found["programs"]]
    assert repeated["chosen"] == found["chosen"]


def test_a_server_that_does_not_answer_ends_the_search_in_one_sentence(tmp_path, capsys):
    flags = _flags(tmp_path, "--llm.base-url", "http://127.0.0.1:9/v1", "--llm.model", "tiny", "--rounds", "1")
    assert main(["design", "room", *flags]) == 1
    told = capsys.readouterr().err
    assert "no reward programs for round 1" in told and "Traceback" not in told


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


def test_pooled_figures():
    rows = [{"success": share, "episodes": 10, "env_return": share} for share in (0.2, 0.4, 0.6)]
    found = pooled(rows)
    assert found["success"] == pytest.approx(0.4) and found["n"] == 30 and found["each"] == [0.2, 0.4, 0.6]
    assert (found["low"], found["high"]) == pytest.approx((0.4 - 0.4968, 0.4 + 0.4968), abs=1e-3)
    alone = pooled(rows[:1])
    assert 0.05 < alone["low"] < 0.2 < alone["high"] < 0.6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "unknown preset 'nowhere'"),
        (["--rounds", "2"], "the preset comes first"),
        (["room", "--designer", "llm"], "need a language model"),
        (["room", "--designer", "oracle"], "designer"),
        (["room", "--report.seeds", "1"], "the seed that programs are chosen with"),
        (["room", "--replies", "x.jsonl", "--llm.base-url", "http://h/v1"], "not both"),
        (["room", "--replies", "{here}"], "replies:"),
        (["room", "--llm.serve", "x"], "yendor serve-llm"),
        (["room", "--candidates", "0"], "candidates"),
        (["room", "--", "--reward.program", "beef"], "leave it out"),
        (["--resume", "{here}"], "is not a run folder"),
        (["room", "--reward.containment.min-isolation", "most"], "min"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_anything_is_written(tmp_path, capsys, arguments, sentence):
    runs = tmp_path / "runs"
    here = [argument.format(here=tmp_path / "none") for argument in arguments]
    place = [] if "--resume" in here else ["--runs", str(runs)]
    at = here.index("--") if "--" in here else len(here)
    assert main(["design", *here[:at], *place, *here[at:]]) == 2
    told = capsys.readouterr().err
    assert sentence in told and "Traceback" not in told and not runs.exists()
