"""Annotators behind one asynchronous interface: whoever answers, the labeller asks the same way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rewards.labels.lexicon import Lexicon
from rewards.labels.prompts import ABSTENTION, PAIR_VALUES, VALUES, PromptSpec
from rewards.labels.questions import Question


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """One question, in the words of one prompt."""

    spec: PromptSpec
    question: Question


@dataclass(frozen=True, slots=True)
class LabelReply:
    """The answer to one request: text as the annotator wrote it, or the reason why there is none."""

    text: str = ""
    probability: float | None = None
    """Expected value under the annotator's probabilities of the choices, where it gives them."""
    error: str | None = None
    """Set where this request alone was refused, for good (a prompt too long, for instance)."""


class LabelClientError(RuntimeError):
    """A whole call failed for a reason that may pass (server down, overloaded, too slow): worth a retry."""


class BatchRefusedError(RuntimeError):
    """The annotator refuses a list for good because of something in it: asked in parts, the rest is answered."""


class LabelClient(Protocol):
    """Answers lists of requests, several lists in flight.

    ``label`` raises ``LabelClientError`` for what may pass, ``BatchRefusedError`` for a list that holds
    something bad; any other exception is a fault of the program and ends labelling loudly.
    """

    name: str
    """Who answers; stored with every label. A lexicon is never called a language model."""
    revision: str
    """Which version of it, and asked how, where that changes its answers: weights revision, hash of a data file."""
    max_batch: int
    """Most requests a call."""
    max_in_flight: int
    """Most calls at a time."""

    async def label(self, requests: Sequence[LabelRequest]) -> list[LabelReply]:
        """One reply a request, in the same order."""
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

    async def label(self, requests: Sequence[LabelRequest]) -> list[LabelReply]:
        """A verdict word a request; ``unknown`` where no rule covers a caption."""
        # A batch takes tens of milliseconds: let other tasks of the loop run in between.
        await asyncio.sleep(0)
        return [LabelReply(self._verdict(r) or ABSTENTION) for r in requests]

    def _verdict(self, request: LabelRequest) -> str | None:
        asked, goal = request.question, request.spec.goal
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


class ScriptedClient:
    """Answers as told, and misbehaves as told: for tests and drills.

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

    async def label(self, requests: Sequence[LabelRequest]) -> list[LabelReply]:
        """Replies, faults and delays as scripted."""
        self.calls.append([r.question.text for r in requests])
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
            if bad := self._poison.intersection(r.question.text for r in requests):
                raise BatchRefusedError(f"scripted refusal of {min(bad)!r}")
            return [self._answer(r.question) for r in requests]
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
