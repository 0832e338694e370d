"""What others wrote of programs, and what became of them, as text for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from launch.rewards import words
from rewards.auto.search.proposal import Verdict

NOT_JUDGED = "not judged"


def shown(text: str) -> str:
    """Text that others wrote, fit for a terminal: what is no visible character, tab or newline is spelled out."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character)[0] != "C" else ascii(character)[1:-1]
        for character in text
    )


def judged(verdict: Verdict | None) -> str:
    """A verdict in one line, with the first reason."""
    if verdict is None:
        return NOT_JUDGED
    return "accepted" if verdict.accepted else f"rejected, {verdict.reasons[0]}"


def success(fitness: Mapping[str, Any], seeds: str = "selection") -> str:
    """'62.0 % (52.0 % to 71.0 %, n = 100)', or '-'."""
    found = fitness.get(seeds) or {}
    return words.accuracy(found.get("success"), found.get("low"), found.get("high"), int(found.get("n") or 0))
