from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.captions import caption_id
from rewards.labels.clients import LabelReply, LexiconClient, ScriptedClient
from rewards.labels.config import LabellerConfig
from rewards.labels.labeller import Labeller, LabellerError
from rewards.labels.prompts import PromptSpec
from rewards.labels.store import CaptionCollisionError, LabelStore
from rewards.labels.table import LabelTable

QUICK = {"backoff_min_s": 0.001, "backoff_max_s": 0.002}


def captions(*texts: str) -> dict[int, str]:
    return {caption_id(text): text for text in texts}


def numbered(start: int, stop: int) -> dict[int, str]:
    return captions(*(f"caption {i}" for i in range(start, stop)))


def run(path: Path, client, scenario: Callable[[Labeller], Awaitable[None]], **config) -> None:
    """Play a scenario with a started labeller on a store in ``path``."""

    async def main() -> None:
        with LabelStore(path / "labels.sqlite") as store:
            labeller = Labeller(store, client, config=LabellerConfig(**config))
            await labeller.start()
            try:
                await scenario(labeller)
            finally:
                await labeller.close()

    asyncio.run(asyncio.wait_for(main(), 20))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the condition did not come true")


def test_lexicon_labels_end_to_end(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        asked = captions("You kill the newt!", "It's solid stone.", "Zyxw qwv.")
        assert list((await labeller.drain(asked)).values()) == [1.0, 0.0, None]
        metrics = labeller.metrics()
        assert (metrics["labelled"], metrics["uncovered"], metrics["failed"]) == (2, 1, 0)

    run(tmp_path, LexiconClient(), scenario)
    with LabelStore(tmp_path / "labels.sqlite", read_only=True) as store:
        labels = {label.text: label for label in store.since()[0]}
    assert labels["You kill the newt!"].model == "lexicon"
    assert labels["Zyxw qwv."].raw_reply == "unknown" and not labels["Zyxw qwv."].failed


def test_newest_first_in_batches_and_oldest_dropped(tmp_path):
    client = ScriptedClient(max_batch=2, max_in_flight=1)

    async def scenario(labeller: Labeller) -> None:
        labeller.submit(numbered(0, 6))
        await until(lambda: len(labeller.labels_since()[0]) == 4)
        assert labeller.metrics()["dropped"] == 2

    run(tmp_path, client, scenario, max_queued=4)
    assert client.calls == [["caption 5", "caption 4"], ["caption 3", "caption 2"]]


def test_submit_asks_each_caption_once_also_in_flight(tmp_path):
    client = ScriptedClient(delay_s=0.01, max_batch=3, max_in_flight=4)

    async def scenario(labeller: Labeller) -> None:
        for _ in range(5):
            labeller.submit(numbered(0, 10))
            await asyncio.sleep(0.003)
        await labeller.drain(numbered(0, 10))
        labeller.submit(numbered(0, 10))
        assert labeller.metrics()["queued"] == 0

    run(tmp_path, client, scenario)
    asked = [text for call in client.calls for text in call]
    assert sorted(asked) == [f"caption {i}" for i in range(10)]
    assert 1 < client.most_in_flight <= 4


def test_a_second_run_finds_the_answers_of_the_first(tmp_path):
    async def first(labeller: Labeller) -> None:
        await labeller.drain(numbered(0, 3))

    async def second(labeller: Labeller) -> None:
        assert len(labeller.labels_since()[0]) == 3
        answers = await labeller.drain(numbered(0, 4))
        assert list(answers.values()) == [0.0, 0.0, 0.0, 0.0]
        assert labeller.metrics()["from_store"] == 3

    run(tmp_path, ScriptedClient(), first)
    again = ScriptedClient()
    run(tmp_path, again, second)
    assert again.calls == [["caption 3"]]


def test_another_goal_is_another_question(tmp_path):
    async def main() -> None:
        with LabelStore(tmp_path / "l.sqlite") as store:
            for goal in ("score", "gold"):
                labeller = Labeller(store, LexiconClient(), PromptSpec(goal=goal))
                await labeller.start()
                value = await labeller.drain(captions("You kill the newt!"))
                assert list(value.values()) == [1.0 if goal == "score" else 0.0]
                await labeller.close()
            assert store.count() == 2

    asyncio.run(main())


def test_parse_failures_are_stored_and_not_asked_again(tmp_path):
    client = ScriptedClient({"good": "helpful", "bad": "well, it depends"})

    async def scenario(labeller: Labeller) -> None:
        assert list((await labeller.drain(captions("good", "bad"))).values()) == [1.0, None]
        assert labeller.metrics()["failed"] == 1
        assert list((await labeller.drain(captions("bad"))).values()) == [None]

    run(tmp_path, client, scenario)
    assert len(client.calls) == 1
    with LabelStore(tmp_path / "labels.sqlite", read_only=True) as store:
        bad = next(label for label in store.since()[0] if label.text == "bad")
    assert bad.failed and bad.value is None and bad.raw_reply == "well, it depends"


def test_client_errors_are_retried(tmp_path):
    client = ScriptedClient("helpful", fail_calls=3)

    async def scenario(labeller: Labeller) -> None:
        assert list((await labeller.drain(captions("x"))).values()) == [1.0]
        assert labeller.metrics()["retries"] == 3

    run(tmp_path, client, scenario, **QUICK)


def test_a_hanging_call_times_out_and_is_retried(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        assert list((await labeller.drain(captions("x"))).values()) == [1.0]

    run(tmp_path, ScriptedClient("helpful", hang_calls=1), scenario, request_timeout_s=0.05, **QUICK)


def test_after_the_deadline_the_caption_may_be_asked_again(tmp_path):
    client = ScriptedClient("helpful", fail_calls=10**6)

    async def scenario(labeller: Labeller) -> None:
        labeller.submit(captions("x"))
        await until(lambda: labeller.metrics()["failed"] == 1)
        assert labeller.labels_since() == ([], 0)
        with pytest.raises(LabellerError, match="no label for 'x': scripted failure"):
            await labeller.drain(captions("x"))
        client._fail_calls = 0
        assert list((await labeller.drain(captions("x"))).values()) == [1.0]

    run(tmp_path, client, scenario, retry_deadline_s=0.02, **QUICK)


def test_one_refused_request_does_not_fail_its_batch(tmp_path):
    client = ScriptedClient(lambda text: LabelReply(error="too long") if text == "bad" else "helpful")

    async def scenario(labeller: Labeller) -> None:
        labeller.submit(captions("good", "bad"))
        await until(lambda: labeller.metrics()["failed"] == 1)
        assert labeller.labels_since()[0] == [(caption_id("good"), 1.0)]

    run(tmp_path, client, scenario)


def test_a_dead_task_is_loud(tmp_path):
    client = ScriptedClient(raise_after=1, error=KeyError("a fault of the program"), max_batch=1)

    async def scenario(labeller: Labeller) -> None:
        await labeller.drain(captions("x"))
        with pytest.raises(LabellerError, match="a fault of the program"):
            await labeller.drain(captions("y", "z"))
        for call in (lambda: labeller.submit({}), labeller.labels_since, labeller.metrics):
            with pytest.raises(LabellerError, match="labelling stopped") as caught:
                call()
            assert isinstance(caught.value.__cause__, KeyError)

    run(tmp_path, client, scenario)


def test_too_few_replies_are_a_fault(tmp_path):
    class Short(ScriptedClient):
        async def label(self, requests):
            return (await super().label(requests))[1:]

    async def scenario(labeller: Labeller) -> None:
        with pytest.raises(LabellerError, match="0 replies to 1 requests"):
            await labeller.drain(captions("x"))

    run(tmp_path, Short(), scenario)


def test_budget_of_the_run(tmp_path):
    client = ScriptedClient(max_batch=2)

    async def scenario(labeller: Labeller) -> None:
        answers = await labeller.drain(numbered(0, 5))
        assert list(answers.values()) == [0.0, 0.0, 0.0, None, None]
        labeller.submit(numbered(5, 7))
        metrics = labeller.metrics()
        assert (metrics["asked"], metrics["over_budget"], metrics["queued"]) == (3, 4, 0)
        assert labeller.state_dict() == {"asked": 3}

    run(tmp_path, client, scenario, max_labels=3)
    assert sum(map(len, client.calls)) == 3


def test_pace(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        begin_s = asyncio.get_running_loop().time()
        await labeller.drain(numbered(0, 60))
        assert asyncio.get_running_loop().time() - begin_s > 0.2 * 0.95

    # 60 captions at 200 a second, in batches of 20: the last starts after 0.2 s.
    run(tmp_path, ScriptedClient(max_batch=20), scenario, max_labels_per_s=200)


def test_what_is_waited_for_goes_first_and_is_never_dropped(tmp_path):
    client = ScriptedClient(delay_s=0.005, max_batch=1, max_in_flight=1)

    async def scenario(labeller: Labeller) -> None:
        labeller.submit(numbered(0, 3))
        await labeller.drain(captions("caption 0", "urgent a", "urgent b"))

    run(tmp_path, client, scenario, max_queued=1)
    assert [call[0] for call in client.calls][-3:-1] == ["urgent a", "urgent b"] or client.calls[:3] == [
        ["caption 0"], ["urgent a"], ["urgent b"]
    ]  # fmt: skip


def test_silence_is_never_asked(tmp_path):
    client = ScriptedClient()

    async def scenario(labeller: Labeller) -> None:
        labeller.submit({0: ""})
        assert await labeller.drain({0: ""}) == {0: 0.0}

    run(tmp_path, client, scenario)
    assert client.calls == []


def test_collisions_are_errors(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        await labeller.drain({7: "one"})
        with pytest.raises(CaptionCollisionError, match="caption id 7"):
            labeller.submit({7: "two"})

    run(tmp_path, ScriptedClient(), scenario)


def test_closing_frees_who_waits(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        waiting = asyncio.create_task(labeller.drain(captions("x")))
        await asyncio.sleep(0.01)
        await labeller.close()
        with pytest.raises(LabellerError, match="closed"):
            await waiting

    run(tmp_path, ScriptedClient(hang_calls=1), scenario)


@settings(max_examples=20, deadline=None)
@given(
    submissions=st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 12), max_size=8)), max_size=8),
    batch=st.integers(1, 5),
    in_flight=st.integers(1, 3),
    fail_calls=st.integers(0, 2),
)
def test_under_concurrency_each_caption_is_answered_once(submissions, batch, in_flight, fail_calls):
    client = ScriptedClient(
        lambda text: "helpful" if text.endswith("1") else "neutral",
        delay_s=0.0005, max_batch=batch, max_in_flight=in_flight, fail_calls=fail_calls,
    )  # fmt: skip

    async def scenario(labeller: Labeller) -> None:
        waiting = []
        for is_waited, numbers in submissions:
            asked = captions(*(f"caption {i}" for i in numbers))
            if is_waited:
                waiting.append(asyncio.create_task(labeller.drain(asked)))
            else:
                labeller.submit(asked)
            await asyncio.sleep(0.0003)
        texts = {f"caption {i}" for _, numbers in submissions for i in numbers}
        await asyncio.gather(*waiting)
        await until(lambda: len(labeller.labels_since()[0]) == len(texts))
        labels, cursor = labeller.labels_since()
        assert dict(labels) == {caption_id(t): float(t.endswith("1")) for t in texts}
        assert cursor == len(texts) and labeller.labels_since(cursor) == ([], cursor)
        answered = [t for call in client.calls[fail_calls:] for t in call]
        assert labeller.metrics()["asked"] == len(texts)
        assert len(answered) >= len(texts)

    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), client, scenario, **QUICK)


