"""``yendor rewards score FILE|SHA --episodes EPISODE ...``: what a program pays for recorded play, step by step."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from launch.arguments import parse
from launch.errors import RunError, UserError
from launch.rewards import words
from launch.rewards.containing import Containment
from launch.rewards.finding import ArchiveFlags, admitted, read_record
from launch.rewards.refusals import rejection_json, rejection_text
from launch.rewards.stored import take_switch
from launch.rewards.terminal import shown
from rewards.auto.composition import Composed, Composer, Steps
from rewards.auto.config import CompositionConfig, ContainmentConfig
from rewards.auto.program import ComponentKind, Program, ProgramRejectedError
from rewards.auto.sandbox.contained import Values
from rewards.auto.sandbox.engine import EngineError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from envs.recording import EpisodeRecord


class ScoreFlags(ArchiveFlags, ContainmentConfig):
    """Show what a program pays for recorded episodes (yendor eval --record), step by step."""

    episodes: tuple[Path, ...] = ()
    """Records of episodes (.npz)."""
    screens: bool = False
    """Show the screen of every step, where it was recorded, and not only of steps that pay."""
    table_only: bool = False
    """Show no screens."""
    composition: CompositionConfig = CompositionConfig()
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Discount of the learner, for composition.dense=potential."""


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


def run(argv: Sequence[str]) -> int:
    """Print components, raw and composed, beside what the game showed; ``--json`` prints them for programs."""
    name = argv[0]
    as_json, rest = take_switch(argv[1:], "--json")
    flags = parse(ScoreFlags(), rest, f"yendor rewards score {name}")
    if not flags.episodes:
        raise UserError("rewards score needs --episodes EPISODE.npz ...")
    from rich.console import Console

    console = Console(highlight=False)
    try:
        program = admitted(name, flags.archive)
    except ProgramRejectedError as error:
        if as_json:
            sys.stdout.write(json.dumps(rejection_json(name, error.rejection)) + "\n")
        else:
            console.print(rejection_text(name, error.rejection), soft_wrap=True)
        return 2
    scored = _scored(program, [(path, read_record(path)) for path in flags.episodes], flags)
    if as_json:
        found = {"program": program.sha, "episodes": [_as_json(one) for one in scored]}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    for one in scored:
        _print(console, one, flags)
    return 0


def _scored(program: Program, records: Sequence[tuple[Path, EpisodeRecord]], flags: ScoreFlags) -> list[Scored]:
    from rewards.auto.sandbox.contained import run_in_batches

    containment = Containment.of(flags)
    containment.tell()
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


def _as_json(one: Scored) -> dict[str, Any]:
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


# ---- for people


def _print(console: Console, one: Scored, flags: ScoreFlags) -> None:
    from rich.text import Text

    record = one.record
    title = f"{one.path}: {record.task}, {record.num_steps:,} steps, {record.ending}"
    console.print(Text(shown(title), "bold"), soft_wrap=True)
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
        table.add_column(Text(shown(title)), justify="right")
    table.add_column("action")
    table.add_column("what the game said")
    for t in range(one.record.num_steps):
        cells = [_cell(raw[name][t], paid[name][t]) for name in raw]
        if t in one.values.why:
            cells = [words.NONE] * len(cells)
        said = f"no answer: {one.values.why[t]}" if t in one.values.why else one.record.captions[t]
        action = one.record.action_names[one.record.actions[t]]
        style = "bold" if total[t] else "red" if t in one.values.why else ""
        row = (str(t), *cells, words.figure(total[t]), action, shown(str(said)))
        table.add_row(*(Text(cell) for cell in row), style=style)
    table.add_section()
    sums = [_cell(float(raw[name].sum()), float(paid[name].sum())) for name in raw]
    table.add_row("sum", *sums, words.figure(float(total.sum())), "", _unanswered(one.values), style="bold")
    return table


def _cell(raw: float, paid: float) -> str:
    return f"{words.figure(raw)} ({words.figure(paid)})" if raw or paid else "0"


def _unanswered(values: Values) -> str:
    missing = int((~values.valid).sum())
    return f"{missing:,} steps without an answer" if missing else ""


def _print_screen(console: Console, one: Scored, t: int) -> None:
    from rich.text import Text

    assert one.record.screen is not None
    paid = ", ".join(f"{name} {words.figure(value[t])}" for name, value in one.paid().items() if value[t])
    console.print(Text(shown(f"step {t} pays {words.figure(one.total()[t])}" + (f": {paid}" if paid else "")), "bold"))
    lines = [bytes(row).decode("latin-1").rstrip() for row in one.record.screen[t]]
    console.print(Text(shown("\n".join(line for line in lines if line))), soft_wrap=True)
