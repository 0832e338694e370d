from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.labels.annotators import LabelClientError, LabelReply, LexiconClient, ScriptedClient
from rewards.labels.config import LabellerConfig
from rewards.labels.labeller import Labeller, LabellerError
from rewards.labels.questions import Answer, PromptSpec, Question
from rewards.labels.store import CaptionCollisionError, Label, LabelStore, label_key

ROOT = Path(__file__).parents[3]
QUICK: dict[str, Any] = {"backoff_min_s": 0.001, "backoff_max_s": 0.002}
OUTAGE: dict[str, Any] = QUICK | {"breaker_failures": 3, "breaker_cool_down_s": 0.02, "breaker_max_cool_down_s": 0.04}
SHARED: dict[str, Any] = {"lease_poll_s": 0.01}


def ask(*texts: str) -> list[Question]:
    return [Question.single(text) for text in texts]


def numbered(start: int, stop: int) -> list[Question]:
    return ask(*(f"caption {i}" for i in range(start, stop)))


def values(answers: Iterable[Answer]) -> list[float | None]:
    return [answer.value for answer in answers]


def key(question: Question) -> str:
    """Of a scripted client's answer."""
    return label_key(question.text, prompt_version="single-1", model="scripted", model_revision="1", goal="score")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def stored(path: Path) -> dict[str, Label]:
    with LabelStore(path / "labels.sqlite", read_only=True) as store:
        return {label.text: label for label in store.since()[0]}


def run(path: Path, client, scenario: Callable[[Labeller], Awaitable[None]], spec=None, run_id=None, **config) -> None:
    """Play a scenario with a started labeller on a store in ``path``."""

    async def main() -> None:
        with LabelStore(path / "labels.sqlite") as store:
            labeller = Labeller(store, client, spec, LabellerConfig(**config), run_id)
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


async def answered(labeller: Labeller, questions: list[Question]) -> None:
    """Until all are answered; asks again and again, as a run does."""

    def is_done() -> bool:
        labeller.submit(questions)
        return {answer.question for answer in labeller.labels_since()[0]} >= set(questions)

    await until(is_done)


def test_lexicon_labels_end_to_end(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        asked = ask("You kill the newt!", "It's solid stone.", "Zyxw qwv.")
        assert values(await labeller.drain(asked)) == [1.0, 0.0, None]
        metrics = labeller.metrics()
        assert (metrics["labelled"], metrics["uncovered"], metrics["failed"]) == (2, 1, 0)

    run(tmp_path, LexiconClient(), scenario)
    labels = stored(tmp_path)
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
        assert values(answers) == [0.0, 0.0, 0.0, 0.0]
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
                assert values(await labeller.drain(ask("You kill the newt!"))) == [1.0 if goal == "score" else 0.0]
                await labeller.close()
            assert store.count() == 2

    asyncio.run(main())


def test_parse_failures_are_stored_and_not_asked_again(tmp_path):
    client = ScriptedClient({"good": "helpful", "bad": "well, it depends"})

    async def scenario(labeller: Labeller) -> None:
        assert values(await labeller.drain(ask("good", "bad"))) == [1.0, None]
        assert labeller.metrics()["failed"] == 1
        assert values(await labeller.drain(ask("bad"))) == [None]

    run(tmp_path, client, scenario)
    assert len(client.calls) == 1
    bad = stored(tmp_path)["bad"]
    assert bad.failed and bad.value is None and bad.raw_reply == "well, it depends"


def test_client_errors_are_retried(tmp_path):
    client = ScriptedClient("helpful", fail_calls=3)

    async def scenario(labeller: Labeller) -> None:
        assert values(await labeller.drain(ask("x"))) == [1.0]
        assert labeller.metrics()["retries"] == 3

    run(tmp_path, client, scenario, **QUICK)


def test_a_hanging_call_times_out_and_is_retried(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        assert values(await labeller.drain(ask("x"))) == [1.0]

    run(tmp_path, ScriptedClient("helpful", hang_calls=1), scenario, request_timeout_s=0.05, **QUICK)


def test_after_the_deadline_the_caption_may_be_asked_again(tmp_path):
    client = ScriptedClient("helpful", fail_calls=10**6)

    async def scenario(labeller: Labeller) -> None:
        labeller.submit(ask("x"))
        await until(lambda: labeller.metrics()["failed"] == 1)
        assert labeller.labels_since() == ([], 0)
        with pytest.raises(LabellerError, match="no label for 'x': scripted failure"):
            await labeller.drain(ask("x"))
        client._fail_calls = 0
        await answered(labeller, ask("x"))

    run(tmp_path, client, scenario, retry_deadline_s=0.1, **OUTAGE)


@pytest.mark.parametrize(
    "client",
    [
        ScriptedClient(lambda q: LabelReply(error="too\nlong") if q.text == "bad" else "helpful"),
        ScriptedClient("helpful", poison={"bad"}),
    ],
    ids=["one by one", "with its list"],
)
def test_what_is_refused_is_stored_as_a_failure_and_not_asked_again(tmp_path, client):
    async def scenario(labeller: Labeller) -> None:
        assert values(await labeller.drain(ask("good", "bad", "better"))) == [1.0, None, 1.0]
        metrics = labeller.metrics()
        assert (metrics["refused"], metrics["failed"], metrics["labelled"], metrics["asked"]) == (1, 0, 2, 3)
        assert labeller.problem is None and metrics["breaker_open"] == 0

    async def again(labeller: Labeller) -> None:
        assert values(await labeller.drain(ask("bad"))) == [None]
        assert labeller.metrics()["asked"] == 0

    run(tmp_path, client, scenario)
    run(tmp_path, client, again)
    bad = stored(tmp_path)["bad"]
    assert bad.failed and bad.value is None and bad.probability is None
    assert bad.raw_reply in ("refused: too long", "refused: scripted refusal of 'bad'")


@settings(max_examples=12, deadline=None)
@given(poison=st.sets(st.integers(0, 15)), count=st.integers(1, 16))
def test_lists_are_halved_until_what_is_bad_stands_alone(poison, count):
    client = ScriptedClient("helpful", poison={f"caption {i}" for i in poison}, max_batch=16, max_in_flight=1)

    async def scenario(labeller: Labeller) -> None:
        answers = await labeller.drain(numbered(0, count))
        assert values(answers) == [None if i in poison else 1.0 for i in range(count)]
        assert labeller.metrics()["refused"] == len(poison & set(range(count)))

    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), client, scenario)
    bad = len(poison & set(range(count)))
    assert len(client.calls) <= 1 + 2 * bad * 4, "each bad one costs at most two calls a halving"


