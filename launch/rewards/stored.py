"""What a run's folder says of its reward over factors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from envs.files import unreadable
from launch.errors import UserError
from rewards.heron.config import FactorsConfig
from rewards.heron.report import HeronReport, LevelReport

REPORT_FILE = "heron.json"
"""``HeronReport.as_json()``, beside a run's configuration; written with its checkpoints."""


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


def has_report(run: Path) -> bool:
    """Whether a tree's report has been written."""
    return (run / REPORT_FILE).is_file()


def read_report(run: Path) -> HeronReport:
    """The newest report of a run's preference tree.

    Raises:
        UserError: there is none yet, or it is damaged; the text names the file.
    """
    path = run / REPORT_FILE
    try:
        values = json.loads(path.read_text())
        return _built(HeronReport, values | {"levels": tuple(_built(LevelReport, v) for v in values["levels"])})
    except FileNotFoundError:
        raise UserError(f"run {run} has no {REPORT_FILE} yet: it comes with the run's first checkpoint") from None
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged, or of another version: {error}") from None


def _built(kind: type, values: Mapping[str, Any]) -> Any:
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def take_switch(argv: Sequence[str], flag: str) -> tuple[bool, list[str]]:
    """Whether a switch that cannot be a field's name (``--json``) is given, and the other arguments."""
    return flag in argv, [token for token in argv if token != flag]
