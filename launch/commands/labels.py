"""``yendor labels ACTION ...``: gather captions, label them without a run, look at labels, compare annotators."""

from __future__ import annotations

from collections.abc import Sequence

from launch.actions import Actions

_USAGE = """usage: yendor labels gather TASK[,TASK...] [--out OUT.jsonl] [--steps N] [--policy RUN|random] [--seed N]
       yendor labels run CAPTIONS --out STORE [--pairs N] [--labels.goal GOAL] [--llm.base-url URL] ...
       yendor labels list RUN|STORE [--match TEXT] [--value 0|0.5|1|none] [--sort ORDER] [--limit N] ...
       yendor labels audit RUN|STORE [RUN|STORE] [--a MODEL[@PROMPT]] [--b MODEL[@PROMPT]] [--json OUT]
       yendor labels export RUN|STORE OUT.parquet|OUT.csv|OUT.jsonl

gather plays, and writes down every distinct caption; run labels the captions of a .jsonl file (key "text") or a .txt
file (one a line), and asks only for what the store does not know yet; list shows labels, audit how far two annotators
or prompts agree, export takes labels elsewhere.

RUN is a run folder (its labels.sqlite, or the store that its configuration names); STORE is an SQLite file.
A store that a run is writing can be read meanwhile. 'yendor labels ACTION X --help' lists the flags of an action.
"""

_ACTIONS = Actions(
    command="labels",
    usage=_USAGE,
    package="launch.labels",
    modules={
        "gather": ("gather", "a task"),
        "run": ("offline", "a file of captions"),
        "list": ("listing", "a run folder or a label store"),
        "audit": ("audit", "a run folder or a label store"),
        "export": ("export", "a run folder or a label store"),
    },
)


def run(argv: Sequence[str]) -> int:
    """Dispatch to an action."""
    return _ACTIONS.run(argv)
