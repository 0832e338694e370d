"""``yendor bench NAME [--json OUT]``: speed of ours beside a reference, measured in turn in one run."""

from __future__ import annotations

import importlib
import signal
import sys

from pydantic import BaseModel
from pydantic_settings import CliPositionalArg

from envs.files import write_atomic
from launch.config.flags import JsonOut, Selection, result_path
from launch.errors import unknown_name

BENCHES = {
    "train": ("launch.bench.train", "TrainBench", "training: our PPO beside Stable-Baselines3's and sample-factory's"),
    "env": ("launch.bench.env", "EnvBench", "the games alone: ours beside gymnasium.make"),
    "overhead": ("launch.bench.overhead", "OverheadBench", "training: what captions, labels, features, ... add to it"),
    "rewards": ("launch.bench.rewards", "RewardsBench", "training: what ONI's rewards and HERON's add to it"),
    "label": ("launch.bench.label", "LabelBench", "labels: our client through a server, beside vLLM in one process"),
    "judges": ("launch.bench.judges", "JudgesBench", "captions: lexicon and reward models beside grades by hand"),
    "comparisons": ("launch.bench.comparisons", "ComparisonsBench", "HERON: pairs of segments that its tree compares"),
    "programs": ("launch.bench.programs", "ProgramsBench", "reward programs: transitions that they answer per second"),
    "soak": ("launch.bench.soak", "SoakBench", "the games alone: does memory grow over many resets?"),
}
"""``{name: (module, its configuration class, what is measured)}``; a module's ``measure`` takes an instance of the
class and answers with a table and with everything that it stands on."""


class BenchFlags(Selection):
    """Measure speed of ours beside a reference, in turn in one run."""

    name: CliPositionalArg[str]
    """The benchmark's name."""
    out: JsonOut = None
    """A file that keeps every measurement."""

    def defaults(self) -> BaseModel:
        """The benchmark's own configuration.

        Raises:
            UserError: there is no such benchmark; names the nearest.
        """
        if self.name not in BENCHES:
            raise unknown_name("benchmark", self.name, BENCHES)
        module, config_class, _ = BENCHES[self.name]
        return getattr(importlib.import_module(module), config_class)()

    @classmethod
    def choices(cls) -> dict[str, str]:
        """The benchmarks."""
        return {name: text for name, (_, _, text) in BENCHES.items()}


def run(flags: BenchFlags, config: BaseModel) -> int:
    """Measure, print the table, and with ``--json`` keep every measurement."""
    path = result_path(flags.out)
    from launch.bench.machine import as_json, machine

    before = machine()
    print(f"{before['cpu']}, {before['cores']} cores, load {before['load_before']}")
    print(", ".join(f"{package} {version}" for package, version in before["versions"].items()))
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        shown, results = importlib.import_module(BENCHES[flags.name][0]).measure(config)
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(shown)
    if path is not None:
        write_atomic(path, as_json(["yendor", *sys.argv[1:]], config.model_dump(mode="json"), before, results))
    return 0