def test_what_was_answered_before_an_outage_is_kept(tmp_path):
    client = ScriptedClient("helpful", poison={"caption 3"}, raise_after=2, error=LabelClientError("gone"))

    async def scenario(labeller: Labeller) -> None:
        waiting = asyncio.create_task(labeller.drain(numbered(0, 4)))
        with pytest.raises(LabellerError, match="no label for 'caption 2': gone"):
            await waiting
        assert [answer.question.text for answer in labeller.labels_since()[0]] == ["caption 0", "caption 1"]

    run(tmp_path, client, scenario, retry_deadline_s=0.02, **QUICK)


def test_a_dead_task_is_loud(tmp_path):
    client = ScriptedClient(raise_after=1, error=KeyError("a fault of the program"), max_batch=1)

    async def scenario(labeller: Labeller) -> None:
        await labeller.drain(ask("x"))
        with pytest.raises(LabellerError, match="a fault of the program"):
            await labeller.drain(ask("y", "z"))
        for call in (lambda: labeller.submit([]), labeller.labels_since, labeller.metrics):
            with pytest.raises(LabellerError, match="labelling stopped") as caught:
                call()
            assert isinstance(caught.value.__cause__, KeyError)

    run(tmp_path, client, scenario)


def test_too_few_replies_are_a_fault(tmp_path):
    class Short(ScriptedClient):
        async def label(self, spec, questions):
            return (await super().label(spec, questions))[1:]

    async def scenario(labeller: Labeller) -> None:
        with pytest.raises(LabellerError, match="0 replies to 1 questions"):
            await labeller.drain(ask("x"))

    run(tmp_path, Short(), scenario)


def test_budget_of_the_run(tmp_path):
    client = ScriptedClient(max_batch=2)

    async def scenario(labeller: Labeller) -> None:
        answers = await labeller.drain(numbered(0, 5))
        assert values(answers) == [0.0, 0.0, 0.0, None, None]
        labeller.submit(numbered(5, 7))
        metrics = labeller.metrics()
        assert (metrics["asked"], metrics["over_budget"], metrics["queued"]) == (3, 4, 0)
        assert labeller.state_dict() == {"asked": 3}

    run(tmp_path, client, scenario, max_labels=3)
    assert sum(map(len, client.calls)) == 3


