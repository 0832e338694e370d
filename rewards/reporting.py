"""What a reward shows of itself in a run's report: a section of plain blocks, which the report's page renders.

Data only: a kind of reward builds a section without knowing the page, and the page shows any section alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

NONE = "\N{EN DASH}"
"""Stands for a figure that is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A headline and what stands below it, in order."""

    anchor: str
    """Id of the headline within the page."""
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph in small print."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """How the cells of a column are set."""

    title: str = ""
    """A table none of whose columns has one gets no head."""
    kind: Literal["text", "number", "code", "time"] = "text"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One field of a table."""

    text: str
    note: str = ""
    """In small print, on a line of its own."""
    warning: str = ""
    """A word that must be noticed, behind the text."""
    tooltip: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of cells, one a column."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """An inline picture."""

    svg: str
    """The ``<svg>`` element. It goes into the page as it is: whoever draws it escapes the text in it. Colours are the
    page's CSS variables, such as ``var(--ink)``."""
    description: str
    """What is to be seen, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Source code that the reader unfolds."""

    title: str
    subtitle: str
    source: str
    is_open: bool = False
    """Unfolded from the start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """A drawing with blocks at its side, where the page is wide enough."""

    drawing: Drawing
    blocks: Sequence[Table]


Block = Paragraph | Table | Listing | Beside


# -- figures ----------------------------------------------------------------------------------------


def figure(value: float | None) -> str:
    """Three significant digits, or whole where it is large or whole: '0.863', '16,200'."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def whole(value: float | None) -> str:
    """'5,200'."""
    return NONE if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """'94.5 %' of 0.945."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def signed(value: float | None) -> str:
    """'+160'."""
    return NONE if value is None else f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")
