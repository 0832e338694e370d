"""``yendor rewards audit RUN``: what a run did with its reward programs, and whether the log of it was touched."""

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
from rewards.auto.audit import Break, read, verify
from rewards.auto.program import SHORT_SHA

_CHAIN = frozenset({"previous", "time", "kind", "sha256"})
_SHA = re.compile(r"[0-9a-f]{64}")


class AuditFlags(Config):
    """Verify the audit log of a run's reward programs, and print it."""


def run(argv: Sequence[str]) -> int:
    """Print the log's lines; exit code 0 where all of them hold, else 1. ``--json`` prints one object."""
    folder = Path(argv[0])
    as_json, rest = take_switch(argv[1:], "--json")
    parse(AuditFlags(), rest, f"yendor rewards audit {folder}")
    path = _log_of(folder)
    try:
        broken = verify(path)
        lines = read(path) if broken is None or broken.torn else []
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    show = _show_json if as_json else _show
    show(path, lines, broken)
    return 0 if broken is None else 1


def _log_of(folder: Path) -> Path:
    from launch.training.programs import (  # here: it needs all that training is configured by
        AUDIT_FILE,
        PROGRAMS_FOLDER,
    )

    path = folder / PROGRAMS_FOLDER / AUDIT_FILE
    if not path.is_file():
        raise UserError(f"there is no audit log of reward programs at {path}: a run with reward.program writes one")
    return path


def _show_json(path: Path, lines: Sequence[Mapping[str, Any]], broken: Break | None) -> None:
    found = {
        "file": str(path),
        "holds": broken is None,
        "broken_line": broken.line if broken else None,
        "torn": broken is not None and broken.torn,
        "why": broken.why if broken else "",
        "lines": lines,
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def _show(path: Path, lines: Sequence[Mapping[str, Any]], broken: Break | None) -> None:
    for line in lines:
        facts = ", ".join(f"{name} {_fact(value)}" for name, value in line.items() if name not in _CHAIN)
        sys.stdout.write(shown(f"{str(line['time'])[:19]}  {line['kind']}: {facts}") + "\n")
    if broken is None:
        sys.stdout.write(f"all {len(lines):,} lines of {path} hold\n")
    else:
        sys.stdout.write(f"{path} does not hold: line {broken.line}: {broken.why}\n")


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_fact, value)) or "-"
    return "-" if value is None else str(value)[:SHORT_SHA] if _SHA.fullmatch(str(value)) else str(value)
