"""A model's own chat template, learned from its server: lists of prompts then need no tokenizer on this side.

Two marked texts are put through the template and the marks are cut out again; what surrounds them is the template.
It is trusted only if it gives, for a text of the usual kind, the very tokens that the server's own template gives.

Text is not escaped: a caption that spelt one of the model's special tokens would be read as that token, as it would
be in a chat. Canonical captions are messages of the game, with whatever a player typed masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rewards.llm.errors import LLMMissingError, LLMRefusedError, LLMUnreadableError, TemplateUnavailableError
from rewards.llm.server import LLMServer, Messages

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
