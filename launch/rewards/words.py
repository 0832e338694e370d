"""Numbers and signs of preference trees as people read them."""

from __future__ import annotations

import math

NONE = "-"


def direction(sign: int) -> str:
    """'more' or 'less': what is better."""
    return "more" if sign > 0 else "less"


def margin(value: float | None, mode: str) -> str:
    """'bins of 2.5', 'more than 2.5 apart', 'any difference counts', 'no margin yet'."""
    if value is None:
        return "no margin yet"
    if not value:
        return "any difference counts"
    return f"bins of {figure(value)}" if mode == "bins" else f"more than {figure(value)} apart"


def figure(value: float | None) -> str:
    """Four significant digits: '0.25', '1234', '-'."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def share(part: float | None, whole: float = 1.0) -> str:
    """'30.1 %', or '-' of nothing."""
    return NONE if part is None or not whole else f"{100 * part / whole:.1f} %"


def accuracy(value: float | None, low: float | None, high: float | None, pairs: int) -> str:
    """'93.1 % (90.0 % to 95.5 %, n = 321)'."""
    if value is None:
        return NONE
    return f"{share(value)} ({share(low)} to {share(high)}, n = {pairs:,})"
