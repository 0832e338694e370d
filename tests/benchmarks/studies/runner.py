"""Runs a study: its jobs side by side, one process each; resumable at any point.

    <out>/<study>.parquet            a row for each finished job: curve, evaluation at each milestone, command, versions
    <runs>/<job>/                    its run folder, as ``yendor train`` leaves it
    <runs>/finished/<study>/*.json   jobs that have just finished, until they are in the parquet file

A job that has a row is done. A job whose run folder exists goes on from its newest checkpoint. Jobs of classic
control, which take minutes, have no run folder and begin anew; searches go on from their journals.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from envs.files import write_atomic
from launch.cli import main
from launch.runs.checkpoint import steps_of
from launch.runs.folder import installed_versions
from launch.runs.metrics import read_metrics
from rewards.heron.report import REPORT_FILE
from tests.benchmarks.__main__ import main as benchmarks_main
from tests.benchmarks.store import Results
from tests.benchmarks.studies.jobs import AnyJob, ControlJob, DesignJob, Job
from tests.benchmarks.studies.offline import OfflineJob, run_offline_job

_ROOT = Path(__file__).parents[3]
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CURVE = (
    "rollout/success",
    "rollout/env_return",
    "rollout/score",
    "rollout/max_depth",
    "rewards/oni/episode_sum",
    "rewards/heron/episode_sum",
    "heron/accuracy/success",
    "heron/accuracy/alive",
    "heron/accuracy",
    "labels/coverage",
    "time/elapsed_s",
)
_SINGLE_PROCESS = (
    "--rollout.num-workers 0 --rollout.games-per-worker 16 --threads 1 --logging.interval-s 5 --no-logging.tensorboard"
)


@dataclass
class Study:
    """Some jobs, where they run and where their results go.

    Args:
        jobs: what is to be run.
        results: of the study.
        runs: folder of the run folders.
        parallel: jobs side by side; each is one process with one thread.
        report: called with a line for each start and end.
    """

    jobs: Sequence[AnyJob]
    results: Results
    runs: Path
    parallel: int = 2
    report: Callable[[str], None] = print
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self) -> bool:
        """Run what is not done yet; True if everything is done at the end."""
        self._finished.mkdir(parents=True, exist_ok=True)
        self._collect()
        waiting = self._undone()
        self.report(f"{len(self.jobs) - len(waiting)} of {len(self.jobs)} jobs are done")
        # Jobs have sessions of their own: Ctrl-C reaches this process alone, which asks each to save, once.
        handlers = {s: signal.signal(s, lambda number, _: sys.exit(128 + number)) for s in _SIGNALS}
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.parallel:
                    job = waiting.pop(0)
                    self._running[job.name] = self._start(job)
                self._reap()
                time.sleep(0.5)
        finally:
            self._stop()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return not self._undone()

    def _start(self, job: AnyJob) -> subprocess.Popen[bytes]:
        log = (self.runs / f"{job.name}.log").open("ab")
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.studies.runner",
            type(job).__name__,
            json.dumps(asdict(job)),
            str(self._finished),
            str(self.runs),
            str(self.parallel),
        ]
        self.report(f"{job.name} starts")
        paths = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": paths}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment)

    def _reap(self) -> None:
        for name, process in list(self._running.items()):
            if process.poll() is not None:
                del self._running[name]
                self._collect()
                log = self.runs / f"{name}.log"
                self.report(f"{name} is done" if process.returncode == 0 else f"{name} failed: see {log}")

    def _stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait()

    @property
    def _finished(self) -> Path:
        """Where jobs leave their results; by study, since several may go on from the same run."""
        return self.runs / "finished" / self.results.path.stem

    def _undone(self) -> list[AnyJob]:
        done = set(self.results.names())
        return [job for job in self.jobs if job.name not in done]

    def _collect(self) -> None:
        """Move what jobs have left into the study's results."""
        paths = sorted(self._finished.glob("*.json"))
        if paths:
            self.results.add({path.stem: json.loads(path.read_text()) for path in paths})
        for path in paths:
            path.unlink()


