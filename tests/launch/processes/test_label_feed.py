"""Feeds: a labeller on a thread, and the same in a Ray actor."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch.config.train_config import TrainConfig
from launch.processes.label_feed import RayFeed, ThreadFeed
from launch.processes.session import ray_session
from rewards.labels.annotators import LabelClientError, ScriptedClient
from rewards.labels.config import LabellerConfig, LabelsConfig, ScriptedClientConfig
from rewards.labels.labeller import Labeller, LabellerError
from rewards.labels.questions import Answer, PromptSpec, Question, newest_version
from rewards.labels.store import LabelStore
from rewards.teacher import LabelFeed

SPEC = PromptSpec(newest_version(is_pair=False), "score")


def ask(*texts: str) -> list[Question]:
    return [Question.single(text) for text in texts]


def thread_feed(folder: Path, client: ScriptedClient, spec: PromptSpec | None = None, **limits) -> ThreadFeed:
    store = LabelStore(folder / "labels.sqlite")
    return ThreadFeed(store, Labeller(store, client, spec, LabellerConfig(**limits)))


def until(condition: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s, "the condition did not come true"
        time.sleep(0.002)


def arriving(feed: LabelFeed, count: int) -> list[Answer]:
    """The next answers, polled for."""
    found: list[Answer] = []
    until(lambda: found.extend(feed.poll()) or len(found) >= count)
    return found


@pytest.fixture(params=["thread", pytest.param("actor", marks=pytest.mark.slow)])
def feed(request, tmp_path) -> Iterator[LabelFeed]:
    """Either feed, with an annotator that finds everything helpful."""
    if request.param == "thread":
        own: LabelFeed = thread_feed(tmp_path, ScriptedClient("helpful"), max_labels=5)
        yield own
        own.close()
        return
    labels = LabelsConfig(
        client=ScriptedClientConfig(reply="helpful", delay_s=0.0), labeller=LabellerConfig(max_labels=5)
    )
    with ray_session(None, 1):
        own = RayFeed(TrainConfig(preset="debug", labels=labels), str(tmp_path / "labels.sqlite"), SPEC)
        yield own
        own.close()


def test_questions_in_answers_out(feed, tmp_path):
    feed.submit(iter(ask("x", "y")))
    found = arriving(feed, 2)
    assert {(a.question.text, a.value) for a in found} == {("x", 1.0), ("y", 1.0)}
    assert feed.poll() == [] or list(feed.poll()) == []
    drained = feed.drain(ask("z", "x"))
    assert [a.question for a in drained] == sorted(ask("x", "z"), key=lambda q: q.ids)
    assert [a.question.text for a in feed.flush()] == ["z"]
    feed.flush()
    assert feed.metrics()["asked"] == 3.0 and feed.problem() is None
    assert feed.state_dict() == {"asked": 3}
    feed.load_state_dict({"asked": 5})
    assert [a.value for a in feed.drain(ask("over the budget"))] == [None]
    feed.close()
    feed.close()
    with LabelStore(tmp_path / "labels.sqlite") as store:
        assert store.count() == 3


class Flaky(ScriptedClient):
    def __init__(self) -> None:
        super().__init__("first")
        self.is_up = False

    async def label(self, spec, questions):
        if not self.is_up:
            raise LabelClientError("cannot connect to http://nowhere")
        return await super().label(spec, questions)


def test_an_outage_is_a_problem_and_no_error(tmp_path):
    client = Flaky()
    limits = {"backoff_min_s": 0.001, "breaker_cool_down_s": 0.01, "breaker_max_cool_down_s": 0.01}
    feed = thread_feed(tmp_path, client, PromptSpec("pair-1"), **limits)
    feed.submit([Question.pair("x", "y"), Question.pair("y", "x")])
    until(feed.problem)
    assert feed.problem() == "no labels: cannot connect to http://nowhere"
    until(lambda: feed.metrics()["breaker_open"])
    assert feed.poll() == []
    client.is_up = True
    assert [a.value for a in arriving(feed, 2)] == [1.0, 1.0]
    assert feed.problem() is None
    feed.close()


def test_a_fault_of_the_program_is_loud_and_leaves_nothing_open(tmp_path, recwarn):
    feed = thread_feed(tmp_path, ScriptedClient(raise_after=0, error=KeyError("a fault")))
    with pytest.raises(LabellerError, match="labelling stopped: 'a fault'"):
        feed.drain(ask("x"))
    for call in (feed.poll, feed.metrics, lambda: feed.submit(ask("y")), lambda: feed.drain(ask("y"))):
        with pytest.raises(LabellerError, match="a fault"):
            call()
    feed.close()
    gc.collect()
    assert [str(w.message) for w in recwarn] == []


class Unclosable(ScriptedClient):
    async def close(self) -> None:
        raise OSError("the connection is lost")


def test_a_client_that_cannot_be_closed_leaves_no_thread_and_no_open_store(tmp_path):
    store = LabelStore(tmp_path / "labels.sqlite")
    feed = ThreadFeed(store, Labeller(store, Unclosable(), None, LabellerConfig()))
    assert "labeller" in {thread.name for thread in threading.enumerate()}
    with pytest.raises(OSError, match="the connection is lost"):
        feed.close()
    assert "labeller" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(Exception, match="closed database"):
        store.count()


def test_the_actor_lives_on_the_drivers_node(tmp_path, monkeypatch):
    chosen = []

    class Options:
        @staticmethod
        def options(**options):
            chosen.append(options["scheduling_strategy"])
            raise LookupError("seen")

    class Here:
        @staticmethod
        def get_node_id():
            return "ab" * 28

    monkeypatch.setattr("launch.processes.label_feed.LabellerActor", Options)
    monkeypatch.setattr("ray.get_runtime_context", Here)
    with pytest.raises(LookupError, match="seen"):
        RayFeed(TrainConfig(preset="debug"), str(tmp_path / "labels.sqlite"), SPEC)
    assert (chosen[0].node_id, chosen[0].soft) == ("ab" * 28, False)


@pytest.mark.slow
def test_an_actor_survives_an_annotator_that_never_answers(tmp_path):
    """The labeller says so, and goes on serving."""
    labels = {"client": {"kind": "scripted", "delay_s": 60.0}, "labeller": {"request_timeout_s": 0.05}}
    config = TrainConfig.model_validate({"preset": "debug", "labels": labels})
    with ray_session(None, 1):
        feed = RayFeed(config, str(tmp_path / "labels.sqlite"), SPEC)
        feed.submit(ask("x"))
        until(lambda: feed.flush() or feed.problem())
        assert feed.problem() == "no labels: no answer within 0.05 s"
        assert feed.metrics()["in_flight"] == 1.0
        feed.close()
