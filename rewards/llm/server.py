"""One OpenAI-compatible server: the requests that are made of it, and what can go wrong with them.

Requests are never repeated here: the caller knows for how long it is worth it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from rewards.llm.config import (
    LLMConfig,
    LLMConnectionError,
    LLMError,
    LLMMissingError,
    LLMRefusedError,
    LLMUnreadableError,
    is_loopback,
    read_key,
)

if TYPE_CHECKING:
    import openai

Messages = list[dict[str, str]]
"""A chat: ``{"role": ..., "content": ...}`` each."""

_Answer = TypeVar("_Answer", bound=BaseModel)

_CONNECT_TIMEOUT_S = 5.0
_KEEPALIVE_S = 2.0
"""Servers close idle connections after 5 s (uvicorn): a request that is sent just then is lost."""
_PREPARE_TIMEOUT_S = 30.0
"""For requests that compute nothing."""
_GENERATE_TIMEOUT_S = 600.0
"""A last resort: callers set limits of their own."""

_REFUSED = frozenset({400, 413, 422})
_MISSING = frozenset({404, 405, 501})


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class UsageReport(BaseModel):
    """Tokens of one request, as the server counts them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


@dataclass(slots=True)
class Usage:
    """What has been asked of a server, where it tells: the base of efficiency and costs."""

    requests: int = 0
    """Requests answered with generated text."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Those of the prompt tokens that the server did not compute again. Of a list, vLLM (0.32) gives them for its last
    prompt alone: its ``/metrics`` has the hit rate."""
    completion_tokens: int = 0

    def add(self, report: UsageReport | None) -> None:
        """Count one answered request."""
        self.requests += 1
        if report is None:
            return
        self.prompt_tokens += report.prompt_tokens or 0
        self.completion_tokens += report.completion_tokens or 0
        if report.prompt_tokens_details is not None:
            self.cached_tokens += report.prompt_tokens_details.cached_tokens or 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are generated."""

    max_tokens: int
    temperature: float = 0.0
    choices: tuple[str, ...] | None = None
    """Bind the answer to one of these, by vLLM's ``structured_outputs``."""
    top_logprobs: int = 0
    """Log probabilities of so many tokens at each position; 0 = none."""
    seed: int | None = None
    """Fixes the chance of an answer, where the server knows seeds; None leaves it to the server."""

    def fields(self) -> dict[str, Any]:
        """The fields of a request that mean this, but for the log probabilities."""
        bound = {} if self.choices is None else {"structured_outputs": {"choice": list(self.choices)}}
        seeded = {} if self.seed is None else {"seed": self.seed}
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, **bound, **seeded}


@dataclass(frozen=True, slots=True)
class Position:
    """One place of a reply: the token written there, and how likely it and its rivals were."""

    token: str
    logprobs: Mapping[str, float]
    """Natural log probabilities of the likeliest tokens, up to a constant."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Generated text."""

    text: str
    is_cut: bool = False
    """It ended because ``max_tokens`` was reached."""
    positions: tuple[Position, ...] = ()
    """Its tokens with their log probabilities; empty where the server gives none."""
    usage: UsageReport | None = None
    """Tokens of its request, of chats alone and where the server tells."""


class ModelCard(BaseModel):
    """One model that the server has."""

    id: str


# What the server answers, as far as it is read. The classes of the openai package would demand fields that other
# servers leave out; and built without a check, as its client builds them, they would hide a wrong answer.


class _ModelList(BaseModel):
    """Answer of ``/models``."""

    data: list[ModelCard]


class _Tokens(BaseModel):
    """Answer of vLLM's ``/tokenize``."""

    tokens: list[int]


class _Detokenized(BaseModel):
    """Answer of vLLM's ``/detokenize``."""

    prompt: str


class _TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None

    def positions(self) -> tuple[Position, ...]:
        rivals = self.top_logprobs or [None] * len(self.tokens)
        rows = zip(self.tokens, self.token_logprobs, rivals, strict=False)
        return tuple(Position(t, (top or {}) | ({} if p is None else {t: p})) for t, p, top in rows)


