"""sample-factory's asynchronous PPO as a system that is measured, in an interpreter that has it installed."""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from launch.bench.harness import Round, System
from launch.config.train_config import TrainConfig
from launch.errors import RunError

_SCRIPT = "tests.benchmarks.comparators.sample_factory_script"
_ROOT = Path(__file__).parents[3]
_NUM_WORKERS = 2
_PATIENCE_S = 180.0
_WARM_UP_REPORTS = 4
_TRAJECTORY_STEPS = 32
"""Its own default."""
_NEVER = 10**9


def installed() -> str | None:
    """This interpreter, if it has sample-factory."""
    return sys.executable if importlib.util.find_spec("sample_factory") is not None else None


@dataclass(frozen=True)
class SampleFactorySpec:
    """Two workers, each with half of the games in two halves that alternate; learner and inference beside them."""

    name: str
    config: TrainConfig
    python: str
    """The interpreter that has sample-factory."""
    is_reference: bool = True

    def build(self) -> System:
        """Starts it."""
        return SampleFactoryTraining(self.config, self.python)


def settings(config: TrainConfig, folder: str) -> dict[str, Any]:
    """The script's settings: the same task, observations, network and batch as the others'."""
    ppo = config.ppo
    return {
        "task": config.env.task,
        "penalty_step": config.env.penalty_step,
        "encoder": config.model.encoder.model_dump(mode="json"),
        "flags": {
            "experiment": "bench",
            "train_dir": folder,
            "device": "cpu",
            "seed": config.seed,
            "num_workers": _NUM_WORKERS,
            "num_envs_per_worker": config.rollout.games_per_worker // _NUM_WORKERS,
            "worker_num_splits": 2,
            "async_rl": True,
            "rollout": min(_TRAJECTORY_STEPS, config.rollout.num_steps),
            "batch_size": ppo.minibatch,
            "num_batches_per_epoch": config.batch_steps // ppo.minibatch,
            "num_epochs": ppo.epochs,
            "use_rnn": False,
            "normalize_input": False,
            "normalize_returns": False,
            "learning_rate": ppo.learning_rate,
            "gamma": config.reward.extrinsic.gamma,
            "gae_lambda": ppo.gae_lambda,
            "exploration_loss_coeff": ppo.entropy,
            "value_loss_coeff": ppo.value,
            "max_grad_norm": ppo.max_grad_norm,
            # Nothing else than training while it is measured; and it is made to sleep between rounds.
            "save_every_sec": _NEVER,
            "experiment_summaries_interval": _NEVER,
            "heartbeat_reporting_interval": _NEVER,
            "train_for_env_steps": 10**15,
        },
    }


class SampleFactoryTraining:
    """Processes that train without end, stopped (SIGSTOP) between rounds.

    Args:
        config: task, network and hyper-parameters.
        python: the interpreter that has sample-factory.

    Raises:
        RunError: from its methods: it ended, or said nothing for three minutes.
    """

    def __init__(self, config: TrainConfig, python: str) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="yendor-bench-", ignore_cleanup_errors=True)
            )
            reading, writing = os.pipe()
            self._reports = stack.enter_context(os.fdopen(reading, "rb", buffering=0))
            self._log = stack.enter_context((Path(folder) / "log.txt").open("w+b"))
            self._process = subprocess.Popen(
                [python, "-m", _SCRIPT, str(writing), json.dumps(settings(config, folder))],
                stdout=self._log,
                stderr=self._log,
                pass_fds=[writing],
                env=os.environ | {"PYTHONPATH": str(_ROOT)},
                start_new_session=True,
            )
            os.close(writing)
            stack.callback(self._end)
            self._rest = b""
            self._stack = stack.pop_all()

    def warm_up(self) -> None:
        """Start, and a few batches."""
        for _ in range(_WARM_UP_REPORTS):
            self._next()
        self._signal(signal.SIGSTOP)

    def run_round(self, seconds: float) -> Round:
        """Whole batches, until the time is over; the first after the pause is not measured."""
        woken_s = time.perf_counter()
        self._signal(signal.SIGCONT)
        began_s = 0.0
        while began_s < woken_s:  # what was written before the pause
            steps, began_s = self._next()
        steps, began_s = self._next()
        now, at_s = steps, began_s
        while at_s - began_s < seconds or now == steps:
            now, at_s = self._next()
        self._signal(signal.SIGSTOP)
        return Round(steps=now - steps, seconds=at_s - began_s)

    def close(self) -> None:
        """End all of its processes."""
        self._stack.close()

    def _next(self) -> tuple[int, float]:
        """Steps so far and when, of the next batch."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reports, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(_PATIENCE_S):
                    raise RunError(f"sample-factory learned nothing for {_PATIENCE_S:.0f} s: {self._last_line()}")
                found = self._reports.read(4096)
                if not found:
                    raise RunError(f"sample-factory ended: {self._last_line()}")
                self._rest += found
        line, _, self._rest = self._rest.partition(b"\n")
        steps, at_s = line.split()
        return int(steps), float(at_s)

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was logged")

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def _end(self) -> None:
        descendants = _descendants(self._process.pid)
        with suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        for process in descendants:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


def _descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []
