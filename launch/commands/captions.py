"""``yendor labels gather`` and ``yendor labels run``: captions from play into a file, and labels for those of a file.

A file of captions holds one JSON object a line (key ``text``), or one plain caption a line.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt
from pydantic_settings import CliPositionalArg

from envs.captions import canonical, canonical_of_raw
from envs.data import Config
from envs.files import read_lines, unreadable, write_atomic
from launch.errors import RunError, UserError
from launch.llm.config import ServerConfig
from launch.show import PAGE_BREAK
from rewards.labels.config import LabelsConfig
from rewards.labels.questions import PromptSpec, Question
from rewards.llm.config import LLMConfig

if TYPE_CHECKING:
    from rich.console import Console

    from launch.evaluation.policies import PolicySource
    from rewards.labels.labeller import Labeller

_LOOK_S = 0.5
"""Seconds between two looks at how far labelling is."""
_LINE_S = 10.0
"""Seconds between two lines where there is no terminal."""

Metrics = Mapping[str, float]


# -- files of captions -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class GatheredCaption:
    """A caption that was observed in play."""

    text: str
    """Canonical."""
    count: int
    """How often it was observed."""
    tasks: tuple[str, ...]
    """Where, sorted."""
    example: str
    """The first raw message that became this caption."""


def read_gathered(path: Path) -> list[GatheredCaption]:
    """Captions as ``write_gathered`` left them.

    Raises:
        UserError: a line is not such a caption; names the file and the line.
    """
    found = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            found.append(
                GatheredCaption(
                    text=line["text"], count=line["count"], tasks=tuple(line["tasks"]), example=line["example"]
                )
            )
        except (KeyError, TypeError):
            raise UserError(
                f"{path}, line {number} is not a gathered caption: expected text, count, tasks and example"
            ) from None
    return found


def write_gathered(path: Path, captions: Iterable[GatheredCaption]) -> None:
    """Replace a file of captions in one step, the most frequent first."""
    ordered = sorted(captions, key=lambda c: (-c.count, c.text))
    rows = ({"text": c.text, "count": c.count, "tasks": list(c.tasks), "example": c.example} for c in ordered)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_captions(path: Path) -> list[str]:
    """Canonical captions of a ``.jsonl`` file (key ``text``) or a ``.txt`` file (a caption a line).

    In a text file `` / `` separates the pages of a message. Order is kept; a caption that comes again, and a
    blank one, is left out.

    Raises:
        UserError: the file is missing, has another ending, holds no caption, or a line without a text.
    """
    readers = {".jsonl": _jsonl_texts, ".txt": _txt_texts}
    if path.suffix not in readers:
        raise UserError(f"cannot read captions from '{path.name}'; allowed endings are {' and '.join(readers)}")
    texts = dict.fromkeys(canonical(text) for text in readers[path.suffix](path))
    texts.pop("", None)
    if not texts:
        raise UserError(f"{path} holds no captions")
    return list(texts)


def _jsonl_texts(path: Path) -> list[str]:
    texts: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        if not isinstance(line.get("text"), str):
            raise UserError(f"{path}, line {number} has no text: expected an object with the key 'text'")
        texts.append(line["text"])
    return texts


def _txt_texts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"captions: {unreadable(path, error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"captions: {path} cannot be read: {error}") from None
    return [line.replace(PAGE_BREAK, "\n") for line in lines]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"there is no file of captions at {path}")
    try:
        return list(read_lines(path))
    except ValueError as error:
        raise UserError(str(error)) from None


# -- gather ------------------------------------------------------------------------------------------


class GatherFlags(Config):
    """Play some tasks, and write one line for each distinct caption: text, count, tasks, a raw message."""

    tasks: CliPositionalArg[str]
    """A task, or several with commas between them."""
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
    """The distinct captions observed so far."""

    def __init__(self, captions: Sequence[GatheredCaption] = ()) -> None:
        self._counts = {c.text: c.count for c in captions}
        self._tasks = {c.text: set(c.tasks) for c in captions}
        self._examples = {c.text: c.example for c in captions}

    def __len__(self) -> int:
        return len(self._counts)

    def observe(self, messages: Sequence[bytes], task: str) -> None:
        """Count the captions of raw messages of a task; empty messages are none."""
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
        """Every caption, in the order in which they were first observed."""
        return [
            GatheredCaption(
                text=text, count=count, tasks=tuple(sorted(self._tasks[text])), example=self._examples[text]
            )
            for text, count in self._counts.items()
        ]


def gather(flags: GatherFlags) -> int:
    """Play and write; says how many captions there are."""
    tasks = [task.strip() for task in flags.tasks.split(",") if task.strip()]
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
    """Play ``flags.steps`` steps of one task with a policy, and observe the captions.

    Args:
        source: who plays.
        task: the task's id.
        flags: how long, which games, which captions.
        stream: keeps this task's games and actions apart from another's under the same seed.
        gathered: takes the captions.
        on_step: called now and then with how many steps are done.
    """
    from agents.rollout import GeneratorNoise
    from envs.seeding import TrainingSeeds
    from envs.tasks import make

    num_games = flags.games
    config = source.games.replace(task=task, captions=flags.captions, features=())
    games = make(config, num_games, TrainingSeeds(flags.seed, stream, num_games))
    try:
        policy, noise = source.build(games.spec), GeneratorNoise(num_games, flags.seed, stream, 1)
        obs, memory = games.reset(), policy.initial_state(num_games)
        for steps in range(0, flags.steps, num_games):
            acted = policy.act(obs, memory, games.action_mask, noise)
            played = games.step(acted.actions)
            gathered.observe(played.messages or [], task)
            obs, memory = played.obs, acted.recurrent_state
            if memory is not None:
                memory = np.where((played.terminated | played.truncated)[:, None], np.float32(0), memory)
            if steps % 1024 < num_games:
                on_step(steps)
    finally:
        games.close()


# -- run ---------------------------------------------------------------------------------------------


class LabelFlags(Config):
    """Label the captions of a file, or compare pairs of them; goes on where an earlier call stopped."""

    captions: CliPositionalArg[Path]
    """A file of captions; .jsonl (key "text") or .txt (one a line)."""
    out: Path = Path("labels.sqlite")
    """The label store; what it already answers is not asked again."""
    pairs: PositiveInt | None = None
    """Compare so many random pairs of the captions, instead of labelling each."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Other pairs."""
    labels: LabelsConfig = LabelsConfig()
    """Who answers, for which goal, in which words (path and mode belong to training runs)."""
    llm: LLMConfig = LLMConfig()
    """The language model."""
    llm_server: ServerConfig = ServerConfig()
    """How llm.serve serves it (its name is llm.model where that is given, its API key that of llm.api_key_env)."""


