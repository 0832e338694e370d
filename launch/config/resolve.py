"""The one door from what was typed to what runs: what only machine, games and servers can tell, settled for good.

``resolve`` is for a new run, ``resolve_resumed`` for one that goes on; ``for_machine`` decides, at every start, what
depends on where the run goes on. All of them validate what they change.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launch.config.train import TrainConfig, may_change_on_resume
from launch.errors import UserError
from rewards.heron.config import TreeConfig

if TYPE_CHECKING:
    from launch.runs.folder import RunFolder
    from rewards.auto.archive import ArchiveEntry


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A run that can start."""

    config: TrainConfig
    programs: tuple[ArchiveEntry, ...] = ()
    """Reward programs that it uses, to be kept in its folder; the chosen one first."""


def resolve(config: TrainConfig, *, use_servers: bool = True) -> Resolved:
    """A new run's configuration with nothing left to decide but what ``for_machine`` does.

    Args:
        config: as it was typed.
        use_servers: ask the language model's server for its name, and open the label store; not for a dry run.

    Raises:
        UserError: the run cannot start; one sentence that names the field and what is allowed.
    """
    check_startable(config)
    _check_preferences(config)
    from launch.training import programs  # only here: its imports take time that --help does not have

    config, entries = programs.settled(config)
    programs.check_isolation(config)
    config = _with_placement(config)
    if use_servers:
        config = _with_language_model(config)
        _check_label_store(config, None)
    return Resolved(config=config, programs=entries)


def resolve_resumed(config: TrainConfig, folder: RunFolder) -> TrainConfig:
    """The configuration of a run that goes on; rewards, programs and placement are what the run began with.

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
        specs = config.env.specs()
    except ValueError as error:
        raise UserError(f"env.task: {error}") from None
    if config.rollout.games_per_worker < len(specs):
        raise UserError(
            f"rollout.games_per_worker {config.rollout.games_per_worker} is too few for the {len(specs)} tasks "
            "of env.task: every worker plays each of them"
        )
    from envs.engine import starter

    try:
        starter(config.env.engine)
    except ValueError as error:
        raise UserError(f"env.engine: {error}") from None
    _check_features(config)
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
    """Columns and factors that the games cannot give.

    Raises:
        UserError: one sentence that names the field.
    """
    if config.env.features:
        from envs.features import check_names

        try:
            check_names(config.env.features)
        except ValueError as error:
            raise UserError(f"env.features: {error}") from None
    if config.reward.heron.weight > 0:
        from envs.features import check_names

        try:
            check_names(config.reward.heron.table().columns)
        except ValueError as error:
            raise UserError(f"reward.heron.ranking: {error}") from None
        try:
            config.reward.heron.check_inputs()
        except ValueError as error:
            raise UserError(f"reward.heron.model.inputs: {error}") from None


def _check_preferences(config: TrainConfig) -> None:
    """Refuse what people are said to prefer, where it cannot be learned from; a resumed run has learned it already.

    Raises:
        UserError: one sentence with the file and the line.
    """
    heron = config.reward.heron
    if not isinstance(heron, TreeConfig) or heron.weight == 0 or heron.judges.human is None:
        return
    from envs.actions import union_of_names
    from rewards.heron.human import pairs_in_file
    from rewards.heron.preferences import check_learnable

    try:
        pairs = pairs_in_file(heron, union_of_names(config.env.specs()), config.env.task_ids)
        if pairs is not None:
            check_learnable(pairs, heron, config.seed)
    except ValueError as error:
        raise UserError(f"reward.heron.judges.human: {error}") from None


def _with_placement(config: TrainConfig) -> TrainConfig:
    """``placement=auto`` decided for good: a resumed run keeps it, whatever machine it goes on with."""
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
