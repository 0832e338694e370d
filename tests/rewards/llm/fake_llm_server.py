"""A small OpenAI-compatible HTTP server for tests: well-behaved by default, misbehaving as told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Raw:
    """A whole answer: status and body, the body as it is if it is bytes."""

    status: int
    body: Any

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def failure(status: int, message: str = "as told") -> Raw:
    return Raw(status, {"error": {"message": message, "type": "Fault", "code": status}})


@dataclass
class FakeLLM:
    """What the server has and says; may be changed while it runs."""

    answers: Mapping[str, str] = field(default_factory=dict)
    """``{part of the prompt: answer}``; the first that fits."""
    default: str = "neutral"
    models: tuple[str, ...] = ("tiny",)
    binds: bool = True
    """It knows ``structured_outputs``."""
    has_tokenizer: bool = True
    """It has ``/tokenize`` and ``/detokenize``."""
    takes_system: bool = True
    """Its chat template takes a system message."""
    shuffles: bool = False
    """Lists come back in another order."""
    spells: bool = False
    """Answers take one token a letter."""
    logprobs: Mapping[str, float] | None = None
    """Of the first token, whatever is asked."""
    fault: Callable[[str, Json], Raw | None] = lambda path, body: None
    """Looks at every request first; what it returns is the answer."""
    requests: list[tuple[str, Json]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """API keys that were sent."""
    most_in_flight: int = 0
    _vocabulary: dict[str, int] = field(default_factory=dict)
    _in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def bodies(self, path: str) -> list[Json]:
        """Bodies of the requests to paths that end so, without those of the trial."""
        return [b for p, b in self.requests if p.endswith(path) and "The door opens." not in json.dumps(b)]

    def respond(self, path: str, body: Json, key: str) -> Raw:
        with self._lock:
            self.requests.append((path, body))
            self.keys.add(key)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            return self.fault(path, body) or self._answer(path, body)
        finally:
            with self._lock:
                self._in_flight -= 1

    def _answer(self, path: str, body: Json) -> Raw:
        routes = {
            "/v1/models": self._list_models,
            "/v1/completions": self._complete,
            "/v1/chat/completions": self._chat,
        }
        if self.has_tokenizer:
            routes |= {"/tokenize": self._tokenize, "/detokenize": self._detokenize}
        if path not in routes:
            return Raw(404, {"detail": "Not Found"})
        if path != "/v1/models" and body["model"] not in self.models:
            return failure(404, f"The model `{body['model']}` does not exist.")
        if not self.takes_system and any(m["role"] == "system" for m in body.get("messages", ())):
            return failure(400, "System role not supported")
        return Raw(200, routes[path](body))

    def _list_models(self, body: Json) -> Json:
        return {"object": "list", "data": [{"id": name, "root": f"./{name}"} for name in self.models]}

    def _template(self, messages: list[Json]) -> str:
        turns = "".join(f"<|{m['role']}|>\n{m['content'].strip()}<|end|>\n" for m in messages)
        return f"<|begin|>{turns}<|assistant|>\n"

    def _ids(self, text: str) -> list[int]:
        words = re.findall(r"<\|\w+\|>|\w+|\s|.", text)
        with self._lock:
            return [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words]

    def _tokenize(self, body: Json) -> Json:
        tokens = self._ids(self._template(body["messages"]) if "messages" in body else body["prompt"])
        return {"tokens": tokens, "count": len(tokens)}

    def _detokenize(self, body: Json) -> Json:
        words = {number: word for word, number in self._vocabulary.items()}
        return {"prompt": "".join(words[token] for token in body["tokens"])}

    def _say(self, prompt: str, body: Json) -> tuple[list[str], str]:
        """Tokens of the answer, and why it ended."""
        said = next((answer for part, answer in self.answers.items() if part in prompt), self.default)
        if self.binds and "structured_outputs" in body:
            allowed = body["structured_outputs"]["choice"]
            said = said if said in allowed else allowed[0]
        tokens = list(said) if self.spells else re.findall(r"\w+|\s|.", said)
        room = body["max_tokens"]
        return tokens[:room], "length" if len(tokens) >= room else "stop"

    def _top(self, token: str) -> dict[str, float]:
        return dict(self.logprobs or {token: 0.0})

    def _complete(self, body: Json) -> Json:
        assert body["add_special_tokens"] is False and all(p.startswith("<|begin|><|") for p in body["prompt"])
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            tokens, reason = self._say(prompt, body)
            told = {
                "tokens": tokens,
                "token_logprobs": [self._top(t).get(t, -9.0) for t in tokens],
                "top_logprobs": [self._top(t) for t in tokens],
            }
            logprobs = told if body.get("logprobs") else None
            choices.append({"index": index, "text": "".join(tokens), "finish_reason": reason, "logprobs": logprobs})
        if self.shuffles:
            choices = choices[1::2][::-1] + choices[::2]
        return {"choices": choices, "usage": self._usage(len(choices))}

    def _chat(self, body: Json) -> Json:
        tokens, reason = self._say("\n".join(m["content"] for m in body["messages"]), body)
        told = [
            {
                "token": t,
                "logprob": self._top(t).get(t, -9.0),
                "top_logprobs": [{"token": rival, "logprob": p} for rival, p in self._top(t).items()],
            }
            for t in tokens
        ]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(tokens)},
            "finish_reason": reason,
            "logprobs": {"content": told} if body.get("logprobs") else None,
        }
        return {"choices": [choice], "usage": self._usage(1)}

    def _usage(self, prompts: int) -> Json:
        details = {"cached_tokens": 7 * prompts}
        return {"prompt_tokens": 10 * prompts, "completion_tokens": prompts, "prompt_tokens_details": details}


class FakeLLMServer:
    """Serves a :class:`FakeLLM` on a free port of this machine, until the ``with`` block ends."""

    def __init__(self, llm: FakeLLM) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(llm))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> FakeLLMServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler(llm: FakeLLM) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._respond({})

        def do_POST(self) -> None:
            self._respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _respond(self, body: Json) -> None:
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            answer = llm.respond(self.path, body, key)
            try:
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client gave up waiting

        def log_message(self, *_: object) -> None:
            pass

    return Handler
