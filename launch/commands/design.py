"""``yendor design PRESET [--flag value ...] [-- training flags]`` and ``yendor design --resume FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from launch.arguments import parse, take_value
from launch.config import TrainConfig
from launch.design.config import DesignConfig
from launch.durable import result_path
from launch.errors import UserError
from launch.presets import PRESETS, preset

_USAGE = """usage: yendor design PRESET [--flag value ...] [--json OUT] [-- --training-flag value ...]
       yendor design --resume FOLDER [--json OUT]

Search for a reward program: propose, criticise, train the accepted ones briefly, analyse, and again; then choose the
best on seeds A and report it on seeds B, beside training without a program. With --llm.base-url (or llm.serve's
server) a language model writes the programs; without one, a grammar composes them. Flags after -- change what each
run trains, as those of 'yendor train PRESET'. A search that was stopped goes on with --resume.

The chosen program can be used in any run: yendor train PRESET --reward.program SHA

'yendor design PRESET --help' lists every flag.
"""


def run(argv: Sequence[str]) -> int:
    """Check, search, print what was found; see ``launch.cli.main`` for the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return 0
    out, arguments = take_value(argv, "--json")
    if arguments[0] == "--resume":
        if len(arguments) != 2:
            raise UserError("yendor design --resume takes the search's folder and nothing else")
        from launch.design.run import resume

        return resume(Path(arguments[1]), result_path(out))
    name, *rest = arguments
    if name.startswith("-"):
        raise UserError(f"the preset comes first: yendor design {name} ...; presets: {', '.join(PRESETS)}")
    flags, training = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
    defaults = preset(name)
    config = parse(DesignConfig(preset=name), flags, f"yendor design {name}")
    train = _checked(parse(defaults, training, f"yendor design {name} -- "))
    from launch.design.run import begin

    return begin(config, train, result_path(out))


def _checked(train: TrainConfig) -> TrainConfig:
    from launch.checks import check_startable

    if len(train.env.task_ids) > 1:
        raise UserError("yendor design searches for one task at a time; env.task names several")
    if train.reward.program is not None:
        raise UserError("reward.program is what a search looks for; leave it out")
    check_startable(train)
    return train
