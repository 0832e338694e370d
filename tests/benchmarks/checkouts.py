"""Training speed of this checkout beside another one, in one run: how much faster or slower a change made it.

    python -m tests.benchmarks checkouts --other ../before --rounds 5

Each round runs ``yendor bench train`` once in each checkout (``ABBA``: the order is swapped from round to round), so
that other load meets both. Ratios are taken round by round: this checkout's steps/s divided by the other's. Each is
run by its own ``.venv``, if it has one, so that both can have packages of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from envs.data import Config
from launch.bench.harness import in_turn, ratio_spread, ratios, spread
from launch.errors import RunError, UserError

_THIS = Path(__file__).parents[2]
_ROUND_S = 600.0
"""What a run may take beyond its measurements, to start and to warm up."""


class CheckoutsBench(Config):
    """Training speed of this checkout beside another one."""

    other: Path | None = None
    """Root of the other checkout; its compiled modules must be built."""
    task: str = "MiniHack-Room-5x5-v0"
    """A task id."""
    systems: Annotated[tuple[str, ...], Field(min_length=1)] = ("yendor",)
    """What is measured, of those that ``yendor bench train`` knows."""
    rounds: PositiveInt = 5
    """Measurements of each."""
    seconds: Annotated[float, Field(gt=0)] = 10.0
    """Length of a measurement."""
    games: PositiveInt = 16
    """Games side by side, over all workers."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes games and weights."""
    flags: tuple[str, ...] = ()
    """More settings for ``yendor bench train``, without their hyphens: ``ppo.epochs=3``."""


Speeds = Mapping[str, float]
"""Steps/s of each system in one run of ``yendor bench train``."""


def measure(flags: CheckoutsBench) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured.

    Raises:
        UserError: the other checkout is not one.
        RunError: a measurement failed.
    """
    if flags.other is None or not (flags.other / "launch" / "cli.py").exists():
        raise UserError(f"other must be the root of a checkout of Yendor, not {flags.other}")
    roots = {"this": _THIS, "other": flags.other.resolve()}
    found: dict[str, list[Speeds]] = {name: [] for name in roots}
    for number in range(flags.rounds):
        names = list(roots) if number % 2 == 0 else list(roots)[::-1]
        cases = {name: lambda _, root=roots[name]: run_bench(root, flags) for name in names}
        for name, own in in_turn(cases, 1, warm_up=0, report=_print_speeds).items():
            found[name] += own
    summary = {system: summarise(found, system) for system in flags.systems}
    checkouts = {name: {"root": str(root), "commit": commit(root)} for name, root in roots.items()}
    return table(summary), {"checkouts": checkouts, "summary": summary, "measurements": found}


def run_bench(root: Path, flags: CheckoutsBench) -> Speeds:
    """One run of ``yendor bench train`` in a checkout.

    Raises:
        RunError: it failed; with the last line of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="yendor-bench-") as folder:
        out = Path(folder) / "out.json"
        command = [*command_of(root, flags), "--json", str(out)]
        limit_s = _ROUND_S + 4 * flags.seconds * len(flags.systems)
        environment = os.environ | {"PYTHONPATH": str(root)}
        try:
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise RunError(f"{root}: bench train took more than {limit_s:.0f} s") from None
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise RunError(f"{root}: bench train failed: {(lines or ['it said nothing'])[-1]}")
        return speeds_of(json.loads(out.read_text()))


def command_of(root: Path, flags: CheckoutsBench) -> list[str]:
    """``yendor bench train``, one round, as a checkout of any age understands it."""
    python = root / ".venv" / "bin" / "python"
    is_older = (root / "launch" / "bench" / "train.py").exists()  # there, systems are called contenders
    shared = {"task": flags.task, "rounds": 1, "seconds": flags.seconds, "games": flags.games, "seed": flags.seed}
    return [
        *(str(python if python.exists() else sys.executable), "-m", "launch.cli", "bench", "train"),
        *(f"--{name}={value}" for name, value in shared.items()),
        f"--{'contenders' if is_older else 'systems'}={','.join(flags.systems)}",
        *(f"--{flag}" for flag in flags.flags),
    ]


def speeds_of(result: Mapping[str, Any]) -> Speeds:
    """Steps/s by system, from the JSON of ``yendor bench train``."""
    summary = result["summary"]
    rows = summary.get("systems") or summary["contenders"]
    return {name: row["median"] for name, row in rows.items()}


def commit(root: Path) -> str | None:
    """The commit of a checkout, with a ``+`` if its files differ from it; None where git does not know."""
    done = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty=+"], capture_output=True, text=True)
    return done.stdout.strip() or None


def _print_speeds(number: int, name: str, speeds: Speeds) -> None:
    print(f"{name:<6}" + "".join(f"  {system} {speed:>10,.0f} steps/s" for system, speed in speeds.items()), flush=True)


def summarise(found: Mapping[str, Sequence[Speeds]], system: str) -> dict[str, Any]:
    """Median and range of a system's speed in both checkouts, and of their ratios round by round."""
    own, other = ([speeds[system] for speeds in found[name]] for name in ("this", "other"))
    each = ratios(own, other)
    return {"this": spread(own), "other": spread(other), "ratios": each} | ratio_spread(each)


def table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The summary for people."""
    lines = [f"{'system':<18}{'this, steps/s':>14}{'other, steps/s':>16}{'this / other':>14}  range"]
    for system, row in summary.items():
        between = f"{row['ratio_low']:.3f}-{row['ratio_high']:.3f}"
        this, other = row["this"]["median"], row["other"]["median"]
        lines.append(f"{system:<18}{this:>14,.0f}{other:>16,.0f}{row['ratio_median']:>14.3f}  {between}")
    return "\n".join(lines)
