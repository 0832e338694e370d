"""Measures systems in alternation (A B A B ...), so that other load on the machine affects all of them alike.

Each system lives in a process of its own, which sleeps while the others are measured. Speeds are summarised as median
and range over rounds, ratios round by round. ``in_turn`` does the same for functions of one process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import psutil

from launch.errors import RunError
from launch.runs.folder import installed_versions

_JOIN_S = 30.0
_MEMORY_INTERVAL_S = 0.5
T = TypeVar("T")
Report = Callable[[str], None]
"""Called with a line for people whenever something was measured."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One measurement."""

    steps: int
    """Environment steps, over all games."""
    seconds: float
    """Wall clock."""
    split: Mapping[str, float] = field(default_factory=dict)
    """Share of the wall clock by activity (``games``, ``inference``, ``learn``, ``wait``); of activities in
    several processes at once, each process's own share, averaged."""
    memory_mb: float | None = None
    """Peak memory of the system's processes together (proportional set size), where it was watched."""

    @property
    def steps_per_s(self) -> float:
        """Environment steps per second."""
        return self.steps / self.seconds


class System(Protocol):
    """Something whose speed is measured; idle between rounds."""

    def warm_up(self) -> None:
        """Whatever only the first steps need: allocations, caches, compilation."""
        ...

    def run_round(self, seconds: float) -> Round:
        """Work for about so long, and say how much was done; nothing goes on afterwards."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class SystemSpec(Protocol):
    """Builds a system in the process that will run it; a small record that can be pickled."""

    @property
    def name(self) -> str:
        """As shown."""
        ...

    @property
    def is_reference(self) -> bool:
        """The others are measured against the fastest reference."""
        ...

    def build(self) -> System:
        """The system, ready for ``warm_up``."""
        ...


# -- processes --------------------------------------------------------------------------------------


class IsolatedSystem:
    """A system in a process of its own, driven over a pipe.

    Args:
        spec: builds it there.

    Raises:
        RunError: from every method: the system failed or died; the cause is in the text.
    """

    def __init__(self, spec: SystemSpec) -> None:
        self.name = spec.name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Not a daemon: some systems start processes of their own.
        self._process = context.Process(target=_serve, args=(spec, theirs), daemon=False)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process, from which all others of this system descend."""
        assert self._process.pid is not None, "it was started"
        return self._process.pid

    def warm_up(self) -> None:
        """See ``System``."""
        self.ask("warm_up")
        self.answer()

    def run_round(self, seconds: float) -> Round:
        """See ``System``."""
        self.ask("run_round", seconds)
        return self.answer()

    def close(self) -> None:
        """Let it end by itself; end it by force where it does not."""
        self._pipe.close()
        self._process.join(_JOIN_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def ask(self, method: str, *arguments: float) -> None:
        """Begin a call of one of ``System``'s methods; ``answer`` ends it."""
        # A process that is gone says so by having no answer.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send((method, arguments))

    def answer(self) -> Any:
        """What the method that was asked for returned."""
        try:
            answer, error = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_JOIN_S)
            raise RunError(f"{self.name} died (exit code {self._process.exitcode})") from None
        if error is not None:
            raise RunError(f"{self.name} failed: {error}")
        return answer


def _serve(spec: SystemSpec, pipe: Connection) -> None:
    """Answer until the other end is closed."""
    # Ctrl-C reaches the whole group; the driver answers it, and then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A process that is asked to end still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    system: System | None = None
    with ExitStack() as stack, suppress(EOFError, BrokenPipeError):
        while True:
            method, arguments = pipe.recv()
            try:
                if system is None:
                    system = spec.build()
                    stack.callback(system.close)
                answer = getattr(system, method)(*arguments)
            except Exception as error:  # noqa: BLE001  (sent to the driver, which raises it)
                traceback.print_exc()
                pipe.send((None, f"{type(error).__name__}: {error}"))
                return
            pipe.send((answer, None))


