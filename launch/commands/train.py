"""``yendor train PRESET|TASK [--flag value ...]`` and ``yendor train --resume RUN [--flag value ...]``."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic_settings import CliPositionalArg

from launch.config.flags import Selection
from launch.config.presets import PRESETS, paying, starting_from
from launch.config.resolve import resolve, resolve_resumed, saved_config
from launch.config.train_config import TrainConfig
from launch.errors import UserError
from launch.runs.folder import RunFolder, installed_versions


class TrainFlags(Selection):
    """Train an agent; 'yendor train PRESET --help' lists every flag with the preset's values.

    yendor train PRESET|TASK [--rewards NAME ...] [--flag value ...] [--dry-run]
    yendor train --resume RUN [--flag value ...]
    """

    start: CliPositionalArg[str] = ""
    """A preset, or the id of a task, which is played with the default settings."""
    resume: Path | None = None
    """The run folder to go on with."""
    rewards: tuple[str, ...] | None = None
    """Rewards that are paid beside the environment's own, and no others; each has its usual weight where the
    preset gives it none."""
    dry_run: bool = False
    """Print the configuration and the processes that would start."""

    def defaults(self) -> TrainConfig:
        """What the other flags change: the preset, the task's defaults, or what a run began with."""
        if self.resume is not None:
            if self.start or self.rewards is not None:
                raise UserError(
                    "--resume RUN takes the place of the preset and of --rewards: yendor train --resume RUN"
                )
            return saved_config(self.resume)
        if not self.start:
            raise UserError(
                f"the preset or the task comes first: yendor train PRESET|TASK ...; presets: {', '.join(PRESETS)}"
            )
        config = starting_from(self.start)
        return config if self.rewards is None else config.replace(reward=paying(config.reward, self.rewards))

    @classmethod
    def choices(cls) -> dict[str, str]:
        """The presets."""
        return {name: (build.__doc__ or "").splitlines()[0] for name, build in PRESETS.items()}

    @classmethod
    def hidden(cls) -> tuple[str, ...]:
        """The preset is given by its place."""
        return ("preset",)


def run(flags: TrainFlags, config: TrainConfig) -> int:
    """Train, or go on; see ``launch.cli.main`` for the exit code."""
    if flags.resume is not None:
        return _show(config) if flags.dry_run else _resume(flags.resume, config)
    _check_paid(flags.rewards or (), config)
    resolved = resolve(config, use_servers=not flags.dry_run)
    config = resolved.config
    if flags.dry_run:
        return _show(config)
    folder = RunFolder.create(config.runs, config.name, config.model_dump_json(), prefix=config.preset)
    for keep in resolved.keeps:
        keep(folder.path)
    return _train(config, folder, resume=False)


def _check_paid(names: Sequence[str], config: TrainConfig) -> None:
    """Refuse a reward that was asked for by name and would pay nothing, as one without its program does.

    Raises:
        UserError: there is one.
    """
    for name in names:
        if name not in config.reward.paid:
            raise UserError(f"--rewards {name}: this reward pays nothing as configured; look at --reward.{name}.*")


def _resume(path: Path, config: TrainConfig) -> int:
    folder = RunFolder.open(path)
    try:
        config = resolve_resumed(config, folder)
        folder.accept_config(config.model_dump_json())
    except UserError:
        folder.close()
        raise
    return _train(config, folder, resume=True)


def _show(config: TrainConfig) -> int:
    """Print the resolved configuration and the processes that would start."""
    from rich.console import Console

    console = Console()
    console.print_json(config.model_dump_json())
    for line in processes(config):
        console.print(line, highlight=False)
    return 0


def processes(config: TrainConfig) -> list[str]:
    """One line for each process that a run starts."""
    rollout = config.rollout
    where = f"at {config.ray_address}" if config.ray_address else "of its own on this machine"
    games = f"{rollout.games_per_worker} games x {rollout.num_steps} steps of {config.env.task}"
    batch = f"batches of {config.batch_steps:,} steps"
    if rollout.num_workers == 0:
        lines = [f"driver and PPO learner (device {config.device}), {batch}", f"  plays {games} itself; no Ray"]
        labeller = "a thread of the driver"
    else:
        lines = [f"Ray session {where}", *_on_ray(config, games, batch)]
        labeller = "an async Ray actor"
    if config.uses_labels:
        store = config.labels.path or "labels.sqlite in the run's folder"
        for about in config.questions:
            lines.append(f"labeller of {about} ({_annotator(config)}) as {labeller}, storing in {store}")
        if config.asks_language_model and config.llm.serve:
            lines.append(f"vLLM server of {config.llm.serve}, in a process group of its own")
    return lines


def _annotator(config: TrainConfig) -> str:
    if not config.asks_language_model:
        return "lexicon" if config.labels.client.kind == "auto" else config.labels.client.kind
    return f"language model {config.llm.model or config.llm.serve or 'of'} {config.llm.base_url or ''}".strip()


def _on_ray(config: TrainConfig, games: str, batch: str) -> list[str]:
    num = config.rollout.num_workers
    if config.placement == "symmetric":
        return [f"  {num} peers, 1 CPU each: {games}, and PPO learner; {batch} in all", "driver, which coordinates"]
    return [
        f"  {num} rollout workers, 1 CPU each: {games}",
        f"driver and PPO learner (device {config.device}), {batch}",
    ]


def _train(config: TrainConfig, folder: RunFolder, *, resume: bool) -> int:
    from rich.console import Console

    from launch.processes.lifecycle import StopRequest
    from launch.runs.progress import progress
    from launch.training.driver import train

    console = Console()
    _log_to(folder.path / "logs" / "driver.log")
    command = shlex.join(["yendor", *sys.argv[1:]])
    folder.event("started", step=None, command=command, versions=installed_versions())
    title = f"{folder.path.name}: {config.env.task}"
    with folder, StopRequest() as stop:
        with progress(console, config.logging.interval_s, total_steps=config.total_steps, title=title) as shown:
            try:
                summary = train(config, folder, shown, stop, resume=resume)
            except Exception as error:
                # Caught only to leave a trace in the run's folder; it goes on to the caller.
                logging.getLogger(__name__).exception("the run failed")
                folder.event("failed", cause=f"{type(error).__name__}: {error}")
                raise
        console.print(
            f"{'stopped by ' + summary.stopped_by if summary.stopped_by else 'finished'} after "
            f"{summary.steps:,} steps in {summary.elapsed_s:.0f} s; run folder {folder.path}; "
            f"weights {summary.weights_sha256[:12]}",
            highlight=False,
            soft_wrap=True,
        )
        phases = folder.path / "profile" / "phases.txt"
        if config.profile and phases.exists():
            console.print(phases.read_text(), highlight=False)
        return stop.exit_code


def _log_to(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
