"""``yendor rewards ACTION ...``: the factors that rewards are made of, and what a run's reward prefers."""

from __future__ import annotations

from collections.abc import Sequence

from launch.actions import Actions

_USAGE = """usage: yendor rewards factors [--json]
       yendor rewards show RUN [--json]
       yendor rewards compare EPISODE_A EPISODE_B [--run RUN] [--json]
       yendor rewards compare EPISODE_A EPISODE_B --ranking FACTOR ... [--mode margin|bins] [--json]

factors lists what a ranking may be made of, and how to write a factor of one's own; show prints the preference tree
of a run: what each level decides, and how well the reward model has learned it; compare says which of two recorded
episodes is better, and which factor decides.

A factor in a module of your own, NAME=MODULE:FACTOR, is imported: PYTHONPATH must lead to the module's folder.

RUN is a run folder; EPISODE is a record that 'yendor eval ... --record' has written (.npz). --json prints JSON.
'yendor rewards compare A B --help' lists its flags.
"""

_ACTIONS = Actions(
    command="rewards",
    usage=_USAGE,
    package="launch.rewards",
    modules={
        "factors": ("listing", ""),
        "show": ("show", "a run folder"),
        "compare": ("compare", "two recorded episodes"),
    },
)


def run(argv: Sequence[str]) -> int:
    """Dispatch to an action."""
    return _ACTIONS.run(argv)
