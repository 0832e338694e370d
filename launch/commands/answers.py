"""``yendor rewards score`` and ``rewards run``: what a program pays for recorded play, and answers for transitions."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic_settings import CliPositionalArg

from envs.files import unreadable
from launch.commands.programs import ArchiveFlags, admitted
from launch.commands.verdicts import Containment, rejection_json, rejection_text
from launch.config.flags import AsJson
from launch.errors import RunError, UserError
from launch.runs.folder import read_record
from launch.show import NONE, figure, visible
from rewards.auto.composition import Composed, Composer, Steps
from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.episodes import Transitions, read_transitions, run_isolating_failures
from rewards.auto.program import ComponentKind, Program, ProgramRejectedError, read_as
from rewards.auto.sandbox.contained import ContainedProgram, Values
from rewards.auto.sandbox.engine import EngineError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from envs.recording import EpisodeRecord

_RETRIES = 12
"""Batch limits that may be spent on batches that fail, and on parts of them."""


def _refused(name: str, error: ProgramRejectedError, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(rejection_json(name, error.rejection)) + "\n")
        return 2
    from rich.console import Console

    Console(highlight=False).print(rejection_text(name, error.rejection), soft_wrap=True)
    return 2


# -- score ------------------------------------------------------------------------------------------


class ScoreFlags(ArchiveFlags, ContainmentConfig):
    """Show what a program pays for recorded episodes (yendor eval --record), step by step."""

    program: CliPositionalArg[str]
    """The SHA or the file of a program."""
    episodes: tuple[Path, ...] = ()
    """Records of episodes (.npz)."""
    screens: bool = False
    """Show the screen of every step, where it was recorded, and not only of steps that pay."""
    table_only: bool = False
    """Show no screens."""
    composition: CompositionConfig = CompositionConfig()
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Discount of the learner, for composition.dense=potential."""
    as_json: AsJson = False
    """Print components and totals for programs."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One episode of T steps, and what it pays."""

    path: Path
    record: EpisodeRecord
    values: Values
    """[T]."""
    composed: Composed
    """[T, 1]."""

    def raw(self) -> dict[str, np.ndarray]:
        """``{component: float64 [T]}`` as the program gave them."""
        return dict(self.values.components)

    def paid(self) -> dict[str, np.ndarray]:
        """``{component: float64 [T]}`` after composition."""
        return {name: self.composed.components[name][:, 0] for name in self.values.components}

    def total(self) -> np.ndarray:
        """float64 [T]."""
        return self.composed.total[:, 0]


def score(flags: ScoreFlags) -> int:
    """Print components, raw and composed, beside what the game showed."""
    if not flags.episodes:
        raise UserError("rewards score needs --episodes EPISODE.npz ...")
    from rich.console import Console

    console = Console(highlight=False)
    try:
        program = admitted(flags.program, flags.archive)
    except ProgramRejectedError as error:
        return _refused(flags.program, error, as_json=flags.as_json)
    scored = _scored(program, [(path, read_record(path)) for path in flags.episodes], flags)
    if flags.as_json:
        found = {"program": program.sha, "episodes": [_scored_json(one) for one in scored]}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    for one in scored:
        _print_scored(console, one, flags)
    return 0


def _scored(program: Program, records: Sequence[tuple[Path, EpisodeRecord]], flags: ScoreFlags) -> list[Scored]:
    from rewards.auto.sandbox.contained import run_in_batches

    containment = Containment.of(flags)
    containment.say()
    contained = containment.contained(program)
    found = []
    try:
        for path, record in records:
            values = run_in_batches(contained, *_columns(path, record, program))
            composed = _composed(program, record, values, flags)
            found.append(Scored(path=path, record=record, values=values, composed=composed))
    except EngineError as error:
        raise RunError(f"the program has no answer ({error.code}): {error}") from None
    finally:
        contained.close()
    return found


def _columns(path: Path, record: EpisodeRecord, program: Program) -> tuple[dict[str, np.ndarray], int]:
    from rewards.auto.episodes import transitions_of

    try:
        return transitions_of([record], program.needed_columns)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _composed(program: Program, record: EpisodeRecord, values: Values, flags: ScoreFlags) -> Composed:
    composer = Composer(flags.composition, tuple(values.components), gamma=flags.gamma)
    steps = Steps(
        valid=values.valid[:, None], terminated=record.terminated[:, None], truncated=record.truncated[:, None]
    )
    kinds: dict[str, ComponentKind] = {name: program.kind_of(name) for name in values.components}
    given = {name: value[:, None] for name, value in values.components.items()}
    return composer.compose(given, kinds, steps, composer.initial_state(1))[0]


