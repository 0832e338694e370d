from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from math import log

import pytest

from rewards.labels.annotators import BatchRefusedError, LabelClientError, LLMLabelClient
from rewards.labels.questions import PromptSpec, Question
from rewards.llm.config import LLMConfig, LLMMissingError, read_key
from rewards.llm.server import resolve
from tests.rewards.llm.fake_llm_server import FakeLLM, FakeLLMServer, Raw, failure

SPEC = PromptSpec("single-1")
APIS = pytest.mark.parametrize("api", ["completions", "chat"])


def asked(*captions: str) -> tuple[PromptSpec, list[Question]]:
    return SPEC, [Question.single(caption) for caption in captions]


def run(llm: FakeLLM, scenario: Callable[[LLMLabelClient], Awaitable[None]], **config) -> None:
    """Play a scenario with a client of a running server; nothing of it may be left behind."""

    async def main(url: str) -> None:
        client = LLMLabelClient(LLMConfig(**{"base_url": url, "model": "tiny"} | config))
        try:
            async with asyncio.timeout(20):
                await scenario(client)
        finally:
            await client.close()
        await client.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with FakeLLMServer(llm) as server:
        asyncio.run(main(server.url))


def on(path: str, answer: Raw, *, only: str = "") -> Callable:
    """A fault of one path, except in the trial; with ``only``, where the request holds that text."""
    return lambda p, body: answer if p.endswith(path) and only in str(body) and "zqxvkj" not in str(body) else None


