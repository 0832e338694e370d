"""``yendor labels gather TASK[,TASK...]``: plays, and writes down every distinct caption that comes up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from envs.captions import canonical_of_raw
from envs.data import Config
from launch.arguments import parse
from launch.errors import UserError
from launch.labels.caption_files import GatheredCaption, read_gathered, write_gathered

if TYPE_CHECKING:
    from launch.evaluation.policies import PolicySource


class GatherFlags(Config):
    """Play some tasks, and write one line for each distinct caption: text, count, tasks, a raw message."""

    out: Path = Path("captions.jsonl")
    """Where the captions go, the most frequent first."""
    add: bool = False
    """Add to the captions that the file already holds, instead of refusing to replace it."""
    steps: PositiveInt = 100_000
    """Steps in each task, all games together."""
    policy: str = "random"
    """Who plays: random, or a run folder (its newest checkpoint, actions sampled)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Other games, and other actions."""
    games: PositiveInt = 16
    """Games side by side."""
    captions: Literal["message", "changes"] = "message"
    """What captions are made of, as env.captions."""


class Gathered:
    """The distinct captions met so far."""

    def __init__(self, captions: Sequence[GatheredCaption] = ()) -> None:
        self._counts = {c.text: c.count for c in captions}
        self._tasks = {c.text: set(c.tasks) for c in captions}
        self._examples = {c.text: c.example for c in captions}

    def __len__(self) -> int:
        return len(self._counts)

    def meet(self, messages: Sequence[bytes], task: str) -> None:
        """Count the captions of raw messages that came in a task; empty messages are none."""
        for message in messages:
            text = canonical_of_raw(message) if message else ""
            if not text:
                continue
            if text not in self._counts:
                self._counts[text] = 0
                self._tasks[text] = set()
                self._examples[text] = message.decode("latin-1")
            self._counts[text] += 1
            self._tasks[text].add(task)

    def captions(self) -> list[GatheredCaption]:
        """Every caption, in the order in which they were met."""
        return [
            GatheredCaption(
                text=text, count=count, tasks=tuple(sorted(self._tasks[text])), example=self._examples[text]
            )
            for text, count in self._counts.items()
        ]


def run(argv: Sequence[str]) -> int:
    """Play and write; says how many captions there are."""
    tasks = [task.strip() for task in argv[0].split(",") if task.strip()]
    flags = parse(GatherFlags(), argv[1:], f"yendor labels gather {argv[0]}")
    _check(tasks, flags)
    gathered = Gathered(read_gathered(flags.out) if flags.out.exists() else ())
    before = len(gathered)
    source = _source(flags.policy)
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for number, task in enumerate(tasks):
            shown = bar.add_task(task, total=flags.steps)
            play(source, task, flags, number, gathered, lambda steps, shown=shown: bar.update(shown, completed=steps))
    write_gathered(flags.out, gathered.captions())
    print(f"{len(gathered)} captions, {len(gathered) - before} of them new, written to {flags.out}")
    return 0


def _check(tasks: Sequence[str], flags: GatherFlags) -> None:
    from envs.tasks import task as spec_of

    for task in tasks:
        try:
            spec_of(task)
        except ValueError as error:
            raise UserError(str(error)) from None
    if flags.out.exists() and not flags.add:
        raise UserError(f"{flags.out} exists: give --add to add to it, or another --out")


def _source(policy: str) -> PolicySource:
    from launch.evaluation.policies import RandomSource, RunSource

    return RandomSource() if policy == "random" else RunSource.of(Path(policy))


def play(
    source: PolicySource,
    task: str,
    flags: GatherFlags,
    stream: int,
    gathered: Gathered,
    on_step: Callable[[int], None] = lambda steps: None,
) -> None:
    """Play ``flags.steps`` steps of one task with a policy, and meet the captions.

    Args:
        source: who plays.
        task: the task's id.
        flags: how long, which games, which captions.
        stream: tells this task's games and actions from another's under the same seed.
        gathered: takes the captions.
        on_step: told now and then how many steps are done.
    """
    from agents.rollout import GeneratorNoise
    from envs.seeding import TrainingSeeds
    from envs.tasks import make

    num_games = flags.games
    config = source.games.model_copy(update={"task": task, "captions": flags.captions, "features": ()})
    games = make(config, num_games, TrainingSeeds(flags.seed, stream, num_games))
    try:
        policy, noise = source.build(games.spec), GeneratorNoise(num_games, flags.seed, stream, 1)
        obs, memory = games.reset(), policy.initial_state(num_games)
        for steps in range(0, flags.steps, num_games):
            acted = policy.act(obs, memory, games.action_mask, noise)
            played = games.step(acted.actions)
            gathered.meet(played.messages or [], task)
            obs, memory = played.obs, acted.recurrent_state
            if memory is not None:
                memory = np.where((played.terminated | played.truncated)[:, None], np.float32(0), memory)
            if steps % 1024 < num_games:
                on_step(steps)
    finally:
        games.close()
