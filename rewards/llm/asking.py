"""Asks a model many questions with the same few answers, in the best way that its server offers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from rewards.llm.chat_template import LAYOUTS, ChatTemplate, Layout, learn_template
from rewards.llm.config import LLMConfig
from rewards.llm.errors import LLMError, LLMRefusedError, TemplateUnavailableError
from rewards.llm.server import LLMServer, Reply, Sampling

_TOP_LOGPROBS = 5
"""The most that every server grants."""

_TRIAL = ("You judge messages. Answer with one word: yes or no.", "Message:\nThe door opens.")
_TRIAL_CHOICES = ("zqxvkj", "wjfpqb")
"""No model says these unless it is bound to."""


class Asker(Protocol):
    """Asks one model."""

    async def ask(
        self, instructions: str, shown: Sequence[str], choices: tuple[str, ...]
    ) -> list[Reply | LLMRefusedError]:
        """One reply to each text that is shown, in order, or why the server refuses that text alone.

        Raises:
            LLMRefusedError: the server refuses several together because of something in one of them.
            LLMError: no usable answer.
        """
        ...


class ListAsker:
    """Lists of prompts in one request each, written with the model's own chat template (vLLM).

    Args:
        server: the server.
        config: how it is asked.
        template: the model's chat template.
    """

    def __init__(self, server: LLMServer, config: LLMConfig, template: ChatTemplate) -> None:
        self._server, self._config, self._template = server, config, template
        self._room: dict[tuple[str, ...], int] = {}
        """``{choices: tokens a reply may have}``."""

    async def ask(
        self, instructions: str, shown: Sequence[str], choices: tuple[str, ...]
    ) -> list[Reply | LLMRefusedError]:
        """See :class:`Asker`."""
        prompts = [self._template.render(instructions, text) for text in shown]
        try:
            return [*await self._complete(prompts, choices)]
        except LLMRefusedError as error:
            if len(prompts) > 1:
                raise
            return [error]

    async def _complete(self, prompts: Sequence[str], choices: tuple[str, ...]) -> list[Reply]:
        if choices not in self._room:
            # Each token more is another pass through the model, so no more than the usual spelling takes.
            self._room[choices] = max([len(await self._server.tokenize(choice)) for choice in choices])
        room = self._room[choices]
        replies = await self._server.complete(prompts, _sampling(self._config, choices, room))
        short = [i for i, reply in enumerate(replies) if _is_cut_short(reply, choices)]
        if short and room < _widest(choices):
            if self._config.structured_outputs:
                # This model spells answers in more tokens than its tokenizer would: from now on there is room for
                # any. Bound answers end by themselves; others would ramble on, and depend on what was asked before.
                self._room[choices] = _widest(choices)
            again = _sampling(self._config, choices, _widest(choices))
            whole = await self._server.complete([prompts[i] for i in short], again)
            for i, reply in zip(short, whole, strict=True):
                replies[i] = reply
        return replies


class ChatAsker:
    """One request a text, many at a time (any server).

    Args:
        server: the server.
        config: how it is asked.
        layout: how a question becomes a chat.
    """

    def __init__(self, server: LLMServer, config: LLMConfig, layout: Layout) -> None:
        self._server, self._config, self._layout = server, config, layout
        self._free = asyncio.Semaphore(config.max_in_flight * config.max_batch)

    async def ask(
        self, instructions: str, shown: Sequence[str], choices: tuple[str, ...]
    ) -> list[Reply | LLMRefusedError]:
        """See :class:`Asker`."""
        tasks = [asyncio.create_task(self._answer(instructions, text, choices)) for text in shown]
        try:
            return await asyncio.gather(*tasks)
        finally:
            # Where one failed, the others are not worth waiting for: the list is asked again as a whole.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, instructions: str, text: str, choices: tuple[str, ...]) -> Reply | LLMRefusedError:
        sampling = _sampling(self._config, choices, _widest(choices))
        async with self._free:
            try:
                return await self._server.chat(self._layout(instructions, text), sampling)
            except LLMRefusedError as error:
                return error


async def prepare(server: LLMServer, config: LLMConfig) -> Asker:
    """The best way to ask that the server offers, tried out once.

    Raises:
        LLMError: the server cannot be used as configured; one sentence says why.
    """
    await server.find_model()
    if config.api != "chat":
        try:
            template = await learn_template(server)
        except TemplateUnavailableError:
            if config.api == "completions":
                raise
        else:
            asker = ListAsker(server, config, template)
            await _try_out(server, config, asker)
            return asker
    refused: LLMRefusedError | None = None
    for layout in LAYOUTS:
        asker = ChatAsker(server, config, layout)
        try:
            await _try_out(server, config, asker)
        except LLMRefusedError as error:
            refused = refused or error
        else:
            return asker
    assert refused is not None
    raise refused


async def _try_out(server: LLMServer, config: LLMConfig, asker: Asker) -> None:
    """Ask one question just as all others will be asked; a bound answer must be one of two absurd words.

    Servers ignore fields that they do not know, so an answer alone does not show that it was bound.
    """
    (reply,) = await asker.ask(_TRIAL[0], [_TRIAL[1]], _TRIAL_CHOICES)
    remedy = " (llm.structured_outputs=false asks without binding answers)" if config.structured_outputs else ""
    if isinstance(reply, LLMRefusedError):
        raise LLMRefusedError(f"{reply}{remedy}") from reply
    if config.structured_outputs and reply.text.strip() not in _TRIAL_CHOICES:
        raise LLMError(
            f"{server.named} does not bind answers to the choices given (asked for one of "
            f"{' or '.join(_TRIAL_CHOICES)}, it said {reply.text[:40]!r}): set llm.structured_outputs=false, "
            "or use a server that does, such as vLLM"
        )


def _sampling(config: LLMConfig, choices: tuple[str, ...], max_tokens: int) -> Sampling:
    return Sampling(
        max_tokens=max_tokens,
        temperature=config.temperature,
        choices=choices if config.structured_outputs else None,
        top_logprobs=_TOP_LOGPROBS if config.soft_labels else 0,
    )


def _widest(choices: tuple[str, ...]) -> int:
    """Tokens that any spelling of any choice fits into: no token is shorter than a byte."""
    return max(len(choice.encode()) for choice in choices)


def _is_cut_short(reply: Reply, choices: tuple[str, ...]) -> bool:
    """With more room it could have become a choice, or a longer one."""
    text = reply.text.lstrip()
    return reply.is_cut and any(choice != text and choice.startswith(text) for choice in choices)
