"""What a run's folder says of its reward over factors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launch.errors import UserError
from rewards.heron import report
from rewards.heron.config import FactorsConfig
from rewards.heron.report import HeronReport


def heron_config(run: Path) -> FactorsConfig:
    """How a run's reward over factors is configured.

    Raises:
        UserError: there is no run, or it has no such reward.
    """
    from launch.arguments import validate
    from launch.config.train import TrainConfig
    from launch.runs.folder import read_config

    config = validate(TrainConfig, read_config(run)).reward.heron
    if config.weight == 0:
        raise UserError(f"run {run} has no reward over factors: its reward.heron.weight is 0")
    return config


def read_report(run: Path) -> HeronReport:
    """The newest report of a run's preference tree.

    Raises:
        UserError: there is none yet, or it is damaged; the text names the file.
    """
    try:
        return report.read_report(run)
    except ValueError as error:
        raise UserError(str(error)) from None


def take_switch(argv: Sequence[str], flag: str) -> tuple[bool, list[str]]:
    """Whether a switch that cannot be a field's name (``--json``) is given, and the other arguments."""
    return flag in argv, [token for token in argv if token != flag]
