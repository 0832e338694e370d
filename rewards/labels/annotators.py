"""Annotators behind one asynchronous interface: hand-written rules, a language model, or a script for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from rewards.labels.config import (
    AnnotatorConfig,
    LexiconClientConfig,
    LLMClientConfig,
    ScriptedClientConfig,
)
from rewards.labels.lexicon import Lexicon
from rewards.labels.questions import ABSTENTION, PAIR_VALUES, VALUES, PromptSpec, Question
from rewards.llm.asking import Asker, choice_probabilities, prepare
from rewards.llm.config import (
    LLMConfig,
    LLMConnectionError,
    LLMError,
    LLMMissingError,
    LLMRefusedError,
    LLMUnreadableError,
    read_key,
)
from rewards.llm.server import LLMServer, Reply, Usage


@dataclass(frozen=True, slots=True)
class LabelReply:
    """The answer to one question: text as the annotator wrote it, or the reason why there is none."""

    text: str = ""
    probability: float | None = None
    """Expected value under the annotator's probabilities of the choices, where it gives them."""
    error: str | None = None
    """Set where this question alone was refused, for good (a prompt too long, for instance)."""


class LabelClientError(RuntimeError):
    """A whole call failed for a reason that may pass (server down, overloaded, too slow): worth a retry."""


class BatchRefusedError(RuntimeError):
    """The annotator refuses a list for good because of something in it: asked in parts, the rest is answered."""


class LabelClient(Protocol):
    """Answers lists of questions, several lists in flight.

    ``label`` raises ``LabelClientError`` for what may pass, ``BatchRefusedError`` for a list that holds
    something bad; any other exception is a fault of the program and ends labelling loudly.
    """

    name: str
    """Who answers; stored with every label. A lexicon is never called a language model."""
    revision: str
    """Which version of it, and asked how, where that changes its answers: weights revision, hash of a data file."""
    max_batch: int
    """Most questions a call."""
    max_in_flight: int
    """Most calls at a time."""

    async def label(self, spec: PromptSpec, questions: Sequence[Question]) -> list[LabelReply]:
        """One reply a question, in the same order."""
        ...

    async def close(self) -> None:
        """Free connections."""
        ...


@runtime_checkable
class MeteredClient(Protocol):
    """A client that also counts what answering costs."""

    usage: Any
    """A data class of numbers that only rise (requests, tokens); each becomes a metric ``llm_<field>``."""


_COMPARED = {1: "first", -1: "second", 0: "equal"}


class LexiconClient:
    """Answers from hand-written rules for NetHack messages; no model, no server, no delay.

    Args:
        lexicon: the rules; the packaged ones by default.

    Raises:
        ValueError: raised by ``label`` when asked for a goal that the rules have no column for.
    """

    name = "lexicon"

    def __init__(self, lexicon: Lexicon | None = None) -> None:
        self._lexicon = lexicon or Lexicon.packaged()
        self.revision = self._lexicon.revision
        self.max_batch = 128
        self.max_in_flight = 1

    async def label(self, spec: PromptSpec, questions: Sequence[Question]) -> list[LabelReply]:
        """A verdict word a question; ``unknown`` where no rule covers a caption."""
        # A batch takes tens of milliseconds: let other tasks of the loop run in between.
        await asyncio.sleep(0)
        return [LabelReply(self._verdict(spec.goal, question) or ABSTENTION) for question in questions]

    def _verdict(self, goal: str, asked: Question) -> str | None:
        first = self._lexicon.judge(asked.text, goal)
        if not asked.is_pair or first is None:
            return first
        second = self._lexicon.judge(asked.second_text, goal)
        if second is None:
            return None
        order = list(VALUES).index(second) - list(VALUES).index(first)  # best verdict first
        return _COMPARED[(order > 0) - (order < 0)]

    async def close(self) -> None:
        """Nothing to free."""


_STALE = (LLMConnectionError, LLMMissingError, LLMUnreadableError)
"""After these another server may answer, with another template or without bound answers: it is looked at afresh."""

_BENDING = ("api", "structured_outputs", "soft_labels", "temperature")
"""Fields of ``LLMConfig`` that may change what is answered to the same prompt."""


