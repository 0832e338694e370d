"""A program that was refused before any of it ran, for programs and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launch.rewards.terminal import shown
from rewards.auto.program import Rejection

if TYPE_CHECKING:
    from rich.text import Text


def rejection_json(name: str, rejection: Rejection) -> dict[str, Any]:
    """A file that was refused before any of it ran, for programs."""
    return {
        "file": name,
        "verdict": "rejected",
        "code": rejection.code,
        "line": rejection.line,
        "column": rejection.column,
        "reason": rejection.reason,
        "hint": rejection.hint,
        "source_line": rejection.source_line,
    }


def rejection_text(name: str, rejection: Rejection) -> Text:
    """The same for people: the line, a caret under the place, the reason, what to write instead."""
    from rich.text import Text

    from rewards.auto.program import REJECTIONS

    place = "" if rejection.line is None else f", line {rejection.line}"
    text = Text.assemble((f"{shown(name)}{place}: ", "bold"), ("rejected before any of it ran", "bold red"))
    text.append(f"\n  {rejection.code}: {shown(rejection.reason)}")
    if rejection.line is not None and rejection.source_line:
        text.append(f"\n{rejection.line:>6} | {shown(rejection.source_line)}")
        if rejection.column is not None:
            before = shown(rejection.source_line[: rejection.column - 1])
            indent = "".join("\t" if character == "\t" else " " for character in before)
            text.append("\n       | " + indent).append("^", "bold red")
    if rejection.code in REJECTIONS:
        text.append(f"\n  why: {REJECTIONS[rejection.code].why}", "dim")
    if rejection.hint:
        text.append(f"\n  instead: {shown(rejection.hint)}")
    return text.append(f"\n  more: yendor rewards codes {rejection.code}\n", "dim")
