"""Evaluation of policies: listed episodes, in parallel, one JSON file an episode, resumable.

    <eval folder>/<task>/<policy>-<sampled|greedy>/<core>-<disp>-<lgen>.json     one episode
    <eval folder>/<task>/<policy>-<sampled|greedy>/<core>-<disp>-<lgen>.npz      its record, where asked for
    <eval folder>/<policy>-<sampled|greedy>.json                                 a row of figures for each task

An episode whose files exist is not played again: an evaluation that was cut goes on where it stopped.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from envs.data import EndStatus, EpisodeResult, EpisodeSeeds
from envs.files import write_atomic
from envs.protocols import Games, SeedSource
from envs.spec import GamesConfig
from envs.statistics import bootstrap_interval, interquartile_mean, wilson_interval
from launch.evaluation.policies import PolicySource
from launch.runs.folder import installed_versions
from launch.runs.metrics import SINGLE_LEVELS


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is to be played."""

    source: PolicySource
    task: str
    seeds: Sequence[EpisodeSeeds]
    deterministic: bool = False
    noise_seed: int = 0
    num_workers: int = 2
    """Ray tasks that play side by side; 0 plays in this process."""
    games_per_worker: int = 16
    record: bool = False
    """Also keep each episode's record (``envs.recording``)."""

    @property
    def games(self) -> GamesConfig:
        """The games as the policy knows them, with this evaluation's task."""
        return self.source.games.replace(task=self.task)

    @property
    def label(self) -> str:
        """Policy and mode."""
        mode = "greedy" if self.deterministic else "sampled"
        return f"{self.source.name}-{mode}" + (f"-noise{self.noise_seed}" if self.noise_seed else "")

    @property
    def episodes_folder(self) -> Path:
        """Where the episodes' files are."""
        return self.source.folder / self.task / self.label

    @property
    def summary_file(self) -> Path:
        """Where the row of each evaluated task is kept."""
        return self.source.folder / f"{self.label}.json"

    def episode_file(self, seeds: EpisodeSeeds) -> Path:
        """The file of one episode."""
        return self.episodes_folder / f"{seeds.core}-{seeds.disp}-{seeds.lgen}.json"

    def record_file(self, seeds: EpisodeSeeds) -> Path:
        """The record of one episode."""
        return self.episode_file(seeds).with_suffix(".npz")

    def is_played(self, seeds: EpisodeSeeds) -> bool:
        """Whether every file of an episode is there."""
        return self.episode_file(seeds).exists() and (not self.record or self.record_file(seeds).exists())


def run_evaluation(
    evaluation: Evaluation, on_episode: Callable[[int, int], None] = lambda done, total: None
) -> tuple[dict[str, Any], list[EpisodeResult]]:
    """Play what is missing, then summarise everything.

    Args:
        evaluation: what is to be played.
        on_episode: called after each episode with how many of how many are done.

    Returns:
        The task's row of figures (``summarise``) and every episode's result. The row is also kept in
        ``summary_file``, beside those of other tasks.
    """
    evaluation.episodes_folder.mkdir(parents=True, exist_ok=True)
    listed = dict.fromkeys(evaluation.seeds)
    missing = [seeds for seeds in listed if not evaluation.is_played(seeds)]
    done, total = len(listed) - len(missing), len(listed)
    for result in _play(evaluation, missing):
        assert result.seeds is not None
        write_atomic(evaluation.episode_file(result.seeds), json.dumps(asdict(result)))
        done += 1
        on_episode(done, total)
    results = [_read_result(evaluation.episode_file(seeds)) for seeds in listed]
    row = {"task": evaluation.task, **summarise(results)}
    _keep_row(evaluation, row)
    return row, results


def _keep_row(evaluation: Evaluation, row: Mapping[str, Any]) -> None:
    path = evaluation.summary_file
    others = json.loads(path.read_text())["tasks"] if path.exists() else []
    rows = [other for other in others if other["task"] != row["task"]] + [dict(row)]
    write_atomic(path, json.dumps(description(evaluation) | {"tasks": rows}, indent=1))


def description(evaluation: Evaluation) -> dict[str, Any]:
    """What a reader needs to repeat the figures, the seeds excepted."""
    return {
        "provenance": evaluation.source.provenance(),
        "checkpoint_step": evaluation.source.step,
        "sampled": not evaluation.deterministic,
        "noise_seed": evaluation.noise_seed,
        "versions": installed_versions(),
    }


def _read_result(path: Path) -> EpisodeResult:
    values = json.loads(path.read_text())
    return EpisodeResult(**values | {"seeds": EpisodeSeeds(*values["seeds"])})


def _play(evaluation: Evaluation, seeds: Sequence[EpisodeSeeds]) -> Iterator[EpisodeResult]:
    if not seeds:
        return
    num_workers = min(evaluation.num_workers, len(seeds))
    if num_workers == 0:
        yield from play_here(evaluation, seeds)
        return
    import ray

    from launch.processes.session import ray_session

    with ray_session(None, num_workers):
        # Ray has a handler of its own, which ends the process without cleaning up.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        play = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(play_here)
        running: list[Any] = [play.remote(evaluation, list(seeds[i::num_workers])) for i in range(num_workers)]
        while running:
            results: Any = ray.wait(running, num_returns=1)[0][0]
            try:
                result: Any = ray.get(next(results))
                yield result
            except StopIteration:
                running.remove(results)