class LLMLabelClient:
    """Asks the model of an OpenAI-compatible server.

    Nothing is sent before the first label. Then the server is prepared, once: the model must be there, its chat
    template is learned where the server tells it, and bound answers are verified. A failed preparation is repeated
    by the next call, and a lost connection makes one necessary.

    Labels are kept under ``name`` and ``revision``, which are known before the server is: both come from the
    configuration, and a server that has no model of that name is not asked. ``rewards.llm.server.resolve`` names
    the model where the configuration leaves that to the server. All methods belong to one event loop.

    The revision is ``llm.revision``, and after it every setting of how the model is asked that may change its
    answers and is not the default (``temperature=0.7``): their labels are kept apart too.

    Args:
        config: where the model is, and how it is asked.

    Raises:
        ValueError: the configuration names no server, or no model, or the API key cannot be sent.
    """

    def __init__(self, config: LLMConfig) -> None:
        if config.model is None:
            raise ValueError("labels are kept under the name of the model that gave them: give llm.model")
        self.name = config.model
        self.revision = _revision(config)
        self.max_batch = config.max_batch
        self.max_in_flight = config.max_in_flight
        self._config = config
        self._server = LLMServer(config)
        self._asker: Asker | None = None
        self._preparing = asyncio.Lock()

    @property
    def usage(self) -> Usage:
        """Requests and tokens so far."""
        return self._server.usage

    async def check(self) -> None:
        """Prepare the server now.

        Raises:
            LabelClientError: it cannot be used; one sentence says why.
        """
        await self._prepared()

    async def label(self, spec: PromptSpec, questions: Sequence[Question]) -> list[LabelReply]:
        """One reply a question, in the same order.

        Raises:
            LabelClientError: no usable answer, or the server cannot be prepared.
            BatchRefusedError: the server refuses the list because of something in it.
        """
        answers = await self._ask(spec, [spec.ask(question) for question in questions]) if questions else []
        return [self._reply(spec, answer) for answer in answers]

    async def close(self) -> None:
        """Free the connections; harmless when done twice."""
        await self._server.close()

    async def _prepared(self) -> Asker:
        async with self._preparing:
            if self._asker is None:
                try:
                    self._asker = await prepare(self._server, self._config)
                except LLMError as error:
                    raise LabelClientError(str(error)) from error
            return self._asker

    async def _ask(self, spec: PromptSpec, shown: Sequence[str]) -> list[Reply | LLMRefusedError]:
        asker = await self._prepared()
        try:
            return await asker.ask(spec.instructions, shown, spec.choices)
        except LLMRefusedError as error:
            raise BatchRefusedError(str(error)) from error
        except LLMError as error:
            if isinstance(error, _STALE):
                self._asker = None
            raise LabelClientError(str(error)) from error

    def _reply(self, spec: PromptSpec, answer: Reply | LLMRefusedError) -> LabelReply:
        if isinstance(answer, LLMRefusedError):
            return LabelReply(error=str(answer))
        probabilities = choice_probabilities(spec.choices, answer.positions) if self._config.soft_labels else None
        return LabelReply(answer.text, None if probabilities is None else spec.expectation(probabilities))


def _revision(config: LLMConfig) -> str:
    fields = type(config).model_fields
    bent = {name: getattr(config, name) for name in _BENDING if getattr(config, name) != fields[name].default}
    settings = (f"{name}={value}" for name, value in bent.items())
    return " ".join(part for part in (config.revision, *settings) if part)