def test_table_by_hand():
    table = LabelTable()
    values, valid = table.lookup(np.array([[0, 5], [3, 0]]))
    assert values.tolist() == [[0, 0], [0, 0]] and valid.tolist() == [[True, False], [False, True]]
    assert table.apply([(5, 1.0), (3, None)]) == 1 and table.version == 1
    assert table.apply([(5, 1.0), (9, None)]) == 0 and table.version == 1
    assert table.apply([(2, 0.5), (3, 0.0)]) == 2 and table.version == 2 and len(table) == 3
    values, valid = table.lookup(np.array([[0, 5, 2], [3, 9, 2**62]]))
    assert values.tolist() == [[0, 1, 0.5], [0, 0, 0]] and values.dtype == np.float32
    assert valid.tolist() == [[True, True, True], [True, False, False]]
    with pytest.raises(ValueError, match="caption 5 is worth 1 and cannot be relabelled 0"):
        table.apply([(5, 0.0)])
    again = LabelTable()
    again.load_state_dict(table.state_dict())
    assert again.version == 2 and again.lookup(np.array([5]))[0].tolist() == [1.0]


@given(
    labels=st.dictionaries(st.integers(1, 2**63 - 1), st.sampled_from([None, 0.0, 1.0])),
    cut=st.integers(0, 5),
)
def test_table_is_a_dictionary(labels, cut):
    table = LabelTable()
    items = list(labels.items())
    table.apply(items[cut:])
    table.apply(items[:cut])
    values, valid = table.lookup(np.array(list(labels), np.int64))
    assert valid.tolist() == [value is not None for value in labels.values()]
    assert values.tolist() == [value or 0.0 for value in labels.values()]