def play_here(evaluation: Evaluation, seeds: Sequence[EpisodeSeeds]) -> Iterator[EpisodeResult]:
    """Play listed episodes in this process, on one thread: the last bits, and so actions, depend on how many."""
    import torch

    from agents.evaluate import evaluate
    from envs.seeding import ListedSeeds
    from envs.tasks import make

    torch.set_num_threads(1)
    probe = make(
        evaluation.games, len(evaluation.games.task_ids), ListedSeeds([seeds[0]] * len(evaluation.games.task_ids))
    )
    spec = probe.spec
    probe.close()
    yield from evaluate(
        evaluation.source.build(spec),
        partial(_recorded_games if evaluation.record else _plain_games, evaluation),
        seeds,
        num_games=evaluation.games_per_worker,
        noise_seed=evaluation.noise_seed,
        deterministic=evaluation.deterministic,
    )


def _plain_games(evaluation: Evaluation, num_games: int, source: SeedSource) -> Games:
    from envs.tasks import make

    return make(evaluation.games, num_games, source)


def _recorded_games(evaluation: Evaluation, num_games: int, source: SeedSource) -> Games:
    """Each record is written before its episode's result is known to anyone, so that none is missing after a cut."""
    from envs.recording import make_recorded

    return make_recorded(
        evaluation.games, num_games, source, lambda record: record.save(evaluation.record_file(record.seeds))
    )


def summarise(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Every figure that the results support; intervals are 95 %."""
    n = len(results)
    won = [r for r in results if r.success]
    returns = [r.env_return for r in results]
    success_low, success_high = wilson_interval(len(won), n)
    return_low, return_high = bootstrap_interval(returns)
    summary: dict[str, Any] = {
        "episodes": n,
        "success": len(won) / n,
        "success_low": success_low,
        "success_high": success_high,
        "death_rate": sum(r.end_status == EndStatus.DEATH for r in results) / n,
        "truncated_rate": sum(r.end_status == EndStatus.ABORTED for r in results) / n,
        "env_return": float(np.mean(returns)),
        "env_return_low": return_low,
        "env_return_high": return_high,
        "episode_steps": float(np.mean([r.num_steps for r in results])),
        "steps_to_success": float(np.median([r.num_steps for r in won])) if won else None,
    }
    if all("score" in r.game and not r.task.startswith(SINGLE_LEVELS) for r in results):
        ends = Counter(str(r.game.get("end_reason", "")) for r in results)
        summary |= {"end_reasons": dict(ends.most_common())} | _nethack_summary([r.game for r in results])
    return summary


def _nethack_summary(games: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores = [float(g["score"]) for g in games]
    depths, levels = [int(g["max_depth"]) for g in games], [int(g["max_xp_level"]) for g in games]
    score_low, score_high = bootstrap_interval(scores)
    progressions = [progression(depth, level) for depth, level in zip(depths, levels, strict=True)]
    low, high = bootstrap_interval(progressions)
    causes = Counter(str(g["death_message"]) for g in games if g.get("death_message"))
    return {
        "score": float(np.mean(scores)),
        "score_low": score_low,
        "score_high": score_high,
        "score_median": float(np.median(scores)),
        "score_iqm": interquartile_mean(scores),
        "score_max": max(scores),
        "max_depth": float(np.mean(depths)),
        "max_depth_max": max(depths),
        "max_xp_level": float(np.mean(levels)),
        "turns": float(np.mean([float(g["turns"]) for g in games])),
        "gold": float(np.mean([float(g["gold"]) for g in games])),
        "progression": float(np.mean(progressions)),
        "progression_low": low,
        "progression_high": high,
        "death_causes": dict(causes.most_common(10)),
    }


# BALROG's published achievement statistics (MIT licence), rounded to four digits.
# fmt: off
_BY_DEPTH = (
    .0126, .0154, .0175, .0212, .0265, .0354, .0485, .0696, .0977, .1256, .1613, .2061, .2566, .2925, .3088,
    .3249, .3401, .3526, .3655, .3790, .3929, .4083, .4258, .4452, .4664, .5068, .5544, .6016, .6465, .6913,
    .7101, .7176, .7232, .7284, .7328, .7369, .7421, .7471, .7537, .7610, .7674, .7725, .7772, .7813, .7859,
    .7890, .7930, .7967, .8018, .8068,
)
_BY_XP_LEVEL = (
    .0126, .0185, .0208, .0242, .0291, .0369, .0508, .0745, .1170, .1791, .2548, .3326, .4144, .4940, .5779,
    .6261, .6563, .6810, .7015, .7174, .7287, .7371, .7443, .7513, .7586, .7642, .7703, .7760, .7783, .7805,
)
# fmt: on


def progression(max_depth: int, max_xp_level: int) -> float:
    """How far a NetHack game got, in [0, 1], as BALROG measures it (Paglieri et al. 2024, section 3).

    The share of human games which, having reached the same dungeon or experience level, went on to ascend: the
    better of the two; 0 before the first level is entered.
    """
    return max(_reached(_BY_DEPTH, max_depth), _reached(_BY_XP_LEVEL, max_xp_level))


def _reached(table: tuple[float, ...], level: int) -> float:
    return 0.0 if level < 1 else table[min(level, len(table)) - 1]