def label(flags: LabelFlags) -> int:
    """Ask about everything that is new, show how far it is, and sum up."""
    from rich.console import Console

    if flags.labels.path is not None:
        raise UserError("labels run keeps its labels in --out STORE; --labels.path is for training runs")
    texts = read_captions(flags.captions)
    questions = [Question.single(text) for text in texts]
    if flags.pairs is not None:
        questions = random_pairs(texts, flags.pairs, flags.seed)
    spec = _spec(flags)
    console = Console()
    with _language_model(flags, console) as llm:
        metrics, seconds = _label(questions, spec, flags, llm, console)
    _summarise(console, flags.out, len(questions), metrics, seconds)
    return 0


def random_pairs(texts: Sequence[str], num_pairs: int, seed: int) -> list[Question]:
    """Distinct pairs of captions, each in a random order; the same for the same seed and captions.

    Raises:
        UserError: there are not so many pairs.
    """
    total = math.comb(len(texts), 2)
    if num_pairs > total:
        raise UserError(f"{len(texts)} captions make {total} pairs, not {num_pairs}")
    generator = random.Random(seed)
    pairs = []
    for number in generator.sample(range(total), num_pairs):
        # Pairs are numbered (1, 0), (2, 0), (2, 1), (3, 0), ...: pair (i, j) with j < i is number i(i - 1)/2 + j.
        i = (1 + math.isqrt(1 + 8 * number)) // 2
        j = number - i * (i - 1) // 2
        first, second = generator.sample((texts[i], texts[j]), 2)
        pairs.append(Question.pair(first, second))
    return pairs


def _spec(flags: LabelFlags) -> PromptSpec:
    """The question; errors in it, or of the annotator, are raised before a server is started."""
    from rewards.labels.annotators import check_client

    try:
        check_client(flags.labels.client, flags.llm, flags.labels.goal)
        return flags.labels.spec(asks_pairs=flags.pairs is not None)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None


