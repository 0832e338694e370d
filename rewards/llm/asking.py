"""Asks a model many questions with the same few answers, in the best way that its server offers.

Lists of prompts, one request each, need the model's own chat template, and no tokenizer on this side: two marked
texts are put through the server's template and the marks are cut out again; what surrounds them is the template. It is
trusted only if it gives, for a text of the usual kind, the very tokens that the server's own template gives. Text is
not escaped: a caption that spelt one of the model's special tokens would be read as that token, as it would be in a
chat. Canonical captions are messages of the game, with whatever a player typed masked.

How probable each answer was is read from the log probabilities of the tokens that the model wrote. A tokenizer may
write an answer in several ways ("helpful", "h" + "elpful", " helpful"), so the mass of an answer is spread over its
beginnings. The mass of each first token goes to the answers that it can still become. Where the token that was written
can become several, the next token decides between them, and so on along the reply; mass that stays undecided is split
equally.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rewards.llm.chat import side_by_side
from rewards.llm.config import (
    LLMConfig,
    LLMError,
    LLMMissingError,
    LLMRefusedError,
    LLMUnreadableError,
    TemplateUnavailableError,
)
from rewards.llm.server import LLMServer, Messages, Position, Reply, Sampling

_TOP_LOGPROBS = 5
"""The most that every server grants."""

_TRIAL = ("You judge messages. Answer with one word: yes or no.", "Message:\nThe door opens.")
_TRIAL_CHOICES = ("zqxvkj", "wjfpqb")
"""No model says these unless it is bound to."""

_BLANKS = str.maketrans({"▁": " ", "Ġ": " ", "Ċ": "\n"})
"""How tokenizers write blanks and ends of lines."""

Layout = Callable[[str, str], Messages]
"""Writes instructions and what is shown as a chat."""


def system_and_user(instructions: str, shown: str) -> Messages:
    """Instructions in the system message: what models expect."""
    return [{"role": "system", "content": instructions}, {"role": "user", "content": shown}]


def user_alone(instructions: str, shown: str) -> Messages:
    """Everything in the user's message: for models whose template refuses a system message."""
    return [{"role": "user", "content": f"{instructions}\n\n{shown}"}]


LAYOUTS: tuple[Layout, ...] = (system_and_user, user_alone)
"""In the order in which they are tried."""

_MARKS = (("XQJVKWZ", "KZWXPJQ"), ("vbzkqjh", "wqxhzjf"))
"""Pairs of words that no template holds, for the instructions and for what is shown."""

_USUAL = (
    "You judge messages. N stands for any number.\n\nAnswer with one word: yes or no.",
    'Message:\nYou see here N gold piece.\nThe newt bites! It\'s  solid stone; "never mind".',
)


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
        # Where one failed, the others are not worth waiting for: the list is asked again as a whole.
        return await side_by_side(self._answer(instructions, text, choices) for text in shown)

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


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """What a template writes before the instructions, between them and what is shown, and after it."""

    head: str
    middle: str
    tail: str

    def render(self, instructions: str, shown: str) -> str:
        """The prompt, up to where the answer begins, special tokens written out."""
        return f"{self.head}{instructions}{self.middle}{shown}{self.tail}"


async def learn_template(server: LLMServer) -> ChatTemplate:
    """The template that the server applies to chats (vLLM: ``/tokenize`` and ``/detokenize``).

    Raises:
        TemplateUnavailableError: the server does not tell it, or it does not keep texts as they are.
        LLMError: no usable answer.
    """
    refused: LLMRefusedError | None = None
    for layout in LAYOUTS:
        try:
            return await _learn(server, layout)
        except LLMRefusedError as error:
            refused = refused or error
        except (LLMMissingError, LLMUnreadableError) as error:
            raise TemplateUnavailableError(f"{server.named} does not tell its chat template: {error}") from error
    raise TemplateUnavailableError(f"{server.named} does not tell its chat template: {refused}") from refused


async def _learn(server: LLMServer, layout: Layout) -> ChatTemplate:
    first, second = [await _cut(server, layout, *marks) for marks in _MARKS]
    if first != second:
        raise TemplateUnavailableError(f"the chat template of {server.named} depends on the text that it is given")
    written = await server.tokenize(first.render(*_USUAL))
    if written != await server.tokenize_chat(layout(*_USUAL)):
        raise TemplateUnavailableError(f"the chat template of {server.named} cannot be written as text")
    return first


async def _cut(server: LLMServer, layout: Layout, instructions: str, shown: str) -> ChatTemplate:
    text = await server.detokenize(await server.tokenize_chat(layout(instructions, shown)))
    head, found_instructions, rest = text.partition(instructions)
    middle, found_shown, tail = rest.partition(shown)
    if not (found_instructions and found_shown) or instructions in rest or shown in head + tail:
        raise TemplateUnavailableError(f"the chat template of {server.named} does not keep texts as they are")
    return ChatTemplate(head, middle, tail)


def choice_probabilities(choices: Sequence[str], positions: Sequence[Position]) -> dict[str, float] | None:
    """Probability of each choice, given that the answer is one of them.

    Args:
        choices: the answers that are allowed, all different.
        positions: the reply, token by token.

    Returns:
        ``{choice: probability}``, summing to 1; None where no token listed at the first position begins any choice.
    """
    probabilities = dict.fromkeys(choices, 0.0)
    if not positions or not _shares(positions[0], "", choices):
        return None
    written, undecided, mass = "", list(choices), 1.0
    for position in positions:
        shares = _shares(position, written, undecided)
        if not shares:
            break
        followed = 0.0
        for token, (share, fitting) in shares.items():
            if token == position.token and len(fitting) > 1:
                followed, undecided = mass * share, fitting
            else:
                for choice in fitting:
                    probabilities[choice] += mass * share / len(fitting)
        written += position.token
        mass = followed
        if mass == 0.0:
            return probabilities
    for choice in undecided:
        probabilities[choice] += mass / len(undecided)
    return probabilities


def _shares(position: Position, written: str, choices: Sequence[str]) -> dict[str, tuple[float, list[str]]]:
    """``{token: (share of the mass, choices it fits)}`` of the tokens that fit any; the shares sum to 1."""
    fitting = {token: _fitting(written + token, choices) for token in position.logprobs}
    # Measured against the likeliest of all: choices that are hopelessly unlikely beside it get nothing.
    highest = max(position.logprobs.values(), default=0.0)
    masses = {token: math.exp(position.logprobs[token] - highest) for token, fits in fitting.items() if fits}
    total = sum(masses.values())
    return {token: (mass / total, fitting[token]) for token, mass in masses.items() if mass > 0.0}


def _fitting(text: str, choices: Sequence[str]) -> list[str]:
    """The choices that ``text`` begins, or completes: "help" begins "helpful", "helpful." completes it."""
    text = text.translate(_BLANKS).lstrip()
    ended = [c for c in choices if text.startswith(c) and text != c and not text[len(c)].isalnum()]
    longest = max(ended, key=len, default=None)
    return [c for c in choices if c.startswith(text) or c == longest]
