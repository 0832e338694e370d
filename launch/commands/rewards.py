"""``yendor rewards ACTION ...``: the factors and the programs that rewards are made of, and what they prefer."""

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

Reward programs, which are never imported but run in containment:

       yendor rewards check FILE ... [--min-isolation LEVEL] [--json]
       yendor rewards codes [CODE]
       yendor rewards score PROGRAM --episodes EPISODE ... [--screens] [--json]
       yendor rewards run PROGRAM --transitions FILE [--json]
       yendor rewards list [--archive DIR] [--json]
       yendor rewards show PROGRAM [--archive DIR] [--prompt] [--json]
       yendor rewards diff PROGRAM PROGRAM [--archive DIR]
       yendor rewards audit RUN [--json]

check says whether files are reward programs that may be trained with, after tests on shipped play, and why not; codes
explains a refusal; score shows what a program pays for recorded episodes, step by step; run prints what it answers for
transitions of one's own, JSON lines with obs, prev_obs, action and info; list prints the programs of an archive, each
under the one that it was made from; show prints one with all that is known of it; diff what changed between two; audit
prints what a run did with its programs, and exits with 1 where the log of it was touched.

RUN is a run folder; EPISODE is a record that 'yendor eval ... --record' has written (.npz); PROGRAM is a source file
(.py), or the SHA of a program in the archive (--archive, runs/programs by default), of which four digits may do.
--json prints JSON. 'yendor rewards ACTION X --help' lists the flags of an action that takes an X, and 'yendor rewards
compare A B --help' those of compare.
"""

_PROGRAM = "the SHA or the file of a program"

_ACTIONS = Actions(
    command="rewards",
    usage=_USAGE,
    package="launch.rewards",
    switches=("--json",),
    modules={
        "factors": ("listing", ""),
        "show": ("source", f"a run folder, or {_PROGRAM}"),
        "compare": ("compare", "two recorded episodes"),
        "check": ("check", "the file of a program"),
        "codes": ("codes", ""),
        "score": ("score", _PROGRAM),
        "run": ("apply", _PROGRAM),
        "list": ("lineage", ""),
        "diff": ("diff", "two programs"),
        "audit": ("audit", "a run folder"),
    },
)


def run(argv: Sequence[str]) -> int:
    """Dispatch to an action."""
    return _ACTIONS.run(argv)
