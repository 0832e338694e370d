"""A language model as designer of reward programs, and as their critic.

Designing: several candidates a round, asked for independently: the same prompt, another seed each (as in Eureka, Ma et
al. 2023, arXiv 2310.12931). A reply that cannot be used goes back with the reason, as the Critic of Auto MC-Reward does
(Li et al. 2023, arXiv 2312.09238), which allows three rounds too.

Judging: an opinion of a program that has passed the tests, asked for once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, PositiveInt, ValidationError
from pydantic import Field as Setting

from envs.data import Config
from envs.features import FIELDS, Field
from rewards.auto.admission import admit
from rewards.auto.config import CompositionConfig
from rewards.auto.program import SHORT_SHA, Program, ProgramRejectedError, sha_of
from rewards.auto.search.designing_prompt import DesigningPrompt, Prompt, PromptTooLongError, describe_composition
from rewards.auto.search.proposal import Brief, Costs, Finding, Outcome, Proposal
from rewards.auto.search.replies import Code, Problem, code_of
from rewards.llm.chat import PAUSES_S, ChatModel, chat_all, chat_patiently
from rewards.llm.config import LLMError, LLMMissingError
from rewards.llm.server import Messages, Reply, Sampling, Usage

MAX_REPLIES = 3
"""Replies that a candidate may take, the first one included."""

_MAX_QUOTED = 20_000
"""Characters of a reply that go back with the reason: any program fits, endless rambling does not."""


class DesignerError(RuntimeError):
    """No proposals, or no opinions, can be had of a language model: one sentence says why."""


class DesigningConfig(Config):
    """How a language model is asked for reward programs."""

    temperature: Annotated[float, Setting(gt=0.0)] = 0.8
    """Above 0: candidates differ by chance alone."""
    max_tokens: PositiveInt = 4096
    """Of a reply, thoughts included."""
    max_chars: PositiveInt = 48_000
    """Of the prompt; about a quarter as many tokens. What was tried long ago is left out first."""
    num_shown: PositiveInt = 4
    """Programs of earlier rounds that are shown with their source, the fittest ones."""
    max_in_flight: PositiveInt = 4
    """Candidates asked for side by side."""
    wording: Path | None = None
    """TOML file with texts of your own, with the keys of rewards/auto/search/designing_prompt.toml; none = that one."""


@dataclass
class _Candidate:
    """A proposal in the making."""

    index: int
    chat: Messages
    attempts: int = 0
    source: str = ""
    thoughts: str = ""
    problem: str = ""

    @property
    def is_open(self) -> bool:
        return not self.source and self.attempts < MAX_REPLIES


@dataclass
class _Known:
    """Sources that are no longer new, and what is said of them."""

    said: dict[str, str] = field(default_factory=dict)
    """``{SHA: clause}``."""

    @classmethod
    def of(cls, brief: Brief) -> _Known:
        return cls({tried.sha: f"this very program was tried in round {tried.round}" for tried in brief.tried})


class LLMDesigner:
    """Asks a language model for reward programs; a ``Designer``.

    Replies are looked at in the order of the candidates, never in that of their arrival: with a model that repeats
    itself (``RecordedReplies``), proposals do too.

    Args:
        model: who is asked.
        model_name: its name, for the record.
        config: how it is asked.
        composition: how components will be composed; part of the prompt.
        fields: what the prompt shows of the schema.
        check: admits source code or raises ``ProgramRejectedError``.
        pauses_s: before each further try of a request that failed.

    Raises:
        OSError, ValueError: ``config.wording`` cannot be used.
    """

    def __init__(
        self,
        model: ChatModel,
        model_name: str,
        config: DesigningConfig | None = None,
        composition: CompositionConfig | None = None,
        fields: Iterable[Field] = FIELDS,
        check: Callable[[str], Program] = admit,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._config = config or DesigningConfig()
        self._model, self._model_name = model, model_name
        self._check, self._pauses_s = check, pauses_s
        self._prompt = DesigningPrompt(
            composition or CompositionConfig(),
            max_chars=self._config.max_chars,
            num_shown=self._config.num_shown,
            wording=self._config.wording,
            fields=fields,
        )
        self._costs = Costs()

    @property
    def name(self) -> str:
        """``llm NAME``."""
        return f"llm {self._model_name}"

    @property
    def costs(self) -> Costs:
        """What its own requests have used since it was made."""
        return self._costs

    def propose(self, brief: Brief, num: int) -> Sequence[Proposal]:
        """So many proposals, those without usable code among them; not to be called from within an event loop.

        Raises:
            DesignerError: the model cannot be asked, or the prompt does not fit.
        """
        try:
            prompt = self._prompt.of(brief)
            candidates = asyncio.run(self._design(brief, prompt, num))
        except (PromptTooLongError, LLMError) as error:
            raise DesignerError(f"no reward programs for round {brief.round}: {error}") from error
        return [self._proposal(candidate, prompt) for candidate in candidates]

    async def _design(self, brief: Brief, prompt: Prompt, num: int) -> list[_Candidate]:
        candidates = [_Candidate(i, [{"role": "user", "content": prompt.text}]) for i in range(num)]
        known = _Known.of(brief)
        try:
            while waiting := [candidate for candidate in candidates if candidate.is_open]:
                chats = [(candidate.chat, self._sampling(brief, candidate)) for candidate in waiting]
                replies = await chat_all(self._model, chats, self._config.max_in_flight, self._pauses_s)
                for candidate, reply in zip(waiting, replies, strict=True):
                    self._count(reply)
                    self._take(candidate, reply, known)
        finally:
            await self._model.close()
        return candidates

    def _sampling(self, brief: Brief, candidate: _Candidate) -> Sampling:
        chance = np.random.SeedSequence([brief.seed, brief.round, candidate.index, candidate.attempts])
        return Sampling(
            max_tokens=self._config.max_tokens,
            temperature=self._config.temperature,
            seed=int(chance.generate_state(1)[0]) >> 1,  # servers want 31 bits
        )

    def _count(self, reply: Reply) -> None:
        usage = Usage()
        usage.add(reply.usage)
        self._costs = Costs(
            requests=self._costs.requests + usage.requests,
            prompt_tokens=self._costs.prompt_tokens + usage.prompt_tokens,
            completion_tokens=self._costs.completion_tokens + usage.completion_tokens,
        )

    def _take(self, candidate: _Candidate, reply: Reply, known: _Known) -> None:
        """Settle a candidate, or send the reply back with the reason."""
        candidate.attempts += 1
        code = code_of(reply.text)
        candidate.problem = problem = self._problem_of(code, reply, known)
        if isinstance(code, Code):
            candidate.thoughts = code.thoughts
            if not problem:
                candidate.source = code.source
                known.said[sha_of(code.source)] = "another candidate of this round is this very program"
                return
        said = {"role": "assistant", "content": reply.text[:_MAX_QUOTED] or "(nothing)"}
        # Of several replies only the last is quoted: prompts stay bounded.
        again = {"role": "user", "content": self._prompt.retry(problem)}
        candidate.chat = [candidate.chat[0], said, again]

    def _problem_of(self, code: Code | Problem, reply: Reply, known: _Known) -> str:
        """Why a reply cannot be used; empty where it can."""
        cut = f"; it was cut off after {self._config.max_tokens} tokens, so be brief" if reply.is_cut else ""
        if isinstance(code, Problem):
            return code.reason + cut
        sha = sha_of(code.source)
        if sha in known.said:
            return f"{known.said[sha]}: write a different one"
        try:
            self._check(code.source)
        except ProgramRejectedError as error:
            return f"the program was refused: {error}{cut}"
        return ""

    def _proposal(self, candidate: _Candidate, prompt: Prompt) -> Proposal:
        return Proposal(
            source=candidate.source,
            by=self.name,
            parents=prompt.shown,
            thoughts=candidate.thoughts,
            prompt=prompt.text,
            attempts=candidate.attempts,
            problem="" if candidate.source else f"no usable code in {candidate.attempts} replies: {candidate.problem}",
        )


# ---- opinions

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
            tests="\n".join(map(_finding_line, findings)),
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


def _finding_line(finding: Finding) -> str:
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
