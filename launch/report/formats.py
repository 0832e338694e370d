"""Numbers as people read them; an en dash where there is none."""

from __future__ import annotations

import math

NONE = "\N{EN DASH}"


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
