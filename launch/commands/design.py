"""``yendor design PRESET [--flag value ...] [-- training flags]`` and ``yendor design --resume FOLDER``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import CliPositionalArg

from envs.data import Config
from launch.config.flags import AFTER, JsonOut, Selection, parse, result_path
from launch.config.presets import PRESETS, preset
from launch.config.resolve import check_startable
from launch.config.train_config import TrainConfig
from launch.design.config import DesignConfig
from launch.errors import UserError

_OURS: Mapping[str, str] = {
    "total-steps": "use --trial-steps and --report.steps",
    "seed": "use --seed and --report.seeds before the --",
    "name": "use --name before the --",
    "runs": "use --runs before the --",
    "ray-address": "use --ray-address before the --",
    "reward.program.code": "that is what a search looks for",
    "reward.program.*": "use --reward.* before the --",
    "threads": "a run of a search is one process with one thread",
    "placement": "a run of a search is one process with one thread",
    "rollout.num-workers": "a run of a search is one process with one thread; --parallel says how many run at a time",
    "rollout.games-per-worker": "a run of a search plays 16 games",
    "rollout.max-policy-lag": "a run of a search is synchronous",
    "checkpoint.interval-*": "a run of a search is saved every minute",
    "logging.*": "a run of a search logs every update",
}
"""Flags of training that a search sets itself, and what to do instead."""


class DesignFlags(Selection):
    """Search for a reward program: propose, criticise, train the accepted ones briefly, analyse, and again.

    yendor design PRESET [--flag value ...] [--json OUT] [-- --training-flag value ...]
    yendor design --resume FOLDER [--json OUT]

    The best program on seeds A is reported on seeds B, beside training without a program. With --llm.base-url (of a
    server that runs already, such as that of 'yendor serve-llm') a language model writes the programs; without one, a
    grammar composes them. Flags after -- change what each run trains, as those of 'yendor train PRESET'; with another
    --env.task, --goal says in words what it asks for. A search that was stopped goes on with --resume.

    The chosen program can be used in any run: yendor train PRESET --reward.program.code SHA
    """

    start: CliPositionalArg[str] = ""
    """A preset."""
    resume: Path | None = None
    """The folder of a search to go on with."""
    out: JsonOut = None
    """A file that keeps what was found."""
    training: Annotated[tuple[str, ...], Field(alias=AFTER)] = ()
    """Flags of training, after --."""

    def defaults(self) -> Config:
        """What the other flags change; nothing of a search that goes on."""
        if self.resume is not None:
            if self.start or self.training:
                raise UserError("yendor design --resume takes the search's folder and nothing else")
            return Config()
        if not self.start:
            raise UserError(f"the preset comes first: yendor design PRESET ...; presets: {', '.join(PRESETS)}")
        return DesignConfig(preset=preset(self.start).preset)

    @classmethod
    def hidden(cls) -> tuple[str, ...]:
        """The preset is given by its place."""
        return ("preset",)


def run(flags: DesignFlags, config: Config) -> int:
    """Search, print what was found; see ``launch.cli.main`` for the exit code."""
    if not isinstance(config, DesignConfig):
        from launch.design.startup import resume

        assert flags.resume is not None
        return resume(flags.resume, result_path(flags.out))
    train = _checked(config, preset(config.preset), flags.training)
    from launch.design.startup import begin

    return begin(config, train, flags.training, result_path(flags.out))


def _checked(config: DesignConfig, defaults: TrainConfig, training: Sequence[str]) -> TrainConfig:
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
