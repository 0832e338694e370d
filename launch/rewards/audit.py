"""``yendor rewards audit RUN``: what a run did with its reward programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.data import Config
from envs.files import unreadable
from launch.arguments import parse
from launch.errors import UserError
from launch.rewards.stored import take_switch
from launch.rewards.terminal import shown
from rewards.auto.audit import read
from rewards.auto.program import SHORT_SHA

_HEAD = frozenset({"time", "kind"})
_SHA = re.compile(r"[0-9a-f]{64}")


class AuditFlags(Config):
    """Print the audit log of a run's reward programs."""


def run(argv: Sequence[str]) -> int:
    """Print the log's lines; ``--json`` prints one object."""
    folder = Path(argv[0])
    as_json, rest = take_switch(argv[1:], "--json")
    parse(AuditFlags(), rest, f"yendor rewards audit {folder}")
    path = _log_of(folder)
    try:
        lines = read(path)
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        sys.stdout.write(json.dumps({"file": str(path), "lines": lines}, indent=1) + "\n")
    else:
        _show(lines)
    return 0


def _log_of(folder: Path) -> Path:
    from launch.training.programs import (  # here: it needs all that training is configured by
        AUDIT_FILE,
        PROGRAMS_FOLDER,
    )

    path = folder / PROGRAMS_FOLDER / AUDIT_FILE
    if not path.is_file():
        raise UserError(f"there is no audit log of reward programs at {path}: a run with reward.program writes one")
    return path


def _show(lines: Sequence[Mapping[str, Any]]) -> None:
    for line in lines:
        facts = ", ".join(f"{name} {_fact(value)}" for name, value in line.items() if name not in _HEAD)
        sys.stdout.write(shown(f"{str(line['time'])[:19]}  {line['kind']}: {facts}") + "\n")


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_fact, value)) or "-"
    return "-" if value is None else str(value)[:SHORT_SHA] if _SHA.fullmatch(str(value)) else str(value)
