"""vLLM without a server, as the bench's reference: a process that answers prompts with ``LLM.generate``."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from launch.errors import RunError
from launch.llm import process_group
from launch.llm.config import ServerConfig
from launch.llm.vllm import VLLM, Model, server_command
from rewards.labels.questions import PromptSpec, Question

_SCRIPT = Path(__file__).with_name("offline_vllm_script.py")


class OfflineAnnotator:
    """The model within one process, loaded on entry and idle between rounds; a context manager.

    Args:
        vllm: whose interpreter runs it.
        model: what answers.
        config: engine settings; the same as the server's.
        log_path: where vLLM's words go.

    Raises:
        RunError: from its methods: it ended; with the last line of its log.
    """

    def __init__(self, vllm: VLLM, model: Model, config: ServerConfig, log_path: Path) -> None:
        self._vllm, self._model, self._config, self._log_path = vllm, model, config, log_path

    def __enter__(self) -> Self:
        reading, writing = os.pipe()
        environment = dict(server_command(self._vllm, self._model, self._config, 0).environment)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._vllm.python), "-I", str(_SCRIPT), str(writing), json.dumps({"engine": self._engine()})],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                env=environment | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
                start_new_session=True,
                text=True,
            )
        os.close(writing)
        self._answers = os.fdopen(reading)
        try:
            self._next()
        except BaseException:
            self.close()
            raise
        return self

    def _engine(self) -> dict[str, Any]:
        """What the server's command line says, as arguments of ``vllm.LLM``."""
        config = self._config
        cpu, gpu = {"enforce_eager": True}, {"gpu_memory_utilization": config.gpu_memory_utilization}
        return {
            "model": self._model.source,
            "max_model_len": config.length(self._model.context),
            "dtype": config.dtype,
            "block_size": config.block(is_cpu=self._vllm.is_cpu),
            "enable_prefix_caching": True,
            "generation_config": "vllm",
            **(cpu if self._vllm.is_cpu else gpu),
        }

    def answer(self, spec: PromptSpec, questions: Sequence[Question], top_logprobs: int) -> tuple[float, list[str]]:
        """Seconds that the answers took, and the answers."""
        asked = {
            "system": spec.instructions,
            "users": [spec.ask(question) for question in questions],
            "choices": list(spec.choices),
            "top_logprobs": top_logprobs,
        }
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the log says why, below
        found = self._next()
        return found["seconds"], found["texts"]

    def _next(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            lines = [text for text in self._log_path.read_text(errors="replace").splitlines() if text.strip()]
            raise RunError(f"vLLM without a server ended: {(lines or ['nothing was logged'])[-1]}")
        return json.loads(line)

    @property
    def group(self) -> int:
        """Id of its process group."""
        return self._process.pid

    def close(self) -> None:
        """End it."""
        process_group.end(self._process.pid)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._answers.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
