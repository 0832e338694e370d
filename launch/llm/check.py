"""A look at a language model's server that runs already, before anything else is started."""

from __future__ import annotations

import asyncio

from launch.errors import UserError
from rewards.llm.config import LLMConfig


def answering_model(llm: LLMConfig) -> str:
    """The model's name on the server at ``llm.base_url``; the server is only asked where that is necessary.

    Raises:
        UserError: the API key cannot be sent; no model is named and the server cannot be asked for its only one; or
            ``llm.required``, and the server cannot be used.
    """
    return asyncio.run(_looked_at(llm))


async def _looked_at(llm: LLMConfig) -> str:
    from rewards.labels.annotators import LabelClientError, LLMLabelClient
    from rewards.llm.config import LLMError
    from rewards.llm.server import resolve

    try:
        llm = await resolve(llm)
        client = LLMLabelClient(llm)
    except LLMError as error:
        raise UserError(f"llm.base_url: {error}; without llm.model, the server must answer at the start") from None
    except ValueError as error:
        raise UserError(f"llm: {error}") from None
    try:
        if llm.required:
            await client.check()
    except LabelClientError as error:
        raise UserError(f"llm.required: {error}") from None
    finally:
        await client.close()
    return client.name
