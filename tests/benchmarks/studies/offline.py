"""The study of offline planning: what is logged, what is learned from it, and how it then plans.

A job learns from one data set, with one critic, both made once a seed and shared by the jobs of that seed, and is
evaluated in several ways. Actions are executed as planned; the goals of Maze2D are the stairs, which no log was
rewarded for.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envs.files import file_lock, write_atomic
from launch.cli import main
from launch.runs.folder import installed_versions
from launch.runs.metrics import read_metrics

FORK = "Yendor-Fork-v0"
LARGE, MEDIUM = "Yendor-Maze2D-Large-v0", "Yendor-Maze2D-Medium-v0"
KEYROOM, LOCKED_DOOR = "MiniHack-KeyRoom-S5-v0", "MiniHack-LockedDoor-v0"
_CURVE = ("offline/head_loss", "offline/critic_loss", "offline/value", "time/elapsed_s")


@dataclass(frozen=True, kw_only=True)
class OfflineJob:
    """One offline run and its evaluations."""

    name: str
    data: str
    """A name in ``DATA``."""
    seed: int
    """Of the logs and of the run."""
    critic: tuple[str, ...]
    """Flags of the run that learns the critic."""
    flags: tuple[str, ...]
    """Of 'yendor offline train', beside those and ``--critic-from``."""
    plans: Mapping[str, Sequence[str]]
    """``{label: flags of 'yendor eval'}``."""
    episodes: int = 200
    watched: bool = False
    """Keep the actions of each episode too."""


# ---- logs


Commands = list[list[str]]


def _maze(task: str, *flags: str) -> Callable[[Path, int, Path], Commands]:
    """Half a random walk, half trips of the walker."""

    def commands(data: Path, seed: int, runs: Path) -> Commands:
        policies = ["--policy", "random", "walker", "--task", task, "--epsilon", "0.2"]
        keys = ["--obs-keys", "glyphs_crop", "blstats", "map_summary"]
        played = ["--steps", "300000", "--seed", str(seed), "--workers", "0"]
        return [["offline", "record", str(data), *policies, *keys, *played, *flags]]

    return commands


def _fork(data: Path, seed: int, runs: Path) -> Commands:
    """Shortest ways to the stairs, half of them left, half right."""
    policy = ["--policy", "walker", "--to-stairs", "--epsilon", "0", "--task", FORK, "--obs-keys", "blstats"]
    return [["offline", "record", str(data), *policy, "--steps", "20000", "--seed", str(seed), "--workers", "0"]]


def _score(data: Path, seed: int, runs: Path) -> Commands:
    """The random policy in the score task."""
    keys = ["--obs-keys", "glyphs_crop", "blstats", "message", "map_summary"]
    policy = ["--policy", "random", "--task", "NetHackScoreExtended-v0", *keys, "--steps", "50000"]
    return [["offline", "record", str(data), *policy, "--seed", str(seed), "--workers", "0"]]


_ALONE = ("--rollout.num-workers", "0", "--rollout.games-per-worker", "16", "--no-logging.tensorboard")


def _keyroom(data: Path, seed: int, runs: Path) -> Commands:
    """PPO, at the checkpoint whose success over the last 100 episodes is nearest to one half."""
    run = runs / f"keyroom_logger-seed{seed}"
    kept = ["--checkpoint.interval-updates", "4", "--checkpoint.keep", "1000", "--logging.interval-s", "0.01"]
    place = ["--runs", str(runs), "--name", run.name]
    _once(run, ["train", "keyroom", *_ALONE, *kept, *place, "--seed", str(seed), "--total-steps", "200000"])
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    success = {int(line["step"]): line.get("rollout/success") or 0.0 for line in read_metrics(run)}
    half = min((step for step in steps if step in success), key=lambda step: abs(success[step] - 0.5))
    record = ["offline", "record", str(data), "--policy", str(run), "--checkpoint", str(half), "--steps", "200000"]
    return [[*record, "--seed", str(seed), "--workers", "0"]]


def _locked_door(data: Path, seed: int, runs: Path) -> Commands:
    """HERON's run at 200,000 steps, and its reward beside the environment's."""
    run = runs / f"locked_door_logger-seed{seed}"
    place = ["--runs", str(runs), "--name", run.name]
    _once(run, ["train", "locked_door_heron", *_ALONE, *place, "--seed", str(seed), "--total-steps", "200000"])
    record = ["offline", "record", str(data), "--policy", str(run), "--steps", "200000"]
    return [
        [*record, "--seed", str(seed), "--workers", "0"],
        ["offline", "relabel", str(data), "--reward-of", str(run)],
    ]


def _once(run: Path, command: list[str]) -> None:
    if not _is_finished(run):
        resumable = any((run / "checkpoints").glob("0*"))
        if run.exists() and not resumable:
            shutil.rmtree(run)
        _checked(main(["train", "--resume", str(run)] if resumable else command))


def _is_finished(run: Path) -> bool:
    """Whether it came to its end, rather than being stopped."""
    summary = run / "summary.json"
    return summary.exists() and json.loads(summary.read_text())["stopped_by"] is None


DATA: Mapping[str, Callable[[Path, int, Path], Commands]] = {
    "play": _maze(LARGE),
    "stitch": _maze(LARGE, "--trip-steps", "8", "--episode-steps", "8"),
    "play_medium": _maze(MEDIUM),
    "stitch_medium": _maze(MEDIUM, "--trip-steps", "8", "--episode-steps", "8"),
    "fork": _fork,
    "score": _score,
    "keyroom": _keyroom,
    "locked_door": _locked_door,
}
"""``{name: commands that make the data set in a folder, with a seed}``."""


# ---- running


def run_offline_job(job: OfflineJob, out: Path, runs: Path, parallel: int = 1) -> None:
    """Make the logs, where they are not there yet, learn, evaluate, write the job's JSON.

    Args:
        job: what is run.
        out: folder for the result, ``<job>.json``.
        runs: folder of the run folders and the data sets.
        parallel: how many jobs ran side by side, for the record.

    Raises:
        SystemExit: a command failed or was stopped; with its exit code.
    """
    data, folder = runs / "data" / f"{job.data}-seed{job.seed}", runs / job.name
    critic = runs / f"{job.data}_critic-seed{job.seed}"
    commands = _logged(job, data, runs)
    with file_lock(runs / f"{critic.name}.lock"):
        commands.append(_learned(critic, data, job.seed, job.critic))
    commands.append(_learned(folder, data, job.seed, (*job.flags, "--critic-from", str(critic))))
    evaluations = {}
    for label, flags in job.plans.items():
        written = folder / f"evaluation-{label}.json"
        play = [
            "eval",
            str(folder),
            "--episodes",
            str(job.episodes),
            "--workers",
            "0",
            "--games-per-worker",
            "64",
            *flags,
        ]
        if not written.exists():
            began_s = time.process_time()
            _checked(main([*play, "--json", str(written)]))
            found = json.loads(written.read_text()) | {"cpu_s": time.process_time() - began_s}
            write_atomic(written, json.dumps(found))
        commands.append(play)
        evaluations[label] = _figures(json.loads(written.read_text()))
        if job.data.startswith(("play", "stitch")):
            evaluations[label]["shortest"] = _shortest_ways(json.loads(written.read_text()))
        if job.watched:
            evaluations[label]["actions"] = _actions(folder, json.loads(written.read_text()))
    lines = read_metrics(folder)
    result = {
        "job": asdict(job),
        "commands": [" ".join(["yendor", *command]) for command in commands],
        "versions": installed_versions(),
        "curve": {"step": [x["step"] for x in lines], **{n: [x.get(n) for x in lines] for n in _CURVE}},
        "logged": json.loads((data / "logged.json").read_text()),
        "parallel": parallel,
        "train_s": lines[-1].get("time/elapsed_s"),
        "finished_at": time.time(),
        "evaluations": evaluations,
    }
    write_atomic(out / f"{job.name}.json", json.dumps(result))


def _learned(run: Path, data: Path, seed: int, flags: Sequence[str]) -> list[str]:
    """The command of an offline run, which is run, or gone on with, where it has not finished."""
    place = ["--runs", str(run.parent), "--name", run.name, "--seed", str(seed)]
    command = ["offline", "train", str(data), *flags, *place, "--no-logging.tensorboard"]
    if not _is_finished(run):
        resumable = any((run / "checkpoints").glob("0*"))
        if run.exists() and not resumable:
            shutil.rmtree(run)
        _checked(main(["offline", "train", "--resume", str(run)] if resumable else command))
    return command


def _logged(job: OfflineJob, data: Path, runs: Path) -> Commands:
    """The commands that made the job's data set, which jobs of the same seed share."""
    data.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(data.with_suffix(".lock")):
        made = data / "logged.json"
        commands = DATA[job.data](data, job.seed, runs)
        if not made.exists():
            if data.exists():
                data.rename(data.with_name(f"{data.name}-unfinished-{int(time.time())}"))
            for command in commands:
                _checked(main(command))
            write_atomic(made, json.dumps(_described(data)))
    return commands