def tree_memory_mb(pid: int) -> float:
    """Proportional set size of a process and its descendants, in MB (10**6 bytes).

    A page that several processes share is divided among them, so that the sum counts it once; library pages that
    processes outside the tree have mapped too are counted in part. Linux only.
    """
    total = 0
    # A process may end while it is looked at.
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                total += process.memory_full_info().pss
    return total / 1e6


class PeakMemory:
    """Looks at a process tree twice a second while the block lasts, and keeps the largest sum.

    Args:
        pid: the root of the tree.
    """

    def __init__(self, pid: int) -> None:
        self.mb = 0.0
        """The peak so far."""
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def _watch(self) -> None:
        while True:
            self.mb = max(self.mb, tree_memory_mb(self._pid))
            if self._over.wait(_MEMORY_INTERVAL_S):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()


# -- alternation ------------------------------------------------------------------------------------


def compare(
    specs: Sequence[SystemSpec], rounds: int, seconds: float, report: Report = print
) -> tuple[str, dict[str, Any]]:
    """The table of alternating rounds, and all that was measured, for JSON; see ``alternate``."""
    found = alternate(specs, rounds, seconds, report)
    summary = summarise(specs, found)
    return table(summary), {"summary": summary, "measurements": raw(found)}


def alternate(
    specs: Sequence[SystemSpec], rounds: int, seconds: float, report: Report = print
) -> dict[str, list[Round]]:
    """Start every system, warm each up, then measure them in turn; last, one round more of each for its memory.

    Memory is not watched while time is measured: walking through the page tables of many processes costs them more
    than it costs a single one.

    Args:
        specs: what is measured, in this order in each round.
        rounds: how often each is measured.
        seconds: length of one measurement.
        report: called with a line for each measurement.

    Raises:
        RunError: a system failed.
    """
    found: dict[str, list[Round]] = {spec.name: [] for spec in specs}
    with ExitStack() as stack:
        systems = []
        for spec in specs:
            system = IsolatedSystem(spec)
            stack.callback(system.close)
            system.warm_up()
            systems.append(system)
            report(f"{spec.name} is warm")
        width = max(len(system.name) for system in systems)
        for number in range(1, rounds + 1):
            for system in systems:
                measured = system.run_round(seconds)
                found[system.name].append(measured)
                report(f"round {number}/{rounds}  {system.name:<{width}} {measured.steps_per_s:>10,.0f} steps/s")
        for system in systems:
            with PeakMemory(system.pid) as peak:
                system.run_round(seconds)
            found[system.name] = [replace(measured, memory_mb=peak.mb) for measured in found[system.name]]
    return found


def in_turn(
    cases: Mapping[str, Callable[[int], T]],
    rounds: int,
    *,
    warm_up: int = 1,
    order: np.random.Generator | None = None,
    report: Callable[[int, str, T], None] = lambda number, name, found: None,
) -> dict[str, list[T]]:
    """What functions of this process measure when they take turns.

    Args:
        cases: measures by name; called with the number of the round, from 0.
        rounds: how often each counts.
        warm_up: rounds before those, which do not count.
        order: draws a new order for each round; None = that of ``cases``.
        report: called with number, name and measurement of each that counts.
    """
    found: dict[str, list[T]] = {name: [] for name in cases}
    names = list(cases)
    for number in range(warm_up + rounds):
        for at in range(len(names)) if order is None else order.permutation(len(names)):
            measured = cases[names[at]](number)
            if number >= warm_up:
                found[names[at]].append(measured)
                report(number, names[at], measured)
    return found


# -- summaries --------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": median(values), "low": min(values), "high": max(values)}


