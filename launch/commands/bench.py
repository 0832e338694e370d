"""``yendor bench NAME [--json OUT]``: how fast games, training and labels are on this machine."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Mapping, Sequence

from envs.files import write_atomic
from launch.arguments import parse, result_path, take_value
from launch.errors import UserError, unknown_name

Benches = Mapping[str, tuple[str, str, str]]
"""``{name: (module, its configuration class, what is measured)}``; a module's ``measure`` takes an instance of the
class and answers with a table and with all measurements."""

BENCHES: Benches = {
    "env": ("launch.bench.games", "EnvBench", "the games alone: on our engine and on NLE's"),
    "train": ("launch.bench.training", "TrainBench", "training: in one process, with workers, with peers"),
    "label": ("launch.bench.labels", "LabelBench", "labels: through a vLLM server"),
}


def run(argv: Sequence[str]) -> int:
    """Measure, print the table, and with ``--json`` keep every measurement."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(
            f"usage: yendor bench NAME [--flag value ...] [--json OUT]\n\nbenchmarks:\n{listing(BENCHES)}\n"
        )
        return 0
    return run_bench("yendor bench", BENCHES, argv)


def listing(benches: Benches) -> str:
    """A line for each benchmark."""
    width = max(map(len, benches))
    return "\n".join(f"  {name:<{width}}  {text}" for name, (_, _, text) in benches.items())


def run_bench(command: str, benches: Benches, argv: Sequence[str]) -> int:
    """Run one of several benchmarks.

    Args:
        command: as it was typed, up to the benchmark's name.
        benches: all that there are.
        argv: name, flags, and possibly ``--json OUT``.

    Raises:
        UserError: there is no such benchmark, or its flags are wrong.
    """
    name = argv[0]
    if name.startswith("-"):
        raise UserError(f"the benchmark's name comes first: {command} NAME {name} ...")
    if name not in benches:
        raise unknown_name("benchmark", name, benches)
    out, rest = take_value(argv[1:], "--json")
    module_name, config_class, _ = benches[name]
    bench = importlib.import_module(module_name)
    flags = parse(getattr(bench, config_class)(), rest, f"{command} {name}")
    path = result_path(out)
    from launch.bench.harness import as_json, machine  # torch, which --help need not wait for

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
        write_atomic(path, as_json([*command.split(), *argv], flags.model_dump(mode="json"), before, results))
    return 0