@contextmanager
def fails(error: type[Exception], *parts: str):
    with pytest.raises(error) as raised:
        yield
    text = str(raised.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text and type(raised.value) is error


ANSWERS = {"Message:\nYou kill": "helpful", "Message:\nYou die": "unhelpful"}
CAPTIONS = ("You kill the newt!", "It's solid stone.", "You die...")


@APIS
def test_answers_come_in_the_order_asked(api):
    llm = FakeLLM(ANSWERS, shuffles=True)

    async def scenario(client: LLMLabelClient) -> None:
        replies = await client.label(*asked(*CAPTIONS))
        assert [reply.text for reply in replies] == ["helpful", "neutral", "unhelpful"]
        replies = await client.label(*asked(*reversed(CAPTIONS)))
        assert [reply.text for reply in replies] == ["unhelpful", "neutral", "helpful"]

    run(llm, scenario, api=api)


def test_a_list_is_one_request_in_the_models_own_template():
    llm = FakeLLM()

    async def scenario(client: LLMLabelClient) -> None:
        await client.label(*asked("One.", "Two."))

    run(llm, scenario)
    (body,) = llm.bodies("/completions")
    assert body["prompt"] == [
        f"<|begin|><|system|>\n{SPEC.instructions}<|end|>\n<|user|>\nMessage:\n{caption}<|end|>\n<|assistant|>\n"
        for caption in ("One.", "Two.")
    ]
    assert body["structured_outputs"] == {"choice": ["helpful", "neutral", "unhelpful"]}
    assert (body["max_tokens"], body["temperature"], body["logprobs"]) == (1, 0.0, 5)


@APIS
def test_a_template_without_system_message(api):
    llm = FakeLLM({"You judge the play": "helpful"}, takes_system=False)

    async def scenario(client: LLMLabelClient) -> None:
        assert [reply.text for reply in await client.label(*asked("One."))] == ["helpful"]

    run(llm, scenario, api=api)


def test_without_a_tokenizer_questions_are_chats_with_bounded_concurrency():
    llm = FakeLLM(ANSWERS, has_tokenizer=False)

    async def scenario(client: LLMLabelClient) -> None:
        replies = await client.label(*asked(*CAPTIONS, *(f"Caption {i}." for i in range(20))))
        assert [reply.text for reply in replies[:4]] == ["helpful", "neutral", "unhelpful", "neutral"]

    run(llm, scenario, max_batch=2, max_in_flight=2)
    assert len(llm.bodies("/chat/completions")) == 23
    assert 1 <= llm.most_in_flight <= 4


def test_completions_need_the_template():
    async def scenario(client: LLMLabelClient) -> None:
        with fails(LabelClientError, "does not tell its chat template", "404"):
            await client.label(*asked("One."))

    run(FakeLLM(has_tokenizer=False), scenario, api="completions")


@pytest.mark.parametrize(
    "tokenizer",
    [
        pytest.param(on("/detokenize", Raw(200, {"content": "x"})), id="another API"),
        pytest.param(on("/detokenize", Raw(200, {"prompt": "xqjvkwz kzwxpjq"})), id="texts are changed"),
        pytest.param(
            lambda path, body: Raw(200, {"tokens": [len(body["prompt"])]}) if "<|begin|>" in str(body) else None,
            id="other tokens than a chat",
        ),
    ],
)
def test_a_template_that_is_not_the_servers_own_is_not_used(tokenizer):
    llm = FakeLLM(fault=tokenizer)

    async def scenario(client: LLMLabelClient) -> None:
        await client.label(*asked("One."))

    run(llm, scenario)
    assert len(llm.bodies("/chat/completions")) == 1 and not llm.bodies("/v1/completions")


def test_a_trial_alone_is_sent_by_a_check():
    llm = FakeLLM()

    async def scenario(client: LLMLabelClient) -> None:
        await client.check()
        assert await client.label(SPEC, []) == []

    run(llm, scenario)
    assert not llm.bodies("completions")


def test_prepared_once_however_many_ask_first():
    llm = FakeLLM()

    async def scenario(client: LLMLabelClient) -> None:
        await asyncio.gather(*(client.label(*asked(f"Caption {i}.")) for i in range(4)))

    run(llm, scenario)
    assert [path for path, _ in llm.requests].count("/v1/models") == 1


def test_pairs_are_asked_with_their_own_choices():
    pair = PromptSpec("pair-1")
    llm = FakeLLM({"First message:\nOne.\n\nSecond message:\nTwo.": "second"})

    async def scenario(client: LLMLabelClient) -> None:
        replies = await client.label(pair, [Question.pair("One.", "Two.")]) + await client.label(*asked("One."))
        assert [reply.text for reply in replies] == ["second", "neutral"]

    run(llm, scenario)


@APIS
def test_soft_labels(api):
    llm = FakeLLM(default="neutral", logprobs={"neutral": log(0.5), "help": log(0.2), "un": log(0.2), "no": log(0.1)})

    async def scenario(client: LLMLabelClient) -> None:
        (reply,) = await client.label(*asked("One."))
        assert reply.text == "neutral" and reply.probability == pytest.approx(2 / 9)

    run(llm, scenario, api=api)


@APIS
def test_no_soft_labels_where_they_are_not_wanted(api):
    llm = FakeLLM()

    async def scenario(client: LLMLabelClient) -> None:
        assert (await client.label(*asked("One.")))[0].probability is None

    run(llm, scenario, api=api, soft_labels=False)
    assert all("logprobs" not in body for _, body in llm.requests)


def test_answers_spelt_in_more_tokens_than_usual_are_asked_again_with_room():
    llm = FakeLLM(ANSWERS, spells=True)

    async def scenario(client: LLMLabelClient) -> None:
        for _ in range(2):
            replies = await client.label(*asked(*CAPTIONS))
            assert [reply.text for reply in replies] == ["helpful", "neutral", "unhelpful"]

    run(llm, scenario)
    assert [body["max_tokens"] for body in llm.bodies("/v1/completions")] == [1, 9, 9]
    assert [len(body["prompt"]) for body in llm.bodies("/v1/completions")] == [3, 3, 3]


def test_unbound_answers_do_not_depend_on_what_was_asked_before():
    llm = FakeLLM(ANSWERS | {"Message:\nYou live": "neutral. Or so I think"}, binds=False)

    async def scenario(client: LLMLabelClient) -> None:
        for _ in range(2):
            llm.spells = False
            (short,) = await client.label(*asked("You live."))
            assert short.text == "neutral"
            llm.spells = True
            assert [reply.text for reply in await client.label(*asked("You die..."))] == ["unhelpful"]

    run(llm, scenario, structured_outputs=False)


def test_a_reply_that_is_no_choice_is_kept_as_it_is():
    llm = FakeLLM({"One.": "I cannot say", "Two.": "unhelp"}, binds=False)

    async def scenario(client: LLMLabelClient) -> None:
        assert [reply.text for reply in await client.label(*asked("One.", "Two."))] == ["I", "unhelp"]

    run(llm, scenario, structured_outputs=False)


@APIS
def test_answers_that_are_not_bound_are_noticed(api):
    llm = FakeLLM(binds=False)

    async def scenario(client: LLMLabelClient) -> None:
        for _ in range(2):
            with fails(LabelClientError, "does not bind answers", "'neutral'", "llm.structured_outputs=false"):
                await client.check()

    run(llm, scenario, api=api)


@APIS
def test_a_server_that_refuses_to_bind_is_told_what_to_set(api):
    def refuse(path: str, body: dict) -> Raw | None:
        return failure(400, "Unknown parameter: 'structured_outputs'.") if "structured_outputs" in body else None

    async def scenario(client: LLMLabelClient) -> None:
        with fails(LabelClientError, "Unknown parameter", "llm.structured_outputs=false"):
            await client.label(*asked("One.", "Two."))

    run(FakeLLM(fault=refuse), scenario, api=api)


def test_a_model_that_the_server_does_not_have():
    async def scenario(client: LLMLabelClient) -> None:
        with fails(LabelClientError, "has no model 'huge'", "'tiny', 'small'"):
            await client.label(*asked("One."))

    run(FakeLLM(models=("tiny", "small")), scenario, model="huge")


def test_no_models_at_all():
    async def scenario(client: LLMLabelClient) -> None:
        with fails(LabelClientError, "has no model"):
            await client.check()

    run(FakeLLM(models=()), scenario)


def test_nothing_listens():
    with FakeLLMServer(FakeLLM()) as server:
        url = server.url

    async def main() -> None:
        client = LLMLabelClient(LLMConfig(base_url=url, model="tiny"))
        for _ in range(2):
            with fails(LabelClientError, url, "cannot be reached"):
                await client.label(*asked("One."))
        await client.close()

    asyncio.run(main())


@APIS
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Raw(200, b"<html>Hello</html>"), "<html>Hello"),
        (Raw(200, {"choices": [{"txt": "helpful"}]}), "something else than the API prescribes"),
        (Raw(200, b""), "something else than the API prescribes"),
        (failure(429, "Slow down."), "is asked too much (429"),
        (failure(500, "EngineCore encountered an issue."), "EngineCore encountered an issue"),
        (Raw(503, b"starting"), "starting"),
        (failure(401, "No such key."), "does not accept the API key"),
        (failure(404, "The model `tiny` does not exist."), "does not exist"),
    ],
)
def test_failures_that_may_pass(api, answer, told):
    llm = FakeLLM()

    async def scenario(client: LLMLabelClient) -> None:
        await client.check()
        llm.fault = on("completions", answer)
        with fails(LabelClientError, told, "http://127.0.0.1"):
            await client.label(*asked("One.", "Two."))
        llm.fault = on("nowhere", answer)
        assert [reply.text for reply in await client.label(*asked("One."))] == ["neutral"]

    run(llm, scenario, api=api)


