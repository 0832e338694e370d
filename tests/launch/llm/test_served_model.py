"""Through a real vLLM server: the labelling client, bound answers, the prefix cache, and an end that leaves nothing."""

import asyncio
import json
import random
import re
import urllib.request
from pathlib import Path

import pytest

from launch.llm import process_group
from rewards.labels.annotators import LLMLabelClient
from rewards.llm.config import LLMConfig

pytestmark = pytest.mark.vllm

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(server, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.base_url + path, data, {"Content-Type": "application/json"})
    return _OPENER.open(request, timeout=120).read().decode()


def counter(server, name):
    text = _OPENER.open(server.base_url.removesuffix("/v1") + "/metrics", timeout=30).read().decode()
    return sum(float(value) for value in re.findall(rf"^vllm:{name}_total\{{[^\n]*\}} (\S+)$", text, re.MULTILINE))


def ask(server, spec, questions, **changes):
    """The replies of the labelling client, lists in flight side by side; and the client."""
    client = LLMLabelClient(LLMConfig(base_url=server.base_url, model=server.model, **changes))
    size = client.max_batch

    async def label(start):
        return await client.label(spec, questions[start : start + size])

    async def all_of_them():
        try:
            lists = await asyncio.gather(*(label(start) for start in range(0, len(questions), size)))
        finally:
            await client.close()
        return [reply for replies in lists for reply in replies]

    return asyncio.run(all_of_them()), client


def sample(standin, spec, most):
    questions = list(standin.questions(spec))
    return random.Random(2).sample(questions, min(most, len(questions)))


@pytest.mark.parametrize("version", ["single-1", "pair-1"])
def test_the_standin_knows_what_it_was_taught(vllm_server, standin, version):
    (spec,) = [spec for spec in standin.SPECS if spec.version == version]
    questions = sample(standin, spec, 1000)
    replies, client = ask(vllm_server, spec, questions)
    truth = [standin.answer(spec, question) for question in questions]
    right = sum(reply.text == word for reply, word in zip(replies, truth, strict=True))
    assert right / len(questions) >= 0.99
    # A look-up is sure of itself: its soft labels are close to the hard ones.
    near = [abs(reply.probability - spec.values[word]) < 0.2 for reply, word in zip(replies, truth, strict=True)]
    assert sum(near) / len(near) >= 0.98
    assert client.usage.requests < len(questions) / 10  # lists, not one request a label


def test_one_request_a_prompt_says_the_same_as_lists(vllm_server, standin):
    spec = standin.SPECS[0]
    questions = sample(standin, spec, 24)
    lists, _ = ask(vllm_server, spec, questions, api="completions")
    chats, client = ask(vllm_server, spec, questions, api="chat")
    assert [reply.text for reply in lists] == [reply.text for reply in chats]
    assert client.usage.requests >= len(questions)


def test_answers_are_bound_to_the_choices(vllm_server, standin):
    spec = standin.SPECS[0]
    (question,) = sample(standin, spec, 1)
    messages = [
        {"role": "system", "content": spec.instructions},
        {"role": "user", "content": spec.ask(question)},
    ]
    body = {"model": vllm_server.model, "messages": messages, "max_tokens": 16, "temperature": 0.0}

    def said(**fields):
        return json.loads(fetch(vllm_server, "/chat/completions", body | fields))["choices"][0]["message"]["content"]

    assert said() == standin.answer(spec, question)
    assert said(structured_outputs={"choice": ["qzx", "vkw"]}) in ("qzx", "vkw")


def test_the_instructions_are_computed_once(vllm_server, standin):
    spec = standin.SPECS[1]
    questions = sample(standin, spec, 300)
    before = counter(vllm_server, "prefix_cache_queries"), counter(vllm_server, "prefix_cache_hits")
    ask(vllm_server, spec, questions)
    asked = counter(vllm_server, "prefix_cache_queries") - before[0]
    hits = counter(vllm_server, "prefix_cache_hits") - before[1]
    assert asked > 0 and hits / asked > 0.6


def test_the_end_leaves_no_process_and_no_shared_memory(vllm_server):
    group = vllm_server.server.group
    assert len(process_group.members(group)) >= 3  # guard, server, engine
    segments = process_group.shared_memory(group)
    assert segments
    vllm_server.server.stop()
    assert not process_group.members(group) and not any(segment.exists() for segment in segments)


def test_it_answers_again_after_it_was_killed(vllm_server, standin):
    group, url = vllm_server.server.group, vllm_server.base_url
    segments = process_group.shared_memory(group)
    vllm_server.kill()
    assert not process_group.members(group) and not any(Path(segment).exists() for segment in segments)
    vllm_server.restart()
    assert vllm_server.base_url == url
    spec = standin.SPECS[0]
    replies, _ = ask(vllm_server, spec, sample(standin, spec, 8))
    assert all(reply.text in spec.choices for reply in replies)
