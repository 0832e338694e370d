"""``yendor reference PRESET [--flag value ...]``: train Stable-Baselines3's PPO on a preset, to compare."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from launch.arguments import parse
from launch.config.checks import check_startable
from launch.config.presets import PRESETS, preset
from launch.config.train import TrainConfig
from launch.errors import UserError
from launch.runs.folder import RunFolder


def _help() -> str:
    return (
        "usage: yendor reference PRESET [--flag value ...]\n\n"
        "Train Stable-Baselines3's PPO with the preset's network, hyper-parameters and games, one process.\n"
        "Flags and run folder are those of 'yendor train'; a reference cannot be resumed.\n\n"
        f"presets: {', '.join(PRESETS)}\n"
    )


def run(argv: Sequence[str]) -> int:
    """Parse, then train; see ``launch.cli.main`` for the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    name, *flags = argv
    if name.startswith("-"):
        raise UserError(f"the preset comes first: yendor reference PRESET ...; presets: {', '.join(PRESETS)}")
    config = parse(preset(name), flags, f"yendor reference {name}")
    _check(config)
    prefix = f"{config.preset}-reference"
    return _train(config, RunFolder.create(config.runs, config.name, config.model_dump_json(), prefix=prefix))


def _check(config: TrainConfig) -> None:
    from launch.evaluation.reference import check_reference

    check_reference(config)
    check_startable(config)


def _train(config: TrainConfig, folder: RunFolder) -> int:
    from rich.console import Console

    from launch.evaluation.reference import train_reference
    from launch.processes.lifecycle import StopRequest
    from launch.runs.progress import progress

    console = Console()
    title = f"{folder.path.name}: Stable-Baselines3 PPO on {config.env.task}"
    with folder, StopRequest() as stop:
        with progress(console, config.logging.interval_s, total_steps=config.total_steps, title=title) as shown:
            summary = train_reference(config, folder, shown, stop)
        console.print(
            f"{'stopped by ' + summary.stopped_by if summary.stopped_by else 'finished'} after "
            f"{summary.steps:,} steps in {summary.elapsed_s:.0f} s; run folder {folder.path}",
            highlight=False,
            soft_wrap=True,
        )
        return stop.exit_code