def ratios(own: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round, so that load that slows a whole round down cancels."""
    return [a / b for a, b in zip(own, theirs, strict=True)]


def ratio_spread(found: Sequence[float]) -> dict[str, float]:
    """Median and range of ratios."""
    return {f"ratio_{name}": value for name, value in spread(found).items()}


def summarise(specs: Sequence[SystemSpec], found: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    """Medians, ranges and splits, and the ratios of the other systems to the references, round by round.

    Returns:
        ``{"reference": name of the fastest, "systems": {name: {...}}}``; speeds in steps/s. The ratio of a
        system is that to the fastest reference; ``against`` has those to each of them.
    """
    speeds = {name: [r.steps_per_s for r in rounds] for name, rounds in found.items()}
    references = [spec.name for spec in specs if spec.is_reference]
    reference = max(references, key=lambda name: median(speeds[name])) if references else None
    rows = {}
    for name, own in speeds.items():
        row: dict[str, Any] = spread(own) | {"rounds": own}
        row |= {"split": _split(found[name]), "memory_mb": _memory_mb(found[name])}
        if reference is not None and name not in references:
            each = {other: ratios(own, speeds[other]) for other in references}
            against = {other: ratio_spread(found) | {"ratios": found} for other, found in each.items()}
            row |= against[reference] | {"against": against}
        rows[name] = row
    return {"reference": reference, "systems": rows}


def _split(rounds: Sequence[Round]) -> dict[str, float]:
    return {activity: mean(r.split[activity] for r in rounds) for activity in rounds[0].split}


def _memory_mb(rounds: Sequence[Round]) -> float | None:
    return max((r.memory_mb for r in rounds if r.memory_mb is not None), default=None)


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people; with several references, the ratios to each below."""
    rows = summary["systems"]
    width = 2 + max(map(len, (*rows, "system")))
    lines = [f"{'system':<{width}}{'steps/s':>10}  {'range':<18}{'ratio':>7}  {'range':<14}{'MB':>6}  split"]
    for name, row in rows.items():
        ratio, between = _shown(row) if "ratio_median" in row else ("1" if name == summary["reference"] else "", "")
        memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:,.0f}"
        split = ", ".join(f"{activity} {share:.0%}" for activity, share in row["split"].items())
        speed = f"{row['low']:,.0f}-{row['high']:,.0f}"
        lines.append(
            f"{name:<{width}}{row['median']:>10,.0f}  {speed:<18}{ratio:>7}  {between:<14}{memory:>6}  {split}".rstrip()
        )
    for name, row in rows.items():
        if len(row.get("against", {})) > 1:
            shown = (f"{ratios['ratio_median']:.2f}x {other}" for other, ratios in row["against"].items())
            lines.append(f"{name}: {', '.join(shown)}")
    return "\n".join(lines)


def _shown(ratios: Mapping[str, Any]) -> tuple[str, str]:
    return f"{ratios['ratio_median']:.2f}x", f"{ratios['ratio_low']:.2f}-{ratios['ratio_high']:.2f}"


def raw(found: Mapping[str, Sequence[Round]]) -> list[dict[str, Any]]:
    """Every measurement, in the order in which it was made."""
    names = list(found)
    return [
        {"round": number, "system": name, **asdict(found[name][number])}
        for number in range(len(found[names[0]]))
        for name in names
    ]


# -- the machine ------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """The machine, without its name, and the versions of what was measured."""
    versions = installed_versions()
    versions["stable-baselines3"] = metadata.version("stable-baselines3")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "compiled": compiled(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def compiled() -> dict[str, bool]:
    """Which of our compiled modules are at work here; without them, the same is done in Python, or by NLE."""
    from agents.fast import patches
    from envs import maps
    from envs.engine import native

    return {"engine": native.why_not() is None, "patches": patches.is_compiled(), "maps": maps.IS_COMPILED}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    name = found.get("model name", platform.processor() or "unknown")
    return f"{name} (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else name


def as_json(command: Sequence[str], flags: Any, before: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Everything that a reader needs to judge and repeat the figures."""
    return json.dumps({"command": list(command), "flags": flags, "machine": before, **results}, indent=1)
