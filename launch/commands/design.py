"""``yendor design PRESET [--flag value ...] [-- training flags]`` and ``yendor design --resume FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from launch.arguments import parse, result_path, take_value
from launch.config.presets import PRESETS, preset
from launch.config.train import TrainConfig
from launch.design.config import DesignConfig
from launch.errors import UserError

_USAGE = """usage: yendor design PRESET [--flag value ...] [--json OUT] [-- --training-flag value ...]
       yendor design --resume FOLDER [--json OUT]

Search for a reward program: propose, criticise, train the accepted ones briefly, analyse, and again; then choose the
best on seeds A and report it on seeds B, beside training without a program. With --llm.base-url (of a server that runs
already, such as that of 'yendor serve-llm') a language model writes the programs; without one, a grammar composes them.
Flags after -- change what each run trains, as those of 'yendor train PRESET'; with another --env.task, --goal says in
words what it asks for. A search that was stopped goes on with --resume.

The chosen program can be used in any run: yendor train PRESET --reward.program SHA

'yendor design PRESET --help' lists every flag.
"""

_OURS: Mapping[str, str] = {
    "total-steps": "use --trial-steps and --report.steps",
    "seed": "use --seed and --report.seeds before the --",
    "name": "use --name before the --",
    "runs": "use --runs before the --",
    "ray-address": "use --ray-address before the --",
    "reward.auto.*": "use --reward.* before the --",
    "reward.program": "that is what a search looks for",
    "threads": "a run of a search is one process with one thread",
    "placement": "a run of a search is one process with one thread",
    "rollout.num-workers": "a run of a search is one process with one thread; --parallel says how many run at a time",
    "rollout.games-per-worker": "a run of a search plays 16 games",
    "rollout.max-policy-lag": "a run of a search is synchronous",
    "checkpoint.interval-*": "a run of a search is saved every minute",
    "logging.*": "a run of a search logs every update",
}
"""Flags of training that a search sets itself, and what to do instead."""


def run(argv: Sequence[str]) -> int:
    """Check, search, print what was found; see ``launch.cli.main`` for the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return 0
    ours, training = _split(argv)
    out, arguments = take_value(ours, "--json")
    if not arguments or (arguments[0].startswith("-") and arguments[0] != "--resume"):
        raise UserError(f"the preset comes first: yendor design PRESET ...; presets: {', '.join(PRESETS)}")
    if arguments[0] == "--resume":
        if len(arguments) != 2 or training:
            raise UserError("yendor design --resume takes the search's folder and nothing else")
        from launch.design.startup import resume

        return resume(Path(arguments[1]), result_path(out))
    name, *flags = arguments
    defaults = preset(name)
    config = parse(DesignConfig(preset=name), flags, f"yendor design {name}")
    train = _checked(config, defaults, training)
    from launch.design.startup import begin

    return begin(config, train, training, result_path(out))


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What comes before ``--``, and after it."""
    arguments = list(argv)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _checked(config: DesignConfig, defaults: TrainConfig, training: Sequence[str]) -> TrainConfig:
    from launch.config.checks import check_startable

    for token in training:
        _refuse_ours(token)
    train = parse(defaults, training, f"yendor design {config.preset} -- ")
    if len(train.env.task_ids) > 1:
        raise UserError("yendor design searches for one task at a time; env.task names several")
    if train.env.task_ids != defaults.env.task_ids and config.goal is None:
        raise UserError(f"--goal is needed: the preset's description does not say what {train.env.task} asks for")
    check_startable(train)
    return train


def _refuse_ours(token: str) -> None:
    """A flag that would be dropped.

    Raises:
        UserError: it is one; says what to do instead.
    """
    typed = token.partition("=")[0]
    if not typed.startswith("--"):
        return
    name = typed.removeprefix("--").replace("_", "-").removeprefix("no-").replace(".no-", ".")
    for pattern, instead in _OURS.items():
        if fnmatchcase(name, pattern):
            raise UserError(f"{typed} cannot stand after --, since a search sets it itself: {instead}")
