"""What people read on a terminal: numbers, shares and intervals, and text that others wrote."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rewards.reporting import Beside, Drawing, Listing, Paragraph, Section, Table

if TYPE_CHECKING:
    from rich.console import Console

NONE = "-"
"""Stands for what is not known."""

PAGE_BREAK = " / "
"""Stands for a newline where a caption must fit on a line."""


def figure(value: float | None) -> str:
    """Four significant digits: '0.25', '1234', '-'."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def share(part: float | None, whole: float = 1.0) -> str:
    """'30.1 %', or '-' of nothing."""
    return NONE if part is None or not whole else f"{100 * part / whole:.1f} %"


def share_of(value: float | None, low: float | None, high: float | None, num: int) -> str:
    """A share with its interval and what it is of: '93.1 % (90.0 % to 95.5 %, n = 321)'."""
    if value is None:
        return NONE
    return f"{share(value)} ({share(low)} to {share(high)}, n = {num:,})"


def interval(low: float, high: float) -> str:
    """'[0.12, 0.34]'."""
    return f"[{low:.2f}, {high:.2f}]"


def visible(text: str) -> str:
    """Text that others wrote, fit for a terminal: what is no visible character, tab or newline is spelled out."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character)[0] != "C" else ascii(character)[1:-1]
        for character in text
    )


def one_line(text: str) -> str:
    """A caption of several pages on one line."""
    return text.replace("\n", PAGE_BREAK)


def print_section(section: Section) -> None:
    """What a reward shows of itself, on the terminal: tables, sentences and sources; of a drawing, its description."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(visible(section.title), style="bold", markup=False)
    for block in section.blocks:
        _PRINTERS[type(block)](console, block)


def _print_paragraph(console: Console, block: Any) -> None:
    console.print(visible(block.text), markup=False)


def _print_table(console: Console, block: Any) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(show_header=any(column.title for column in block.columns))
    for column in block.columns:
        table.add_column(column.title, justify="right" if column.kind == "number" else "left")
    for row in block.rows:
        table.add_row(*(Text(visible(" ".join(filter(None, (c.text, c.warning, c.note))))) for c in row))
    console.print(table)


def _print_drawing(console: Console, block: Any) -> None:
    console.print(visible(block.description), markup=False)


def _print_beside(console: Console, block: Any) -> None:
    for inner in (block.drawing, *block.blocks):
        _PRINTERS[type(inner)](console, inner)


def _print_listing(console: Console, block: Any) -> None:
    from rich.syntax import Syntax

    console.print(visible(f"{block.title} ({block.subtitle})"), markup=False)
    console.print(Syntax(visible(block.source), "python", word_wrap=True, background_color="default"))


_PRINTERS: Mapping[type, Callable[[Console, Any], None]] = {
    Paragraph: _print_paragraph,
    Table: _print_table,
    Drawing: _print_drawing,
    Beside: _print_beside,
    Listing: _print_listing,
}
