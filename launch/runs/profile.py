"""Where a run's time goes: a table of phases, and a trace for Perfetto (ui.perfetto.dev) or chrome://tracing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from envs.files import write_atomic
from envs.phases import Span

FOLDER = "profile"
WARM_UP_UPDATES = 2
"""Updates that are not recorded: first calls allocate and compile."""
UPDATES = 20
"""Updates that are."""


class Profile:
    """Takes the spans of some updates, then writes them down.

    Args:
        run: the run's folder; files go into its ``profile``.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER
        self._seen = 0
        self._steps = 0
        self._spans: dict[str, list[Span]] = defaultdict(list)
        self.is_over = False

    def add(self, spans: Sequence[Mapping[str, list[Span]]], steps: int) -> None:
        """Take in one update: spans by process, of every learner, and the environment steps that it learned from.

        The last of ``UPDATES`` writes ``phases.txt`` and ``trace.json``.
        """
        self._seen += 1
        if self.is_over or self._seen <= WARM_UP_UPDATES:
            return
        self._steps += steps
        for processes in spans:
            for process, found in processes.items():
                self._spans[process].extend(found)
        if self._seen == WARM_UP_UPDATES + UPDATES:
            self.write()

    def write(self) -> None:
        """Write what there is; nothing without a span."""
        self.is_over = True
        if not any(self._spans.values()):
            return
        self.folder.mkdir(exist_ok=True)
        write_atomic(self.folder / "phases.txt", table(self._spans, self._steps))
        write_atomic(self.folder / "trace.json", json.dumps(trace(self._spans)))


def table(spans: Mapping[str, Sequence[Span]], steps: int) -> str:
    """Phases of every process: how often, how long, share of the window, microseconds per environment step.

    The window is the same for all: from the first span to the end of the last. Phases within others are
    indented; ``(none of these)`` is what is left: waiting, messages, Python between phases.
    """
    everything = [span for found in spans.values() for span in found]
    window_s = max(s.began_s + s.seconds for s in everything) - min(s.began_s for s in everything)
    lines = [
        f"{steps:,} environment steps in {window_s:.2f} s: {steps / window_s:,.0f} steps/s",
        f"{'process':<12}{'phase':<22}{'calls':>9}{'seconds':>10}{'share':>8}{'us/step':>9}",
    ]
    for process in sorted(spans):
        sums: dict[str, tuple[int, float]] = {}
        for span in spans[process]:
            calls, seconds = sums.get(span.phase, (0, 0.0))
            sums[span.phase] = calls + 1, seconds + span.seconds
        for phase in sorted(sums):
            lines.append(
                _row(process, "  " * phase.count("/") + phase.rpartition("/")[2], *sums[phase], window_s, steps)
            )
        rest_s = window_s - sum(seconds for phase, (_, seconds) in sums.items() if "/" not in phase)
        lines.append(_row(process, "(none of these)", 0, rest_s, window_s, steps))
    return "\n".join(lines) + "\n"


def _row(process: str, phase: str, calls: int, seconds: float, window_s: float, steps: int) -> str:
    share, each = seconds / window_s, seconds / steps * 1e6
    return f"{process:<12}{phase:<22}{calls or '':>9}{seconds:>10.3f}{share:>8.1%}{each:>9.1f}"


def trace(spans: Mapping[str, Sequence[Span]]) -> dict[str, list[dict[str, object]]]:
    """Chrome's trace event format: complete events ("X"), microseconds, one process each."""
    start_s = min(span.began_s for found in spans.values() for span in found)
    events: list[dict[str, object]] = []
    for number, process in enumerate(sorted(spans)):
        events.append({"name": "process_name", "ph": "M", "pid": number, "tid": 0, "args": {"name": process}})
        events.extend(
            {
                "name": span.phase,
                "ph": "X",
                "pid": number,
                "tid": 0,
                "ts": round((span.began_s - start_s) * 1e6, 1),
                "dur": round(span.seconds * 1e6, 1),
            }
            for span in spans[process]
        )
    return {"traceEvents": events}
