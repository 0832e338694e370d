"""The driver of a training run.

Split: workers play, this process scores and learns.

    RolloutWorker x N (Ray actors, or this process)          Labeller (async Ray actor, or a thread)  <-> annotator
      play T steps with policy v  --- Rollout --->  placement.collect()     ^ questions       | answers
                                                            |               |                 v
                                                    CaptionModel.questions()        feed.poll() / drain()
                                                                                              |
                                                    CaptionModel.learn(answers) <-------------+
                                                            | values of captions
                                    placement.learn(values) v
                                      mix.score(rollout) -> RewardOutput
                                      learner.update(...) -> policy v+1  --> weights --> workers

Symmetric: every worker is a peer that does all of it; only captions, their values and reports pass through here.

    Peer x N (Ray actors)
      RolloutWorker and Learning, one network   <-- gradients, averaged over shared memory or gloo -->   peers
        collect()  -- new captions -->  driver  -- values -->  learn() -- UpdateReport --> driver

What waits for what: a learner waits for rollouts (never longer than the slowest worker), peers for each other's
gradients, split workers for nobody up to ``rollout.max_policy_lag`` updates ahead, and nobody for labels, unless
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
from envs.tasks import make
from launch.config.resolve import for_machine
from launch.config.train import TrainConfig
from launch.errors import RunError
from launch.llm.supervisor import language_model
from launch.processes.label_feed import LabelFeed, RayFeed, ThreadFeed
from launch.processes.lifecycle import StopRequest
from launch.processes.peers import SymmetricPlacement
from launch.processes.placement import Placement, SplitPlacement
from launch.processes.session import ray_session
from launch.processes.workers import LocalPool, RayPool, WorkerPool
from launch.runs import checkpoint as checkpoints
from launch.runs.folder import RunFolder
from launch.runs.metrics import MetricsWriter
from launch.runs.progress import Progress
from launch.training.programs import RunAudit, RunPrograms, check_isolation, programs_of
from launch.training.run import TrainingRun, TrainSummary
from launch.training.wiring import build_labeller, build_learning, build_worker
from rewards.heron.factors import FactorError
from rewards.labels.labeller import LabellerError
from rewards.labels.questions import PromptSpec
from rewards.labels.store import LabelStore, LabelStoreError


def train(
    config: TrainConfig, folder: RunFolder, progress: Progress, stop: StopRequest, *, resume: bool = False
) -> TrainSummary:
    """Train until ``config.total_steps`` or until asked to stop, then save.

    Args:
        config: the resolved configuration.
        folder: the run's folder, locked by this process.
        progress: told of metrics and events.
        stop: checked between updates.
        resume: go on from the newest valid checkpoint.

    Raises:
        CheckpointError: ``resume`` was asked for and no checkpoint is valid.
        RunError: rollout workers keep dying, labelling stopped, a factor cannot be computed, or a gradient is not
            finite; the newest checkpoint is the one before.
        UserError: the Ray cluster cannot be joined.
    """
    sweep(Path(tempfile.gettempdir()))  # what runs that were killed outright could not remove
    torch.set_num_threads(config.threads)
    config = for_machine(config)
    saved = checkpoints.load_latest(folder.path, _reporter(folder, progress)) if resume else None
    with ExitStack() as stack:
        config = stack.enter_context(language_model(config, folder, progress))
        if config.rollout.num_workers > 0:
            stack.enter_context(ray_session(config.ray_address, config.rollout.num_workers + 1))
        with _as_run_error():
            feed = stack.enter_context(_feed(config, folder, folder.run_id)) if config.labels_captions else None
            of_play = f"{folder.run_id}/play", config.labels.play_spec()  # its budget is its own
            play_feed = stack.enter_context(_feed(config, folder, *of_play)) if config.labels_play else None
        programs = programs_of(config, folder.path)
        _tell_isolation(config, folder, programs, progress)
        placement = _placement(config, folder, progress, programs)
        stack.callback(placement.close)
        # Ray and the games put handlers of their own in place when they start; this run ends them itself.
        stop.install()
        writer = MetricsWriter(
            folder.path, tensorboard=config.logging.tensorboard, resume_step=saved.step if saved else None
        )
        stack.callback(writer.close)
        run = TrainingRun(config, folder, placement, feed, writer, progress, play_feed, programs.logged)
        if saved is not None:
            run.restore(saved)
        with _as_run_error():
            return run.until(stop)


@contextmanager
def _as_run_error() -> Iterator[None]:
    """What ends a run, in one sentence."""
    try:
        yield
    except (FactorError, FloatingPointError, LabellerError, LabelStoreError) as error:
        # What comes out of a Ray actor is both its cause and a whole traceback; the cause is enough.
        raise RunError(str(getattr(error, "cause", error))) from error


def _reporter(folder: RunFolder, progress: Progress) -> Any:
    def report(text: str) -> None:
        folder.event("checkpoint_damaged", text=text)
        progress.note(text)

    return report


@contextmanager
def _feed(config: TrainConfig, folder: RunFolder, run_id: str, spec: PromptSpec | None = None) -> Iterator[LabelFeed]:
    store_path = str((config.labels.path or folder.path / "labels.sqlite").absolute())
    LabelStore(store_path).close()  # where it cannot be used, that is said here rather than by an actor
    if config.rollout.num_workers > 0:
        feed: LabelFeed = RayFeed(config, store_path, run_id, spec)
    else:
        feed = ThreadFeed(*build_labeller(config, store_path, run_id, spec))
    try:
        yield feed
    finally:
        feed.close()


def _tell_isolation(config: TrainConfig, folder: RunFolder, programs: RunPrograms, progress: Progress) -> None:
    line = check_isolation(config)
    if line is None:
        return
    folder.event("programs", programs=[program.sha for program in programs.chain], isolation=line)
    RunAudit(folder.path, folder.run_id, progress.note).begin(programs, line)
    progress.note(line)


def _placement(config: TrainConfig, folder: RunFolder, progress: Progress, programs: RunPrograms) -> Placement:
    def on_death(worker: int, cause: str) -> None:
        folder.event("worker_died", worker=worker, cause=cause)
        progress.note(f"worker {worker} died and is replaced: {cause}")

    return build_placement(config, on_death, programs)


def build_placement(
    config: TrainConfig, on_death: Callable[[int, str], None], programs: RunPrograms | None = None
) -> Placement:
    """Starts what plays and learns, as ``config.placement`` says (``auto`` is resolved before).

    Args:
        config: the run's.
        on_death: told of workers that died.
        programs: the run's reward programs; None where it has none.

    Raises:
        RunError: a process cannot start.
    """
    if config.placement == "symmetric":
        return SymmetricPlacement(config, on_death, programs)
    num_streams = len(config.reward.streams)
    if config.rollout.num_workers == 0:
        worker = build_worker(config, 0, num_streams)
        pool: WorkerPool = LocalPool(worker)
        spec = worker.games.spec
    else:
        # The learner needs the shapes before the first rollout: one game tells them.
        pool, spec = RayPool(config, num_streams, on_death), games_spec(config)
    return SplitPlacement(pool, build_learning(config, spec, programs=programs))


def games_spec(config: TrainConfig) -> GamesSpec:
    """Observations and actions of the run's games, from one game for each task, closed again.

    What rewards read is left out: it changes neither, and whoever evaluates a policy may lack its factors' modules.
    """
    from envs.seeding import TrainingSeeds

    num_games = len(config.env.task_ids)
    games = make(config.env, num_games, TrainingSeeds(0, 0, num_games))
    try:
        return games.spec
    finally:
        games.close()