@pytest.mark.parametrize("answer", [Raw(200, b"<html>Hello</html>"), Raw(200, {"models": []}), failure(500)])
def test_a_failed_preparation_is_repeated(answer):
    llm = FakeLLM(fault=on("/models", answer))

    async def scenario(client: LLMLabelClient) -> None:
        with fails(LabelClientError, "/models"):
            await client.label(*asked("One."))
        llm.fault = on("nowhere", answer)
        assert [reply.text for reply in await client.label(*asked("One."))] == ["neutral"]

    run(llm, scenario)


@pytest.mark.parametrize("indices", [(0, 0), (0, 2), (1, 2), (0,), (0, 1, 2)])
def test_answers_for_other_prompts_are_refused(indices):
    choices = [{"index": i, "text": "helpful", "finish_reason": "stop"} for i in indices]
    llm = FakeLLM()

    async def scenario(client: LLMLabelClient) -> None:
        await client.check()
        llm.fault = on("/completions", Raw(200, {"choices": choices}))
        with fails(LabelClientError, "answers for other prompts"):
            await client.label(*asked("One.", "Two."))

    run(llm, scenario)


def test_a_list_with_poison_is_refused_and_the_rest_is_answered_in_parts():
    llm = FakeLLM(fault=on("/completions", failure(400, "prompt is too long"), only="Poison"))

    async def scenario(client: LLMLabelClient) -> None:
        with fails(BatchRefusedError, "prompt is too long"):
            await client.label(*asked("One.", "Poison."))
        assert [reply.text for reply in await client.label(*asked("One."))] == ["neutral"]
        (poison,) = await client.label(*asked("Poison."))
        assert poison.error is not None and "prompt is too long" in poison.error

    run(llm, scenario)


def test_a_poisonous_chat_is_refused_alone():
    llm = FakeLLM(fault=on("/completions", failure(400, "prompt is too long"), only="Poison"))

    async def scenario(client: LLMLabelClient) -> None:
        replies = await client.label(*asked("One.", "Poison.", "Two."))
        assert [reply.text for reply in replies] == ["neutral", "", "neutral"]
        assert [reply.error is None for reply in replies] == [True, False, True]

    run(llm, scenario, api="chat")


@APIS
def test_a_server_that_hangs_is_left_without_a_trace(api):
    llm, release = FakeLLM(), threading.Event()

    def hang(path: str, body: dict) -> None:
        if "Hang" in str(body):
            release.wait(10)

    llm.fault = hang

    async def scenario(client: LLMLabelClient) -> None:
        try:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.label(*asked("Hang.", "Hang on.")), 0.3)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            # More than the limit of requests in flight were given up; none of them counts any longer.
            assert [reply.text for reply in await client.label(*asked("One.", "Two."))] == ["neutral", "neutral"]
        finally:
            release.set()

    run(llm, scenario, api=api, max_batch=1, max_in_flight=2)


