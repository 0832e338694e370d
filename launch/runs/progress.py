"""What a person sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

Clock = Callable[[], float]

_FORMATS: Mapping[str, tuple[str, str]] = {
    "rollout/success": ("success", "{:.3f}"),
    "rollout/env_return": ("env return", "{:.3f}"),
    "rollout/score": ("score", "{:,.0f}"),
    "rollout/max_depth": ("depth", "{:.2f}"),
    "rollout/episode_steps": ("episode steps", "{:.1f}"),
    "labels/known": ("labels known", "{:,.0f}"),
    "labels/queued": ("labels queued", "{:,.0f}"),
    "labels/coverage": ("label coverage", "{:.1%}"),
    "policy/entropy": ("entropy", "{:.3f}"),
    "policy/approx_kl": ("KL", "{:.4f}"),
    "offline/head_loss": ("head loss", "{:.3f}"),
    "offline/critic_loss": ("critic loss", "{:.4f}"),
    "offline/value": ("value", "{:.3f}"),
}
"""``{metric: (its short name, its format)}``, in the order of display."""


class Progress(Protocol):
    """Shows how a run goes on; a context manager."""

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """The run is at this step; metrics that are absent keep their last value."""
        ...

    def note(self, text: str) -> None:
        """Something happened that a person should read."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def progress(
    console: Console,
    interval_s: float,
    *,
    total_steps: int,
    title: str = "training",
    unit: str = "step",
    clock: Clock = time.monotonic,
) -> Progress:
    """The display that fits the console: live on a terminal, plain lines otherwise."""
    kind = LiveProgress if console.is_terminal and not console.is_dumb_terminal else PlainProgress
    return kind(console, interval_s, total_steps=total_steps, title=title, unit=unit, clock=clock)


class Silent:
    """A ``Progress`` that shows nothing."""

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class _Display:
    """The last value of everything shown, and how fast the run goes.

    Args:
        console: where it is shown.
        interval_s: least time between two plain lines; a live panel is drawn four times a second.
        total_steps: where the run ends.
        title: what the run is called.
        unit: what is counted.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        console: Console,
        interval_s: float,
        *,
        total_steps: int,
        title: str,
        unit: str = "step",
        clock: Clock = time.monotonic,
    ) -> None:
        self._console, self._interval_s, self._title, self._clock = console, interval_s, title, clock
        self._total_steps, self._step, self._unit = total_steps, 0, unit
        self._metrics: dict[str, float] = {}
        self._first: tuple[float, int] | None = None
        """Time and step of the first update."""

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """See ``Progress.update``."""
        # A resumed run begins in the middle: what was done before must not count as speed.
        if self._first is None:
            self._first = (self._clock(), step)
        self._step = step
        self._metrics |= metrics

    @property
    def _steps_per_s(self) -> float | None:
        if (measured := self._metrics.get(f"time/{self._unit}s_per_s")) is not None:
            return measured
        if self._first is None or (elapsed := self._clock() - self._first[0]) <= 0:
            return None
        return (self._step - self._first[1]) / elapsed

    @property
    def _left(self) -> str:
        speed = self._steps_per_s
        return duration(max(self._total_steps - self._step, 0) / speed if speed else None)

    @property
    def _share(self) -> float:
        return min(self._step / self._total_steps, 1.0) if self._total_steps else 1.0

    def _shown(self) -> dict[str, str]:
        """The known metrics by their short names, reward parts last."""
        found = {
            short: form.format(self._metrics[name])
            for name, (short, form) in _FORMATS.items()
            if math.isfinite(self._metrics.get(name, math.nan))
        }
        for name, value in self._metrics.items():
            if name.startswith("rewards/") and name.endswith("/mean") and name.count("/") == 2:
                found[f"reward {name.removeprefix('rewards/').removesuffix('/mean')}"] = f"{value:+.4f}"
        return found


def duration(seconds: float | None) -> str:
    """Seconds in words: '42 s', '5 min 12 s', '3 h 20 min'; '-' where unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class PlainProgress(_Display):
    """One line every ``interval_s`` seconds, one for each note, and one at the end."""

    _due_s = -math.inf

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """See ``Progress.update``."""
        super().update(step, metrics)
        if self._clock() >= self._due_s:
            self._due_s = self._clock() + self._interval_s
            self._print(self._line())

    def note(self, text: str) -> None:
        """See ``Progress.note``."""
        self._print(text)

    def _line(self) -> str:
        speed = self._steps_per_s
        parts = [f"{self._unit} {self._step:,}/{self._total_steps:,} ({self._share:.0%})"]
        parts += [f"{speed:,.0f} {self._unit}s/s"] if speed is not None else []
        parts += [f"{name} {value}" for name, value in self._shown().items()]
        return " | ".join([*parts, f"left {self._left}"])

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._metrics:
            self._print(f"{self._title}: {self._line()}")


class LiveProgress(_Display):
    """A panel that redraws itself; notes scroll by above it and the last one stays in it."""

    _last_note = ""

    @cached_property
    def _live(self) -> Live:
        from rich.live import Live

        return Live(console=self._console, get_renderable=self._panel, refresh_per_second=4)

    def note(self, text: str) -> None:
        """See ``Progress.note``."""
        self._last_note = text
        self._console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def _panel(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        speed = self._steps_per_s
        head = Text.assemble(
            (f"{self._step:,}", "bold"), f" / {self._total_steps:,} {self._unit}s   ",
            ("-" if speed is None else f"{speed:,.0f}", "bold"), f" {self._unit}s/s   ",
            (self._left, "bold"), " left",
        )  # fmt: skip
        bar = ProgressBar(total=1.0, completed=self._share)
        rows: list[RenderableType] = [head, bar, Text(), self._table()]
        if self._last_note:
            rows += [Text(), Text(self._last_note, style="dim", overflow="ellipsis", no_wrap=True)]
        return Panel(Group(*rows), title=Text(self._title, style="bold"), title_align="left", padding=(1, 2))

    def _table(self) -> Table:
        from rich.table import Table

        shown = list(self._shown().items())
        num_columns = 3 if self._console.width >= 100 else 2
        table = Table.grid(padding=(0, 2), expand=True)
        for _ in range(num_columns):
            table.add_column(style="dim")
            table.add_column(justify="right")
        num_rows = math.ceil(len(shown) / num_columns)
        for row in range(num_rows):
            cells = [shown[i] for i in range(row, len(shown), num_rows)]
            table.add_row(*(text for cell in cells for text in cell))
        return table
