"""Replies of a language model in a file: a session is repeated without the server that gave them.

The file has one JSON object a line: ``key`` (of the request), ``model``, ``messages``, ``sampling``, ``text``,
``is_cut``, ``prompt_tokens`` and ``completion_tokens``. Log probabilities are not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from envs.files import cut_torn_line
from rewards.llm.chat import ChatModel
from rewards.llm.config import LLMMissingError
from rewards.llm.server import Messages, Reply, Sampling, Usage, UsageReport

_SHORT = 12
"""Digits of a key that are shown to people."""


class _Line(BaseModel):
    key: str
    model: str
    text: str
    is_cut: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def reply(self) -> Reply:
        usage = UsageReport(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)
        return Reply(self.text, self.is_cut, usage=usage)


def request_key(model: str, messages: Messages, sampling: Sampling) -> str:
    """SHA-256 in hexadecimal of everything that an answer depends on: the model, the chat, seed and sampling."""
    request = {"model": model, "messages": messages, "sampling": sampling.fields()}
    return hashlib.sha256(json.dumps(request, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class RecordedReplies:
    """A model that answers from a file, and records there what it has to ask for.

    A request that the file knows is never sent again, so a session that broke off goes on where it was.

    Args:
        path: the file; where a server is given it may not exist yet, and its folder is made.
        model: name of the model: part of what a reply is kept under.
        server: the model to ask for what is not recorded; None = only recorded replies are given.

    Raises:
        FileNotFoundError: there is no such file, and no server.
        ValueError: the file holds something else; the message names the line.
    """

    def __init__(self, path: Path, model: str, server: ChatModel | None = None) -> None:
        self.usage = Usage()
        """Requests and tokens of every reply that was handed out, recorded ones too."""
        self.asked = Usage()
        """The same of what the server was asked, in this session and in those before that the file tells of; nothing
        without a server."""
        self._path, self._model, self._server = path, model, server
        if server is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            cut_torn_line(path)
        self._replies = _read(path)
        if server is not None:
            for reply in self._replies.values():
                self.asked.add(reply.usage)

    async def chat(self, messages: Messages, sampling: Sampling) -> Reply:
        """Answer one chat.

        Raises:
            LLMMissingError: it is not recorded, and there is no server.
            LLMError: the server has no usable answer.
        """
        key = request_key(self._model, messages, sampling)
        if key not in self._replies:
            if self._server is None:
                raise LLMMissingError(
                    f"{self._path} holds no reply of '{self._model}' to this request ({key[:_SHORT]}): "
                    "its prompt, seed or sampling is not as it was when the replies were recorded"
                )
            reply = await self._server.chat(messages, sampling)
            self.asked.add(reply.usage)
            if key not in self._replies:  # the same request may have been under way twice
                self._record(key, messages, sampling, reply)
        reply = self._replies[key]
        self.usage.add(reply.usage)
        return reply

    async def close(self) -> None:
        """Free the server's connections; harmless when done twice."""
        if self._server is not None:
            await self._server.close()

    def _record(self, key: str, messages: Messages, sampling: Sampling, reply: Reply) -> None:
        usage = reply.usage or UsageReport()
        line: dict[str, Any] = {
            "key": key,
            "model": self._model,
            "messages": messages,
            "sampling": sampling.fields(),
            "text": reply.text,
            "is_cut": reply.is_cut,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._replies[key] = _Line.model_validate(line).reply


def _read(path: Path) -> dict[str, Reply]:
    """``{key: reply}``; of a key that comes twice, the first."""
    replies: dict[str, Reply] = {}
    for line in _lines(path):
        replies.setdefault(line.key, line.reply)
    return replies


def _lines(path: Path) -> Iterator[_Line]:
    # Not splitlines: it would also break at characters that JSON allows within a text.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _Line.model_validate_json(line)
        except ValidationError:
            raise ValueError(f"{path}, line {number}: not a recorded reply") from None


def recorded_model(path: Path) -> str:
    """The model whose replies a file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else, no reply, or those of several models.
    """
    models = sorted({line.model for line in _lines(path)})
    if len(models) != 1:
        raise ValueError(f"{path} holds replies of {', '.join(models) or 'no model'}; expected those of one")
    return models[0]
