"""Transitions that reward programs answer per second and core: both engines, through all of containment.

Timed is ``ContainedProgram.evaluate``, by the clock and, beside it, by the processor time of our process
and of the engine's together, which other load on the machine hardly changes. The engine alone is measured as well,
and, of its time, what goes into making the message that it is sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from envs.data import Config
from envs.features import COLUMNS
from launch.bench.harness import in_turn, spread
from rewards.auto.config import ContainmentConfig, EngineName
from rewards.auto.contained import ContainedProgram
from rewards.auto.engine import Limits
from rewards.auto.engines.cpython import CPythonEngine
from rewards.auto.engines.looping import loops_of
from rewards.auto.engines.monty import MontyEngine
from rewards.auto.engines.rewriting import plan_of
from rewards.auto.program import Program

_NUMBER = """
def reward(obs, prev_obs, action, info):
    r = 0.0
    if obs['hp'] < prev_obs['hp']:
        r -= 0.1
    if obs['depth'] > prev_obs['depth']:
        r += 1.0
    if obs['gold'] > prev_obs['gold']:
        r += 0.2
    if obs['x'] == 3 and obs['y'] == 4:
        r += 0.1
    if info['new_tiles_seen'] > 0:
        r += 0.05
    if info['steps_since_new_tile'] > 20:
        r -= 0.05
    if 'door' in obs['message']:
        r += 0.3
    if action == 'kick':
        r += 0.01
    if obs['hunger'] >= 3:
        r -= 0.1
    return r
"""
_THREE = _NUMBER.replace(
    "    return r\n", "    return {'sum': r, 'alive': 0.1 if obs['hp'] > 3 else 0.0, 'half': r * 0.5}\n"
)
_USED = (
    "obs.hp", "prev_obs.hp", "obs.depth", "prev_obs.depth", "obs.gold", "prev_obs.gold", "obs.x", "obs.y",
    "obs.hunger", "obs.message", "action", "info.new_tiles_seen", "info.steps_since_new_tile",
)  # fmt: skip
PROGRAMS: Mapping[str, Program] = {
    name: Program(source=source, columns=tuple(column for column in COLUMNS if column in _USED))
    for name, source in {"number": _NUMBER, "three components": _THREE}.items()
}
"""Ten comparisons each: of one returns a number, the other a dictionary of three."""

_ENGINES: Mapping[EngineName, type[MontyEngine | CPythonEngine]] = {"monty": MontyEngine, "cpython": CPythonEngine}
_BATCH_S = 30.0
"""So that a busy machine does not end a batch."""
_DIFFERENT = 8
"""In repeated play one row in so many differs from all others."""
_MESSAGES = 60

Columns = Mapping[str, np.ndarray]


class ProgramsBench(Config):
    """Transitions that reward programs answer per second and core."""

    transitions: Annotated[int, Field(ge=64)] = 2048
    """Of a batch."""
    rounds: PositiveInt = 15
    """How often each is measured."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes the transitions."""


@dataclass(frozen=True)
class Case:
    """Something that answers a batch."""

    work: Callable[[], Any]
    process: Callable[[], int | None]
    """Number of the process that works for it; None = only ours does."""


def transitions(num: int, different: int, seed: int) -> dict[str, np.ndarray]:
    """Columns [num] that the programs read, of which ``different`` rows differ, in mixed order."""
    rng = np.random.default_rng(seed)
    messages = np.array(["", "the door opens", *(f"you see N things here, {n}" for n in range(_MESSAGES))], "U256")
    columns = {name: rng.integers(0, 80, different) for name in _USED}
    columns |= {name: rng.integers(0, 5000, different) for name in ("obs.gold", "prev_obs.gold")}
    columns["obs.message"] = messages[rng.integers(0, len(messages), different)]
    columns["action"] = np.array(["north", "kick", "south", "search"])[rng.integers(0, 4, different)]
    columns["obs.gold"] = columns["obs.gold"] * different + np.arange(different)  # so that no two rows are equal
    order = rng.permutation(np.arange(num) % different)
    return {name: column[order] for name, column in columns.items()}


def measure(flags: ProgramsBench) -> tuple[str, dict[str, Any]]:
    """The table, and every measurement."""
    plays = {
        "all different": transitions(flags.transitions, flags.transitions, flags.seed),
        "recorded": transitions(flags.transitions, max(1, flags.transitions // _DIFFERENT), flags.seed),
    }
    with ExitStack() as stack:
        cases: dict[str, Case] = {}
        for engine in _ENGINES:
            for name, program in PROGRAMS.items():
                cases |= _cases(engine, name, program, plays, flags.transitions, stack)
        measured = in_turn({name: timed(case, flags.transitions) for name, case in cases.items()}, flags.rounds)
    summary = summarise(measured)
    return table(summary), {"summary": summary, "measurements": measured}


def _cases(
    engine: EngineName, name: str, program: Program, plays: Mapping[str, Columns], num: int, stack: ExitStack
) -> dict[str, Case]:
    """Containment on each kind of play, the engine alone, and the making of its message."""
    alone = _ENGINES[engine](Limits(batch_s=_BATCH_S))
    stack.callback(alone.close)
    alone.load(program)
    inner = _ENGINES[engine](Limits(batch_s=_BATCH_S))
    contained = ContainedProgram(program, ContainmentConfig(engine=engine, batch_s=_BATCH_S), inner)
    stack.callback(contained.close)
    plan, hardest = plan_of(program), next(iter(plays.values()))
    made = {
        f"{engine}, {name}, {kind}": Case(_evaluating(contained, columns, num), lambda: inner.process)
        for kind, columns in plays.items()
    }
    made[f"{engine}, {name}, engine alone"] = Case(_evaluating(alone, hardest, num), lambda: alone.process)
    made[f"{engine}, {name}, its message"] = Case(lambda: list(loops_of(plan, hardest, num)), lambda: None)
    return made


def _evaluating(
    answering: ContainedProgram | MontyEngine | CPythonEngine, columns: Columns, num: int
) -> Callable[[], Any]:
    return lambda: answering.evaluate(columns, num)


def timed(case: Case, num: int) -> Callable[[int], dict[str, float]]:
    """Measures transitions per second, by the clock and of processor time."""

    def measure(number: int) -> dict[str, float]:
        worked = _processor_s(case.process())
        wall, ours = time.perf_counter(), time.process_time()
        case.work()
        wall, ours = time.perf_counter() - wall, time.process_time() - ours
        theirs = _processor_s(case.process()) - worked
        return {"per_s": num / wall, "per_processor_s": num / max(ours + theirs, 1e-9)}

    return measure


def _processor_s(process: int | None) -> float:
    """Seconds of processor time that a process has used; 0 where that cannot be known."""
    if process is None:
        return 0.0
    spent = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in spent) * 1e-9


def summarise(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians and ranges."""
    return {
        name: spread([one["per_s"] for one in own]) | {"per_processor_s": median(one["per_processor_s"] for one in own)}
        for name, own in measured.items()
    }


def table(summary: Mapping[str, Mapping[str, float]]) -> str:
    """The summary for people."""
    lines = [f"{'case':<42}{'transitions/s':>14}  {'range':<22}{'per s of processor':>19}"]
    for name, row in summary.items():
        between = f"{row['low']:,.0f}-{row['high']:,.0f}"
        lines.append(f"{name:<42}{row['median']:>14,.0f}  {between:<22}{row['per_processor_s']:>19,.0f}")
    return "\n".join(lines)
