"""Checks and decisions that need more than the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from launch.config.train import TrainConfig
from launch.errors import UserError


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
    check_rewards(config)
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
        from envs.features import check_names

        try:
            check_names(config.env.features)
        except ValueError as error:
            raise UserError(f"env.features: {error}") from None


def check_rewards(config: TrainConfig) -> None:
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
    """The configuration with what its rewards settle for good when a run begins.

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


def with_placement(config: TrainConfig) -> TrainConfig:
    """``placement=auto`` decided for good: a resumed run keeps it, whatever machine it goes on with."""
    if config.placement != "auto":
        return config
    return config.replace(placement="symmetric" if _fits_peers(config) else "split")


def _fits_peers(config: TrainConfig) -> bool:
    if not config.can_be_symmetric or config.device != "auto":
        return config.can_be_symmetric and config.device == "cpu"
    from agents.devices import device  # imports torch, to look for a GPU

    return device("auto").type == "cpu"


def check_label_store(config: TrainConfig, run: Path | None) -> None:
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
