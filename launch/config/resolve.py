"""From the configuration that was typed to the one that runs: decides, once, what machine, games and servers tell.

``resolve`` is for a new run, ``resolve_resumed`` for one that goes on; ``for_machine`` decides, at every start, what
depends on where the run goes on. All of them validate what they change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envs.tasks import specs_of
from launch.config.flags import validate
from launch.config.train_config import TrainConfig, may_change_on_resume
from launch.errors import UserError

if TYPE_CHECKING:
    from launch.runs.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A run that can start."""

    config: TrainConfig
    keeps: Sequence[Callable[[Path], None]] = ()
    """Each puts into the run's folder what a reward will need there."""


def saved_config(run: Path) -> TrainConfig:
    """The configuration of a training run.

    Raises:
        UserError: there is none, or it is an offline run.
    """
    from launch.runs.folder import read_config

    config = read_config(run)
    if "kind" in config:
        raise UserError(
            f"{run} is an {config['kind']} run, which learns from logged play and plays nothing itself; "
            f"'yendor {config['kind']} train --resume {run}' goes on with it, and 'yendor eval {run}' plans with it"
        )
    return validate(TrainConfig, config)


def resolve(config: TrainConfig, *, use_servers: bool = True) -> Resolved:
    """A new run's configuration with nothing left to decide but what ``for_machine`` does.

    Args:
        config: as it was typed.
        use_servers: ask the language model's server for its name, and open the label store; not for a dry run.

    Raises:
        UserError: the run cannot start; one sentence that names the field and what is allowed.
    """
    check_startable(config)
    config, keeps = prepared(config)
    config = _with_placement(config)
    if use_servers:
        config = _with_language_model(config)
        _check_label_store(config, None)
    return Resolved(config=config, keeps=keeps)


def resolve_resumed(config: TrainConfig, folder: RunFolder) -> TrainConfig:
    """The configuration of a run that goes on; rewards and placement are what the run began with.

    Raises:
        UserError: as ``resolve``; or something is changed that would change what is learned.
    """
    check_startable(config)
    config = _with_language_model(config)
    folder.check_resume(config.model_dump_json(), may_change_on_resume(config))
    _check_label_store(config, folder.path)
    return config


def for_machine(config: TrainConfig) -> TrainConfig:
    """What is ``auto`` decided once, for all processes together: placement, device of peers, ``ppo.precision``."""
    import torch

    from agents.devices import device, resolved

    config = _with_placement(config)
    if config.placement == "symmetric":  # peers compute where their games are, on any machine
        config = config.replace(device="cpu")
    precision = resolved(config.ppo.precision, torch.device("cpu"), device(config.device))
    return config.replace(ppo=config.ppo.replace(precision=precision))


def check_startable(config: TrainConfig) -> None:
    """Refuse, before a folder or a process exists, what only the machine, the games or the store can tell.

    Raises:
        UserError: one sentence that names the field and what is allowed.
    """
    try:
        specs = specs_of(config.env)
    except ValueError as error:
        raise UserError(f"env.task: {error}") from None
    if config.rollout.games_per_worker < len(specs):
        raise UserError(
            f"rollout.games_per_worker {config.rollout.games_per_worker} is too few for the {len(specs)} tasks "
            "of env.task: every worker plays each of them"
        )
    from envs.game import starter

    try:
        starter(config.env.engine)
    except ValueError as error:
        raise UserError(f"env.engine: {error}") from None
    _check_features(config)
    _check_rewards(config)
    if config.device != "cpu" and config.device != "auto":
        from agents.devices import device

        try:
            device(config.device)
        except ValueError as error:
            raise UserError(str(error)) from None
    if config.uses_labels:
        from rewards.labels.annotators import check_client

        try:
            check_client(config.labels.client, config.llm, config.labels.goal)
        except (ValueError, OSError) as error:
            raise UserError(f"labels.client: {error}") from None


def _check_features(config: TrainConfig) -> None:
    """Columns that the games cannot give.

    Raises:
        UserError: one sentence that names the field.
    """
    if config.env.features:
        from envs.schema import check_names

        try:
            check_names(config.env.features)
        except ValueError as error:
            raise UserError(f"env.features: {error}") from None


def _check_rewards(config: TrainConfig) -> None:
    """Refuse what a reward cannot be computed from.

    Raises:
        UserError: one sentence that names the field.
    """
    for name, (kind, part) in config.reward.paid.items():
        try:
            kind.check(part)
        except ValueError as error:
            raise UserError(f"reward.{name}.{error}") from None


def prepared(config: TrainConfig) -> tuple[TrainConfig, list[Callable[[Path], None]]]:
    """The configuration with what its rewards decide once, when a run begins.

    Returns:
        It, and what puts into the run's folder what the rewards will need there.

    Raises:
        UserError: one sentence that names the field.
    """
    changes, keeps = {}, []
    for name, (kind, part) in config.reward.paid.items():
        try:
            found = kind.prepare(part, config.env, config.seed)
        except ValueError as error:
            raise UserError(f"reward.{name}.{error}") from None
        changes[name] = found.config
        keeps.append(found.keep)
    return config.replace(reward=config.reward.replace(**changes)), keeps


def _with_placement(config: TrainConfig) -> TrainConfig:
    """``placement=auto`` decided once: a resumed run keeps it, on any machine."""
    if config.placement != "auto":
        return config
    return config.replace(placement="symmetric" if _fits_peers(config) else "split")


def _fits_peers(config: TrainConfig) -> bool:
    if not config.can_be_symmetric or config.device != "auto":
        return config.can_be_symmetric and config.device == "cpu"
    from agents.devices import device  # imports torch, to look for a GPU

    return device("auto").type == "cpu"


def _with_language_model(config: TrainConfig) -> TrainConfig:
    """The configuration with its language model named, since labels are kept under that name.

    A model that the run serves itself has the name it will be served under. Of a server that runs already, the only
    model it has is taken where ``llm.model`` is not given. Nothing is asked of a server that no label is asked of.

    Raises:
        UserError: there is no such model or no vLLM to serve it; the server cannot be asked for its only model; or
            ``llm.required``, and the server cannot be used.
    """
    if not config.asks_language_model:
        return config
    llm = config.llm
    if llm.serve is None:
        from launch.llm.vllm import answering_model

        return config.replace(llm=llm.replace(model=answering_model(llm)))
    from launch.llm.vllm import find_model, find_vllm

    find_vllm(config.llm_server.vllm)
    served = find_model(llm.serve)
    return config.replace(llm=llm.replace(model=llm.model or config.llm_server.served_model_name or served.name))


def _check_label_store(config: TrainConfig, run: Path | None) -> None:
    """Refuse a label store that cannot be written: damaged, something else, or on a network file system.

    Args:
        config: the run's.
        run: its folder, if it exists already.

    Raises:
        UserError: one sentence that names the store.
    """
    from rewards.labels.store import LabelStore, LabelStoreError

    store = config.labels.path or (run / "labels.sqlite" if run else None)
    if not config.uses_labels or store is None:
        return
    try:
        LabelStore(store).close()
    except LabelStoreError as error:
        raise UserError(f"labels.path: {error}") from None
