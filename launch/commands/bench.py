"""``yendor bench NAME [--json OUT]``: how fast games, training, plans and labels are on this machine."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from pydantic_settings import CliPositionalArg

from envs.files import write_atomic
from launch.config.flags import JsonOut, Selection, result_path
from launch.errors import unknown_name

Benches = Mapping[str, tuple[str, str, str]]
"""``{name: (module, its configuration class, what is measured)}``; a module's ``measure`` takes an instance of the
class and answers with a table and with all measurements."""

BENCHES: Benches = {
    "env": ("launch.bench.games", "EnvBench", "the games alone: on our engine and on NLE's"),
    "train": ("launch.bench.training", "TrainBench", "training: in one process, with workers, with peers"),
    "plan": ("launch.bench.planning", "PlanBench", "plans: heads and ways of filling them in, for 1, 8 and 64 games"),
    "label": ("launch.bench.labelling", "LabelBench", "labels: through a vLLM server"),
}


class BenchFlags(Selection):
    """Measure the speed of games, training, plans or labels on this machine."""

    name: CliPositionalArg[str]
    """The benchmark's name."""
    out: JsonOut = None
    """A file that keeps every measurement."""

    @classmethod
    def benches(cls) -> Benches:
        """The benchmarks that there are."""
        return BENCHES

    def defaults(self) -> BaseModel:
        """The benchmark's own configuration.

        Raises:
            UserError: there is no such benchmark; names the nearest.
        """
        if self.name not in self.benches():
            raise unknown_name("benchmark", self.name, self.benches())
        module, config_class, _ = self.benches()[self.name]
        return getattr(importlib.import_module(module), config_class)()

    @classmethod
    def choices(cls) -> dict[str, str]:
        """The benchmarks."""
        return {name: text for name, (_, _, text) in cls.benches().items()}


def run(flags: BenchFlags, config: BaseModel) -> int:
    """Measure, print the table, and with ``--json`` keep every measurement."""
    return run_bench(flags, config, ["yendor", *sys.argv[1:]])


def run_bench(flags: BenchFlags, config: BaseModel, command: Sequence[str]) -> int:
    """Run one benchmark.

    Args:
        flags: which one.
        config: its configuration.
        command: as it was typed, for the record.

    Raises:
        UserError: the configuration cannot be measured, or the result cannot be written.
        RunError: what was measured failed.
    """
    path = result_path(flags.out)
    from launch.bench.harness import as_json, machine  # torch, which --help need not wait for

    before = machine()
    print(f"{before['cpu']}, {before['cores']} cores, load {before['load_before']}")
    print(", ".join(f"{package} {version}" for package, version in before["versions"].items()))
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        shown, results = importlib.import_module(flags.benches()[flags.name][0]).measure(config)
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(shown)
    if path is not None:
        write_atomic(path, as_json(command, config.model_dump(mode="json"), before, results))
    return 0
