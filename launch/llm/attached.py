"""A run's language model: named before the run begins."""

from __future__ import annotations

from typing import Any

from launch.config.train import TrainConfig


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
    from launch.llm.vllm import answering_model

    return _with_llm(config, model=answering_model(llm))


def _with_llm(config: TrainConfig, **changes: Any) -> TrainConfig:
    return config.model_copy(update={"llm": config.llm.model_copy(update=changes)})
