"""Begins or resumes a search: its folder, its designer and critic, Ray."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.arguments import validate
from launch.config import TrainConfig
from launch.design.config import DesignConfig
from launch.design.search import Search, SearchParts
from launch.design.summary import show
from launch.durable import write_atomic
from launch.errors import RunError, UserError
from launch.presets import PRESETS
from launch.programs import isolation
from launch.ray_session import ray_session
from launch.run_folder import RunFolder, installed_versions, read_config
from rewards.auto.critic import Critic
from rewards.auto.proposal import Designer

if TYPE_CHECKING:
    from rewards.auto.opinion import Opinion
    from rewards.llm.chat import ChatModel

REPLIES_FILE = "replies.jsonl"
"""In the search's folder: every reply of the language model."""
SUMMARY_FILE = "design.json"
"""In the search's folder: what it came to."""


def begin(config: DesignConfig, train: TrainConfig, out: Path | None) -> int:
    """Search from the start."""
    line = isolation(config.reward.containment, "reward.containment")
    if config.replies is not None:
        chat_model(config, config.runs)  # where it cannot be used, that is said before a folder exists
    both = {"design": config.model_dump(mode="json"), "train": train.model_dump(mode="json")}
    folder = RunFolder.create(config.runs, config.name, json.dumps(both), prefix=f"design-{config.preset}")
    return _search(config, train, folder, line, out)


def resume(path: Path, out: Path | None) -> int:
    """Go on with a search that was stopped.

    Raises:
        UserError: the folder is not a search's.
    """
    stored = read_config(path)
    if set(stored) != {"design", "train"}:
        raise UserError(f"{path} is not the folder of a search; 'yendor design PRESET' makes one")
    config, train = validate(DesignConfig, stored["design"]), validate(TrainConfig, stored["train"])
    line = isolation(config.reward.containment, "reward.containment")
    return _search(config, train, RunFolder.open(path), line, out)


def _search(config: DesignConfig, train: TrainConfig, folder: RunFolder, reached: str, out: Path | None) -> int:
    from rich.console import Console

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    with folder:
        command = shlex.join(["yendor", *sys.argv[1:]])
        folder.event("started", command=command, versions=installed_versions(), isolation=reached)
        say(f"{folder.path}: a search for a reward program on {train.env.task}")
        say(reached)
        opinion = build_opinion(config, folder.path)
        parts = SearchParts(
            config=config,
            train=train,
            goal=goal_of(config.preset),
            folder=folder.path,
            designer=build_designer(config, folder.path),
            critic=Critic(config.reward.containment, config.reward.composition, opinion),
            opinion=opinion,
            say=say,
        )
        with ray_session(config.ray_address, config.parallel), _as_run_error():
            # Ray has a handler of its own, which ends the process without cleaning up.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda n, _: sys.exit(128 + n))
            found = Search(parts).run()
        found |= {"command": command, "versions": installed_versions(), "isolation": reached}
        write_atomic(folder.path / SUMMARY_FILE, json.dumps(found, indent=1))
        folder.event("finished")
    if out is not None:
        write_atomic(out, json.dumps(found, indent=1))
    show(found, console)
    return _tell_use(found, say)


@contextmanager
def _as_run_error() -> Iterator[None]:
    """What ends a search, in one sentence; it can be resumed."""
    from rewards.auto.llm_designer import DesignerError

    try:
        yield
    except DesignerError as error:
        raise RunError(str(error)) from error


def _tell_use(found: Mapping[str, Any], say: Any) -> int:
    if found["chosen"] is None:
        return 1
    say(f"use it: yendor train {found['preset']} --reward.program {found['chosen'][:12]}")
    return 0


def goal_of(name: str) -> str:
    """What a preset's task asks for, in words: the first sentence of the preset's description."""
    return (PRESETS[name].__doc__ or name).splitlines()[0].partition(". ")[0]


def build_designer(config: DesignConfig, folder: Path) -> Designer:
    """Who writes the programs.

    Raises:
        UserError: the language model cannot be used.
    """
    if config.uses_language_model:
        return _llm_designer(config, folder)
    from rewards.auto.grammar_designer import GrammarDesigner, RandomGrammarDesigner

    return RandomGrammarDesigner() if config.designer == "random" else GrammarDesigner()


def _llm_designer(config: DesignConfig, folder: Path) -> Designer:
    from rewards.auto.llm_designer import LLMDesigner

    model, name = chat_model(config, folder)
    return LLMDesigner(model, name, config.designing, config.reward.composition)


def chat_model(config: DesignConfig, folder: Path) -> tuple[ChatModel, str]:
    """The language model and its name; all of its replies are kept in the search's folder.

    A search that goes on, or one with ``replies``, asks for nothing that was answered before.

    Raises:
        UserError: the server cannot be asked for its only model, or the file of replies cannot be used.
    """
    from launch.llm_check import answering_model
    from rewards.llm.recorded import RecordedReplies, recorded_model
    from rewards.llm.server import LLMServer

    try:
        if config.replies is not None:
            name = recorded_model(config.replies)
            return RecordedReplies(config.replies, name), name
        llm = config.llm.model_copy(update={"model": answering_model(config.llm)})
        assert llm.model is not None
        return RecordedReplies(folder / REPLIES_FILE, llm.model, LLMServer(llm)), llm.model
    except (OSError, ValueError) as error:
        raise UserError(f"replies: {error}") from None


def build_opinion(config: DesignConfig, folder: Path) -> Opinion | None:
    """The language model as critic; None where it is not asked for.

    Raises:
        UserError: see ``chat_model``.
    """
    if not config.opinion:
        return None
    from rewards.auto.opinion import LLMOpinion

    model, _ = chat_model(config, folder)
    return LLMOpinion(model, goal_of(config.preset), config.reward.composition)
