"""The command that starts vLLM: which vLLM, model, flags and environment; and a look at a server that runs already."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch.errors import UserError
from launch.llm.config import ServerConfig
from rewards.llm.config import LLMConfig, is_loopback, read_key

VLLM_ENV = "YENDOR_VLLM"
"""Environment variable that names the vllm executable, or the environment that has it."""
LOCAL_ENVIRONMENT = Path(".venv-vllm")
"""Where ``make vllm-cpu`` builds one."""
_PROBE = "from importlib.metadata import version; print(version('vllm'))"
_PROBE_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Model:
    """What is served."""

    source: str
    """An absolute folder, or a name in the local cache of Hugging Face's hub."""
    name: str
    """What it is called."""
    context: int | None
    """Tokens that it can hold; None where nothing says so."""


@dataclass(frozen=True, slots=True)
class VLLM:
    """An installed vLLM."""

    executable: Path
    version: str

    @property
    def python(self) -> Path:
        """The interpreter that has it."""
        return self.executable.resolve().parent / "python"

    @property
    def is_cpu(self) -> bool:
        """It is a build for CPUs."""
        return "cpu" in self.version


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """What to run."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    """All of it; holds the API key."""


def find_model(model: str) -> Model:
    """The model of this name, looked for on this machine only.

    Raises:
        UserError: there is no such folder, nor such a name in the local cache; or the folder holds no model.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise UserError(f"the folder {folder} holds no model: it has no config.json")
        return Model(str(folder.absolute()), folder.absolute().name, _context(config))
    cached = _hub_cache() / f"models--{model.replace('/', '--')}" / "snapshots"
    configs = sorted(cached.glob("*/config.json"))
    if not configs:
        raise UserError(
            f"there is no model '{model}': neither a folder, nor in the local cache {cached.parent.parent} "
            "(nothing is downloaded; fetch it first, for instance with hf download)"
        )
    return Model(model, model, _context(configs[-1]))


def _hub_cache() -> Path:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()


def _context(config: Path) -> int | None:
    try:
        content = json.loads(config.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"the model's {config} cannot be read: {error}") from None
    return content.get("max_position_embeddings") or content.get("text_config", {}).get("max_position_embeddings")


def find_vllm(named: Path | None = None) -> VLLM:
    """The vLLM to use: the named one, ``$YENDOR_VLLM``, ``.venv-vllm`` in the working directory, the PATH's.

    Raises:
        UserError: there is none, what was named is none, or it does not run.
    """
    for where, what in ((named, "--vllm"), (os.environ.get(VLLM_ENV), f"${VLLM_ENV}")):
        if where:
            path = _executable(Path(where))
            if path is None:
                raise UserError(f"{what} {where} is neither a vllm executable nor an environment that has one")
            return VLLM(path, _version(path))
    on_path = shutil.which("vllm")
    found = _executable(LOCAL_ENVIRONMENT) or (Path(on_path) if on_path else None)
    if found is None:
        raise UserError(
            "there is no vLLM here: 'make vllm-cpu' builds .venv-vllm for this machine's CPU; on a GPU, "
            "'pip install vllm' in an environment of its own, named by --vllm or by the variable YENDOR_VLLM"
        )
    return VLLM(found, _version(found))


def _executable(path: Path) -> Path | None:
    """The file at this path, or in the environment at this path; links stay, so that it is called as it was named."""
    path = path.expanduser().absolute()
    if path.is_dir():
        path = path / "bin" / "vllm"
    return path if path.is_file() and os.access(path, os.X_OK) else None


def _version(executable: Path) -> str:
    # vLLM needs ten seconds to tell its version; the interpreter beside it can look it up at once.
    python = executable.resolve().parent / "python"
    asked = [[str(python), "-c", _PROBE]] if python.is_file() else []
    last = ""
    for command in [*asked, [str(executable), "--version"]]:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            last = str(error)
            continue
        if done.returncode == 0 and done.stdout.split():
            return done.stdout.split()[-1]
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
    raise UserError(f"the vLLM at {executable} does not run: {last}")


def server_command(vllm: VLLM, model: Model, config: ServerConfig, port: int) -> ServerCommand:
    """The command line and the environment of the server.

    The API key goes through the environment, where other users of the machine cannot read it. vLLM asks for it under
    ``/v1`` only.

    Raises:
        UserError: the server would listen to other machines without an API key, or the key cannot be sent.
    """
    try:
        key = read_key(config.api_key_env)
    except ValueError as error:
        raise UserError(str(error)) from None
    if not key and not is_loopback(config.host):
        raise UserError(
            f"a server at {config.host} answers other machines too: set the environment variable "
            f"{config.api_key_env} to the API key that they must show"
        )
    argv = [
        *(str(vllm.executable), "serve", model.source),
        *("--host", config.host, "--port", str(port)),
        *("--served-model-name", config.served_model_name or model.name),
        *("--max-model-len", str(config.length(model.context)), "--dtype", config.dtype),
        *("--block-size", str(config.block(is_cpu=vllm.is_cpu)), "--enable-prefix-caching"),
        # A model's own sampling defaults (a repetition penalty, for instance) would bend the labels.
        *("--generation-config", "vllm"),
        *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log"),
    ]
    if config.max_queued is not None:
        argv += ["--max-num-queued-reqs", str(config.max_queued)]
    if vllm.is_cpu:
        argv += ["--enforce-eager"]
    else:
        argv += ["--gpu-memory-utilization", str(config.gpu_memory_utilization)]
    return ServerCommand([*argv, *config.extra], _environment(vllm, config, key))


def _environment(vllm: VLLM, config: ServerConfig, key: str | None) -> dict[str, str]:
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",  # the last words of a server that dies
    }
    # Ours, and meant for our own modules.
    environment.pop("PYTHONPATH", None)
    # Clients know only the key of ``config.api_key_env``.
    environment.pop("VLLM_API_KEY", None)
    if vllm.is_cpu:
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(config.cpu_threads),
        }
    if key:
        environment["VLLM_API_KEY"] = key
    return environment


def answering_model(llm: LLMConfig) -> str:
    """The model's name on the server at ``llm.base_url``; the server is only asked where that is necessary.

    Raises:
        UserError: the API key cannot be sent; no model is named and the server cannot be asked for its only one; or
            ``llm.required``, and the server cannot be used.
    """
    return asyncio.run(_resolved_model(llm))


async def _resolved_model(llm: LLMConfig) -> str:
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
