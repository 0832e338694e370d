"""A run's language model: settled before the run begins, served beside it where the run is to start the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from launch.config.train import TrainConfig
from launch.runs.folder import RunFolder
from launch.runs.progress import Progress


def settled(config: TrainConfig) -> TrainConfig:
    """The configuration with its model named, since labels are kept under that name.

    A model that the run serves itself has the name it will be served under. Of a server that runs already, the only
    model it has is taken where ``llm.model`` is not given. Nothing is asked of a server that no label is asked of.

    Raises:
        UserError: there is no such model or no vLLM to serve it; the server cannot be asked for its only model; or
            ``llm.required``, and the server cannot be used.
    """
    if not config.asks_language_model:
        return config
    llm = config.llm
    if llm.serve is not None:
        from launch.llm.vllm import find_model, find_vllm

        find_vllm(config.llm_server.vllm)
        served = find_model(llm.serve)
        name = llm.model or config.llm_server.served_model_name or served.name
        return _with_llm(config, model=name)
    from launch.llm.check import answering_model

    return _with_llm(config, model=answering_model(llm))


def _with_llm(config: TrainConfig, **changes: Any) -> TrainConfig:
    return config.model_copy(update={"llm": config.llm.model_copy(update=changes)})


@contextmanager
def language_model(config: TrainConfig, folder: RunFolder, progress: Progress) -> Iterator[TrainConfig]:
    """The configuration with the address of its language model.

    Where the run is to serve the model, the server lives as long as the block; its log is ``logs/vllm.log`` in the
    run's folder.

    Raises:
        RunError: ``llm.required``, and the server does not come up.
        UserError: the server cannot be started.
    """
    if not config.asks_language_model or config.llm.serve is None:
        yield config
        return
    from launch.llm.check import answering_model
    from launch.llm.supervisor import serving

    def on_event(name: str, /, **fields: Any) -> None:
        folder.event(name, **fields)
        progress.note(f"{name.replace('_', ' ')}: {', '.join(f'{k} {v}' for k, v in fields.items())}")

    names = {"served_model_name": config.llm.model, "api_key_env": config.llm.api_key_env}
    server = config.llm_server.model_copy(update=names)
    with serving(config.llm.serve, server, folder.path / "logs", on_event, required=config.llm.required) as base_url:
        here = _with_llm(config, serve=None, base_url=base_url)
        if config.llm.required:  # it answers, but does it have a chat template, and bind its answers?
            answering_model(here.llm)
        yield here