class ScriptedClient:
    """Answers and misbehaves as scripted: for tests and fault drills.

    Args:
        answers: ``{caption: reply}``, a function of the question, or one reply for all.
        delay_s: time each call takes.
        fail_calls: how many calls fail first with ``LabelClientError``.
        poison: captions because of which a list is refused with ``BatchRefusedError``.
        raise_after: calls answered before ``error`` is raised, for good.
        error: what is raised then.
        hang_calls: how many calls never return, before all others.
        max_batch: most requests a call.
        max_in_flight: most calls at a time.
    """

    name = "scripted"
    revision = "1"

    def __init__(
        self,
        answers: Mapping[str, str | LabelReply] | Callable[[Question], str | LabelReply] | str = "neutral",
        *,
        delay_s: float = 0.0,
        fail_calls: int = 0,
        poison: Collection[str] = (),
        raise_after: int | None = None,
        error: Exception | None = None,
        hang_calls: int = 0,
        max_batch: int = 32,
        max_in_flight: int = 2,
    ) -> None:
        self._answers = answers
        self._delay_s = delay_s
        self._fail_calls = fail_calls
        self._poison = set(poison)
        self._raise_after = raise_after
        self._error = error or RuntimeError("scripted fault")
        self._hang_calls = hang_calls
        self.max_batch = max_batch
        self.max_in_flight = max_in_flight
        self.calls: list[list[str]] = []
        """Captions of every call, in order (of pairs, the first)."""
        self.in_flight = 0
        self.most_in_flight = 0

    async def label(self, spec: PromptSpec, questions: Sequence[Question]) -> list[LabelReply]:
        """Replies, faults and delays as scripted."""
        self.calls.append([question.text for question in questions])
        number = len(self.calls)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._delay_s)
            if number <= self._hang_calls:
                await asyncio.Event().wait()
            if number <= self._hang_calls + self._fail_calls:
                raise LabelClientError("scripted failure")
            if self._raise_after is not None and number > self._raise_after:
                raise self._error
            if bad := self._poison.intersection(question.text for question in questions):
                raise BatchRefusedError(f"scripted refusal of {min(bad)!r}")
            return [self._answer(question) for question in questions]
        finally:
            self.in_flight -= 1

    def _answer(self, question: Question) -> LabelReply:
        if isinstance(self._answers, str):
            answer: str | LabelReply = self._answers
        elif callable(self._answers):
            answer = self._answers(question)
        else:
            answer = self._answers[question.text]
        return answer if isinstance(answer, LabelReply) else LabelReply(answer)

    async def close(self) -> None:
        """Nothing to free."""


def any_verdict(question: Question) -> str:
    """A verdict that costs nothing and means nothing, but is the same at each asking: for benchmarks."""
    choices = list(PAIR_VALUES if question.is_pair else VALUES)
    return choices[(question.caption_id ^ question.second_id) % len(choices)]


@dataclass(frozen=True, slots=True)
class _Maker:
    """How one kind of annotator is made, and what is looked at before."""

    build: Callable[[Any, LLMConfig], LabelClient]
    check: Callable[[Any, LLMConfig, str], object] = lambda config, llm, goal: None
    """Raises ``ValueError`` for a configuration that would end labelling at the first question by this goal."""


def _lexicon(config: LexiconClientConfig) -> Lexicon:
    return Lexicon.read(config.file) if config.file else Lexicon.packaged()


def _scripted(config: ScriptedClientConfig, llm: LLMConfig) -> ScriptedClient:
    return ScriptedClient(any_verdict if config.reply == "any" else config.reply, delay_s=config.delay_s)


def _language_model(config: LLMClientConfig, llm: LLMConfig) -> LLMLabelClient:
    if llm.base_url is None:
        raise ValueError("labels.client.kind=llm needs a language model: give llm.base_url or llm.serve")
    return LLMLabelClient(llm)


_MAKERS: Mapping[type[AnnotatorConfig], _Maker] = MappingProxyType(
    {
        LexiconClientConfig: _Maker(
            lambda config, llm: LexiconClient(_lexicon(config)),
            lambda config, llm, goal: _lexicon(config).judge("", goal),
        ),
        ScriptedClientConfig: _Maker(_scripted),
        LLMClientConfig: _Maker(_language_model, lambda config, llm, goal: read_key(llm.api_key_env)),
    }
)
"""A new kind of annotator is a line here, and a configuration with ``kind`` in ``ClientConfig``."""


def build_client(config: AnnotatorConfig, llm: LLMConfig) -> LabelClient:
    """The annotator that a configuration names; nothing is sent before the first label.

    Raises:
        LexiconError: the lexicon's file cannot be read as one.
        ValueError: the language model is to be asked, and none is named.
    """
    chosen = config.chosen(llm)
    return _MAKERS[type(chosen)].build(chosen, llm)


def check_client(config: AnnotatorConfig, llm: LLMConfig, goal: str) -> None:
    """Say before anything starts what would end labelling at the first question.

    Raises:
        ValueError: the annotator cannot be built, or cannot judge by this goal.
    """
    chosen = config.chosen(llm)
    _MAKERS[type(chosen)].check(chosen, llm, goal)
