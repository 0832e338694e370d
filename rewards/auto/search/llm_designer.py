"""A language model as designer of reward programs.

Several candidates a round, asked for independently: the same prompt, another seed each (as in Eureka, Ma et al. 2023,
arXiv 2310.12931). A reply that cannot be used goes back with the reason, as the Critic of Auto MC-Reward does (Li et
al. 2023, arXiv 2312.09238), which allows three rounds too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field as Setting
from pydantic import PositiveInt

from envs.data import Config
from envs.features import FIELDS, Field
from rewards.auto.admission import admit
from rewards.auto.config import CompositionConfig
from rewards.auto.program import Program, ProgramRejectedError, sha_of
from rewards.auto.search.designing_prompt import DesigningPrompt, Prompt, PromptTooLongError
from rewards.auto.search.proposal import Brief, Costs, Proposal
from rewards.auto.search.replies import Code, Problem, code_of
from rewards.llm.chat import PAUSES_S, ChatModel, chat_all
from rewards.llm.config import LLMError
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
    """TOML file with texts of your own, with the keys of rewards/auto/designing_prompt.toml; none = that file."""


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
        composition: how components will be composed, which the model is told.
        fields: what of the schema the model is told of.
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
