"""``yendor reference PRESET [--flag value ...]``: train Stable-Baselines3's PPO on a preset, to compare."""

from __future__ import annotations

from pydantic_settings import CliPositionalArg

from launch.config.flags import Selection
from launch.config.presets import starting_from
from launch.config.resolve import check_startable
from launch.config.train_config import TrainConfig
from launch.runs.folder import RunFolder


class ReferenceFlags(Selection):
    """Train Stable-Baselines3's PPO with a preset's network, hyper-parameters and games, in one process.

    Flags and run folder are those of 'yendor train'; a reference cannot be resumed.
    """

    start: CliPositionalArg[str]
    """A preset, or the id of a task."""

    def defaults(self) -> TrainConfig:
        """What the other flags change."""
        return starting_from(self.start)

    @classmethod
    def hidden(cls) -> tuple[str, ...]:
        """The preset is given by its place."""
        return ("preset",)


def run(_: ReferenceFlags, config: TrainConfig) -> int:
    """Train; see ``launch.cli.main`` for the exit code."""
    _check(config)
    prefix = f"{config.preset}-reference"
    return _train(config, RunFolder.create(config.runs, config.name, config.model_dump_json(), prefix=prefix))


def _check(config: TrainConfig) -> None:
    from launch.evaluation.sb3_reference import check_reference

    check_reference(config)
    check_startable(config)


def _train(config: TrainConfig, folder: RunFolder) -> int:
    from rich.console import Console

    from launch.evaluation.sb3_reference import train_reference
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
