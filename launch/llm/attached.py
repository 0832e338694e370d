"""A run's language model, served beside it where the run is to start the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from launch.config.train import TrainConfig
from launch.runs.folder import RunFolder
from launch.runs.progress import Progress


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
    server = config.llm_server.replace(**names)
    with serving(config.llm.serve, server, folder.path / "logs", on_event, required=config.llm.required) as base_url:
        here = config.replace(llm=config.llm.replace(serve=None, base_url=base_url))
        if config.llm.required:  # it answers, but does it have a chat template, and bind its answers?
            answering_model(here.llm)
        yield here
