"""Run by the interpreter that has sample-factory (not Yendor's own): trains until it is ended.

    python -m tests.benchmarks.comparators.sample_factory_script FD SETTINGS

``FD`` is an open file descriptor; after every batch that was learned from, a line ``STEPS SECONDS`` is written to
it: environment steps learned from so far, and ``time.perf_counter()``, which all processes of a machine
share. ``SETTINGS`` is JSON: ``task``, ``penalty_step``, ``encoder`` (as ``EncoderConfig`` takes it) and ``flags``
(sample-factory's own, by name).

Needs sample-factory 2.1, gymnasium, nle, minihack, numpy below 2 and torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

# Looked for by the type checker in Yendor's own environment, where it need not be.
from sample_factory.algo.runners.runner import AlgoObserver, Runner  # pyright: ignore[reportMissingImports]
from sample_factory.algo.utils.context import global_model_factory  # pyright: ignore[reportMissingImports]
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args  # pyright: ignore[reportMissingImports]
from sample_factory.envs.env_utils import register_env  # pyright: ignore[reportMissingImports]
from sample_factory.model.encoder import Encoder as SampleFactoryEncoder  # pyright: ignore[reportMissingImports]
from sample_factory.train import make_runner  # pyright: ignore[reportMissingImports]

from tests.benchmarks.comparators.gym_environments import training_env
from tests.benchmarks.comparators.network import ReferenceEncoder


class EncoderInside(SampleFactoryEncoder):
    """``ReferenceEncoder`` inside sample-factory's actor-critic."""

    def __init__(self, cfg: Any, obs_space: Any) -> None:
        super().__init__(cfg)
        self.encoder = ReferenceEncoder(json.loads(cfg.encoder), {key: box.shape for key, box in obs_space.items()})

    def forward(self, obs_dict: Mapping[str, Any]) -> Any:
        """Features [N, hidden]."""
        return self.encoder(obs_dict)

    def get_out_size(self) -> int:
        """Width of the features."""
        return self.encoder.width


class Reports(AlgoObserver):
    """Says how far training is.

    Args:
        fd: where to.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def on_training_step(self, runner: Runner, training_iteration_since_resume: int) -> None:
        """Called by sample-factory after each batch."""
        steps = sum(runner.env_steps.values())
        os.write(self._fd, f"{steps} {time.perf_counter()!r}\n".encode())


def make_env(full_env_name: str, cfg: Any, env_config: Any, render_mode: str | None = None) -> Any:
    """Called by sample-factory in each of its workers."""
    return training_env(full_env_name, cfg.penalty_step)


def main(fd: int, settings: Mapping[str, Any]) -> None:
    """Train for ever."""
    register_env(settings["task"], make_env)
    global_model_factory().register_encoder_factory(EncoderInside)
    argv = [f"--env={settings['task']}", *(f"--{name}={value}" for name, value in settings["flags"].items())]
    parser, _ = parse_sf_args(argv)
    parser.add_argument("--penalty_step", type=float, default=settings["penalty_step"])
    parser.add_argument("--encoder", default=json.dumps(settings["encoder"]))
    _, runner = make_runner(parse_full_cfg(parser, argv))
    runner.register_observer(Reports(fd))
    runner.init()
    runner.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
