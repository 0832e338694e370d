"""Configuration of a vLLM server that Yendor starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from envs.data import Config

_OURS = {
    "--trust-remote-code": "code that comes with a model is never run",
    "--config": "a file of flags could hold any of those that are refused here; give them one by one",
} | dict.fromkeys(("--api-key", "--host", "--port", "--uds", "--served-model-name"), "Yendor sets it itself")
"""``{flag of vLLM that extra may not hold: why}``."""


class ServerConfig(Config):
    """How vLLM serves a model."""

    host: str = "127.0.0.1"
    """Address to listen at; anything but this machine itself needs an API key."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port to listen at; 0 = one that is free."""
    served_model_name: str | None = None
    """What clients call the model; none = the folder's name, or the model's."""
    max_model_len: PositiveInt = 2048
    """Longest prompt and answer in tokens; a model that can hold less gets less."""
    block_size: PositiveInt | None = None
    """Tokens in a block of the prefix cache, which only keeps whole blocks; none = 32 on a CPU (where vLLM's own 128
    is longer than the instructions of some prompts), 16 on a GPU."""
    max_queued: PositiveInt | None = 4096
    """Prompts that may be under way, each of a list counted; beyond, the server answers 503 and clients come back.
    Must exceed what all clients send at a time (llm.max_batch x llm.max_in_flight each); none = no bound."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Precision of weights and arithmetic."""
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of a GPU's memory that the server may take."""
    kv_cache_gib: PositiveInt = 1
    """Memory for keys and values on a CPU, in GiB."""
    cpu_threads: PositiveInt = 1
    """Threads of arithmetic on a CPU; more only help where cores are idle."""
    vllm: Path | None = None
    """The vllm executable, or the environment that has it; none = $YENDOR_VLLM, .venv-vllm here, or the PATH."""
    ready_timeout_s: PositiveFloat = 600.0
    """The server must answer within so many seconds of its start."""
    api_key_env: str = "YENDOR_LLM_API_KEY"
    """Environment variable that holds the API key that clients must show; unset = none is asked for."""
    extra: tuple[str, ...] = ()
    """More of vLLM's own flags; on the command line, what follows a lone --."""

    def length(self, context: int | None) -> int:
        """Tokens of the longest prompt and answer, for a model that can hold ``context`` (None: unknown)."""
        return self.max_model_len if context is None else min(self.max_model_len, context)

    def block(self, *, is_cpu: bool) -> int:
        """Tokens in a block of the prefix cache."""
        return self.block_size or (32 if is_cpu else 16)

    @field_validator("extra")
    @classmethod
    def _allowed(cls, extra: tuple[str, ...]) -> tuple[str, ...]:
        for word in extra:
            name = word.partition("=")[0].replace("_", "-")
            # vLLM takes the beginning of a flag for the flag.
            for flag, reason in _OURS.items():
                if flag == name or (len(name) > 2 and flag.startswith(name)):
                    raise ValueError(f"{name} cannot be handed to vLLM: {reason}")
        return extra
