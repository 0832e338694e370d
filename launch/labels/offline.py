"""``yendor labels run CAPTIONS --out STORE``: label captions from a file, without a run."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from envs.data import Config
from launch.arguments import parse
from launch.errors import RunError, UserError
from launch.labels.caption_files import read_captions
from launch.llm.config import ServerConfig
from rewards.labels.config import LabelsConfig
from rewards.labels.questions import PromptSpec, Question
from rewards.llm.config import LLMConfig

if TYPE_CHECKING:
    from rich.console import Console

    from rewards.labels.labeller import Labeller

_LOOK_S = 0.5
"""Seconds between two looks at how far it is."""
_LINE_S = 10.0
"""Seconds between two lines where there is no terminal."""

Metrics = Mapping[str, float]


class OfflineFlags(Config):
    """Label the captions of a file, or compare pairs of them; goes on where an earlier call stopped."""

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


def run(argv: Sequence[str]) -> int:
    """Ask about everything that is new, show how far it is, and sum up."""
    from rich.console import Console

    path = Path(argv[0])
    flags = parse(OfflineFlags(), argv[1:], f"yendor labels run {path}")
    if flags.labels.path is not None:
        raise UserError("labels run keeps its labels in --out STORE; --labels.path is for training runs")
    texts = read_captions(path)
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


def _spec(flags: OfflineFlags) -> PromptSpec:
    """The question; what is wrong with it, or with the annotator, is said before a server is started."""
    from rewards.labels.annotators import check_client

    try:
        check_client(flags.labels.client, flags.llm, flags.labels.goal)
        return flags.labels.spec(asks_pairs=flags.pairs is not None)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None


@contextmanager
def _language_model(flags: OfflineFlags, console: Console) -> Iterator[LLMConfig]:
    """The configuration with its server running and its model named, where a language model is asked at all."""
    llm = flags.llm
    if not (llm.is_named and flags.labels.client.asks_language_model(llm)):
        yield llm
        return
    if llm.serve is None:
        from launch.llm.vllm import answering_model

        yield llm.model_copy(update={"model": answering_model(llm)})
        return
    from launch.llm.server import VLLMServer

    name = llm.model or flags.llm_server.served_model_name
    config = flags.llm_server.model_copy(update={"served_model_name": name, "api_key_env": llm.api_key_env})
    log = flags.out.with_suffix(".llm-server.log")
    server = VLLMServer(llm.serve, config, log)
    console.print(f"starting a server of {llm.serve}; it logs to {log}", highlight=False, soft_wrap=True)
    with server:
        yield llm.model_copy(update={"serve": None, "base_url": server.base_url, "model": server.model})


def _label(
    questions: Sequence[Question], spec: PromptSpec, flags: OfflineFlags, llm: LLMConfig, console: Console
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
    """Questions that have been dealt with, one way or another."""
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
