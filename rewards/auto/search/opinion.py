"""What a language model thinks of a program that has passed the tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ValidationError

from rewards.auto.config import CompositionConfig
from rewards.auto.program import SHORT_SHA, Program
from rewards.auto.search.designing_prompt import describe_composition
from rewards.auto.search.llm_designer import DesignerError
from rewards.auto.search.proposal import Costs
from rewards.auto.search.verdict import Finding, Outcome
from rewards.llm.chat import PAUSES_S, ChatModel, chat_patiently
from rewards.llm.config import LLMError, LLMMissingError
from rewards.llm.server import Sampling, Usage

_MAX_REPLY = 16_000
"""Characters of a reply that are looked at."""
_MAX_BEGINNINGS = 64
"""Opening braces at which JSON is looked for."""
_MAX_REASONS = 8
_MAX_REASON = 300
_MEASURED = frozenset({"time"})
"""Tests whose reasons hold what the clock showed."""

_PROMPT = """You review a reward program for an agent that learns to play NetHack or one of its small training levels.

The task: {goal}

The program's function is called for each step of play and returns named components.
{composition}

```python
{source}
```

Tests that were executed:
{tests}

Would an agent that does its best to collect this reward solve the task? Reject the program only for a fault that you
can name: it contradicts the task, it can be farmed without solving it, its sign is wrong, or a condition can never
hold. Answer with JSON alone, at most {max_reasons} short reasons:
{{"verdict": "accept", "reject" or "unsure", "reasons": ["...", "..."]}}
"""


class Opinion(Protocol):
    """Judges a program by reading it."""

    @property
    def costs(self) -> Costs:
        """Since it was made."""
        ...

    def of(self, program: Program, findings: Sequence[Finding]) -> Finding:
        """What to think of a program, given what tests found; undetermined where there is no opinion."""
        ...


class _Judgement(BaseModel):
    verdict: Literal["accept", "reject", "unsure"]
    reasons: list[str] = []


_OUTCOMES: Mapping[str, Outcome] = {"accept": "pass", "reject": "fail", "unsure": "undetermined"}


class LLMOpinion:
    """Asks a language model, once a program; an ``Opinion``.

    No failure of the model or of its server counts against a program; one that cannot pass ends the search.

    Args:
        model: who is asked.
        goal: the task in words.
        composition: how components are composed.
        max_tokens: of a reply.
        seed: fixes its chance, where the server knows seeds.
        pauses_s: before each further try of a request that failed.
    """

    def __init__(
        self,
        model: ChatModel,
        goal: str,
        composition: CompositionConfig,
        max_tokens: int = 1024,
        seed: int = 0,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._model, self._goal, self._composition = model, goal, composition
        self._sampling = Sampling(max_tokens=max_tokens, seed=seed)
        self._pauses_s = pauses_s
        self._usage = Usage()

    @property
    def costs(self) -> Costs:
        """What its own requests have used since it was made."""
        used = self._usage
        return Costs(requests=used.requests, prompt_tokens=used.prompt_tokens, completion_tokens=used.completion_tokens)

    def of(self, program: Program, findings: Sequence[Finding]) -> Finding:
        """Ask; not to be called from within an event loop.

        Raises:
            DesignerError: replies are repeated, and there is none to this; or the server has no such model.
        """
        prompt = _PROMPT.format(
            goal=self._goal,
            composition=describe_composition(self._composition),
            source=program.source.rstrip(),
            tests="\n".join(map(_told, findings)),
            max_reasons=_MAX_REASONS,
        )
        try:
            reply = asyncio.run(self._ask(prompt))
        except LLMMissingError as error:
            raise DesignerError(f"no opinion of program {program.sha[:SHORT_SHA]}: {error}") from error
        except LLMError as error:
            return Finding(test="opinion", outcome="undetermined", reason=f"there is none: {error}")
        return _finding_of(reply)

    async def _ask(self, prompt: str) -> str:
        try:
            chat = [{"role": "user", "content": prompt}]
            reply = await chat_patiently(self._model, chat, self._sampling, self._pauses_s)
        finally:
            await self._model.close()
        self._usage.add(reply.usage)
        return reply.text


def _told(finding: Finding) -> str:
    """A line of the prompt; without figures that differ from run to run, so that a recorded reply fits the next."""
    line = f"- {finding.test}: {finding.outcome}"
    return line if finding.test in _MEASURED else f"{line}, {finding.reason}"


def _finding_of(reply: str) -> Finding:
    judgement = _judgement_in(reply)
    if judgement is None:
        shown = " ".join(reply.split())[:60]
        return Finding(test="opinion", outcome="undetermined", reason=f"the answer cannot be read: {shown!r}")
    reasons = [_printable(reason) for reason in judgement.reasons[:_MAX_REASONS]]
    said = "; ".join(filter(None, reasons)) or "no reason given"
    return Finding(test="opinion", outcome=_OUTCOMES[judgement.verdict], reason=f"{judgement.verdict}: {said}")


def _printable(reason: str) -> str:
    """One line without control characters, shortened."""
    line = " ".join(reason.split())[:_MAX_REASON]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _judgement_in(reply: str) -> _Judgement | None:
    """The last readable judgement in a reply: models that think aloud end with it."""
    text = reply[-_MAX_REPLY:]
    beginnings = [i for i, letter in enumerate(text) if letter == "{"][-_MAX_BEGINNINGS:]
    for start in reversed(beginnings):
        found = _object_at(text, start)
        if found is None:
            continue
        try:
            return _Judgement.model_validate(found, strict=True)
        except ValidationError:
            continue
    return None


def _object_at(text: str, start: int) -> dict[str, Any] | None:
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
