"""Checks and decisions that need more than the configuration."""

from __future__ import annotations

from pathlib import Path

from launch.config.train import TrainConfig
from launch.errors import UserError
from rewards.heron.config import TreeConfig


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


def check_preferences(config: TrainConfig) -> None:
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


def with_placement(config: TrainConfig) -> TrainConfig:
    """``placement=auto`` decided for good: a resumed run keeps it, whatever machine it goes on with."""
    if config.placement != "auto":
        return config
    return config.model_copy(update={"placement": "symmetric" if _fits_peers(config) else "split"})


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
