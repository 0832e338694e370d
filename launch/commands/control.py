"""``yendor control ENV [--reward NAME] [--flag value ...] [--json OUT]``: classic control under ranked factors."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from launch.arguments import parse, result_path, take_value
from launch.control_config import check_control, control_defaults
from launch.control_tasks import TASKS
from launch.errors import UserError, unknown_name


def _help() -> str:
    return (
        "usage: yendor control ENV [--reward NAME] [--flag value ...] [--json OUT]\n\n"
        "Train Stable-Baselines3's TD3 with a reward from ranked factors; the environment's own return is measured\n"
        "along the way. --json keeps every evaluation.\n\n"
        f"environments: {', '.join(TASKS)}\n\n"
        "'yendor control ENV --help' lists every flag with the environment's values.\n"
    )


def run(argv: Sequence[str]) -> int:
    """Check, train, print each evaluation; see ``launch.cli.main`` for the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    env, *rest = argv
    if env.startswith("-"):
        raise UserError(f"the environment comes first: yendor control ENV {env} ...; environments: {', '.join(TASKS)}")
    if env not in TASKS:
        raise unknown_name("environment", env, TASKS)
    out, flags = take_value(rest, "--json")
    defaults = control_defaults(TASKS[env])
    config = parse(defaults, flags, f"yendor control {env}")
    check_control(config, defaults)
    from launch.control import check_columns, games_spec, train_control, write_result

    check_columns(config, env, games_spec(TASKS[env].env))
    path = result_path(out)
    outcome = train_control(TASKS[env], config, lambda step, mean: print(f"step {step:>9,}   true return {mean:9.2f}"))
    if path is not None:
        write_result(path, env, config, outcome, shlex.join(["yendor", "control", *argv]))
    return 0
