"""The driver of a training run.

Split: workers play, this process scores and learns.

    RolloutWorker x N (Ray actors, or this process)          Labeller (async Ray actor, or a thread)  <-> annotator
      play T steps with policy v  --- Rollout --->  placement.collect()     ^ questions       | answers
                                                            |               |                 v
                                                    Teacher.update(new captions) of each reward that has one
                                                            | news: values of captions, weights, quarantines
                                      placement.learn(news) v
                                        mix.score(rollout) -> RewardOutput;  mix.evidence(...)
                                        learner.update(...) -> policy v+1  --> weights --> workers
                                                            | evidence: segments, counts of captions
                                                    Teacher.observe(evidence)

Symmetric: every worker is a peer that does all of it; only captions, news and reports pass through here.

    Peer x N (Ray actors)
      RolloutWorker and Learning, one network   <-- gradients, averaged over shared memory or gloo -->   peers
        collect()  -- new captions -->  driver  -- news -->  learn() -- UpdateReport --> driver

What waits for what: a learner waits for rollouts (never longer than the slowest worker), peers for each other's
gradients, split workers only to stay within ``rollout.max_policy_lag`` updates, and nothing waits for labels, unless
``labels.mode=barrier`` asks for a run that can be repeated bit for bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from envs.files import sweep
from envs.protocols import GamesSpec
from envs.seeding import TrainingSeeds
from envs.tasks import make
from envs.timing import PhaseTimer
from launch.config.resolve import for_machine
from launch.config.train_config import TrainConfig
from launch.errors import RunError, UserError
from launch.llm.supervisor import serving
from launch.llm.vllm import answering_model
from launch.processes.label_feed import RayFeed, ThreadFeed
from launch.processes.ledger import CaptionLedger
from launch.processes.lifecycle import StopRequest
from launch.processes.peers import SymmetricPlacement
from launch.processes.placement import Placement, SplitPlacement
from launch.processes.session import ray_session
from launch.processes.wiring import Given, build_labeller, build_learning, build_worker, given_to_rewards
from launch.processes.workers import LocalPool, RayPool, WorkerPool
from launch.runs import checkpoint as checkpoints
from launch.runs.folder import RunFolder
from launch.runs.glossary import glossary
from launch.runs.metrics import MetricsWriter
from launch.runs.progress import Progress
from launch.training.run import TrainingRun, TrainSummary
from rewards.kinds import RewardError
from rewards.labels.labeller import LabellerError
from rewards.labels.questions import PromptSpec
from rewards.labels.store import LabelStore, LabelStoreError
from rewards.teacher import LabelFeed, Teacher, TeachingContext


def train(
    config: TrainConfig, folder: RunFolder, progress: Progress, stop: StopRequest, *, resume: bool = False
) -> TrainSummary:
    """Train until ``config.total_steps`` or until asked to stop, then save.

    Args:
        config: the resolved configuration.
        folder: the run's folder, locked by this process.
        progress: shows metrics and events.
        stop: checked between updates.
        resume: go on from the newest valid checkpoint.

    Raises:
        CheckpointError: ``resume`` was asked for and no checkpoint is valid.
        RunError: rollout workers keep dying, labelling stopped, a reward cannot be computed, or a gradient is not
            finite; the newest checkpoint is the one before.
        UserError: the Ray cluster cannot be joined, or a reward's files in the run's folder are gone or were edited.
    """
    sweep(Path(tempfile.gettempdir()))  # what runs that were killed outright could not remove
    torch.set_num_threads(config.threads)
    config = for_machine(config)
    saved = checkpoints.load_latest(folder.path, _reporter(folder, progress)) if resume else None
    with ExitStack() as stack:
        config = stack.enter_context(_language_model(config, folder, progress))
        if config.rollout.num_workers > 0:
            stack.enter_context(ray_session(config.ray_address, config.rollout.num_workers + 1))
        given = given_to_rewards(config, folder.path)
        ledger, phases = CaptionLedger(), PhaseTimer()
        with _as_run_error():
            teachers = _teachers(config, folder, given, ledger, phases)
        for teacher in teachers.values():
            stack.callback(teacher.close)
        placement = _placement(config, folder, progress, given)
        stack.callback(placement.close)
        # Ray and the games put handlers of their own in place when they start; this run ends them itself.
        stop.install()
        writer = MetricsWriter(
            folder.path,
            tensorboard=config.logging.tensorboard,
            resume_step=saved.step if saved else None,
            glossary=glossary(config.reward),
        )
        stack.callback(writer.close)
        run = TrainingRun(config, folder, placement, teachers, writer, progress, ledger, phases)
        if saved is not None:
            run.restore(saved)
        with _as_run_error():
            return run.until(stop)


@contextmanager
def _language_model(config: TrainConfig, folder: RunFolder, progress: Progress) -> Iterator[TrainConfig]:
    """The configuration with the address of its language model, which is served beside the run where it asks for that.

    Where the run serves the model, the server lives as long as the block; its log is ``logs/vllm.log`` in the run's
    folder.

    Raises:
        RunError: ``llm.required``, and the server does not come up.
        UserError: the server cannot be started.
    """
    if not config.asks_language_model or config.llm.serve is None:
        yield config
        return

    def on_event(name: str, /, **fields: Any) -> None:
        folder.event(name, **fields)
        progress.note(f"{name.replace('_', ' ')}: {', '.join(f'{k} {v}' for k, v in fields.items())}")

    server = config.llm_server.replace(served_model_name=config.llm.model, api_key_env=config.llm.api_key_env)
    with serving(config.llm.serve, server, folder.path / "logs", on_event, required=config.llm.required) as base_url:
        here = config.replace(llm=config.llm.replace(serve=None, base_url=base_url))
        if config.llm.required:  # it answers, but does it have a chat template, and bind its answers?
            answering_model(here.llm)
        yield here


@contextmanager
def _as_run_error() -> Iterator[None]:
    """What ends a run, in one sentence."""
    try:
        yield
    except (RewardError, FloatingPointError, LabellerError, LabelStoreError) as error:
        # What comes out of a Ray actor is both its cause and a whole traceback; the cause is enough.
        raise RunError(str(getattr(error, "cause", error))) from error


def _reporter(folder: RunFolder, progress: Progress) -> Any:
    def report(text: str) -> None:
        folder.event("checkpoint_damaged", text=text)
        progress.note(text)

    return report


def _teachers(
    config: TrainConfig, folder: RunFolder, given: Given, ledger: CaptionLedger, phases: PhaseTimer
) -> dict[str, Teacher]:
    """Of the rewards that have one, by kind.

    Raises:
        UserError: a reward cannot run here as configured, such as a program that cannot be isolated as asked.
    """

    def open_feed(about: str, spec: PromptSpec) -> LabelFeed:
        # What each is asked about has a budget of its own.
        return _feed(config, folder, spec, folder.run_id if about == "captions" else f"{folder.run_id}/{about}")

    found = {}
    for name, (kind, part) in config.reward.paid.items():
        context = TeachingContext(
            seed=config.seed,
            games=config.env,
            labels=config.labels,
            open_feed=open_feed,
            captions=ledger.texts,
            phases=phases,
            folder=folder.path,
            given=given.get(name),
        )
        try:
            teacher = kind.teacher(part, context)
        except ValueError as error:
            raise UserError(f"reward.{name}.{error}") from None
        if teacher is not None:
            found[name] = teacher
    return found


def _feed(config: TrainConfig, folder: RunFolder, spec: PromptSpec, run_id: str) -> LabelFeed:
    store_path = str((config.labels.path or folder.path / "labels.sqlite").absolute())
    LabelStore(store_path).close()  # where it cannot be used, that is said here rather than by an actor
    if config.rollout.num_workers > 0:
        return RayFeed(config, store_path, spec, run_id)
    return ThreadFeed(*build_labeller(config, store_path, spec, run_id))


def _placement(config: TrainConfig, folder: RunFolder, progress: Progress, given: Given) -> Placement:
    def on_death(worker: int, cause: str) -> None:
        folder.event("worker_died", worker=worker, cause=cause)
        progress.note(f"worker {worker} died and is replaced: {cause}")

    return build_placement(config, on_death, given)


def build_placement(config: TrainConfig, on_death: Callable[[int, str], None], given: Given | None = None) -> Placement:
    """Starts what plays and learns, as ``config.placement`` says (``auto`` is resolved before).

    Args:
        config: the run's.
        on_death: called with a worker's stream and what it died of.
        given: what the rewards found in the run's folder; None = nothing.

    Raises:
        RunError: a process cannot start.
    """
    if config.placement == "symmetric":
        return SymmetricPlacement(config, on_death, given)
    num_streams = len(config.reward.streams)
    if config.rollout.num_workers == 0:
        worker = build_worker(config, 0, num_streams)
        pool: WorkerPool = LocalPool(worker)
        spec = worker.games.spec
    else:
        # The learner needs the shapes before the first rollout: one game tells them.
        pool, spec = RayPool(config, num_streams, on_death), games_spec(config)
    return SplitPlacement(pool, build_learning(config, spec, given=given))


def games_spec(config: TrainConfig) -> GamesSpec:
    """Observations and actions of the run's games, from one game for each task, closed again.

    The columns that rewards read are left out: they change neither, and a machine that only evaluates a policy may lack
    the modules of its rewards.
    """
    num_games = len(config.env.task_ids)
    games = make(config.env, num_games, TrainingSeeds(0, 0, num_games))
    try:
        return games.spec
    finally:
        games.close()