def run_job(job: Job, out: Path, runs: Path, parallel: int = 1) -> None:
    """Train to each milestone, evaluate there, write the job's JSON.

    Args:
        job: what is run.
        out: folder for the result, ``<job>.json``.
        runs: folder of the run folder.
        parallel: how many jobs ran side by side, for the record: seconds depend on it.

    Raises:
        SystemExit: a command failed or was stopped; with its exit code.
    """
    folder = runs / job.name
    evaluations, commands = {}, []
    for i, steps in enumerate(job.milestones):
        evaluation = folder / f"evaluation-{steps}.json"
        train = _resumption(job, steps, runs) if i else _beginning(job, steps, runs)
        play = ["eval", str(folder), "--episodes", str(job.episodes), "--workers", "0"]
        commands += [_shown(train), _shown(play)]
        if not evaluation.exists():
            _train_to(job, steps, runs)
            _checked(main([*play, "--json", str(evaluation)]))
        evaluations[str(steps)] = _figures(json.loads(evaluation.read_text()))
    lines = read_metrics(folder)
    result = {
        "job": asdict(job),
        "commands": commands,
        "versions": installed_versions(),
        "curve": {
            "step": [line["step"] for line in lines],
            **{name: [line.get(name) for line in lines] for name in _CURVE if any(name in x for x in lines)},
        },
        "parallel": parallel,
        "train_s": lines[-1].get("time/elapsed_s"),
        "finished_at": time.time(),
        "evaluations": evaluations,
        "captions": _captions(folder),
        "heron": _preference_tree(folder),
    }
    write_atomic(out / f"{job.name}.json", json.dumps(result))


def run_control_job(job: ControlJob, out: Path, runs: Path, parallel: int = 1) -> None:
    """Run the one command, which writes the job's JSON itself; see ``run_job``."""
    written = ["--json", str(out / f"{job.name}.json")]
    _checked(benchmarks_main(["control", job.env, *job.flags, "--seed", str(job.seed), *written]))


def run_design_job(job: DesignJob, out: Path, runs: Path, parallel: int = 1) -> None:
    """Search, or go on with a search that was cut; it writes the job's JSON itself; see ``run_job``."""
    folder, written = runs / job.name, ["--json", str(out / f"{job.name}.json")]
    if folder.exists():
        _checked(main(["design", "--resume", str(folder), *written]))
        return
    places = ["--runs", str(runs), "--name", job.name, "--reward.archive", str(runs / "programs")]
    _checked(main(["design", job.preset, *job.flags, *places, *written]))


RUNNERS: Mapping[type[Any], Callable[[Any, Path, Path, int], None]] = {
    Job: run_job,
    ControlJob: run_control_job,
    DesignJob: run_design_job,
    OfflineJob: run_offline_job,
}
"""``{class of jobs: what runs one}``."""


def _train_to(job: Job, steps: int, runs: Path) -> None:
    """Train until a milestone, from wherever the run stands."""
    saved = steps_of(runs / job.name)
    if saved and saved[0] >= steps:
        return
    if not saved and (runs / job.name).exists():  # cut before its first checkpoint: nothing to go on from
        shutil.rmtree(runs / job.name)
    _checked(main(_resumption(job, steps, runs) if saved else _beginning(job, steps, runs)))


def _resumption(job: Job, steps: int, runs: Path) -> list[str]:
    return [job.command, "--resume", str(runs / job.name), "--total-steps", str(steps)]


def _beginning(job: Job, steps: int, runs: Path) -> list[str]:
    flags = [*_SINGLE_PROCESS.split(), *job.flags, "--seed", str(job.seed)]
    return [
        *(job.command, job.preset, *flags),
        *("--total-steps", str(steps), "--runs", str(runs), "--name", job.name),
    ]


def _shown(argv: Sequence[str]) -> str:
    return shlex.join(["yendor", *argv])


def _checked(code: int) -> None:
    if code != 0:
        sys.exit(code)


def _figures(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The one task's figures, without its episodes."""
    (only,) = evaluation["evaluations"]
    return {key: value for key, value in only.items() if key != "episodes"}


def _captions(folder: Path) -> list[dict[str, Any]]:
    """The best paid captions of the run."""
    path = folder / "captions.json"
    if not path.exists():
        return []
    rows = json.loads(path.read_text())
    return sorted(rows, key=lambda row: row["paid"], reverse=True)[:15]


def _preference_tree(folder: Path) -> dict[str, Any] | None:
    """How the run's tree decided, and how well its model learned it, at the end; None without one."""
    path = folder / REPORT_FILE
    return json.loads(path.read_text()) if path.exists() else None


if __name__ == "__main__":
    (_class,) = (known for known in RUNNERS if known.__name__ == sys.argv[1])
    _fields = {name: tuple(x) if isinstance(x, list) else x for name, x in json.loads(sys.argv[2]).items()}
    RUNNERS[_class](_class(**_fields), Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