def test_answers_after_the_checkpoint_count_when_a_run_goes_on(tmp_path):
    """Killed at its fifth question of six, resumed from a checkpoint at the third: six are asked in all."""
    saved: dict[str, int] = {}

    async def first(labeller: Labeller) -> None:
        await labeller.drain(numbered(0, 3))
        saved.update(labeller.state_dict())
        await labeller.drain(numbered(3, 4))
        labeller.submit(numbered(4, 5))  # never answered
        await until(lambda: labeller.metrics()["in_flight"] == 1)
        assert labeller.metrics()["asked"] == 5 and labeller.state_dict() == {"asked": 4}

    async def resumed(labeller: Labeller) -> None:
        labeller.load_state_dict(saved)
        assert labeller.state_dict() == {"asked": 4}
        assert values(await labeller.drain(numbered(3, 6))) == [0.0] * 3
        assert values(await labeller.drain(numbered(6, 8))) == [None] * 2

    async def of_another_run(labeller: Labeller) -> None:
        assert values(await labeller.drain(numbered(0, 13))) == [0.0] * 12 + [None]

    class HangsLater(ScriptedClient):
        async def label(self, spec, questions):
            if questions[0].text == "caption 4":
                await asyncio.Event().wait()
            return await super().label(spec, questions)

    run(tmp_path, HangsLater(), first, run_id="a", max_labels=6)
    again = ScriptedClient(max_batch=1)
    run(tmp_path, again, resumed, run_id="a", max_labels=6)
    assert again.calls == [["caption 4"], ["caption 5"]]
    run(tmp_path, ScriptedClient(), of_another_run, run_id="b", max_labels=6)


