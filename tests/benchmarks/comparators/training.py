"""Training speed: our PPO beside those of public systems, with the same network, batch, task and observations.

    sb3-dummy         SB3's PPO over gymnasium environments in one process (``DummyVecEnv``)
    sb3-subproc       ... over gymnasium environments in a process each (``SubprocVecEnv``)
    sb3-games         ... over our games (``GamesVecEnv``): what part of the difference is theirs
    sample-factory    its asynchronous PPO, two workers, where it is installed

Ours are those of ``launch.bench.training``. The others get the environments in their cheap configuration: only what
the network reads, no environment checker, no ``Monitor``; and the network in plain PyTorch, as their users would
write it. SB3 is measured with each number of threads in ``sb3_threads`` (``sb3-dummy-2``: two); the fastest reference
counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from launch.bench.harness import SystemSpec, compare
from launch.bench.training import TrainBench, check_task
from launch.errors import UserError
from tests.benchmarks.comparators.games import check_registered
from tests.benchmarks.comparators.sample_factory import SampleFactorySpec, installed
from tests.benchmarks.comparators.sb3 import VEC_ENVS, Sb3Spec


class TrainComparison(TrainBench):
    """Steps per second of training, ours beside public systems', measured in turn."""

    systems: str | None = None
    """What is measured, separated by commas; none = all but sb3-games, and sample-factory only where it is
    installed."""
    sb3_games: PositiveInt = 8
    """Games of Stable-Baselines3 side by side."""
    sb3_threads: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2)
    """Threads of Stable-Baselines3's arithmetic; each is measured."""
    sample_factory_python: str | None = None
    """An interpreter that has sample-factory, which needs older packages than ours; none = this one, if it has."""
    sample_factory_games: PositiveInt = 16
    """Games of sample-factory side by side, over its two workers."""

    def specs(self) -> list[SystemSpec]:
        """The systems that the flags name; the precision is ours alone, the others compute in fp32.

        Raises:
            UserError: one is unknown or not installed, the task cannot be compared, or the flags do not fit together.
        """
        check_task(self)
        check_registered(self.task)
        if self.model.core != "none":
            raise UserError(f"model.core is '{self.model.core}', which the references have not; allowed: none")
        ours, sb3 = list(self.placements()), [f"sb3-{kind}" for kind in VEC_ENVS]
        known: dict[str, Callable[[], list[SystemSpec]]] = {name: partial(self._ours, name) for name in ours}
        known |= {name: partial(self._sb3, kind) for name, kind in zip(sb3, VEC_ENVS, strict=True)}
        known["sample-factory"] = self._sample_factory
        has_sample_factory = self.sample_factory_python or installed()
        default = [*ours, "sb3-dummy", "sb3-subproc", *(["sample-factory"] if has_sample_factory else [])]
        return [spec for name in self.chosen(list(known), default) for spec in known[name]()]

    def _ours(self, name: str) -> list[SystemSpec]:
        return [self.placement_spec(name)]

    def _sb3(self, kind: str) -> list[SystemSpec]:
        config = self.train_config(self.sb3_games)
        return [
            Sb3Spec(f"sb3-{kind}-{n}", config.replace(threads=n), kind, is_reference=kind != "games")
            for n in self.sb3_threads
        ]

    def _sample_factory(self) -> list[SystemSpec]:
        python = self.sample_factory_python or installed()
        if python is None:
            raise UserError(
                "sample-factory is not installed here; --sample-factory-python names an interpreter that has it"
            )
        return [SampleFactorySpec("sample-factory", self.train_config(self.sample_factory_games), python)]


def measure(flags: TrainComparison) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured."""
    return compare(flags.specs(), flags.rounds, flags.seconds)
