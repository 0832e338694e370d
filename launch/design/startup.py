"""Begins or resumes a search: its folder, its designer and critic, Ray."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from envs.files import write_atomic
from launch.config.flags import validate
from launch.config.presets import PRESETS
from launch.config.train_config import TrainConfig
from launch.design.config import DesignConfig
from launch.design.journal import Journal
from launch.design.search import Say, SearchParts, run
from launch.design.summary import print_summary, printable
from launch.design.trials import Plans, with_absolute_paths
from launch.errors import RunError, UserError
from launch.llm.vllm import answering_model
from launch.processes.session import ray_session
from launch.runs.folder import RunFolder, installed_versions, read_config
from rewards.auto.audit import AuditLog
from rewards.auto.program_kind import isolation_line
from rewards.auto.search.critic import Critic
from rewards.auto.search.guided import GrammarDesigner, RandomGrammarDesigner
from rewards.auto.search.llm import DesignerError, LLMDesigner, LLMOpinion
from rewards.auto.search.proposal import Designer
from rewards.llm.recorded import RecordedReplies, recorded_model
from rewards.llm.server import LLMServer

REPLIES_FILE = "replies.jsonl"
"""In the search's folder: every reply of the language model."""
SUMMARY_FILE = "design.json"
"""In the search's folder: its results."""
AUDIT_FILE = "audit.jsonl"
"""In the search's folder: what was proposed and what the critic said."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What a search is, as its folder keeps it."""

    design: DesignConfig
    train: TrainConfig
    training: tuple[str, ...]
    """The flags that made ``train`` of the preset, as they were typed."""

    def as_json(self) -> str:
        both = {"design": self.design.model_dump(mode="json"), "train": self.train.model_dump(mode="json")}
        return json.dumps({**both, "training": list(self.training)})


def begin(config: DesignConfig, train: TrainConfig, training: Sequence[str], out: Path | None) -> int:
    """Search from the start.

    Args:
        config: the search's.
        train: what its runs train.
        training: the flags that made it of the preset, as they were typed.
        out: where the summary is written, too.
    """
    config, train = with_absolute_paths(config), with_absolute_paths(train)
    line = _isolation(config)
    Plans(config, train, config.runs).check()
    if config.replies is not None or config.llm.is_named:
        config = _with_model_named(config)  # where it cannot be used, that is said before a folder exists
    stored = _Stored(design=config, train=train, training=tuple(training))
    folder = RunFolder.create(config.runs, config.name, stored.as_json(), prefix=f"design-{config.preset}")
    return _search(stored, folder, line, out)


def resume(path: Path, out: Path | None) -> int:
    """Go on with a search that was stopped.

    Raises:
        UserError: the folder is not a search's.
    """
    kept = read_config(path)
    if set(kept) != {"design", "train", "training"}:
        raise UserError(f"{path} is not the folder of a search; 'yendor design PRESET' makes one")
    stored = _Stored(
        design=validate(DesignConfig, kept["design"]),
        train=validate(TrainConfig, kept["train"]),
        training=tuple(kept["training"]),
    )
    line = _isolation(stored.design)
    return _search(stored, RunFolder.open(path.absolute()), line, out)


def _isolation(config: DesignConfig) -> str:
    """What stands between programs and the machine, in a line.

    Raises:
        UserError: it is less than asked for.
    """
    try:
        return isolation_line(config.reward.containment)
    except ValueError as error:
        raise UserError(f"reward.{error}") from None


def _search(stored: _Stored, folder: RunFolder, reached: str, out: Path | None) -> int:
    console = Console()

    def say(text: str) -> None:
        console.print(printable(text), highlight=False, soft_wrap=True, markup=False)

    with folder, EndRecorder(folder, say) as ending:
        command = shlex.join(["yendor", *sys.argv[1:]])
        folder.event("started", command=command, versions=installed_versions(), isolation=reached)
        say(f"{folder.path}: a search for a reward program on {stored.train.env.task}")
        say(reached)
        found = _found(stored, folder, say, ending.install)
        found |= {"command": command, "versions": installed_versions(), "isolation": reached}
        write_atomic(folder.path / SUMMARY_FILE, json.dumps(found, indent=1))
        folder.event("finished")
    if out is not None:
        write_atomic(out, json.dumps(found, indent=1))
    return _show(found, console, say)


def _found(stored: _Stored, folder: RunFolder, say: Say, install: Callable[[], None]) -> dict[str, Any]:
    """The search itself, with Ray.

    Raises:
        RunError: it cannot go on.
    """
    try:
        parts = build_parts(stored.design, stored.train, stored.training, folder.path, say)
        with ray_session(stored.design.ray_address, stored.design.parallel):
            install()  # Ray has a handler of its own, which ends the process without cleaning up
            return run(parts)
    except DesignerError as error:
        raise RunError(str(error)) from error


