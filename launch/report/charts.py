"""Curves as inline SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_IN, _HEIGHT_IN = 4.6, 2.35
_MAX_POINTS = 400

# Stand-ins: matplotlib draws in these colours, and the page's own take their place in the SVG, so that one
# drawing fits light and dark.
_INK, _RULE = "#010101", "#020202"
_SERIES = ("#030301", "#030302", "#030303", "#030304", "#030305", "#030306")
_ON_PAGE = {_INK: "var(--muted)", _RULE: "var(--rule)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, start=1)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One figure: named series over steps."""

    title: str
    """What is shown."""
    unit: str
    """Label of the vertical axis, with its unit."""
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    """``{name: (steps, values)}``; a value that is not finite leaves a gap."""
    is_share: bool = False
    """The axis runs from 0 to 1."""
    note: str = ""
    """A sentence below the figure."""
    marks: Sequence[float] = field(default=())
    """Steps marked by a vertical line: the resumes."""

    @property
    def is_empty(self) -> bool:
        """There is nothing to draw."""
        return not any(np.isfinite(np.asarray(values, float)).any() for _, values in self.series.values())


def draw(chart: Chart) -> str:
    """The chart as an ``<svg>`` element.

    The same chart gives the same text. Series have the page's colours ``--series-1`` and so on, axes
    ``--muted``, the grid ``--rule``.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": chart.title,
        "font.size": 10.5,
        "font.family": "sans-serif",
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
        axes = figure.add_subplot()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        _style(axes, chart)
        for mark in chart.marks:
            axes.axvline(mark, color=_INK, linewidth=0.8, dashes=(2, 3))
        for colour, (steps, values) in zip(_cycle(len(chart.series)), chart.series.values(), strict=True):
            x, y = _thinned(np.asarray(steps, float), np.asarray(values, float))
            alone = len(x) == 1
            axes.plot(x, y, color=colour, linewidth=1.6, marker="o" if alone else None, solid_joinstyle="round")
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    return _for_page(out.getvalue(), chart)


def series_colour(number: int) -> str:
    """CSS colour of the ``number``-th series, from 0."""
    return f"var(--series-{number % len(_SERIES) + 1})"


def _cycle(count: int) -> list[str]:
    return [_SERIES[i % len(_SERIES)] for i in range(count)]


def _style(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_INK)
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    axes.tick_params(axis="x", length=3)
    axes.set_xlabel("environment steps", color=_INK)
    axes.set_ylabel(chart.unit, color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short_number(x)))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if chart.is_share:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: short_number(y)))


def short_number(value: float) -> str:
    """A number for an axis: 1500000 as '1.5M', 20000 as '20k', 0.0125 as '0.0125'."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:.4g}"


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most ``_MAX_POINTS`` points: means of neighbours, so that no peak is invented."""
    if len(x) <= _MAX_POINTS:
        return x, y
    size = math.ceil(len(x) / _MAX_POINTS)
    starts = range(0, len(x), size)
    finite = [y[s : s + size][np.isfinite(y[s : s + size])] for s in starts]
    return (
        np.array([x[s : s + size].mean() for s in starts]),
        np.array([part.mean() if len(part) else math.nan for part in finite]),
    )


def _for_page(svg: str, chart: Chart) -> str:
    """The bare element: no prolog, no fixed size, no fonts of its own, ids that cannot meet another's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r" xmlns:xlink=\"[^\"]*\"", "", svg).replace("xlink:href", "href")
    svg = re.sub(r"\s*\n\s*", " ", svg)
    prefix = re.sub(r"\W+", "-", chart.title.lower())
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    for stand_in, colour in _ON_PAGE.items():
        svg = svg.replace(stand_in, colour)
    return svg.replace("<svg", '<svg role="img" aria-hidden="true"', 1)
