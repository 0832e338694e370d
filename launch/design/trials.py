"""Short training runs that show what a program is worth: which are needed, how they are configured, and how they run.

Trials run side by side on Ray; each goes on where it was cut.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from envs.data import Config
from envs.recording import EpisodeRecord
from envs.seeding import evaluation_seeds
from launch.config.flags import validate
from launch.config.resolve import prepared
from launch.config.train_config import TrainConfig
from launch.design.config import DesignConfig
from launch.errors import RunError, UserError
from launch.evaluation.evaluation import Evaluation, run_evaluation
from launch.evaluation.policies import RandomSource, RunSource
from launch.processes.lifecycle import StopRequest
from launch.runs.checkpoint import steps_of
from launch.runs.folder import RunFolder, read_config, read_events
from launch.runs.progress import Silent
from rewards.auto.config import CompositionConfig
from rewards.auto.episodes import pay_of, values_of
from rewards.auto.program import NUMBER_COMPONENT, SHORT_SHA, Program
from rewards.auto.program_teacher import QUARANTINED
from rewards.auto.sandbox.contained import Runner
from rewards.auto.sandbox.engine import EngineError
from rewards.config import RewardConfig

SELECTION, REPORT = 1, 0
"""Lists of evaluation episodes: what programs are chosen by (seeds A), and what is reported of the chosen one (seeds
B, which is also the list of ``yendor eval``)."""

Role = Literal["trial", "chosen", "sparse"]
"""What a run is for: to choose by, or to report the chosen program, or to report training without one."""

_LOCK_WAIT_S = 60.0
"""How long a run is waited for that a process of an earlier session still holds."""
_LOCK_LOOKED_AT_S = 1.0


class TrialInterruptedError(RunError):
    """A run was stopped, or another process is in it; that says nothing about it, and it can go on."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run, and what its policy plays at the end."""

    key: str
    """What it is called in the journal."""
    role: Role
    seed: int
    config_json: str
    """``TrainConfig``, programs settled, paths absolute: it is read on other machines."""
    episodes: int
    episode_list: int
    """``SELECTION`` or ``REPORT``."""
    recorded: int
    """Episodes of these that are recorded."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a run."""

    key: str
    role: Role
    seed: int
    figures: Mapping[str, Any]
    """As ``launch.evaluation.evaluation.summarise``."""
    steps: int
    """Environment steps of training."""
    evaluation_steps: int
    """Environment steps of the episodes that its policy played at the end."""
    train_s: float
    records: tuple[str, ...]
    """Files of recorded episodes."""
    quarantined: tuple[str, ...]
    """Why programs were taken out of use, in order; empty for a sound one."""

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A run without a result, which says nothing about its program."""

    trial: Trial
    cause: str
    interrupted: bool
    """It was only stopped."""


def outcome_of(stored: Mapping[str, Any]) -> Outcome:
    """What ``Outcome.as_json`` wrote."""
    lists = {name: tuple(stored[name]) for name in ("records", "quarantined")}
    return Outcome(**{**stored, **lists})


# ---- one


def run_trial(trial: Trial) -> Outcome:
    """Train, from the start or from the newest checkpoint, then evaluate.

    Raises:
        TrialInterruptedError: the run was stopped by a signal, or another process is in its folder.
    """
    import torch

    torch.set_num_threads(1)
    config = TrainConfig.model_validate_json(trial.config_json)
    assert config.name is not None, "trials are named"
    path = config.runs / config.name
    summary = _train(config, path, trial)
    row, records, evaluation_steps = _evaluate(path, trial)
    why = [f"{event['sha'][:12]}: {event['why']}" for event in read_events(path) if event["kind"] == QUARANTINED]
    return Outcome(
        key=trial.key,
        role=trial.role,
        seed=trial.seed,
        figures=row,
        steps=summary["steps"],
        evaluation_steps=evaluation_steps,
        train_s=summary["elapsed_s"],
        records=tuple(map(str, records)),
        quarantined=tuple(dict.fromkeys(why)),
    )


def _train(config: TrainConfig, path: Path, trial: Trial) -> Mapping[str, Any]:
    """The run's summary, which is the last that a run writes: without it, the run goes on, if only to write it."""
    from launch.training.run import SUMMARY_FILE

    file = path / SUMMARY_FILE
    if not file.exists() or json.loads(file.read_text())["steps"] < config.total_steps:
        saved = steps_of(path)
        if not saved and path.exists():  # cut before its first checkpoint: nothing to go on from
            opened(path).close()
            shutil.rmtree(path)
        folder = opened(path) if saved else RunFolder.create(config.runs, config.name, config.model_dump_json())
        with folder:
            _go_on(config, folder, resume=bool(saved))
    return json.loads(file.read_text())


