"""Free text from a language model, chat by chat: what designers and critics need of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from rewards.llm.config import LLMError, LLMMissingError, LLMRefusedError
from rewards.llm.server import Messages, Reply, Sampling, Usage

T = TypeVar("T")

PAUSES_S: tuple[float, ...] = (1.0, 5.0)
"""Seconds before each further try of a request."""

_FINAL = (LLMMissingError, LLMRefusedError)
"""Asking once more would not help."""


class ChatModel(Protocol):
    """A model that answers chats: ``LLMServer``, or the replies of an earlier session (``RecordedReplies``).

    All methods belong to one event loop; after ``close`` it may be used again, on another loop too.
    """

    usage: Usage

    async def chat(self, messages: Messages, sampling: Sampling) -> Reply:
        """Answer one chat.

        Raises:
            LLMError: no usable answer.
        """
        ...

    async def close(self) -> None:
        """Free what it holds; harmless when done twice."""
        ...


async def chat_patiently(
    model: ChatModel, messages: Messages, sampling: Sampling, pauses_s: Sequence[float] = PAUSES_S
) -> Reply:
    """Ask, and ask again after each pause, where another time there may be an answer.

    Raises:
        LLMError: no usable answer, the last time too.
    """
    for pause_s in pauses_s:
        try:
            return await model.chat(messages, sampling)
        except _FINAL:
            raise
        except LLMError:
            await asyncio.sleep(pause_s)
    return await model.chat(messages, sampling)


async def chat_all(
    model: ChatModel,
    chats: Sequence[tuple[Messages, Sampling]],
    max_in_flight: int,
    pauses_s: Sequence[float] = PAUSES_S,
) -> list[Reply]:
    """One reply a chat, in order, so many asked for side by side.

    Raises:
        LLMError: one of them has no usable answer; the others are given up.
    """
    free = asyncio.Semaphore(max_in_flight)

    async def one(messages: Messages, sampling: Sampling) -> Reply:
        async with free:
            return await chat_patiently(model, messages, sampling, pauses_s)

    return await side_by_side(one(*chat) for chat in chats)


async def side_by_side(requests: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of requests made at the same time, in order.

    Where one fails, the others are given up and awaited, and its error is raised as it is.
    """
    # Not TaskGroup: before Python 3.13 one that fails leaves its parent marked as cancelled, which breaks time limits.
    tasks = [asyncio.create_task(request) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
