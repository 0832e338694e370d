"""The language model: where its server is, how it is asked, its API key, and what can go wrong with it."""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PositiveInt, field_validator, model_validator

from envs.data import Config


class LLMConfig(Config):
    """A language model behind an OpenAI-compatible server; unnamed, none is used."""

    base_url: str | None = None
    """Where the server answers: http://host:port/v1."""
    model: str | None = None
    """Name of the model on that server; none = the only one that it serves."""
    serve: str | None = None
    """Start a vLLM server of this model (a folder, or a name in the local cache) for the run, and end it with it."""
    required: bool = False
    """Refuse to start where the server cannot be used; without it the run starts, warns once, and goes on with
    the labels there are."""
    revision: str = ""
    """Which version of the model it is, in your words (the server is never asked); labels are kept apart by it."""
    api_key_env: str = "YENDOR_LLM_API_KEY"
    """Environment variable that holds the server's API key, if it wants one."""
    api: Literal["auto", "completions", "chat"] = "auto"
    """completions: lists of prompts in one request, with the model's own chat template (vLLM); chat: one request
    a prompt (any server); auto = completions where the server tells its chat template."""
    structured_outputs: bool = True
    """Bind the answer to the choices (verified before the first label); off for servers that cannot: what is not a
    choice is then a parse failure."""
    soft_labels: bool = True
    """Ask for the probabilities of the choices too."""
    max_batch: PositiveInt = 128
    """Prompts a request, where lists can be sent."""
    max_in_flight: PositiveInt = 4
    """Requests under way at a time; with one prompt a request, max_batch times as many."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """0 = the most probable choice."""

    @property
    def is_named(self) -> bool:
        """There is a language model to ask."""
        return self.base_url is not None or self.serve is not None

    @field_validator("base_url")
    @classmethod
    def _url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if "@" in url.split("//")[-1].split("/")[0]:  # not quoted: it holds a secret
            raise ValueError(
                "a user name or password in the URL would be shown and kept with the run: put the key in the "
                "environment variable that llm.api_key_env names"
            )
        if not _is_address(url):
            raise ValueError(f"'{url}' is not a URL; expected something like http://127.0.0.1:8000/v1")
        return url

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if self.base_url is not None and self.serve is not None:
            raise ValueError("llm.base_url names a server and llm.serve starts one: give one of the two")
        if not self.is_named and (self.model is not None or self.required):
            raise ValueError("llm.model and llm.required need a server: give llm.base_url or llm.serve")
        return self


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or the host no address
        return False


def is_loopback(host: str) -> bool:
    """Only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_key(variable: str) -> str | None:
    """The API key that an environment variable holds, without blanks around it; None where it is unset or empty.

    A key is in an environment variable, never in a configuration, a message or a log.

    Raises:
        ValueError: it could not be sent in a header; the message names the variable and does not quote the key.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the API key in the environment variable {variable} must be printable ASCII in one line")
    return key or None


class LLMError(RuntimeError):
    """The server gave no usable answer; another time it may. The message is one sentence that names the server."""


class LLMConnectionError(LLMError):
    """No server answers there, or the connection broke: what is known about the server may no longer hold."""


class LLMMissingError(LLMError):
    """The server has no such path, or no such model."""


class LLMUnreadableError(LLMError):
    """The server answered with something else than the API prescribes."""


class LLMRefusedError(LLMError):
    """The server will never answer this request: a prompt too long, a parameter it does not know."""


class TemplateUnavailableError(LLMError):
    """Prompts cannot be written as the model's own chat template would write them."""
