"""``yendor rewards codes [CODE]``: why source code is refused as a reward program, and what to write instead."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from envs.data import Config
from launch.arguments import parse
from launch.errors import unknown_name


def run(argv: Sequence[str]) -> int:
    """Print what a code stands for, or the table of all."""
    from rewards.auto.program import REJECTIONS

    chosen = argv[0] if argv and not argv[0].startswith("-") else None
    parse(Config(), argv[chosen is not None :], "yendor rewards codes")
    if chosen is not None and chosen not in REJECTIONS:
        raise unknown_name("code", chosen, REJECTIONS)
    for code, kind in REJECTIONS.items():
        if chosen in (None, code):
            sys.stdout.write(f"{code}  {kind.title}\n     why: {kind.why}\n     instead: {kind.instead}\n")
    return 0
