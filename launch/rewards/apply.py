"""``yendor rewards run FILE|SHA --transitions FILE``: what a program answers for transitions, in full containment."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.files import unreadable
from launch.arguments import parse
from launch.errors import UserError
from launch.rewards import words
from launch.rewards.containing import Containment
from launch.rewards.finding import ArchiveFlags, admitted
from launch.rewards.refusals import rejection_json, rejection_text
from launch.rewards.stored import take_switch
from launch.rewards.terminal import shown
from rewards.auto.config import ContainmentConfig
from rewards.auto.episodes import Transitions, read_transitions, run_isolating_failures
from rewards.auto.program import Program, ProgramRejectedError, read_as
from rewards.auto.sandbox.contained import ContainedProgram, Values

_RETRIES = 12
"""Batch limits that may be spent on batches that fail, and on parts of them."""


class ApplyFlags(ArchiveFlags, ContainmentConfig):
    """Run a program on transitions from a file, contained as in training."""

    transitions: Path | None = None
    """JSON lines, each an object with obs, prev_obs, action and info, as yendor's schema names their fields."""


def run(argv: Sequence[str]) -> int:
    """Print one answer for each line of the file; ``--json`` prints one object a line."""
    name = argv[0]
    as_json, rest = take_switch(argv[1:], "--json")
    flags = parse(ApplyFlags(), rest, f"yendor rewards run {name}")
    if flags.transitions is None:
        raise UserError("rewards run needs --transitions FILE")
    try:
        program = admitted(name, flags.archive)
    except ProgramRejectedError as error:
        return _refused(name, error, as_json=as_json)
    lines = _read(flags.transitions, program)
    containment = Containment.of(flags)
    containment.tell()
    answers = _answers(lines, containment)
    if as_json:
        sys.stdout.write("".join(json.dumps(answer, allow_nan=False) + "\n" for answer in answers))
    else:
        _print(answers)
    return 0


def _refused(name: str, error: ProgramRejectedError, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(rejection_json(name, error.rejection)) + "\n")
        return 2
    from rich.console import Console

    Console(highlight=False).print(rejection_text(name, error.rejection), soft_wrap=True)
    return 2


def _read(path: Path, program: Program) -> Transitions:
    try:
        lines = read_transitions(path, program)
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    except ValueError as error:
        raise UserError(str(error)) from None
    if not lines.num:
        raise UserError(f"{path} holds no transitions")
    return lines


def _answers(lines: Transitions, containment: Containment) -> list[dict[str, Any]]:
    """One object for each line, in order."""
    config = containment.config
    answers: list[dict[str, Any]] = [{}] * lines.num
    retry_s = _RETRIES * config.batch_s / len(lines.parts)
    with containment.engine() as engine:
        for part in lines.parts:
            contained = ContainedProgram(part.program, config, engine)
            values = run_isolating_failures(contained, part.columns, len(part.rows), retry_s=retry_s)
            for at, line in enumerate(part.rows.tolist()):
                answers[line] = _answer(values, at, part.lacks)
    return answers


def _answer(values: Values, at: int, lacks: Sequence[str]) -> dict[str, Any]:
    """Of one row; for a line that lacks an action there is none, as no program is run without one."""
    why = next((f"the transition has no {name}" for name in lacks if name == "action"), values.why.get(at, ""))
    why = next((f"the transition has no {read_as(name)}" for name in lacks if why == _of_missing(name)), why)
    held = [] if why else [name for name in values.components if not values.lacks(name)[at]]
    parts = {name: float(values.components[name][at]) for name in held}
    return {"value": sum(parts.values(), 0.0), "parts": parts, "valid": not why, "why": why}


def _of_missing(column: str) -> str:
    """What a program fails with that reads this column where it is not."""
    return f"KeyError: {column.rpartition('.')[2]!r}"


def _print(answers: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = list(dict.fromkeys(name for answer in answers for name in answer["parts"]))
    table = Table()
    for title in ("line", "value", *names):
        table.add_column(Text(title), justify="right")
    table.add_column("no answer because")
    for number, answer in enumerate(answers, 1):
        value = words.figure(answer["value"]) if answer["valid"] else words.NONE
        parts = (words.figure(answer["parts"].get(name)) for name in names)
        table.add_row(str(number), value, *parts, Text(shown(answer["why"])))
    Console().print(table)