def _show(found: dict[str, Any], console: Console, say: Say) -> int:
    print_summary(found, console)
    if found["use"] is None:
        return 1
    say(f"use it: {found['use']}")
    return 0


class EndRecorder:
    """Records how a search ended that did not finish, and says how to go on with it.

    SIGTERM and Ctrl-C end it, in good order, in the middle of whatever it does. The exit code is the signal's: Ray puts
    1 in the place of any other while it waits.
    """

    def __init__(self, folder: RunFolder, say: Say) -> None:
        self._folder, self._say = folder, say
        self._previous: dict[signal.Signals, Any] = {}
        self._signal: int | None = None

    def install(self) -> None:
        """Put the handlers in place (again)."""
        for number in _SIGNALS:
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: object) -> None:
        self._signal = number
        sys.exit(128 + number)

    def __enter__(self) -> Self:
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if error is None:
            return
        stopped = isinstance(error, SystemExit | KeyboardInterrupt)
        if stopped:
            self._folder.event("stopped")
        else:
            self._folder.event("failed", cause=f"{type(error).__name__}: {error}")
        go_on = shlex.join(["yendor", "design", "--resume", str(self._folder.path)])
        self._say(f"{'stopped' if stopped else 'failed'}; go on with: {go_on}")
        if stopped and self._signal is not None:
            sys.exit(128 + self._signal)


# ---- parts


def build_parts(
    config: DesignConfig, train: TrainConfig, training: tuple[str, ...], folder: Path, say: Say
) -> SearchParts:
    """A search's parts, from what its folder holds.

    Raises:
        UserError: the language model cannot be used.
    """
    goal, reward = goal_of(config), config.reward
    model, name = None, ""
    if config.uses_language_model or config.opinion:
        model, name = chat_model(config, folder)
    opinion = None
    if config.opinion and model is not None:
        opinion = LLMOpinion(model, goal, reward.composition)
    return SearchParts(
        config=config,
        train=train,
        training=training,
        goal=goal,
        folder=folder,
        designer=build_designer(config, model, name),
        critic=Critic(
            reward.containment, reward.composition, opinion, gamma=getattr(train.reward, reward.stream).gamma
        ),
        journal=Journal(folder, lambda: _asked(model)),
        audit=AuditLog(folder / AUDIT_FILE),
        say=say,
    )


def _asked(model: RecordedReplies | None) -> dict[str, float]:
    """What a language model's server was asked, in all sessions of a search."""
    return {name: getattr(model.asked, name) if model else 0 for name in _ASKED}


_ASKED = ("requests", "prompt_tokens", "completion_tokens")


def goal_of(config: DesignConfig) -> str:
    """What the task asks for, in words: else the first sentence of the preset's description."""
    if config.goal is not None:
        return config.goal
    return (PRESETS[config.preset].__doc__ or config.preset).splitlines()[0].partition(". ")[0]


def build_designer(config: DesignConfig, model: RecordedReplies | None, name: str) -> Designer:
    """Who writes the programs.

    Args:
        config: the search's.
        model: the language model, if there is one.
        name: its name.

    Raises:
        UserError: the wording of its prompts cannot be used.
    """
    if config.uses_language_model:
        assert model is not None, "DesignConfig sees to it"
        try:
            return LLMDesigner(model, name, config.designing, config.reward.composition)
        except (OSError, ValueError) as error:
            raise UserError(f"designing.wording: {error}") from None
    return RandomGrammarDesigner() if config.designer == "random" else GrammarDesigner()


def _with_model_named(config: DesignConfig) -> DesignConfig:
    """The same with its language model named, for all sessions; its replies can be read.

    Raises:
        UserError: the server cannot be asked for its only model, or the file of replies cannot be used.
    """
    if config.replies is None:
        return config.replace(llm=config.llm.replace(model=answering_model(config.llm)))
    try:
        recorded_model(config.replies)
    except (OSError, ValueError) as error:
        raise UserError(f"replies: {error}") from None
    return config


def chat_model(config: DesignConfig, folder: Path) -> tuple[RecordedReplies, str]:
    """The language model and its name; all of its replies are kept in the search's folder.

    A search that goes on, or one with ``replies``, asks for nothing that was answered before.

    Raises:
        UserError: the file of replies cannot be used.
    """
    try:
        if config.replies is not None:
            name = recorded_model(config.replies)
            return RecordedReplies(config.replies, name), name
        assert config.llm.model is not None, "it is named before a search begins"
        model = RecordedReplies(folder / REPLIES_FILE, config.llm.model, LLMServer(config.llm))
        return model, config.llm.model
    except (OSError, ValueError) as error:
        raise UserError(f"replies: {error}") from None
