"""Measures contenders in turn (A B A B ...), so that what the machine does meanwhile meets them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from launch.bench.contender import Isolated, Maker, Round
from launch.bench.memory import PeakMemory
from launch.bench.summary import raw, summarise, table

Say = Callable[[str], None]


def contest(makers: Sequence[Maker], rounds: int, seconds: float, say: Say = print) -> tuple[str, dict[str, Any]]:
    """The table of alternating rounds, and all that was measured, for JSON.

    Raises:
        RunError: a contender failed.
    """
    found = alternate(makers, rounds, seconds, say)
    summary = summarise(makers, found)
    return table(summary), {"summary": summary, "measurements": raw(found)}


def alternate(makers: Sequence[Maker], rounds: int, seconds: float, say: Say = print) -> dict[str, list[Round]]:
    """Start every contender, warm each up, then measure them in turn; last, one round more of each for its memory.

    Memory is not watched while time is measured: walking through the page tables of many processes costs them more
    than it costs a single one.

    Args:
        makers: what is measured, in this order in each round.
        rounds: how often each is measured.
        seconds: length of one measurement.
        say: told of each one.

    Raises:
        RunError: a contender failed.
    """
    found: dict[str, list[Round]] = {maker.name: [] for maker in makers}
    with ExitStack() as stack:
        contenders = []
        for maker in makers:
            contender = Isolated(maker)
            stack.callback(contender.close)
            contender.warm_up()
            contenders.append(contender)
            say(f"{maker.name} is warm")
        width = max(len(contender.name) for contender in contenders)
        for number in range(1, rounds + 1):
            for contender in contenders:
                measured = contender.run_round(seconds)
                found[contender.name].append(measured)
                say(f"round {number}/{rounds}  {contender.name:<{width}} {measured.steps_per_s:>10,.0f} steps/s")
        for contender in contenders:
            with PeakMemory(contender.pid) as peak:
                contender.run_round(seconds)
            found[contender.name] = [replace(measured, memory_mb=peak.mb) for measured in found[contender.name]]
    return found
