"""A language model's opinion of a program: bounded, and never a failure where there is none."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.auto.config import CompositionConfig
from rewards.auto.program import Program
from rewards.auto.search.llm import DesignerError, LLMOpinion
from rewards.auto.search.proposal import Finding
from rewards.llm.config import LLMConfig, LLMError
from rewards.llm.recorded import RecordedReplies
from rewards.llm.server import LLMServer
from tests.rewards.llm.fake_chat import FakeChat

PROGRAM = Program(source="def reward(obs, prev_obs, action, info):\n    return {'a{b}': 1}\n", columns=())
FINDINGS = [Finding(test="auc", outcome="pass", reason="0.9 by {return}")]


def opinion(model):
    return LLMOpinion(model, "open the door", CompositionConfig(), pauses_s=())


def said(reply):
    return opinion(FakeChat(reply)).of(PROGRAM, FINDINGS)


@pytest.mark.parametrize(
    ("reply", "outcome", "reason"),
    [
        ('{"verdict": "accept", "reasons": ["it pays for doors"]}', "pass", "accept: it pays for doors"),
        ('{"verdict": "reject", "reasons": ["a", "b"]}', "fail", "reject: a; b"),
        ('{"verdict": "unsure"}', "undetermined", "unsure: no reason given"),
        ('I think so.\n```json\n{"verdict": "accept", "reasons": []}\n```\n', "pass", "accept: no reason given"),
        ('{"verdict": "accept"} or rather {"verdict": "reject", "reasons": ["x"]}', "fail", "reject: x"),
        ('{"verdict": "reject", "reasons": ["{obs}\\nhp"]}', "fail", "reject: {obs} hp"),
    ],
)
def test_answers_are_read(reply, outcome, reason):
    found = said(reply)
    assert (found.test, found.outcome, found.reason) == ("opinion", outcome, reason)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "accept",
        "{",
        '{"verdict": "maybe"}',
        '{"verdict": ["accept"]}',
        '{"verdict": "accept", "reasons": "all"}',
        '{"verdict": "accept", "reasons": [1]}',
        "[" * 10_000,
        '{"a":' * 10_000,
        '["accept"]',
    ],
)
def test_what_cannot_be_read_is_undetermined(reply):
    found = said(reply)
    assert found.outcome == "undetermined" and "cannot be read" in found.reason and len(found.reason) < 200


@settings(max_examples=50, deadline=None)
@given(st.text(st.sampled_from('{}[]":,\\ verdictaceptj1'), max_size=300))
def test_noise_is_no_opinion(reply):
    assert said(reply).outcome == "undetermined"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=1000), max_size=30))
def test_reasons_are_bounded(reasons):
    found = said(json.dumps({"verdict": "reject", "reasons": reasons}))
    assert len(found.reason) <= 8 * 302 + 10 and found.reason.isprintable()


def test_it_is_told_what_it_needs_and_counts_its_costs():
    model = FakeChat('{"verdict": "accept"}')
    judge = opinion(model)
    judge.of(PROGRAM, FINDINGS)
    (((message,), sampling),) = model.asked
    for part in ("open the door", PROGRAM.source.rstrip(), "auc: pass, 0.9 by {return}", '{"verdict": "accept"'):
        assert part in message["content"], part
    assert sampling.temperature == 0.0 and sampling.seed is not None
    assert judge.costs.as_json() == {"requests": 1, "prompt_tokens": 10, "completion_tokens": 3} and model.closed == 1


def test_timings_are_not_told_so_that_recorded_replies_fit(tmp_path):
    model = FakeChat('{"verdict": "accept"}')
    recording = opinion(RecordedReplies(tmp_path / "replies.jsonl", "tiny", model))

    def findings(seconds):
        reason = f"{seconds} us a transition, {seconds} s for 2048 of 1 s"
        return [*FINDINGS, Finding(test="time", outcome="pass", reason=reason, figures={"us": seconds})]

    first = recording.of(PROGRAM, findings(1.25))
    assert "time: pass\n" in model.asked[0][0][0]["content"] and "1.25" not in model.asked[0][0][0]["content"]
    replaying = opinion(RecordedReplies(tmp_path / "replies.jsonl", "tiny"))
    assert replaying.of(PROGRAM, findings(7.75)) == first


def test_a_reply_that_is_not_recorded_is_an_error(tmp_path):
    (tmp_path / "replies.jsonl").touch()
    replaying = opinion(RecordedReplies(tmp_path / "replies.jsonl", "tiny"))
    with pytest.raises(DesignerError, match=r"no opinion of program [0-9a-f]{12}: .* holds no reply of 'tiny'"):
        replaying.of(PROGRAM, FINDINGS)


def test_no_server_is_no_opinion():
    found = opinion(FakeChat(LLMError("the server is down"))).of(PROGRAM, FINDINGS)
    assert (found.outcome, found.reason) == ("undetermined", "there is none: the server is down")
    server = LLMServer(LLMConfig(base_url="http://127.0.0.1:9/v1", model="tiny"))
    assert opinion(server).of(PROGRAM, FINDINGS).outcome == "undetermined"
