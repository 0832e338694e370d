"""``yendor rewards factors``: what a ranking may be made of."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from textwrap import indent

from launch.arguments import parse
from launch.rewards.stored import take_switch

EXAMPLE_FILE = "my_factors.py"
EXAMPLE = """\
import numpy as np

from rewards.heron.factors import factor


@factor("obs.message", over="sum")
def kicked(columns):
    "Doors kicked open."
    return np.char.find(columns["obs.message"], "WHAMM") >= 0
"""
"""A module of the user's own, and its file."""

ENTRIES = ("success", "kicked = my_factors:kicked", "doors = sum('door opens' in obs.message)", "-turns@5")
"""A ranking with what every kind of entry looks like."""


def run(argv: Sequence[str]) -> int:
    """Print the catalogue and how to write one's own; ``--json`` prints the catalogue for programs."""
    from envs.data import Config
    from rewards.heron.factors import CATALOGUE

    as_json, rest = take_switch(argv, "--json")
    parse(Config(), rest, "yendor rewards factors")
    if as_json:
        found = [
            {"name": f.name, "columns": f.columns, "over": f.over, "margin": f.margin, "description": f.description}
            for f in CATALOGUE.values()
        ]
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("factor", "over", "reads", "what it is")
    for known in CATALOGUE.values():
        table.add_row(*(Text(cell) for cell in (known.name, known.over, "\n".join(known.columns), known.description)))
    Console().print(table)
    sys.stdout.write(_ADVICE)
    return 0


_ADVICE = f"""\
over: how the steps of a segment become one number. Of success and alive any
difference counts; others take their margin from data, unless one is written
(gold@10). A minus says that less is better.

A ranking, the most important first, with a factor of a module of your own and
one that is written as an expression:

    --reward.heron.ranking {ENTRIES[0]} "{ENTRIES[1]}" \\
        "{ENTRIES[2]}" {ENTRIES[3]}

{EXAMPLE_FILE}, somewhere on PYTHONPATH (columns are arrays [T, B], and so is what a
factor gives):

{indent(EXAMPLE, "    ")}"""
