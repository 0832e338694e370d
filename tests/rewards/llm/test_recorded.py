"""Replies that were recorded are given again, and nothing else is."""

import asyncio
import json

import pytest

from rewards.llm.config import LLMConfig, LLMError, LLMMissingError
from rewards.llm.recorded import RecordedReplies, request_key
from rewards.llm.server import LLMServer, Reply, Sampling
from tests.rewards.llm.fake_chat import FakeChat
from tests.rewards.llm.fake_llm_server import FakeLLM, FakeLLMServer

CHAT = [{"role": "user", "content": "Wie geht's? \u2028 \u00e9"}]
SAMPLING = Sampling(max_tokens=8, temperature=0.7, seed=3)


def chat(model, messages=CHAT, sampling=SAMPLING):
    async def ask():
        try:
            return await model.chat(messages, sampling)
        finally:
            await model.close()

    return asyncio.run(ask())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions" / "replies.jsonl"


def test_what_was_recorded_is_given_again_without_a_server(path):
    server = FakeChat(Reply("Good.\u2028\r\n\u00fc", is_cut=True))
    recording = RecordedReplies(path, "tiny", server)
    first = chat(recording)
    replaying = RecordedReplies(path, "tiny")
    again = chat(replaying)
    assert (again.text, again.is_cut) == (first.text, first.is_cut) == ("Good.\u2028\r\n\u00fc", True)
    assert (replaying.usage.requests, replaying.usage.prompt_tokens, replaying.usage.completion_tokens) == (1, 10, 3)
    assert replaying.usage == recording.usage and server.closed == 1


def test_a_recorded_request_is_not_sent_again(path):
    server = FakeChat("one", "two")
    assert [chat(RecordedReplies(path, "tiny", server)).text for _ in range(2)] == ["one", "one"]
    assert len(server.asked) == 1 and len(path.read_bytes().splitlines()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"messages": [{"role": "user", "content": "Wie?"}]},
        {"sampling": Sampling(max_tokens=8, temperature=0.7, seed=4)},
        {"sampling": Sampling(max_tokens=8, temperature=0.6, seed=3)},
    ],
)
def test_a_request_that_was_not_recorded_is_refused(path, change):
    chat(RecordedReplies(path, "tiny", FakeChat("one")))
    asked = {"model": "tiny", "messages": CHAT, "sampling": SAMPLING} | change
    with pytest.raises(LLMMissingError, match=r"replies\.jsonl holds no reply of .* to this request \(\w{12}\)"):
        chat(RecordedReplies(path, asked.pop("model")), **asked)
    assert request_key("tiny", CHAT, SAMPLING) != request_key(**({"model": "tiny"} | asked | change))


def test_failures_are_not_recorded(path):
    recording = RecordedReplies(path, "tiny", FakeChat(LLMError("down"), "up"))
    with pytest.raises(LLMError, match="down"):
        chat(recording)
    assert chat(recording).text == "up" and recording.usage.requests == 1


def test_a_line_that_a_crash_left_unfinished_is_asked_for_again(path):
    chat(RecordedReplies(path, "tiny", FakeChat("one")))
    path.write_bytes(path.read_bytes() + b'{"key": "ab')
    with pytest.raises(ValueError, match="line 2"):
        RecordedReplies(path, "tiny")
    other = [{"role": "user", "content": "And you?"}]
    assert chat(RecordedReplies(path, "tiny", FakeChat("two")), other).text == "two"
    assert [chat(RecordedReplies(path, "tiny"), asked).text for asked in (CHAT, other)] == ["one", "two"]


def test_files_of_something_else_are_refused(path):
    with pytest.raises(FileNotFoundError):
        RecordedReplies(path, "tiny")
    path.parent.mkdir()
    path.write_text(json.dumps({"key": "ab"}) + "\n")
    with pytest.raises(ValueError, match="line 1: not a recorded reply"):
        RecordedReplies(path, "tiny")


def test_a_server_gets_the_seed_and_its_tokens_are_kept(path):
    llm = FakeLLM(default="hello")
    with FakeLLMServer(llm) as server:
        live = LLMServer(LLMConfig(base_url=server.url, model="tiny"))
        chat(RecordedReplies(path, "tiny", live))
    assert llm.bodies("/chat/completions")[0]["seed"] == 3
    replaying = RecordedReplies(path, "tiny")
    assert chat(replaying).text == "hello" and replaying.usage.prompt_tokens == 10