def _described(data: Path) -> dict[str, Any]:
    """What the logging policies reached: success and return over their finished episodes."""
    from envs.datasets import Dataset

    episodes = Dataset.open(data).episodes
    over = episodes.finished
    return {
        "steps": int(episodes.length.sum()),
        "episodes": int(over.sum()),
        "success": float((episodes.end_status[over] == 2).mean()),
        "env_return": float(episodes.env_return[over].mean()),
    }


def _figures(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The one task's figures, and of each episode its seed, success and steps."""
    (only,) = evaluation["evaluations"]
    episodes = [[e["seeds"][0], int(e["success"]), e["num_steps"], e["env_return"]] for e in only["episodes"]]
    return {
        "summary": only["summary"],
        "planner": only["provenance"].get("planner"),
        "cpu_s": evaluation["cpu_s"],
        "episodes": episodes,
    }


def _shortest_ways(evaluation: Mapping[str, Any]) -> list[int]:
    """Fewest steps from the hero to the stairs in each episode."""
    from agents.walker import Walker
    from envs.data import EpisodeSeeds
    from envs.seeding import ListedSeeds
    from envs.spec import GamesConfig
    from envs.tasks import make

    (only,) = evaluation["evaluations"]
    seeds = [EpisodeSeeds(*episode["seeds"]) for episode in only["episodes"]]
    config = GamesConfig(task=only["summary"]["task"], obs_keys=("glyphs", "blstats"))
    games = make(config, len(seeds), ListedSeeds(seeds))
    try:
        obs = games.reset()
        return Walker(games.spec, to_stairs=True).steps_to_stairs(obs)
    finally:
        games.close()


def _actions(run: Path, evaluation: Mapping[str, Any]) -> list[list[str]]:
    """Names of the actions of each episode, from its record."""
    from envs.recording import EpisodeRecord

    (only,) = evaluation["evaluations"]
    provenance, task = only["provenance"], only["summary"]["task"]
    found = []
    for path in sorted((run / "eval").glob("*.json")):
        if json.loads(path.read_text())["provenance"] == provenance:
            records = (EpisodeRecord.load(p) for p in sorted((run / "eval" / task / path.stem).glob("*.npz")))
            found = [[record.action_names[a] for a in record.actions.tolist()] for record in records]
    return found


def _checked(code: int) -> None:
    if code != 0:
        sys.exit(code)


# ---- jobs

_MODES = ("best_of_n", "fk", "svdd", "svdd_r")
_ASKED = ("--planner.goal", "asked")
_PASSES = ("--planner.decoding.kind", "passes", "--planner.decoding.passes", "3")
_SEEN = ("--obs-keys", "blstats")
_CRITIC = ("--head.kind", "one_step", "--learn.batch", "32", "--critic.expectile", "0.97")
_GOALS = (*_SEEN, "--learn.goals", "hindsight", "--critic.reward", "goal")
_HEAD = ("--learn.weighting", "advantage", "--learn.batch", "128")


def _mode(mode: str, *flags: str) -> tuple[str, ...]:
    return ("--planner.mode", mode, *flags)


def _plans(head: str) -> dict[str, tuple[str, ...]]:
    """Alone, and with the planner's modes; half of the candidates are asked to lead to the goal."""
    if head != "masked":
        return {"none": _mode("none"), "best_of_n": _mode("best_of_n")}
    steered = {mode: _mode(mode, *_PASSES) for mode in _MODES}
    others = {"best_of_n_asked": _mode("best_of_n", *_PASSES, *_ASKED), "none_entropy": _mode("none")}
    return {"none": _mode("none", *_PASSES), **steered, **others}


def _maze_jobs(data: str, updates: int = 2_000) -> dict[int, list[OfflineJob]]:
    """Every head on a maze's logs, by seed; the cheapest first."""
    return {
        seed: [
            OfflineJob(
                name=f"{data}_{head}-seed{seed}",
                data=data,
                seed=seed,
                critic=(*_CRITIC, *_GOALS, "--total-updates", "6000"),
                flags=(*_HEAD, *_GOALS[2:4], "--head.kind", head, "--total-updates", str(updates)),
                plans=_plans(head),
            )
            for head in ("one_step", "masked", "autoregressive")
        ]
        for seed in (1, 2, 3)
    }


def _fork_jobs(updates: int = 3_000) -> dict[int, list[OfflineJob]]:
    """Plans cloned from two equally long ways, each executed as a whole."""
    whole = ("--planner.mode", "none", "--planner.executed", "16", "--no-planner.reactive", "--record")
    passes = {
        f"passes_{k}": (*whole, "--planner.decoding.kind", "passes", "--planner.decoding.passes", str(k))
        for k in (1, 2, 3, 5, 16)
    }
    orders = {kind: (*whole, "--planner.decoding.kind", kind) for kind in ("entropy", "left_to_right")}
    return {
        seed: [
            OfflineJob(
                name=f"fork_{head}-seed{seed}",
                data="fork",
                seed=seed,
                critic=(*_CRITIC, *_SEEN, "--total-updates", "200"),
                flags=("--head.kind", head, "--learn.batch", "64", "--total-updates", str(updates)),
                plans=passes | orders if head == "masked" else {"whole": whole},
                episodes=500,
                watched=True,
            )
            for head in ("masked", "autoregressive", "factorised")
        ]
        for seed in (1, 2, 3)
    }


def _score_jobs() -> tuple[OfflineJob, ...]:
    """That it runs where plans are not to be hoped for."""
    critic = ("--head.kind", "one_step", "--learn.batch", "32", "--critic.batch", "128", "--total-updates", "500")
    flags = ("--head.kind", "masked", "--head.horizon", "8", "--learn.batch", "64", "--total-updates", "500")
    plans = {"best_of_n": _mode("best_of_n", *_PASSES)}
    job = OfflineJob(
        name="score_masked-seed1", data="score", seed=1, critic=critic, flags=flags, plans=plans, episodes=20
    )
    return (job,)


def _by_seed(*jobs: Mapping[int, Sequence[OfflineJob]]) -> tuple[OfflineJob, ...]:
    """Every first seed, then every second: a study that was cut has seeds of everything.

    Jobs that follow each other have different critics, so that two side by side need not wait for one.
    """
    return tuple(
        job for seed in (1, 2, 3) for same in zip(*(found[seed] for found in jobs), strict=True) for job in same
    )


OFFLINE_STUDIES: Mapping[str, tuple[OfflineJob, ...]] = {
    "offline_fork": _by_seed(_fork_jobs()),
    "offline_score": _score_jobs(),
    "offline_maze": _by_seed(_maze_jobs("play"), _maze_jobs("stitch")),
}
"""``{name: jobs}``."""