class _TextChoice(BaseModel):
    """The answer to one prompt of a list."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: _TextLogprobs | None = None


class _Completions(BaseModel):
    """Answer of ``/completions``."""

    choices: list[_TextChoice]
    usage: UsageReport | None = None


class _TokenLogprob(BaseModel):
    token: str
    logprob: float


class _ChatToken(_TokenLogprob):
    top_logprobs: list[_TokenLogprob] = []


class _ChatLogprobs(BaseModel):
    content: list[_ChatToken] | None = None

    def positions(self) -> tuple[Position, ...]:
        return tuple(
            Position(t.token, {rival.token: rival.logprob for rival in t.top_logprobs} | {t.token: t.logprob})
            for t in self.content or []
        )


class _Message(BaseModel):
    content: str | None = None


class _ChatChoice(BaseModel):
    """The answer to one chat."""

    message: _Message
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None


class _ChatCompletion(BaseModel):
    """Answer of ``/chat/completions``."""

    choices: list[_ChatChoice]
    usage: UsageReport | None = None


class LLMServer:
    """The server that a configuration names; nothing is sent before the first request.

    All methods belong to one event loop. After ``close`` it may be used again, on another loop too.

    Args:
        config: where the server is, and the model to ask.

    Raises:
        ValueError: the configuration has no ``base_url``, or the API key cannot be sent.
    """

    def __init__(self, config: LLMConfig) -> None:
        if config.base_url is None:
            raise ValueError("a language model is reached at llm.base_url, and none is given")
        self.url = config.base_url.rstrip("/")
        self.usage = Usage()
        self._root_url = self.url.removesuffix("/v1")
        """vLLM's own paths lie beside OpenAI's."""
        self._model = config.model
        self._api_key = read_key(config.api_key_env)
        self._openai: openai.AsyncOpenAI | None = None

    async def models(self) -> list[ModelCard]:
        """The models it has.

        Raises:
            LLMError: no usable answer.
        """
        return (await self._get("/models", _ModelList)).data

    async def find_model(self) -> ModelCard:
        """The configured model, or the only one where none is configured.

        Raises:
            LLMMissingError: it has no such model, none at all, or several to choose from.
            LLMError: no usable answer.
        """
        models = await self.models()
        names = ", ".join(f"'{model.id}'" for model in models)
        if not models:
            raise LLMMissingError(f"{self.named} has no model")
        if self._model is None:
            if len(models) > 1:
                raise LLMMissingError(f"{self.named} has several models: choose one of {names} with llm.model")
            return models[0]
        for model in models:
            if model.id == self._model:
                return model
        raise LLMMissingError(f"{self.named} has no model '{self._model}'; it has {names}")

    async def tokenize(self, prompt: str) -> list[int]:
        """Token ids of a text, no special token added (vLLM).

        Raises:
            LLMError: no usable answer.
        """
        body = {"model": self._model, "prompt": prompt, "add_special_tokens": False}
        return (await self._post(f"{self._root_url}/tokenize", body, _Tokens, _PREPARE_TIMEOUT_S)).tokens

    async def tokenize_chat(self, messages: Messages) -> list[int]:
        """Token ids of a chat in the model's own template, up to where the answer begins (vLLM).

        Raises:
            LLMError: no usable answer.
        """
        body = {"model": self._model, "messages": messages, "add_generation_prompt": True}
        return (await self._post(f"{self._root_url}/tokenize", body, _Tokens, _PREPARE_TIMEOUT_S)).tokens

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens included (vLLM).

        Raises:
            LLMError: no usable answer.
        """
        body = {"model": self._model, "tokens": list(tokens)}
        return (await self._post(f"{self._root_url}/detokenize", body, _Detokenized, _PREPARE_TIMEOUT_S)).prompt

    async def complete(self, prompts: Sequence[str], sampling: Sampling) -> list[Reply]:
        """Continue each of a list of texts, in one request; one reply a prompt, in order.

        Raises:
            LLMUnreadableError: also where there is not exactly one answer to each prompt.
            LLMError: no usable answer.
        """
        # vLLM adds the beginning-of-text token itself, unless this says that the prompt holds it.
        body = {"model": self._model, "prompt": list(prompts), "add_special_tokens": False, **sampling.fields()}
        if sampling.top_logprobs:
            body["logprobs"] = sampling.top_logprobs
        answer = await self._post(f"{self.url}/completions", body, _Completions, _GENERATE_TIMEOUT_S)
        self.usage.add(answer.usage)
        ordered = sorted(answer.choices, key=lambda choice: choice.index)
        if [choice.index for choice in ordered] != list(range(len(prompts))):
            numbers = ", ".join(str(choice.index) for choice in ordered[:8])
            raise LLMUnreadableError(
                f"{self.named} gave answers for other prompts: {len(ordered)} answers to {len(prompts)} prompts, "
                f"numbered {numbers}{', ...' if len(ordered) > 8 else ''}"
            )
        return [
            Reply(c.text, c.finish_reason == "length", () if c.logprobs is None else c.logprobs.positions())
            for c in ordered
        ]

    async def chat(self, messages: Messages, sampling: Sampling) -> Reply:
        """Answer one chat.

        Raises:
            LLMError: no usable answer.
        """
        body = {"model": self._model, "messages": messages, **sampling.fields()}
        if sampling.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        answer = await self._post(f"{self.url}/chat/completions", body, _ChatCompletion, _GENERATE_TIMEOUT_S)
        self.usage.add(answer.usage)
        if len(answer.choices) != 1:
            raise LLMUnreadableError(f"{self.named} gave {len(answer.choices)} answers to one chat")
        choice = answer.choices[0]
        positions = () if choice.logprobs is None else choice.logprobs.positions()
        return Reply(choice.message.content or "", choice.finish_reason == "length", positions, answer.usage)

    async def close(self) -> None:
        """Free the connections; harmless where there are none."""
        client, self._openai = self._openai, None
        if client is not None:
            await client.close()

    @property
    def named(self) -> str:
        """The server, for messages."""
        return f"the language model server at {self.url}"

    async def _get(self, path: str, shape: type[_Answer]) -> _Answer:
        url = f"{self.url}{path}"
        return self._read(url, await self._send(url, None, _PREPARE_TIMEOUT_S), shape)

    async def _post(self, url: str, body: Mapping[str, Any], shape: type[_Answer], timeout_s: float) -> _Answer:
        return self._read(url, await self._send(url, body, timeout_s), shape)

    async def _send(self, url: str, body: Mapping[str, Any] | None, timeout_s: float) -> bytes:
        """The answer's bytes: the library would fill classes of its own without looking at the answer's shape."""
        import openai

        client, timeout = self._open(), openai.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S)
        try:
            if body is None:
                return await client.get(url, cast_to=bytes, options={"timeout": timeout})
            return await client.post(url, cast_to=bytes, body=body, options={"timeout": timeout})
        except openai.APIStatusError as error:
            raise self._refusal(url, error.status_code, self._reason(error.body)) from error
        except openai.APITimeoutError as error:
            raise LLMError(f"{self.named} gave no answer within {timeout_s:g} s ({self._path(url)})") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise LLMConnectionError(f"{self.named} cannot be reached, or broke off: {_words(cause)}") from error
        except openai.OpenAIError as error:
            raise LLMError(f"{self.named} gave no answer: {_words(error)}") from error

    def _read(self, url: str, answer: bytes, shape: type[_Answer]) -> _Answer:
        try:
            return shape.model_validate_json(answer)
        except ValidationError as error:
            found = answer[:80].decode("utf-8", "replace")
            raise LLMUnreadableError(
                f"{self.named} answered {self._path(url)} with something else than the API prescribes: {found!r}"
            ) from error

    def _path(self, url: str) -> str:
        return url.removeprefix(self._root_url)

    def _open(self) -> openai.AsyncOpenAI:
        if self._openai is None:
            import httpx2
            import openai

            limits = httpx2.Limits(max_keepalive_connections=100, keepalive_expiry=_KEEPALIVE_S)
            # A proxy that the environment names could not reach this machine's own addresses.
            is_proxied = not is_loopback(urlsplit(self.url).hostname or "")
            connections = openai.DefaultAsyncHttpxClient(limits=limits, trust_env=is_proxied)
            self._openai = openai.AsyncOpenAI(
                base_url=self.url, api_key=self._api_key or "none", max_retries=0, http_client=connections
            )
        return self._openai

    def _reason(self, body: object) -> str:
        """What a server says about an error, shortened: OpenAI's ``error.message``, or the text as it is."""
        if isinstance(body, Mapping):
            inner = body.get("error", body)
            body = inner.get("message", inner) if isinstance(inner, Mapping) else inner
        said = str(body or "")
        if self._api_key is not None:  # some servers quote the key that they do not accept
            said = said.replace(self._api_key, "***")
        return " ".join(said.split())[:300].rstrip(".")

    def _refusal(self, url: str, status: int, reason: str) -> LLMError:
        details = f"({status} from {self._path(url)}{': ' if reason else ''}{reason})"
        if status in _REFUSED:
            return LLMRefusedError(f"{self.named} refuses the request {details}")
        if status in _MISSING:
            return LLMMissingError(f"{self.named} does not have what is asked for {details}")
        if status in (401, 403):
            return LLMError(f"{self.named} does not accept the API key {details}")
        if status == 429:
            return LLMError(f"{self.named} is asked too much {details}")
        return LLMError(f"{self.named} failed {details}")


async def resolve(config: LLMConfig) -> LLMConfig:
    """The configuration with its model named: asks the server for the only one it has, where none is named.

    Labels are kept under the model's name, so it is settled before the first is asked for, and once a run.

    Raises:
        ValueError: the configuration has no ``base_url``, or the API key cannot be sent.
        LLMError: the server cannot be asked, or has none or several models.
    """
    if config.model is not None:
        return config
    server = LLMServer(config)
    try:
        return config.replace(model=(await server.find_model()).id)
    finally:
        await server.close()


def _words(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__
