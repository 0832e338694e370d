"""What people read on a terminal: numbers, shares and intervals, and text that others wrote."""

from __future__ import annotations

import math
import unicodedata

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
