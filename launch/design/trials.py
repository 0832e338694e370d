"""Short training runs that tell what a program is worth, side by side on Ray; each goes on where it was cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.config import TrainConfig
from launch.errors import RunError
from launch.run_folder import read_events

SELECTION, REPORT = 1, 0
"""Lists of evaluation episodes: what programs are chosen by (seeds A), and what is reported of the chosen one (seeds
B, which is also the list of ``yendor eval``)."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run, and what its policy plays at the end."""

    name: str
    config_json: str
    """``TrainConfig``, programs settled."""
    programs: tuple[str, ...]
    """SHAs: what is copied into the run's folder."""
    archive: str
    """The folder that they are copied from."""
    episodes: int
    episode_list: int
    """``SELECTION`` or ``REPORT``."""
    recorded: int
    """Episodes of these that are recorded."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial came to."""

    name: str
    figures: Mapping[str, Any]
    """As ``launch.evaluation.summarise``."""
    steps: int
    train_s: float
    records: tuple[str, ...]
    """Files of recorded episodes."""
    quarantined: tuple[str, ...]
    """Why programs were taken out of use, in order; empty for a sound one."""

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        return dict(self.__dict__)


def outcome_of(stored: Mapping[str, Any]) -> Outcome:
    """What ``Outcome.as_json`` wrote."""
    lists = {name: tuple(stored[name]) for name in ("records", "quarantined")}
    return Outcome(**{**stored, **lists})


def run_trial(trial: Trial) -> Outcome:
    """Train, from the start or from the newest checkpoint, then evaluate.

    Raises:
        RunError: the run was stopped by a signal.
    """
    import torch

    torch.set_num_threads(1)
    config = TrainConfig.model_validate_json(trial.config_json)
    assert config.name is not None, "trials are named"
    path = config.runs / config.name
    summary = _train(config, path, trial)
    row, records = _evaluate(path, trial)
    why = [f"{e['sha'][:12]}: {e['why']}" for e in read_events(path) if e["kind"] == "program_quarantined"]
    return Outcome(
        name=trial.name,
        figures=row,
        steps=summary["steps"],
        train_s=summary["elapsed_s"],
        records=tuple(map(str, records)),
        quarantined=tuple(why),
    )


def _train(config: TrainConfig, path: Path, trial: Trial) -> Mapping[str, Any]:
    import json
    import shutil

    from launch.checkpoint import steps_of
    from launch.programs import keep
    from launch.progress import Silent
    from launch.run_folder import RunFolder
    from launch.stopping import StopRequest
    from launch.train import train
    from launch.training_run import SUMMARY_FILE
    from rewards.auto.archive import Archive

    saved = steps_of(path)
    if not saved and path.exists():  # cut before its first checkpoint: nothing to go on from
        shutil.rmtree(path)
    if not saved or saved[0] < config.total_steps:
        if saved:
            folder = RunFolder.open(path)
        else:
            folder = RunFolder.create(config.runs, config.name, config.model_dump_json())
            keep([Archive(Path(trial.archive)).get(sha) for sha in trial.programs], path)
        with folder, StopRequest() as stop, Silent() as silent:
            summary = train(config, folder, silent, stop, resume=bool(saved))
        if summary.stopped_by:
            raise RunError(f"trial {trial.name} was stopped by {summary.stopped_by}")
    return json.loads((path / SUMMARY_FILE).read_text())


def _evaluate(path: Path, trial: Trial) -> tuple[Mapping[str, Any], list[Path]]:
    from envs.seeding import evaluation_seeds
    from launch.evaluation import Evaluation, run_evaluation
    from launch.policies import RunSource

    source = RunSource.of(path)
    seeds = evaluation_seeds(trial.episodes, trial.episode_list)
    task = source.games.task_ids[0]
    records: list[Path] = []
    if trial.recorded:
        recorded = Evaluation(source=source, task=task, seeds=seeds[: trial.recorded], num_workers=0, record=True)
        run_evaluation(recorded)
        records = [recorded.record_file(one) for one in recorded.seeds]
    row, _ = run_evaluation(Evaluation(source=source, task=task, seeds=seeds, num_workers=0))
    return row, records


def record_random_play(task_config: TrainConfig, folder: Path, episodes: int) -> list[Path]:
    """Episodes of a policy that chooses at random: what the first round is told of the task."""
    from envs.seeding import evaluation_seeds
    from launch.evaluation import Evaluation, run_evaluation
    from launch.policies import RandomSource

    source = RandomSource(folder, task_config.env)
    seeds = evaluation_seeds(episodes, SELECTION)
    task = task_config.env.task_ids[0]
    evaluation = Evaluation(source=source, task=task, seeds=seeds, num_workers=0, record=True)
    run_evaluation(evaluation)
    return [evaluation.record_file(one) for one in seeds]


def run_trials(trials: Sequence[Trial], parallel: int) -> Iterator[Outcome | tuple[str, str]]:
    """Outcomes as they come; (name, cause) for a trial whose process died or raised. Ray must be up."""
    import ray
    from ray.exceptions import RayError

    work = ray.remote(num_cpus=1, max_retries=0)(run_trial)
    waiting, running = list(trials), {}
    while waiting or running:
        while waiting and len(running) < parallel:
            trial = waiting.pop(0)
            running[work.remote(trial)] = trial.name
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        name = running.pop(ready)
        try:
            yield ray.get(ready)
        except RayError as error:
            yield name, str(getattr(error, "cause", error)).strip().splitlines()[-1]
