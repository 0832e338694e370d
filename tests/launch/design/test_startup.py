"""The search for a reward program: whole, cut and resumed; on Ray, with runs of a few updates."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import chdir

import pytest

from launch.cli import main
from launch.config.presets import preset
from launch.design.config import DesignConfig
from launch.design.journal import JOURNAL_FILE
from launch.design.startup import SUMMARY_FILE, EndRecorder, build_parts
from launch.errors import RunError
from launch.runs.folder import RunFolder, read_events
from launch.runs.metrics import read_metrics
from rewards.auto.archive import Archive
from rewards.auto.audit import read
from tests.rewards.llm.fake_llm_server import FakeLLM, FakeLLMServer, Raw

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


def _shas(found):
    return [row["sha"] for row in found["programs"]]


def test_a_search_proposes_tries_chooses_and_reports(tmp_path, capsys):
    flags = _flags(tmp_path, "--rounds", "2", "--candidates", "2", "--json", str(tmp_path / "out.json"))
    assert main(["design", "room", *flags, "--", "--ppo.epochs", "2"]) == 0
    found = _found(tmp_path)
    assert found == json.loads((tmp_path / "out.json").read_text())
    assert [row["round"] for row in found["programs"]] == [1, 1, 2, 2]
    tried = [row for row in found["programs"] if row["selection"]]
    assert tried and found["search_steps"] - found["evaluation_steps"] == len(tried) * STEPS
    assert found["evaluation_steps"] > 20 and found["costs"]["requests"] == 0
    assert found["chosen"] in {row["sha"] for row in tried}
    assert found["selection"]["success"] == max(row["selection"]["success"] for row in tried)
    assert found["report"]["steps"] == found["sparse"]["steps"] == [STEPS] and found["report"]["seeds"] == [101]
    entry = Archive(tmp_path / "archive").get(found["chosen"])
    assert (
        entry.verdict is not None
        and entry.verdict.accepted
        and entry.fitness["report"]["success"] == found["report"]["success"]
    )
    assert entry.search == "search" and entry.analysis["text"]
    assert len(read_metrics(tmp_path / "search" / "runs" / found["chosen"][:12])) == 2, "one row an update"
    shown = capsys.readouterr().out
    assert "isolation" in found and found["use"] in shown
    with chdir(tmp_path):
        assert main([*shlex.split(found["use"])[1:], "--total-steps", str(STEPS), "--dry-run"]) == 0


@pytest.mark.slow
def test_with_trials_side_by_side_no_race_decides_anything(tmp_path):
    found = []
    for place in (tmp_path / "one", tmp_path / "two"):
        place.mkdir()
        flags = _flags(place, "--rounds", "2", "--candidates", "3", "--report.seeds", "101", "--report.no-sparse")
        assert main(["design", "room", *flags, "--", "--ppo.epochs", "2"]) == 0
        found.append(_found(place))
    one, two = found
    assert _shas(one) == _shas(two) and one["chosen"] == two["chosen"]
    assert [row["selection"] for row in one["programs"]] == [row["selection"] for row in two["programs"]]


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 3, 6, 8, 12])
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


@pytest.mark.slow
def test_a_search_that_is_asked_to_stop_tells_how_to_go_on_and_counts_nothing_as_failed(tmp_path):
    command = [sys.executable, "-m", "launch.cli", "design", "room", *_flags(tmp_path, "--rounds", "1")]
    command[command.index("--trial-steps") + 1] = str(100 * STEPS)
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("search/runs/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM and "stopped; go on with: yendor design --resume" in said
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "search" / JOURNAL_FILE).read_text().splitlines()]
    assert "failed" not in kinds and kinds[-1] == "session"


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
        self.asked, self.later = [], 0

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
        if "(round 2)" in asked:
            self.later += 1
            return _SOUND.replace("visits_here", ("steps_since_change", "new_tiles_seen", "tiles_seen")[self.later % 3])
        return (_PROSE, _USES_OS, _FARMS)[(len(self.asked) - 1) % 3]


@pytest.mark.slow
def test_a_language_model_writes_the_programs_and_a_recording_repeats_the_search(tmp_path, capsys):
    author = _Author()
    size = ["--rounds", "2", "--candidates", "3", "--opinion", "--designing.max-in-flight", "1", "--report.no-sparse"]
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
    assert (
        entry.verdict is not None
        and entry.verdict.findings[-1].test == "opinion"
        and entry.verdict.findings[-1].outcome == "pass"
    )

    replies = ["--replies", str(tmp_path / "search" / "replies.jsonl")]
    again = [*_flags(tmp_path / "again", *size, *replies)]
    assert main(["design", "room", *again]) == 0
    repeated = json.loads((tmp_path / "again" / "search" / SUMMARY_FILE).read_text())
    assert _shas(repeated) == _shas(found) and repeated["chosen"] == found["chosen"]
    assert repeated["costs"]["requests"] == 0, "nobody was asked"
    assert read(tmp_path / "search" / "audit.jsonl")


def test_a_server_that_does_not_answer_ends_the_search_in_one_sentence(tmp_path, capsys):
    flags = _flags(tmp_path, "--llm.base-url", "http://127.0.0.1:9/v1", "--llm.model", "tiny", "--rounds", "1")
    assert main(["design", "room", *flags]) == 1
    shown = capsys.readouterr()
    assert "no reward programs for round 1" in shown.err and "Traceback" not in shown.err
    assert f"go on with: yendor design --resume {tmp_path / 'search'}" in shown.out
    assert read_events(tmp_path / "search")[-1]["kind"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "unknown preset 'nowhere'"),
        (["--rounds", "2"], "the preset comes first"),
        (["--json", "{here}.json"], "the preset comes first"),
        (["--resume", "x", "--", "--ppo.epochs", "2"], "nothing else"),
        (["room", "--designer", "llm"], "need a language model"),
        (["room", "--designer", "oracle"], "designer"),
        (["room", "--report.seeds", "1"], "the seed that programs are chosen with"),
        (["room", "--replies", "x.jsonl", "--llm.base-url", "http://h/v1"], "not both"),
        (["room", "--replies", "{here}"], "replies:"),
        (["room", "--llm.serve", "x"], "yendor serve-llm"),
        (["room", "--candidates", "0"], "candidates"),
        (["room", "--reward.weight", "0"], "reward.weight 0"),
        (["room", "--llm.base-url", "http://127.0.0.1:9/v1"], "without llm.model, the server must answer"),
        (["room", "--", "--reward.program.code", "beef"], "that is what a search looks for"),
        (["room", "--", "--total-steps", "5"], "--total-steps cannot stand after --"),
        (["room", "--", "--total-steps=5"], "--total-steps cannot stand after --"),
        (["room", "--", "--logging.no-tensorboard"], "a run of a search logs every update"),
        (["room", "--", "--no-logging.tensorboard"], "a run of a search logs every update"),
        (["room", "--", "--reward.program.weight", "1"], "use --reward.* before the --"),
        (["room", "--", "--rollout.num_workers", "2"], "one process"),
        (["room", "--", "--checkpoint.interval-s", "2"], "saved every minute"),
        (["room", "--", "--env.task", "MiniHack-Room-5x5-v0"], "--goal is needed"),
        (["room", "--", "--rollout.games-per-worker", "64"], "plays 16 games"),
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
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error and not runs.exists()


def test_the_critic_discounts_as_the_stream_does(tmp_path):
    train = preset("room")
    stream = train.reward.intrinsic.replace(gamma=0.7)
    train = train.replace(reward=train.reward.replace(intrinsic=stream))
    made = build_parts(DesignConfig(preset="room"), train, (), tmp_path, print)
    made.journal.close()
    assert made.critic._gamma == 0.7


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