def test_where_the_store_is_another_one_the_checkpoint_counts(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        labeller.load_state_dict({"asked": 5})
        assert values(await labeller.drain(numbered(0, 2))) == [0.0, None]

    run(tmp_path, ScriptedClient(), scenario, run_id="a", max_labels=6)


def test_what_is_given_up_costs_nothing(tmp_path):
    client = ScriptedClient("helpful", fail_calls=10**6)

    async def scenario(labeller: Labeller) -> None:
        labeller.submit(ask("x"))
        await until(lambda: labeller.metrics()["failed"] == 1)
        assert labeller.metrics()["asked"] == 0
        client._fail_calls = 0
        await answered(labeller, ask("y"))
        labeller.submit(ask("x"))
        assert labeller.metrics()["over_budget"] == 1

    run(tmp_path, client, scenario, retry_deadline_s=0.05, max_labels=1, **OUTAGE)


def test_questions_that_are_submitted_again_count_once_and_take_nobodys_place(tmp_path):
    client = Patient(max_batch=1, max_in_flight=1)

    async def scenario(labeller: Labeller) -> None:
        await until(lambda: not labeller.metrics()["in_flight"])
        labeller.submit(numbered(0, 6))
        queued = list(labeller._backlog._queue)
        for _ in range(3):
            labeller.submit(numbered(0, 6))
        assert list(labeller._backlog._queue) == queued and labeller.metrics()["dropped"] == 3
        labeller.submit(numbered(6, 7))
        assert labeller.metrics()["dropped"] == 4, "a new one takes the oldest one's place"
        client.is_up = True
        await answered(labeller, numbered(0, 7))
        assert labeller.metrics()["dropped"] == 4

    async def over_budget(labeller: Labeller) -> None:
        await labeller.drain(numbered(0, 1))
        for _ in range(3):
            labeller.submit(numbered(0, 4))
        assert labeller.metrics()["over_budget"] == 3

    run(tmp_path, client, scenario, max_queued=3, **OUTAGE)
    run(tmp_path / "other", ScriptedClient(), over_budget, max_labels=1)


def test_given_up_questions_count_once(tmp_path):
    client = ScriptedClient(fail_calls=10**6)

    async def scenario(labeller: Labeller) -> None:
        for _ in range(3):
            labeller.submit(ask("x"))
            calls = len(client.calls)
            await until(lambda calls=calls: len(client.calls) > calls and not labeller.metrics()["in_flight"])
        assert labeller.metrics()["failed"] == 1

    run(tmp_path, client, scenario, retry_deadline_s=0.005, **QUICK)


def test_an_abstention_is_no_soft_label(tmp_path):
    client = ScriptedClient(lambda q: LabelReply("unknown", 0.3))

    async def scenario(labeller: Labeller) -> None:
        (answer,) = await labeller.drain(ask("x"))
        assert (answer.value, answer.probability, answer.soft_value) == (None, None, None)

    run(tmp_path, client, scenario)
    assert stored(tmp_path)["x"].probability is None
    assert Answer(Question.single("x"), None, 0.3).soft_value is None


class SlowStore(LabelStore):
    """Its claims are renewed while something is being released."""

    def release(self, keys, owner):
        time.sleep(0.05)
        super().release(keys, owner)


def test_given_up_questions_are_not_claimed_again_by_a_renewal(tmp_path):
    client = ScriptedClient(fail_calls=10**6)

    async def main() -> None:
        path = tmp_path / "l.sqlite"
        config = LabellerConfig(retry_deadline_s=0.01, lease_s=0.015, **QUICK)
        with SlowStore(path, clock=Clock()) as store, LabelStore(path, clock=Clock()) as other:
            labeller = Labeller(store, client, None, config)
            await labeller.start()
            labeller.submit(ask("x"))
            await until(lambda: labeller.metrics()["failed"] == 1)
            await asyncio.sleep(0.1)  # the release and several renewals
            assert other.claim({key(ask("x")[0])}, "other", 1.0)
            await labeller.close()

    asyncio.run(asyncio.wait_for(main(), 20))


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
        await labeller.drain(ask("caption 0", "urgent a", "urgent b"))

    run(tmp_path, client, scenario, max_queued=1)
    assert [call[0] for call in client.calls][-3:-1] == ["urgent a", "urgent b"] or client.calls[:3] == [
        ["caption 0"], ["urgent a"], ["urgent b"]
    ]  # fmt: skip


def test_silence_is_never_asked(tmp_path):
    client = ScriptedClient()

    async def scenario(labeller: Labeller) -> None:
        labeller.submit(ask(""))
        assert await labeller.drain(ask("")) == [Answer(Question.single(""), 0.0)]

    run(tmp_path, client, scenario)
    assert client.calls == []


def test_collisions_are_errors(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        await labeller.drain([Question(7, "one")])
        labeller.submit([Question(8, "one more")])
        for other in (Question(7, "two"), Question(8, "two more")):
            with pytest.raises(CaptionCollisionError, match=rf"caption ids \({other.caption_id}, 0\) stand for"):
                labeller.submit([other])

    run(tmp_path, ScriptedClient(), scenario)


def test_pairs_are_asked_in_their_order(tmp_path):
    newt, stone = "You kill the newt!", "It's solid stone."

    async def scenario(labeller: Labeller) -> None:
        pairs = [Question.pair(newt, stone), Question.pair(stone, newt), Question.pair(newt, "You kill the jackal!")]
        assert values(await labeller.drain(pairs)) == [1.0, 0.0, 0.5]
        assert sorted(answer.question.ids for answer in labeller.labels_since()[0]) == sorted(q.ids for q in pairs)
        with pytest.raises(ValueError, match="prompt pair-1 asks about pairs, and cannot ask"):
            labeller.submit(ask(newt))

    async def again(labeller: Labeller) -> None:
        assert values(await labeller.drain([Question.pair(stone, newt)])) == [0.0]
        assert labeller.metrics()["asked"] == 0 and len(labeller.labels_since()[0]) == 3

    run(tmp_path, LexiconClient(), scenario, PromptSpec("pair-1"))
    run(tmp_path, LexiconClient(), again, PromptSpec("pair-1"))
    run(tmp_path, LexiconClient(), lambda labeller: nothing_known(labeller))


async def nothing_known(labeller: Labeller) -> None:
    """Labels of pairs are none of single captions."""
    assert labeller.labels_since() == ([], 0)


def test_soft_labels_come_with_the_answer_and_from_the_store(tmp_path):
    client = ScriptedClient(lambda q: LabelReply("helpful", 0.75))

    async def scenario(labeller: Labeller) -> None:
        assert [a.soft_value for a in await labeller.drain(ask("x"))] == [0.75]
        assert [a.soft_value for a in labeller.labels_since()[0]] == [0.75]

    run(tmp_path, client, scenario)
    run(tmp_path, client, scenario)
    assert len(client.calls) == 1


def test_what_a_client_counts_is_a_metric(tmp_path):
    @dataclass
    class Usage:
        requests: int = 0
        prompt_tokens: int = 0

    class Metered(ScriptedClient):
        def __init__(self) -> None:
            super().__init__()
            self.usage = Usage()

        async def label(self, spec, questions):
            self.usage.requests += 1
            self.usage.prompt_tokens += 10 * len(questions)
            return await super().label(spec, questions)

    async def scenario(labeller: Labeller) -> None:
        await labeller.drain(ask("x", "y"))
        metrics = labeller.metrics()
        assert (metrics["llm_requests"], metrics["llm_prompt_tokens"]) == (1.0, 20.0)

    async def unmetered(labeller: Labeller) -> None:
        assert not any(name.startswith("llm_") for name in labeller.metrics())

    run(tmp_path, Metered(), scenario)
    run(tmp_path, ScriptedClient(), unmetered)


def test_closing_frees_who_waits(tmp_path):
    async def scenario(labeller: Labeller) -> None:
        waiting = asyncio.create_task(labeller.drain(ask("x")))
        await asyncio.sleep(0.01)
        await labeller.close()
        with pytest.raises(LabellerError, match="closed"):
            await waiting

    run(tmp_path, ScriptedClient(hang_calls=1), scenario)


class Patient(ScriptedClient):
    """Fails until told otherwise, and notes how often it was tried."""

    def __init__(self, **limits) -> None:
        super().__init__("helpful", **limits)
        self.is_up = False

    async def label(self, spec, questions):
        replies = await super().label(spec, questions)
        if not self.is_up:
            raise LabelClientError("cannot connect to http://nowhere")
        return replies


def test_an_outage_opens_the_breaker_and_says_why_and_ends_by_itself(tmp_path):
    client = Patient(max_batch=2, max_in_flight=2)

    async def scenario(labeller: Labeller) -> None:
        assert labeller.problem is None
        labeller.submit(numbered(0, 20))
        await until(lambda: labeller.metrics()["breaker_open"] == 1)
        assert labeller.problem == "no labels: cannot connect to http://nowhere"
        begin_s = time.monotonic()
        await asyncio.sleep(0.1)
        # At most one probe each shortest cool-down, and no more is taken from the queue than workers can hold.
        assert len(client.calls) <= 3 + client.max_in_flight + 1 + (time.monotonic() - begin_s) / 0.01
        metrics = labeller.metrics()
        assert metrics["queued"] + metrics["in_flight"] == 20 and metrics["queued"] >= 16
        assert metrics["breaker_opens"] == 1 and metrics["failed"] == 0
        labeller.submit(numbered(20, 30))
        client.is_up = True
        await labeller.drain(numbered(0, 30))
        metrics = labeller.metrics()
        assert (metrics["breaker_open"], metrics["labelled"], labeller.problem) == (0, 30, None)

    run(tmp_path, client, scenario, **OUTAGE)


def test_the_queue_stays_bounded_in_an_outage(tmp_path):
    client = Patient(max_batch=1, max_in_flight=1)

    async def scenario(labeller: Labeller) -> None:
        labeller.submit(numbered(0, 1))
        await until(lambda: labeller.metrics()["breaker_open"] == 1)
        for start in range(0, 100, 10):
            labeller.submit(numbered(start, start + 10))
            await asyncio.sleep(0)
        assert labeller.metrics()["queued"] <= 5 and labeller.metrics()["dropped"] >= 90

    run(tmp_path, client, scenario, max_queued=5, **OUTAGE)


def test_who_waits_is_told_at_the_deadline_even_if_its_turn_never_came(tmp_path):
    client = Patient(max_batch=1, max_in_flight=1)

    async def scenario(labeller: Labeller) -> None:
        for _ in range(2):
            with pytest.raises(LabellerError, match=r"no label for 'caption \d': cannot connect"):
                await labeller.drain(numbered(0, 6))
        await until(lambda: labeller.metrics()["in_flight"] == 0)
        assert labeller.metrics()["queued"] == 0
        client.is_up = True
        await answered(labeller, numbered(0, 6))

    run(tmp_path, client, scenario, retry_deadline_s=0.1, **OUTAGE)


def test_given_up_questions_may_be_asked_by_another_run(tmp_path):
    client = Patient()

    async def main() -> None:
        config = LabellerConfig(retry_deadline_s=0.1, **OUTAGE)
        with LabelStore(tmp_path / "l.sqlite") as store, LabelStore(tmp_path / "l.sqlite") as other_store:
            labeller, other = Labeller(store, client, None, config), Labeller(other_store, ScriptedClient("helpful"))
            await labeller.start()
            await other.start()
            with pytest.raises(LabellerError, match="cannot connect"):
                await labeller.drain(ask("x"))
            assert values(await other.drain(ask("x"))) == [1.0]
            # The first run finds the answer, and needs no annotator for it.
            await answered(labeller, ask("x"))
            await labeller.close()
            await other.close()

    asyncio.run(asyncio.wait_for(main(), 20))


@settings(max_examples=10, deadline=None)
@given(
    asked=st.lists(st.lists(st.integers(0, 30), max_size=20), min_size=2, max_size=3),
    waits=st.booleans(),
    limit=st.sampled_from([None, 5]),
)
def test_runs_that_share_a_store_ask_each_question_once(asked, waits, limit):
    async def main(path: Path) -> None:
        stores = [LabelStore(path / "l.sqlite") for _ in asked]
        clients = [ScriptedClient("helpful", delay_s=0.002, max_batch=4) for _ in asked]
        config = LabellerConfig(max_labels=limit, **SHARED)
        runs = [Labeller(store, client, None, config) for store, client in zip(stores, clients, strict=True)]
        for own in runs:
            await own.start()
        questions = [ask(*(f"caption {i}" for i in numbers)) for numbers in asked]
        if not waits:
            for own, some in zip(runs, questions, strict=True):
                own.submit(some)
        answers = await asyncio.gather(*(own.drain(some) for own, some in zip(runs, questions, strict=True)))
        calls = [text for client in clients for call in client.calls for text in call]
        assert len(calls) == len(set(calls)) == stores[0].count()
        assert [own.metrics()["asked"] for own in runs] == [sum(map(len, c.calls)) for c in clients]
        for own, some, found in zip(runs, questions, answers, strict=True):
            known = {answer.question for answer in own.labels_since()[0]}
            assert [answer.question for answer in found] == some
            assert values(found) == [1.0 if question in known else None for question in some]
            assert limit is not None or known >= set(some)
            assert own.metrics()["claimed_elsewhere"] == 0
            await own.close()
        for store in stores:
            store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(asyncio.wait_for(main(Path(folder)), 20))


def test_what_another_run_asks_is_waited_for_and_taken_over_when_its_lease_ends(tmp_path):
    client = ScriptedClient("helpful")

    async def main() -> None:
        clock = Clock()
        with LabelStore(tmp_path / "l.sqlite", clock=clock) as store:
            labeller = Labeller(store, client, None, LabellerConfig(**SHARED))
            claimed = {key(question) for question in numbered(0, 2)}
            assert store.claim(claimed, "a run that was killed", 30.0) == claimed
            await labeller.start()
            labeller.submit(numbered(0, 3))
            await until(lambda: labeller.metrics()["claimed_elsewhere"] == 2 and labeller.metrics()["labelled"] == 1)
            waiting = asyncio.create_task(labeller.drain(numbered(0, 1)))
            await asyncio.sleep(0.05)
            assert client.calls == [["caption 2"]] and not waiting.done()
            clock.now_s += 31
            assert values(await waiting) == [1.0]
            assert values(await labeller.drain(numbered(0, 3))) == [1.0] * 3
            assert labeller.metrics()["claimed_elsewhere"] == 0
            await labeller.close()

    asyncio.run(asyncio.wait_for(main(), 20))


class CountingStore(LabelStore):
    claims = 0

    def claim(self, keys, owner, lease_s):
        found = super().claim(keys, owner, lease_s)
        self.claims += 1
        return found


def test_claims_are_renewed_as_long_as_a_call_takes_and_end_with_the_run(tmp_path):
    client = ScriptedClient(hang_calls=1)

    async def main() -> None:
        clock, path = Clock(), tmp_path / "l.sqlite"
        with CountingStore(path, clock=clock) as store, LabelStore(path, clock=clock) as other:
            labeller = Labeller(store, client, None, LabellerConfig(lease_s=0.03))
            keys = [key(question) for question in numbered(0, 2)]
            await labeller.start()
            labeller.submit(numbered(0, 2))
            await until(lambda: labeller.metrics()["asked"] == 2)
            for _ in range(4):
                clock.now_s += 0.02
                seen = store.claims + 1  # one may have read the clock before
                await until(lambda seen=seen: store.claims > seen)
            assert other.claim(keys, "other", 1.0) == set()
            await labeller.close()
            assert other.claim(keys, "other", 1.0) == set(keys)

    asyncio.run(asyncio.wait_for(main(), 20))


SHARING_PROGRAM = """
import asyncio, sys
from rewards.labels.annotators import ScriptedClient
from rewards.labels.config import LabellerConfig
from rewards.labels.labeller import Labeller
from rewards.labels.questions import Question
from rewards.labels.store import LabelStore

class Telling(ScriptedClient):
    async def label(self, spec, questions):
        print(*(q.text for q in questions), sep=chr(10), flush=True)
        return await super().label(spec, questions)

async def main(path, hangs):
    client = Telling("helpful", delay_s=0.01, max_batch=7, hang_calls=10**6 * int(hangs))
    with LabelStore(path) as store:
        labeller = Labeller(store, client, None, LabellerConfig(lease_s=2.0, lease_poll_s=0.05))
        await labeller.start()
        answers = await labeller.drain([Question.single(f"caption-{i}") for i in range(200)])
        assert [a.value for a in answers] == [1.0] * 200
        await labeller.close()

sys.stdin.readline()
asyncio.run(main(*sys.argv[1:]))
"""


def sharing(path: Path, *, hangs: bool = False) -> subprocess.Popen[str]:
    """A process that labels when it is told to, and tells what it asks."""
    return subprocess.Popen(
        [sys.executable, "-c", SHARING_PROGRAM, str(path), str(int(hangs))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_processes_share_the_work_and_a_killed_one_leaves_nothing_behind(tmp_path):
    path = tmp_path / "l.sqlite"
    with sharing(path, hangs=True) as dead:
        begin(dead)
        assert dead.stdout is not None
        assert dead.stdout.readline() == "caption-0\n"  # it has claimed what it asks, and will never say more
        dead.kill()
    processes = [sharing(path), sharing(path)]
    for process in processes:
        begin(process)
    asked = [process.communicate(timeout=30)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(text for texts in asked for text in texts) == sorted(f"caption-{i}" for i in range(200))
    with LabelStore(path, read_only=True) as store:
        assert store.count() == 200


def test_a_waiter_that_was_cancelled_leaves_no_warning(tmp_path):
    complaints: list[dict] = []

    async def scenario(labeller: Labeller) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        waiting = asyncio.create_task(labeller.drain(ask("x")))
        await asyncio.sleep(0.005)
        waiting.cancel()
        await until(lambda: labeller.metrics()["failed"] == 1)
        gc.collect()

    run(tmp_path, Patient(), scenario, retry_deadline_s=0.02, **QUICK)
    gc.collect()
    assert complaints == []


@settings(max_examples=12, deadline=None)
@given(
    submissions=st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 12), max_size=8)), max_size=8),
    batch=st.integers(1, 5),
    in_flight=st.integers(1, 3),
    fail_calls=st.integers(0, 2),
)
def test_under_concurrency_each_caption_is_answered_once(submissions, batch, in_flight, fail_calls):
    client = ScriptedClient(
        lambda q: "helpful" if q.text.endswith("1") else "neutral",
        delay_s=0.0005, max_batch=batch, max_in_flight=in_flight, fail_calls=fail_calls,
    )  # fmt: skip

    async def scenario(labeller: Labeller) -> None:
        waiting = []
        for is_waited, numbers in submissions:
            asked = ask(*(f"caption {i}" for i in numbers))
            if is_waited:
                waiting.append(asyncio.create_task(labeller.drain(asked)))
            else:
                labeller.submit(asked)
            await asyncio.sleep(0.0003)
        texts = {f"caption {i}" for _, numbers in submissions for i in numbers}
        await asyncio.gather(*waiting)
        await until(lambda: len(labeller.labels_since()[0]) == len(texts))
        labels, cursor = labeller.labels_since()
        assert {a.question.text: a.value for a in labels} == {t: float(t.endswith("1")) for t in texts}
        assert cursor == len(texts) and labeller.labels_since(cursor) == ([], cursor)
        answered = [t for call in client.calls[fail_calls:] for t in call]
        assert labeller.metrics()["asked"] == len(texts)
        assert len(answered) >= len(texts)

    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), client, scenario, **QUICK)