def test_a_hanging_preparation_can_be_given_up():
    llm, release = FakeLLM(), threading.Event()

    def hang(path: str, body: dict) -> None:
        release.wait(10)

    llm.fault = hang

    async def scenario(client: LLMLabelClient) -> None:
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.check(), 0.2)
        finally:
            release.set()
        assert [reply.text for reply in await client.label(*asked("One."))] == ["neutral"]

    run(llm, scenario)


def test_after_a_lost_connection_the_server_is_verified_afresh():
    llm = FakeLLM()

    async def main() -> None:
        with FakeLLMServer(llm) as server:
            client = LLMLabelClient(LLMConfig(base_url=server.url, model="tiny"))
            await client.label(*asked("One."))
            llm.fault = on("/completions", Raw(200, b"not what it was"))
            with fails(LabelClientError, "not what it was"):
                await client.label(*asked("One."))
            llm.fault, llm.binds = on("nowhere", failure(500)), False
            with fails(LabelClientError, "does not bind answers"):
                await client.label(*asked("One."))
            await client.close()

    asyncio.run(main())


def test_the_api_key_is_sent(monkeypatch):
    llm = FakeLLM()

    async def scenario(client: LLMLabelClient) -> None:
        await client.label(*asked("One."))

    monkeypatch.setenv("OUR_KEY", "sesame")
    run(llm, scenario, api_key_env="OUR_KEY")
    assert llm.keys == {"sesame"}


def test_blanks_around_the_api_key_are_not_sent(monkeypatch):
    llm = FakeLLM()
    monkeypatch.setenv("OUR_KEY", " sesame\n")
    run(llm, lambda client: client.check(), api_key_env="OUR_KEY")
    assert llm.keys == {"sesame"}


@pytest.mark.parametrize("key", ["sk-se\nsame", "sk-sésame", "sk-\x07"])
def test_a_key_that_cannot_be_sent_is_not_quoted(key, monkeypatch):
    monkeypatch.setenv("OUR_KEY", key)
    with fails(ValueError, "OUR_KEY", "printable ASCII"):
        LLMLabelClient(LLMConfig(base_url="http://127.0.0.1:9/v1", model="tiny", api_key_env="OUR_KEY"))
    with pytest.raises(ValueError, match="OUR_KEY") as raised:
        read_key("OUR_KEY")
    assert "sk-" not in str(raised.value)


def test_a_key_that_the_server_quotes_is_not_shown(monkeypatch):
    monkeypatch.setenv("OUR_KEY", "sk-sesame")
    llm = FakeLLM(fault=on("/models", failure(401, "Incorrect API key: sk-sesame. See our pages.")))

    async def scenario(client: LLMLabelClient) -> None:
        with fails(LabelClientError, "does not accept the API key", "Incorrect API key: ***"):
            await client.check()

    run(llm, scenario, api_key_env="OUR_KEY")


def test_proxies_are_not_asked_for_this_machines_own_addresses(monkeypatch):
    llm = FakeLLM()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    run(llm, lambda client: client.check())
    assert llm.requests


@pytest.mark.parametrize(
    ("fields", "revision"),
    [
        ({}, ""),
        ({"max_batch": 3, "api_key_env": "X"}, ""),
        ({"revision": "abc", "temperature": 0.7}, "abc temperature=0.7"),
        ({"structured_outputs": False, "soft_labels": False}, "structured_outputs=False soft_labels=False"),
        ({"api": "chat"}, "api=chat"),
    ],
)
def test_settings_that_bend_answers_keep_labels_apart(fields, revision):
    client = LLMLabelClient(LLMConfig.model_validate({"base_url": "http://127.0.0.1:9/v1", "model": "tiny"} | fields))
    assert client.revision == revision


def test_usage_counts_requests_and_tokens():
    async def scenario(client: LLMLabelClient) -> None:
        await client.label(*asked("One.", "Two.", "Three."))
        usage = client.usage  # the trial is a request of its own
        assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (40, 28, 4)
        assert usage.requests == 2

    run(FakeLLM(), scenario)


def test_name_and_revision_are_known_before_the_server_is():
    client = LLMLabelClient(LLMConfig(base_url="http://127.0.0.1:9/v1", model="tiny", revision="abc"))
    assert (client.name, client.revision, client.max_batch, client.max_in_flight) == ("tiny", "abc", 128, 4)
    with pytest.raises(ValueError, match=r"give llm\.model"):
        LLMLabelClient(LLMConfig(base_url="http://127.0.0.1:9/v1"))


def test_the_only_model_is_found():
    with FakeLLMServer(FakeLLM()) as server:
        config = LLMConfig(base_url=server.url, max_batch=3)
        assert asyncio.run(resolve(config)) == LLMConfig(base_url=server.url, max_batch=3, model="tiny")
    with FakeLLMServer(FakeLLM(models=("a", "b"))) as server, fails(LLMMissingError, "'a', 'b'", "llm.model"):
        asyncio.run(resolve(LLMConfig(base_url=server.url)))
