"""The command that trains with a reward as a search has found it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.runs.folder import flatten
from rewards.auto.config import ProgramConfig
from rewards.auto.program import SHORT_SHA


def command_of(preset: str, sha: str, reward: ProgramConfig, training: Sequence[str]) -> str:
    """``yendor train PRESET --reward.program SHA ...`` with whatever differs from the defaults.

    Args:
        preset: what was searched with.
        sha: the program.
        reward: how it was composed, contained and weighed; its archive may be an absolute path.
        training: flags for training, as they were typed.
    """
    usual = flatten(_with_absolute_archive(ProgramConfig()).model_dump(mode="json"))
    ours = flatten(_with_absolute_archive(reward).model_dump(mode="json"))
    flags = ["--reward.program", sha[:SHORT_SHA]]
    for name, value in ours.items():
        if value != usual[name]:
            flags += [f"--reward.auto.{name.replace('_', '-')}", *_words(value)]
    return shlex.join(["yendor", "train", preset, *flags, *training])


def _with_absolute_archive(reward: ProgramConfig) -> ProgramConfig:
    return reward.model_copy(update={"archive": Path(reward.archive).absolute()})


def _words(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]