@contextmanager
def _language_model(flags: LabelFlags, console: Console) -> Iterator[LLMConfig]:
    """The configuration with its server running and its model named, where a language model is asked at all."""
    llm = flags.llm
    if not (llm.is_named and flags.labels.client.asks_language_model(llm)):
        yield llm
        return
    if llm.serve is None:
        from launch.llm.vllm import answering_model

        yield llm.replace(model=answering_model(llm))
        return
    from launch.llm.server import VLLMServer

    name = llm.model or flags.llm_server.served_model_name
    config = flags.llm_server.replace(served_model_name=name, api_key_env=llm.api_key_env)
    log = flags.out.with_suffix(".llm-server.log")
    server = VLLMServer(llm.serve, config, log)
    console.print(f"starting a server of {llm.serve}; it logs to {log}", highlight=False, soft_wrap=True)
    with server:
        yield llm.replace(serve=None, base_url=server.base_url, model=server.model)


def _label(
    questions: Sequence[Question], spec: PromptSpec, flags: LabelFlags, llm: LLMConfig, console: Console
) -> tuple[Metrics, float]:
    """The labeller's counters at the end, and the seconds that labelling took."""
    from rewards.labels.annotators import build_client
    from rewards.labels.labeller import Labeller, LabellerError
    from rewards.labels.store import LabelStore, LabelStoreError

    try:
        client = build_client(flags.labels.client, llm)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    began_s = time.monotonic()
    metrics: Metrics = {}
    with _progress(console, len(questions)) as show:

        def look(labeller: Labeller) -> None:
            nonlocal metrics
            metrics = labeller.metrics()
            show(metrics, labeller.problem)

        try:
            with LabelStore(flags.out) as store:
                asyncio.run(_ask(Labeller(store, client, spec, flags.labels.labeller), questions, look))
        except LabelStoreError as error:
            raise UserError(str(error)) from None
        except LabellerError as error:
            _summarise(console, flags.out, len(questions), metrics, time.monotonic() - began_s)
            raise RunError(str(error)) from error
        except KeyboardInterrupt:
            _summarise(console, flags.out, len(questions), metrics, time.monotonic() - began_s)
            raise
    return metrics, time.monotonic() - began_s


async def _ask(labeller: Labeller, questions: Sequence[Question], look: Callable[[Labeller], None]) -> None:
    """Ask all; ``look`` is called now and then, and at the end. What is cut off leaves what was answered."""
    await labeller.start()
    asking = asyncio.ensure_future(labeller.drain(questions))
    try:
        while not asking.done():
            await asyncio.wait({asking}, timeout=_LOOK_S)
            look(labeller)
        asking.result()
    except asyncio.CancelledError:
        look(labeller)
        raise
    finally:
        asking.cancel()
        await labeller.close()


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[Metrics, str | None], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    from rich.progress import Progress

    next_line_s = time.monotonic() + _LINE_S
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("labelling", total=total)

        def show(metrics: Metrics, problem: str | None) -> None:
            nonlocal next_line_s
            done = answered(metrics)
            bar.update(shown, completed=done, description=problem or f"labelling ({metrics['failed']:.0f} failed)")
            if not console.is_terminal and time.monotonic() >= next_line_s:
                next_line_s = time.monotonic() + _LINE_S
                text = f"{done:.0f}/{total} answered" + (f" | {problem}" if problem else "")
                console.print(text, markup=False, highlight=False, soft_wrap=True)

        yield show


def answered(metrics: Metrics) -> float:
    """Questions that are done with: answered, failed, or never to be asked."""
    return sum(metrics[name] for name in ("labelled", "failed", "refused", "uncovered", "from_store", "over_budget"))


def _summarise(console: Console, out: Path, total: int, metrics: Metrics, seconds: float) -> None:
    if not metrics:
        return
    asked = answered(metrics) - metrics["from_store"] - metrics["over_budget"]
    console.print(
        f"{metrics['labelled']:.0f} labelled, {metrics['failed'] + metrics['refused']:.0f} failed, "
        f"{metrics['uncovered']:.0f} abstained, {metrics['from_store']:.0f} known before, of {total} in all"
        + (f", {metrics['over_budget']:.0f} over budget" if metrics["over_budget"] else "")
        + f"; {seconds:.1f} s, {asked / seconds if seconds else 0.0:.1f} labels/s; in {out}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
