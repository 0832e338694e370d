"""A language model as annotator."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rewards.labels.clients import BatchRefusedError, LabelClientError, LabelReply, LabelRequest
from rewards.labels.prompts import PromptSpec
from rewards.llm.asking import Asker, choice_probabilities, prepare
from rewards.llm.config import (
    LLMConfig,
    LLMConnectionError,
    LLMError,
    LLMMissingError,
    LLMRefusedError,
    LLMUnreadableError,
)
from rewards.llm.server import LLMServer, Reply, Usage

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

    async def label(self, requests: Sequence[LabelRequest]) -> list[LabelReply]:
        """One reply a request, in the same order.

        Raises:
            LabelClientError: no usable answer, or the server cannot be prepared.
            BatchRefusedError: the server refuses the list because of something in it.
        """
        replies: list[LabelReply] = [LabelReply()] * len(requests)
        for spec in dict.fromkeys(request.spec for request in requests):
            places = [i for i, request in enumerate(requests) if request.spec == spec]
            answers = await self._ask(spec, [spec.ask(requests[i].question) for i in places])
            for i, answer in zip(places, answers, strict=True):
                replies[i] = self._reply(spec, answer)
        return replies

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