def _go_on(config: TrainConfig, folder: RunFolder, *, resume: bool) -> None:
    from launch.training.driver import train

    if not resume:
        for keep in prepared(config)[1]:
            keep(folder.path)
    with StopRequest() as stop, Silent() as silent:
        summary = train(config, folder, silent, stop, resume=resume)
    if summary.stopped_by:
        raise TrialInterruptedError(f"it was stopped by {summary.stopped_by}")


def opened(path: Path, wait_s: float = _LOCK_WAIT_S) -> RunFolder:
    """A run's folder; a process of an earlier session that is still in it is given time to end.

    Raises:
        TrialInterruptedError: it does not end.
        UserError: the folder is not a run's.
    """
    read_config(path)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return RunFolder.open(path)
        except UserError as error:  # it is a run's, so it is in use
            if time.monotonic() >= deadline:
                raise TrialInterruptedError(str(error)) from None
            time.sleep(min(_LOCK_LOOKED_AT_S, wait_s))


def _evaluate(path: Path, trial: Trial) -> tuple[Mapping[str, Any], list[Path], int]:
    """Its row of figures, files of recorded episodes, and steps of all episodes."""
    source = RunSource.of(path)
    seeds = evaluation_seeds(trial.episodes, trial.episode_list)
    task = source.games.task_ids[0]
    records: list[Path] = []
    if trial.recorded:
        recorded = Evaluation(source=source, task=task, seeds=seeds[: trial.recorded], num_workers=0, record=True)
        run_evaluation(recorded)
        records = [recorded.record_file(one) for one in recorded.seeds]
    row, results = run_evaluation(Evaluation(source=source, task=task, seeds=seeds, num_workers=0))
    return row, records, sum(result.num_steps for result in results)


def record_random_play(task_config: TrainConfig, folder: Path, episodes: int) -> tuple[list[Path], int]:
    """Episodes of a policy that chooses at random: the play in the first round's brief.

    Returns:
        Their files, and their steps.
    """
    source = RandomSource(folder, task_config.env)
    seeds = evaluation_seeds(episodes, SELECTION)
    task = task_config.env.task_ids[0]
    evaluation = Evaluation(source=source, task=task, seeds=seeds, num_workers=0, record=True)
    _, results = run_evaluation(evaluation)
    return [evaluation.record_file(one) for one in seeds], sum(result.num_steps for result in results)


# ---- many

Attempt = Callable[[Sequence[Trial], int], Iterator[Outcome | Broken]]
"""Runs trials, so many side by side, each once."""


def run_trials(trials: Sequence[Trial], parallel: int, attempt: Attempt | None = None) -> Iterator[Outcome | Broken]:
    """Outcomes as they come; those that break are tried a second time, after the others.

    Args:
        trials: what is run.
        parallel: how many side by side.
        attempt: None = on Ray, which must be up.
    """
    attempt = attempt or _on_ray
    broken: list[Trial] = []
    for ended in attempt(trials, parallel):
        if isinstance(ended, Broken):
            broken.append(ended.trial)
        else:
            yield ended
    if broken:
        yield from attempt(broken, parallel)


def _on_ray(trials: Sequence[Trial], parallel: int) -> Iterator[Outcome | Broken]:
    import ray
    from ray.exceptions import RayError

    work = ray.remote(num_cpus=1, max_retries=0)(run_trial)
    waiting, running = list(trials), {}
    while waiting or running:
        while waiting and len(running) < parallel:
            trial = waiting.pop(0)
            running[work.remote(trial)] = trial
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        trial = running.pop(ready)
        try:
            ended = ray.get(ready)
        except RayError as error:
            ended = broken_by(trial, error)
        yield ended


def broken_by(trial: Trial, error: BaseException) -> Broken:
    """A run whose process died, or raised: what Ray raises then may hold the cause."""
    cause = getattr(error, "cause", None) or error
    text = f"{type(cause).__name__}: {cause}".splitlines()[0].strip()
    return Broken(trial=trial, cause=text, interrupted=isinstance(cause, TrialInterruptedError))


# ---- plans

ConfigT = TypeVar("ConfigT", bound=Config)

_SAVED_EVERY_S = 60.0
"""Trials are short: what a kill costs must be, too."""
_LOGGED_EVERY_S = 0.01
"""Every update, whatever the clock says: what is analysed is the same each time."""
_ANY_PROGRAM = "0" * 64