def _scored_json(one: Scored) -> dict[str, Any]:
    raw, paid, total = one.raw(), one.paid(), one.total()
    record = one.record
    return {
        "file": str(one.path),
        "task": record.task,
        "seeds": list(record.seeds),
        "ending": record.ending,
        "steps": [
            {
                "step": t,
                "action": record.action_names[record.actions[t]],
                "caption": str(record.captions[t]),
                "raw": {name: float(value[t]) for name, value in raw.items()},
                "paid": {name: float(value[t]) for name, value in paid.items()},
                "total": float(total[t]),
                "valid": bool(one.values.valid[t]),
                "why": one.values.why.get(t, ""),
            }
            for t in range(record.num_steps)
        ],
        "totals": {
            "raw": {name: float(value.sum()) for name, value in raw.items()},
            "paid": {name: float(value.sum()) for name, value in paid.items()},
            "total": float(total.sum()),
            "without_answer": int((~one.values.valid).sum()),
        },
    }


def _print_scored(console: Console, one: Scored, flags: ScoreFlags) -> None:
    from rich.text import Text

    record = one.record
    title = f"{one.path}: {record.task}, {record.num_steps:,} steps, {record.ending}"
    console.print(Text(visible(title), "bold"), soft_wrap=True)
    console.print(_table(one))
    if record.screen is None or flags.table_only:
        return
    for t in range(record.num_steps) if flags.screens else np.flatnonzero(one.total()).tolist():
        _print_screen(console, one, t)


def _table(one: Scored) -> Table:
    from rich.table import Table
    from rich.text import Text

    raw, paid, total = one.raw(), one.paid(), one.total()
    table = Table(caption="each component as the program gave it, and in brackets what it pays", caption_justify="left")
    for title in ("step", *raw, "pays"):
        table.add_column(Text(visible(title)), justify="right")
    table.add_column("action")
    table.add_column("what the game said")
    for t in range(one.record.num_steps):
        cells = [_cell(raw[name][t], paid[name][t]) for name in raw]
        if t in one.values.why:
            cells = [NONE] * len(cells)
        said = f"no answer: {one.values.why[t]}" if t in one.values.why else one.record.captions[t]
        action = one.record.action_names[one.record.actions[t]]
        style = "bold" if total[t] else "red" if t in one.values.why else ""
        row = (str(t), *cells, figure(total[t]), action, visible(str(said)))
        table.add_row(*(Text(cell) for cell in row), style=style)
    table.add_section()
    sums = [_cell(float(raw[name].sum()), float(paid[name].sum())) for name in raw]
    table.add_row("sum", *sums, figure(float(total.sum())), "", _unanswered(one.values), style="bold")
    return table


def _cell(raw: float, paid: float) -> str:
    return f"{figure(raw)} ({figure(paid)})" if raw or paid else "0"


def _unanswered(values: Values) -> str:
    missing = int((~values.valid).sum())
    return f"{missing:,} steps without an answer" if missing else ""


def _print_screen(console: Console, one: Scored, t: int) -> None:
    from rich.text import Text

    assert one.record.screen is not None
    paid = ", ".join(f"{name} {figure(value[t])}" for name, value in one.paid().items() if value[t])
    console.print(Text(visible(f"step {t} pays {figure(one.total()[t])}" + (f": {paid}" if paid else "")), "bold"))
    lines = [bytes(row).decode("latin-1").rstrip() for row in one.record.screen[t]]
    console.print(Text(visible("\n".join(line for line in lines if line))), soft_wrap=True)


# -- run --------------------------------------------------------------------------------------------


class RunFlags(ArchiveFlags, ContainmentConfig):
    """Run a program on transitions from a file, contained as in training."""

    program: CliPositionalArg[str]
    """The SHA or the file of a program."""
    transitions: Path | None = None
    """JSON lines, each an object with obs, prev_obs, action and info, as yendor's schema names their fields."""
    as_json: AsJson = False
    """Print one object a line for programs."""


def run(flags: RunFlags) -> int:
    """Print one answer for each line of the file."""
    if flags.transitions is None:
        raise UserError("rewards run needs --transitions FILE")
    try:
        program = admitted(flags.program, flags.archive)
    except ProgramRejectedError as error:
        return _refused(flags.program, error, as_json=flags.as_json)
    lines = _read(flags.transitions, program)
    containment = Containment.of(flags)
    containment.say()
    answers = _answers(lines, containment)
    if flags.as_json:
        sys.stdout.write("".join(json.dumps(answer, allow_nan=False) + "\n" for answer in answers))
    else:
        _print_answers(answers)
    return 0


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


def _print_answers(answers: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = list(dict.fromkeys(name for answer in answers for name in answer["parts"]))
    table = Table()
    for title in ("line", "value", *names):
        table.add_column(Text(title), justify="right")
    table.add_column("no answer because")
    for number, answer in enumerate(answers, 1):
        value = figure(answer["value"]) if answer["valid"] else NONE
        parts = (figure(answer["parts"].get(name)) for name in names)
        table.add_row(str(number), value, *parts, Text(visible(answer["why"])))
    Console().print(table)
