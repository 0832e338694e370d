"""``yendor bench NAME [--json OUT]``: speed of ours beside a reference, measured in turn in one run."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence

from envs.files import write_atomic
from launch.arguments import parse, result_path, take_value
from launch.errors import UserError, unknown_name

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


def _help() -> str:
    width = max(map(len, BENCHES))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, (_, _, text) in BENCHES.items())
    return f"usage: yendor bench NAME [--flag value ...] [--json OUT]\n\nbenchmarks:\n{lines}\n"


def run(argv: Sequence[str]) -> int:
    """Measure, print the table, and with ``--json`` keep every measurement."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    name = argv[0]
    if name.startswith("-"):
        raise UserError(f"the benchmark's name comes first: yendor bench NAME {name} ...")
    if name not in BENCHES:
        raise unknown_name("benchmark", name, BENCHES)
    out, rest = take_value(argv[1:], "--json")
    module_name, config_class, _ = BENCHES[name]
    bench = importlib.import_module(module_name)
    flags = parse(getattr(bench, config_class)(), rest, f"yendor bench {name}")
    path = result_path(out)
    from launch.bench.machine import as_json, machine

    before = machine()
    print(f"{before['cpu']}, {before['cores']} cores, load {before['load_before']}")
    print(", ".join(f"{package} {version}" for package, version in before["versions"].items()))
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        shown, results = bench.measure(flags)
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(shown)
    if path is not None:
        write_atomic(path, as_json(["yendor", "bench", *argv], flags.model_dump(mode="json"), before, results))
    return 0
