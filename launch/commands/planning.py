"""``yendor offline train DATA [--flag value ...]``: learn to plan from logged play."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from pydantic_settings import CliPositionalArg

from launch.config.flags import Selection, validate
from launch.errors import UserError
from launch.offline.config import MAY_CHANGE_ON_RESUME, OfflineRunConfig
from launch.runs.folder import RunFolder, installed_versions, read_config


class LearnFlags(Selection):
    """Learn to plan from logged play; 'yendor offline train DATA --help' lists every flag.

    yendor offline train DATA [--head.kind masked] [--flag value ...] [--dry-run]
    yendor offline train --resume RUN [--flag value ...]
    """

    data: CliPositionalArg[Path | None] = None
    """A data set, as 'yendor offline record' makes them."""
    resume: Path | None = None
    """The run folder to go on with."""
    dry_run: bool = False
    """Print the configuration."""

    def defaults(self) -> OfflineRunConfig:
        """What the other flags change: the defaults, or what a run began with."""
        if self.resume is not None:
            if self.data is not None:
                raise UserError("--resume RUN takes the place of the data set: yendor offline train --resume RUN")
            config = read_config(self.resume)
            if "kind" not in config:
                raise UserError(
                    f"{self.resume} is no offline run; 'yendor train --resume {self.resume}' goes on with it"
                )
            return validate(OfflineRunConfig, config)
        if self.data is None:
            raise UserError("the data set comes first: yendor offline train DATA ...")
        return OfflineRunConfig(data=self.data)

    @classmethod
    def hidden(cls) -> tuple[str, ...]:
        """What is given by its place, or is always the same."""
        return ("kind",)


def train(flags: LearnFlags, config: OfflineRunConfig) -> int:
    """Learn, or go on; see ``launch.cli.main`` for the exit code."""
    from rich.console import Console

    from launch.offline.learning import learn, open_data, prepared
    from launch.processes.lifecycle import StopRequest
    from launch.runs.progress import progress

    console = Console()
    if flags.resume is None:
        config, data = prepared(config)
    else:
        data = open_data(config.data)
    if flags.dry_run:
        console.print_json(config.model_dump_json())
        return 0
    if flags.resume is None:
        folder = RunFolder.create(config.runs, config.name, config.model_dump_json(), prefix=config.preset)
    else:
        folder = RunFolder.open(flags.resume)
    with folder, StopRequest() as stop:
        if flags.resume is not None:
            folder.check_resume(config.model_dump_json(), MAY_CHANGE_ON_RESUME)
            folder.accept_config(config.model_dump_json())
        command = shlex.join(["yendor", *sys.argv[1:]])
        folder.event("started", step=None, command=command, versions=installed_versions())
        title, total = f"{folder.path.name}: {', '.join(data.manifest.task_ids)}", config.total_updates
        shown = progress(console, config.logging.interval_s, total_steps=total, title=title, unit="update")
        with shown:
            summary = learn(config, data, folder, shown, stop, resume=flags.resume is not None)
        console.print(
            f"{'stopped by ' + summary.stopped_by if summary.stopped_by else 'finished'} after "
            f"{summary.updates:,} updates in {summary.elapsed_s:.0f} s; run folder {folder.path}; "
            f"weights {summary.weights_sha256[:12]}",
            highlight=False,
            soft_wrap=True,
        )
        return stop.exit_code
