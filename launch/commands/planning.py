"""``yendor offline train | plans | audit``: learn to plan from logged play, look at plans, and check their critic."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from envs.data import Config
from envs.files import write_atomic
from launch.config.flags import JsonOut, Selection, result_path, validate
from launch.errors import UserError
from launch.offline.config import OfflineRunConfig, may_change_on_resume
from launch.runs.folder import RunFolder, installed_versions, read_record

if TYPE_CHECKING:
    from launch.offline.planning import PlannerSource


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
            from launch.offline.learning import saved_offline_config  # torch, which --help need not wait for

            return saved_offline_config(self.resume)
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

    from launch.offline.learning import learn, prepared
    from launch.processes.lifecycle import StopRequest
    from launch.runs.progress import progress

    console = Console()
    config, data = prepared(config)
    if flags.dry_run:
        console.print_json(config.model_dump_json())
        return 0
    if flags.resume is None:
        folder = RunFolder.create(config.runs, config.name, config.model_dump_json(), prefix=config.preset)
    else:
        folder = RunFolder.open(flags.resume)
    with folder, StopRequest() as stop:
        if flags.resume is not None:
            folder.check_resume(config.model_dump_json(), may_change_on_resume(config))
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


class PlansFlags(Config):
    """Show the plans of a recorded episode over its screens, candidate by candidate."""

    episode: CliPositionalArg[Path]
    """A record of 'yendor eval RUN --record', where RUN is an offline run."""
    step: Annotated[int, Field(ge=0)] | None = None
    """Show the plan of this step alone."""
    candidates: Annotated[int, Field(gt=0)] = 8
    """Candidates listed of each plan, the best ones."""


def plans(flags: PlansFlags) -> int:
    """Print each plan over the screen on which it was made."""
    from launch.offline.drawing import drawn_plans

    record = read_record(flags.episode)
    if record.plans is None:
        raise UserError(f"{flags.episode} holds no plans: its policy does not plan")
    if flags.step is not None and flags.step not in record.plans.step:
        steps = ", ".join(map(str, record.plans.step.tolist()))
        raise UserError(f"--step {flags.step}: no plan was made there; plans were made at {steps}")
    for text in drawn_plans(record, flags.step, flags.candidates):
        print(text)
    return 0


class AuditFlags(Config):
    """Execute every candidate of recorded decisions in copies of their games: was the critic right?"""

    episodes: Annotated[CliPositionalArg[tuple[Path, ...]], Field(min_length=1)]
    """Records of one evaluation, 'yendor eval RUN --record', where RUN is an offline run."""
    decisions: Annotated[int, Field(gt=0)] = 50
    """Decisions drawn from them."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of that draw."""
    out: JsonOut = None
    """A file that keeps the figures and every decision."""


def audit(flags: AuditFlags) -> int:
    """Print how the critic's scores and the true outcomes agree."""
    import numpy as np
    import torch

    from launch.offline.audit import audited, summary

    torch.set_num_threads(1)
    path = result_path(flags.out)
    source = _planner_of(flags.episodes)
    records = [read_record(episode) for episode in flags.episodes]
    decisions = audited(source, records, flags.decisions, np.random.default_rng(flags.seed))
    found = summary(decisions)
    _print_audit(found)
    if path is not None:
        rows = [{name: _plain(getattr(decision, name)) for name in type(decision).__slots__} for decision in decisions]
        about = {"command": ["yendor", *sys.argv[1:]], "provenance": source.provenance()}
        write_atomic(path, json.dumps(about | {"summary": found, "decisions": rows}, indent=1))
    return 0


def _planner_of(episodes: Sequence[Path]) -> PlannerSource:
    """What recorded episodes, from the evaluation that lies beside them.

    Raises:
        UserError: they are of several evaluations, or of a policy that does not plan.
    """
    from agents.config import PlannerConfig
    from launch.offline.planning import PlannerSource

    folders = {episode.resolve().parent for episode in episodes}
    if len(folders) > 1:
        raise UserError(f"the records must be of one evaluation, and are of {len(folders)}")
    (folder,) = folders
    described = folder.parents[1] / f"{folder.name}.json"
    if not described.is_file():
        raise UserError(f"{described} is missing: it says which policy made the records in {folder}")
    made = json.loads(described.read_text())["provenance"]
    if made["policy"] != "planner":
        raise UserError(f"the records in {folder} are of a policy that does not plan")
    return PlannerSource.of(folder.parents[2], made["step"], validate(PlannerConfig, made["planner"]))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _print_audit(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from launch.show import figure

    console = Console(highlight=False)
    console.print(f"{found['decisions']} decisions of {found['candidates']} candidates, each executed")
    table = Table("figure", "mean", "95 % interval")
    for name in ("rank_correlation", "regret", "regret_at_random"):
        low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
        table.add_row(name.replace("_", " "), figure(found[name]), "" if low is None else f"{low:.3f} - {high:.3f}")
    console.print(table)
    table = Table("candidates", "outcome of the best by the critic", "95 % interval", "best possible", "its score")
    for row in found["by_candidates"]:
        interval = f"{row['outcome_low']:.3f} - {row['outcome_high']:.3f}"
        figures = (figure(row[name]) for name in ("outcome", "best_possible", "score"))
        outcome, possible, score = figures
        table.add_row(str(row["candidates"]), outcome, interval, possible, score)
    console.print(table)
