"""What can go wrong with a language model's server; each message is one sentence that names the server."""

from __future__ import annotations


class LLMError(RuntimeError):
    """The server gave no usable answer; another time it may."""


class LLMConnectionError(LLMError):
    """Nobody answers there, or the connection broke: what is known about the server may no longer hold."""


class LLMMissingError(LLMError):
    """The server has no such path, or no such model."""


class LLMUnreadableError(LLMError):
    """The server answered with something else than the API prescribes."""


class LLMRefusedError(LLMError):
    """The server will never answer this request: a prompt too long, a parameter it does not know."""


class TemplateUnavailableError(LLMError):
    """Prompts cannot be written as the model's own chat template would write them."""
