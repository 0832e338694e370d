"""``yendor eval RUN [--tasks ID] [--episodes N] [--seeds FILE] [--record] [--json OUT]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from agents.config import PlannerConfig
from envs.data import Config, EpisodeSeeds
from envs.files import reason_of, write_atomic
from launch.config.flags import JsonOut, result_path
from launch.errors import UserError

if TYPE_CHECKING:
    from launch.evaluation.policies import PolicySource


class EvaluateFlags(Config):
    """Play listed episodes with a policy; every episode once, each in its own JSON file.

    yendor eval RUN
    yendor eval random --tasks ID
    yendor eval MODEL.zip --tasks ID     (a Stable-Baselines3 model; its pickles are executed)
    yendor eval OFFLINE_RUN --planner.mode fk --planner.candidates 8

    Without --seeds, episodes come from a fixed list that no training run plays. An evaluation that was cut goes on
    where it stopped.
    """

    policy: CliPositionalArg[str]
    """A run folder, random, or a Stable-Baselines3 model (.zip)."""
    tasks: str = ""
    """Task ids, separated by commas; empty = the task of the run."""
    episodes: Annotated[int, Field(gt=0)] = 200
    """Episodes of each task; with --seeds: at most so many of the file's."""
    seeds: Path | None = None
    """A file with lines of core,disp,lgen to play instead of the fixed list."""
    checkpoint: Annotated[int, Field(ge=0)] | None = None
    """Step of the checkpoint; none = the newest valid one."""
    deterministic: bool = False
    """Take the likeliest action instead of sampling."""
    noise_seed: Annotated[int, Field(ge=0)] = 0
    """Another one samples other actions in the same games."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that play side by side; 0 plays in this one."""
    games_per_worker: Annotated[int, Field(gt=0)] = 16
    """Games that each process steps side by side."""
    record: bool = False
    """Also keep what each episode showed, step by step, beside its JSON file (.npz)."""
    planner: PlannerConfig = PlannerConfig()
    """How an offline run plans."""
    out: JsonOut = None
    """A file that keeps the figures and every episode."""


def run(flags: EvaluateFlags) -> int:
    """Evaluate, print the figures of each task; ``--json`` also writes them and every episode."""
    source = _source(flags.policy, flags)
    seeds = _seeds(flags)
    tasks = [task.strip() for task in flags.tasks.split(",") if task.strip()] or list(source.games.task_ids)
    _check(tasks)
    path = result_path(flags.out)
    answers = [_evaluate(source, task, seeds, flags) for task in tasks]
    if path is not None:
        command = ["yendor", *sys.argv[1:]]
        write_atomic(path, json.dumps({"command": command, "evaluations": answers}, indent=1))
    return 0


def _source(policy: str, flags: EvaluateFlags) -> PolicySource:
    from launch.evaluation.policies import RandomSource, RunSource, Sb3Source
    from launch.offline.planning import PlannerSource
    from launch.runs.folder import read_config

    if policy not in ("random",) and not policy.endswith(".zip") and "kind" in read_config(Path(policy)):
        return PlannerSource.of(Path(policy), flags.checkpoint, flags.planner, keeps_plans=flags.record)
    if flags.planner != PlannerConfig():
        raise UserError(f"--planner.*: {policy} does not plan; allowed for runs of 'yendor offline train' alone")
    if policy == "random":
        if not flags.tasks:
            raise UserError("yendor eval random needs --tasks: the random policy has no task of its own")
        return RandomSource()
    if policy.endswith(".zip"):
        return Sb3Source.of(Path(policy))
    return RunSource.of(Path(policy), flags.checkpoint)


def _seeds(flags: EvaluateFlags) -> list[EpisodeSeeds]:
    from envs.seeding import evaluation_seeds, read_seeds

    if flags.seeds is None:
        return evaluation_seeds(flags.episodes)
    try:
        listed = read_seeds(flags.seeds)
    except OSError as error:
        raise UserError(f"--seeds: cannot read {flags.seeds}: {reason_of(error)}") from None
    except ValueError as error:
        raise UserError(f"--seeds: {error}") from None
    return listed[: flags.episodes] if "episodes" in flags.model_fields_set else listed


def _check(tasks: Sequence[str]) -> None:
    from envs.tasks import task as spec_of

    for task in tasks:
        try:
            spec_of(task)
        except ValueError as error:
            raise UserError(f"--tasks: {error}") from None


def _evaluate(source: PolicySource, task: str, seeds: Sequence[EpisodeSeeds], flags: EvaluateFlags) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import Progress

    from launch.evaluation.evaluation import Evaluation, description, run_evaluation

    evaluation = Evaluation(
        source=source,
        task=task,
        seeds=seeds,
        deterministic=flags.deterministic,
        noise_seed=flags.noise_seed,
        num_workers=flags.workers,
        games_per_worker=flags.games_per_worker,
        record=flags.record,
    )
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task(task, total=len(seeds))
        row, results = run_evaluation(evaluation, lambda done, total: bar.update(shown, completed=done, total=total))
    _print(row, source, console)
    if flags.record:
        console.print(f"records are in {evaluation.episodes_folder}", highlight=False, soft_wrap=True)
    return description(evaluation) | {"summary": row, "episodes": [asdict(result) for result in results]}


def _print(row: Mapping[str, Any], source: PolicySource, console: Any) -> None:
    from rich.table import Table

    table = Table(title=f"{row['task']}  ({source.name}, {row['episodes']} episodes)", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value in row.items():
        if name in ("task", "episodes") or name.endswith(("_low", "_high")) or value is None:
            continue
        if isinstance(value, Mapping):
            table.add_row(name, "\n".join(f"{count}  {what}" for what, count in list(value.items())[:10]), "")
            continue
        interval = f"{row[name + '_low']:.3f} - {row[name + '_high']:.3f}" if f"{name}_low" in row else ""
        table.add_row(name, f"{value:.3f}", interval)
    console.print(table)
