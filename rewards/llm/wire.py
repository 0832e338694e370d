"""What an OpenAI-compatible server answers, as far as it is read; fields that are not named are ignored."""

from __future__ import annotations

from pydantic import BaseModel

from rewards.llm.choices import Position


class ModelCard(BaseModel):
    """One model that the server has."""

    id: str


class ModelList(BaseModel):
    """Answer of ``/models``."""

    data: list[ModelCard]


class Tokens(BaseModel):
    """Answer of vLLM's ``/tokenize``."""

    tokens: list[int]


class Detokenized(BaseModel):
    """Answer of vLLM's ``/detokenize``."""

    prompt: str


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class UsageReport(BaseModel):
    """Tokens of one request, as the server counts them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None

    def positions(self) -> tuple[Position, ...]:
        rivals = self.top_logprobs or [None] * len(self.tokens)
        rows = zip(self.tokens, self.token_logprobs, rivals, strict=False)
        return tuple(Position(t, (top or {}) | ({} if p is None else {t: p})) for t, p, top in rows)


class TextChoice(BaseModel):
    """The answer to one prompt of a list."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: _TextLogprobs | None = None


class Completions(BaseModel):
    """Answer of ``/completions``."""

    choices: list[TextChoice]
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


class ChatChoice(BaseModel):
    """The answer to one chat."""

    message: _Message
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None


class ChatCompletion(BaseModel):
    """Answer of ``/chat/completions``."""

    choices: list[ChatChoice]
    usage: UsageReport | None = None