@dataclass(frozen=True)
class Plans:
    """Plans runs.

    Args:
        config: the search's.
        train: the preset's configuration, with flags of the user's.
        folder: the search's, absolute.
    """

    config: DesignConfig
    train: TrainConfig
    folder: Path

    def check(self) -> None:
        """Refuse, before anything is written, what no run could begin with.

        Raises:
            UserError: one sentence that names the field.
        """
        self._settings(self._reward(_ANY_PROGRAM), "trial", self.config.seed, self.config.trial_steps)
        if self.config.report.seeds and self.config.report.sparse:
            self._settings(self._reward(None), "sparse", self.config.report.seeds[0], self.config.report.steps)

    def folder_of(self, sha: str) -> Path:
        """Of the run that a program is chosen by."""
        return self.folder / "runs" / sha[:SHORT_SHA]

    def trial(self, sha: str) -> Trial:
        """The run that a program is chosen by.

        Raises:
            UserError: the program cannot be used.
        """
        config = self.config
        return self._planned(
            sha,
            sha[:SHORT_SHA],
            config.trial_steps,
            key=sha,
            role="trial",
            seed=config.seed,
            episodes=config.trial_episodes,
            episode_list=SELECTION,
            recorded=config.recorded_episodes,
        )

    def report(self, sha: str | None, seed: int) -> Trial:
        """A run that is reported: of a program, or of none.

        Raises:
            UserError: the program cannot be used.
        """
        role = "sparse" if sha is None else "chosen"
        name, report = f"{role}-seed{seed}", self.config.report
        return self._planned(
            sha,
            name,
            report.steps,
            key=name,
            role=role,
            seed=seed,
            episodes=report.episodes,
            episode_list=REPORT,
            recorded=0,
        )

    def _planned(self, sha: str | None, name: str, steps: int, *, seed: int, **what: Any) -> Trial:
        train, _ = prepared(self._settings(self._reward(sha), name, seed, steps))
        return Trial(config_json=train.model_dump_json(), seed=seed, **what)

    def _reward(self, sha: str | None) -> RewardConfig:
        return self.train.reward.replace(program=self.config.reward.replace(code=sha))

    def _settings(self, reward: RewardConfig, name: str, seed: int, steps: int) -> TrainConfig:
        train = self.train
        changes = {
            "reward": reward,
            "rollout": train.rollout.replace(num_workers=0, games_per_worker=16, max_policy_lag=0),
            "logging": train.logging.replace(tensorboard=False, interval_s=_LOGGED_EVERY_S),
            "checkpoint": train.checkpoint.replace(interval_s=_SAVED_EVERY_S, interval_updates=None),
            "placement": "auto",
            "seed": seed,
            "total_steps": steps,
            "runs": self.folder / "runs",
            "name": name,
            "threads": 1,
        }
        return validate(TrainConfig, {**dict(train), **changes})


def with_absolute_paths(config: ConfigT) -> ConfigT:
    """The same from wherever it is read: workers of a cluster have another working directory."""

    def absolute(value: Any) -> Any:
        if isinstance(value, Config):
            return with_absolute_paths(value)
        return value.absolute() if isinstance(value, Path) else value

    return config.replace(**{name: absolute(value) for name, value in config})


# ---- screening: a program that pays what another one pays already need not be trained with


class Screening:
    """Compares what programs pay on recorded episodes; each pair of these is worked out once.

    Args:
        make: runs a program in containment.
        composition: how components are composed.
        gamma: the stream's discount.
    """

    def __init__(self, make: Callable[[Program], Runner], composition: CompositionConfig, gamma: float) -> None:
        self._make, self._composition, self._gamma = make, composition, gamma
        self._paid: dict[str, dict[Path, bytes]] = {}
        self._fired: dict[str, set[str]] = {}
        self._unanswered: set[str] = set()

    def same_as(self, program: Program, others: Sequence[Program], files: Sequence[Path]) -> str | None:
        """The first of the others that is paid the same at every step, bit for bit; None where there is none.

        Args:
            program: it is compared.
            others: with these.
            files: of recorded episodes.

        Raises:
            OSError, ValueError: an episode cannot be read.
        """
        for other in others:
            if self._is_known(program, files) and self._is_known(other, files):
                paid, its = self._paid[program.sha], self._paid[other.sha]
                if all(paid[file] == its[file] for file in files):
                    return other.sha
        return None

    def _is_known(self, program: Program, files: Sequence[Path]) -> bool:
        """What it pays is known, as far as recorded play can tell."""
        paid = self._paid.setdefault(program.sha, {})
        new = [file for file in files if file not in paid]
        if new and program.sha not in self._unanswered:
            self._work_out(program, new)
        names = program.components or (NUMBER_COMPONENT,)
        return program.sha not in self._unanswered and self._fired[program.sha].issuperset(names)

    def _work_out(self, program: Program, files: Sequence[Path]) -> None:
        episodes = [EpisodeRecord.load(file) for file in files]
        runner = self._make(program)
        try:
            values = values_of(runner, program, episodes)
        except EngineError:  # whatever it pays, nothing can be said of it
            self._unanswered.add(program.sha)
            return
        finally:
            runner.close()
        pays = pay_of(values, program, episodes, self._composition, self._gamma)
        fired = {name for name, value in values.components.items() if value.any()}
        digests = [hashlib.sha256(pay.reward.tobytes() + pay.valid.tobytes()).digest() for pay in pays]
        self._paid[program.sha] |= dict(zip(files, digests, strict=True))
        self._fired.setdefault(program.sha, set()).update(fired)
