"""``control ENV [--reward NAME] [--flag value ...] [--json OUT]``: classic control under ranked factors."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pydantic_settings import CliPositionalArg

from launch.config.flags import JsonOut, Selection, parse, result_path, select
from launch.errors import unknown_name
from tests.benchmarks.control.config import TASKS, ControlConfig, check_control, control_defaults
from tests.benchmarks.control.training import check_columns, games_spec, train_control, write_result

PROG = "python -m tests.benchmarks control"


class ControlFlags(Selection):
    """Train Stable-Baselines3's TD3 with a reward from ranked factors.

    The environment's own return is measured along the way; --json keeps every evaluation.
    """

    env: CliPositionalArg[str]
    """The environment."""
    out: JsonOut = None
    """A file that keeps every evaluation."""

    def defaults(self) -> ControlConfig:
        """The environment's.

        Raises:
            UserError: there is no such environment; names the nearest.
        """
        if self.env not in TASKS:
            raise unknown_name("environment", self.env, TASKS)
        return control_defaults(TASKS[self.env])

    @classmethod
    def choices(cls) -> dict[str, str]:
        """The environments."""
        return {name: f"{task.steps:,} steps" for name, task in TASKS.items()}


def run(argv: Sequence[str]) -> int:
    """Check, train, print each evaluation.

    Raises:
        UserError: it cannot be run so.
        RunError: a factor or a gradient is not finite.
    """
    flags, rest = select(ControlFlags, list(argv) or ["--help"], PROG)
    defaults = flags.defaults()
    config = parse(defaults, rest, f"{PROG} {flags.env}", selection=flags)
    check_control(config, defaults)
    check_columns(config, flags.env, games_spec(flags.env))
    path = result_path(flags.out)
    task = TASKS[flags.env]
    outcome = train_control(task, config, lambda step, mean: print(f"step {step:>9,}   true return {mean:9.2f}"))
    if path is not None:
        write_result(path, flags.env, config, outcome, f"{PROG} {shlex.join(argv)}")
    return 0
