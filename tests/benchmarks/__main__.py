"""``python -m tests.benchmarks NAME ...``, from the repository root: everything that results are measured with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from launch.commands.bench import Benches, BenchFlags, run_bench
from launch.config.flags import parse, select
from launch.errors import RunError, UserError

PROG = "python -m tests.benchmarks"

BENCHES: Benches = {
    "env": ("tests.benchmarks.comparators.games", "EnvComparison", "the games alone, beside gymnasium.make"),
    "train": ("tests.benchmarks.comparators.training", "TrainComparison", "training, beside SB3 and sample-factory"),
    "label": ("tests.benchmarks.comparators.labels", "LabelComparison", "labels, beside vLLM without a server"),
    "checkouts": ("tests.benchmarks.checkouts", "CheckoutsBench", "training: this checkout beside another one"),
    "overhead": ("tests.benchmarks.overhead.parts", "OverheadBench", "training: what captions, labels, ... add to it"),
    "rewards": ("tests.benchmarks.overhead.rewards", "RewardsBench", "training: what each learned reward adds to it"),
    "judges": ("tests.benchmarks.judges.comparison", "JudgesBench", "caption models beside grades by hand"),
    "comparisons": ("tests.benchmarks.comparisons", "ComparisonsBench", "HERON: pairs of segments a second"),
    "datasets": ("tests.benchmarks.datasets", "DatasetsBench", "logged play: windows out of a long episode"),
    "programs": ("tests.benchmarks.programs", "ProgramsBench", "reward programs: transitions a second"),
    "samplers": ("tests.benchmarks.samplers", "SamplersBench", "plans: the error of each way of filling them in"),
    "soak": ("tests.benchmarks.soak", "SoakBench", "the games alone: does memory grow over many resets?"),
}
"""See ``launch.commands.bench``."""

COMMANDS = {
    "study": ("tests.benchmarks.studies.command", "run, or go on with, the training runs of a study; its figures"),
    "control": ("tests.benchmarks.control.command", "classic control under a reward from ranked factors"),
    "results": ("tests.benchmarks.store", "list, show or add what is kept in tests/benchmarks/results"),
}
"""``{name: (module, what it does)}``; a module's ``run`` takes the arguments after the name."""


class MeasureFlags(BenchFlags):
    """Measure something that results are published of."""

    @classmethod
    def benches(cls) -> Benches:
        """The benchmarks of this folder."""
        return BENCHES


def _help() -> str:
    texts = {name: text for name, (_, text) in COMMANDS.items()} | MeasureFlags.choices()
    width = max(map(len, texts))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in texts.items())
    return f"usage: {PROG} NAME ...\n\n{lines}\n\n'{PROG} NAME --help' says more.\n"


def run(argv: Sequence[str]) -> int:
    """Run one command.

    Raises:
        UserError: it cannot be run so.
        RunError: it failed.
    """
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    name, *rest = argv
    if name in COMMANDS:
        command: Callable[[Sequence[str]], int] = importlib.import_module(COMMANDS[name][0]).run
        return command(rest)
    selection, flags = select(MeasureFlags, argv, PROG)
    config = parse(selection.defaults(), flags, f"{PROG} {name}", selection=selection)
    return run_bench(selection, config, [*PROG.split(), *argv])


def main(argv: Sequence[str]) -> int:
    """``run`` with the exit codes of ``yendor``: 1 = it failed, 2 = bad input, said in one sentence."""
    try:
        return run(argv)
    except SystemExit as stop:
        if stop.code:
            raise
        return 0  # help was printed
    except (UserError, RunError) as error:
        sys.stderr.write(f"{PROG}: {error}\n")
        return 2 if isinstance(error, UserError) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
