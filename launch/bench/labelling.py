"""Labels a second through a server: the labelling client sends lists of prompts, several at a time.

The server is the one that ``yendor serve-llm`` starts. Each round asks about pairs of captions that no round before
asked about: only the instructions can come from the prefix cache. Answers are bound to the choices, with their log
probabilities.

How many answers agree with the lexicon is reported too. It depends on the model, not on its speed: a stand-in that
memorised the lexicon (``tests/standin``) agrees on all of the captions that it was trained on.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import psutil
from pydantic import Field, PositiveInt

from envs.captions import canonical_of_raw
from envs.data import Config
from envs.seeding import TrainingSeeds
from envs.spec import GamesConfig
from envs.tasks import make
from launch.bench.harness import in_turn, spread
from launch.errors import UserError
from launch.llm import process_group
from launch.llm.config import ServerConfig
from launch.llm.server import VLLMServer
from launch.llm.vllm import find_model, find_vllm
from rewards.labels.annotators import LexiconClient, LLMLabelClient
from rewards.labels.questions import PromptSpec, Question, newest_version
from rewards.llm.config import LLMConfig

_GAMES = 32


class LabelBench(Config):
    """Labels a second through a server."""

    model: str | None = None
    """A folder, or a name in the local cache. A small one for trials: python tests/standin/make.py OUT."""
    prompts: PositiveInt = 2048
    """Labels in a round."""
    rounds: PositiveInt = 5
    """How often each is measured."""
    captions: Path | None = None
    """JSON list of canonical captions whose pairs are asked about; none = those of random play."""
    task: str = "MiniHack-Room-Ultimate-15x15-v0"
    """The game of that play."""
    steps: PositiveInt = 40_000
    """Its steps."""
    max_batch: PositiveInt = LLMConfig().max_batch
    """Prompts in a list."""
    max_in_flight: PositiveInt = LLMConfig().max_in_flight
    """Lists under way at a time."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes the play and the order of the pairs."""
    server: ServerConfig = ServerConfig()


@dataclass(frozen=True, slots=True)
class LabelRound:
    """One measurement."""

    seconds: float
    labels_per_s: float
    cpu_ms_per_label: float
    """Processor time of all processes that take part: unlike the speed, hardly touched by what else a machine does."""
    agreement: float
    """Share of the answers that are the lexicon's, of those that it has."""
    requests: int = 0
    prefix_hits: float | None = None
    """Share of the prompt tokens that came from the prefix cache; None where it is not reported."""


@dataclass(frozen=True)
class Workload:
    """What is asked, round by round; the first round only warms up."""

    spec: PromptSpec
    questions: Sequence[Sequence[Question]]
    lexicon: Sequence[Sequence[str]]
    """The lexicon's answers."""

    @classmethod
    def draw(cls, flags: LabelBench) -> Workload:
        """The questions that the flags ask for.

        Raises:
            UserError: no model is named, there is no vLLM, or there are too few captions.
        """
        if flags.model is None:
            raise UserError(
                "bench label needs --model PATH; 'python tests/standin/make.py OUT' makes a small one for trials"
            )
        find_vllm(flags.server.vllm)
        find_model(flags.model)
        spec = PromptSpec(newest_version(is_pair=True))
        rounds = draw_questions(captions_of(flags), flags)
        return cls(spec, rounds, [_lexicon_answers(spec, questions) for questions in rounds])

    def round_of(self, number: int, seconds: float, cpu_s: float, texts: Sequence[str], **more: Any) -> LabelRound:
        """A measurement, from the answers to the questions of a round and what they took."""
        return LabelRound(
            seconds=seconds,
            labels_per_s=len(texts) / seconds,
            cpu_ms_per_label=cpu_s / len(texts) * 1e3,
            agreement=agreement(texts, self.lexicon[number], self.spec),
            **more,
        )


def measure(flags: LabelBench) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured.

    Raises:
        UserError: no model is named, there is no vLLM, or there are too few captions.
        RunError: the server ended.
    """
    workload = Workload.draw(flags)
    assert flags.model is not None, "a workload was drawn"
    with (
        tempfile.TemporaryDirectory(prefix="yendor-bench-") as folder,
        VLLMServer(flags.model, flags.server, Path(folder) / "server.log") as server,
    ):
        served = Served(server, flags, workload)
        found = in_turn({"server": served.run_round}, flags.rounds, report=print_round)
    summary = summarise(found, flags.prompts)
    return table(summary), {"summary": summary, "measurements": raw(found)}


def print_round(number: int, name: str, measured: LabelRound) -> None:
    """A line for each measurement."""
    print(f"round {number}  {name:<8}{measured.labels_per_s:>8,.0f} labels/s")


# -- questions --------------------------------------------------------------------------------------


def captions_of(flags: LabelBench) -> list[str]:
    """The texts that pairs are made of."""
    if flags.captions is not None:
        try:
            found = json.loads(flags.captions.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"captions: {flags.captions} cannot be read: {error}") from None
        return list(dict.fromkeys(map(str, found)))
    config = GamesConfig(task=flags.task, obs_keys=("blstats",))
    games = make(config, _GAMES, TrainingSeeds(flags.seed, 0, _GAMES))
    actions = np.random.default_rng(flags.seed)
    seen: dict[str, None] = {}
    try:
        games.reset()
        for _ in range(flags.steps // _GAMES):
            step = games.step(actions.integers(games.spec.num_actions, size=_GAMES))
            seen |= dict.fromkeys(map(canonical_of_raw, step.messages or []))
    finally:
        games.close()
    return [text for text in seen if text]


def draw_questions(captions: Sequence[str], flags: LabelBench) -> list[list[Question]]:
    """Questions for a warm-up and every round; no ordered pair comes twice."""
    num, needed = len(captions), (flags.rounds + 1) * flags.prompts
    if num * (num - 1) < needed:
        raise UserError(
            f"{num} captions have {num * (num - 1)} ordered pairs, {flags.rounds} rounds and a warm-up of "
            f"{flags.prompts} prompts need {needed}: ask for fewer, or give more captions"
        )
    drawn = np.random.default_rng(flags.seed).choice(num * (num - 1), needed, replace=False)
    first, other = np.divmod(drawn, num - 1)
    second = other + (other >= first)  # skips the caption itself
    pairs = [Question.pair(captions[int(a)], captions[int(b)]) for a, b in zip(first, second, strict=True)]
    return [pairs[at : at + flags.prompts] for at in range(0, needed, flags.prompts)]


def _lexicon_answers(spec: PromptSpec, questions: Sequence[Question]) -> list[str]:
    replies = asyncio.run(LexiconClient().label(spec, questions))
    return [reply.text for reply in replies]


# -- the server -------------------------------------------------------------------------------------


class Served:
    """A server, asked by the labelling client.

    Args:
        server: answers.
        flags: sizes of lists.
        workload: what is asked.
    """

    def __init__(self, server: VLLMServer, flags: LabelBench, workload: Workload) -> None:
        self._server, self._workload = server, workload
        self._config = LLMConfig(
            base_url=server.base_url, model=server.model, max_batch=flags.max_batch, max_in_flight=flags.max_in_flight
        )

    def run_round(self, number: int) -> LabelRound:
        """Ask the questions of a round."""
        before, cpu_s = self._counters(), self._cpu_s()
        seconds, texts, requests = asyncio.run(self._ask(self._workload.questions[number]))
        cpu_s = self._cpu_s() - cpu_s
        hits, asked = (now - then for now, then in zip(self._counters(), before, strict=True))
        prefix_hits = hits / asked if asked else None
        return self._workload.round_of(number, seconds, cpu_s, texts, requests=requests, prefix_hits=prefix_hits)

    async def _ask(self, questions: Sequence[Question]) -> tuple[float, list[str], int]:
        """Seconds, answers and requests: as many lists under way as the labeller would have."""
        client, spec = LLMLabelClient(self._config), self._workload.spec
        free = asyncio.Semaphore(client.max_in_flight)

        async def label(start: int) -> list[str]:
            async with free:
                part = questions[start : start + client.max_batch]
                return [reply.text for reply in await client.label(spec, part)]

        try:
            await client.check()  # once in a run, not once a round
            used = client.usage.requests
            began_s = time.perf_counter()
            lists = await asyncio.gather(*(label(start) for start in range(0, len(questions), client.max_batch)))
            seconds = time.perf_counter() - began_s
            return seconds, [text for texts in lists for text in texts], client.usage.requests - used
        finally:
            await client.close()

    def _cpu_s(self) -> float:
        """Of the server and of this process."""
        return time.process_time() + group_cpu_s(self._server.group)

    def _counters(self) -> tuple[float, float]:
        """Prompt tokens that the prefix cache held, and that it was asked for, since the server's start."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._server.base_url.removesuffix("/v1") + "/metrics", timeout=30) as answer:
            text = answer.read().decode()
        hits, asked = (
            sum(map(float, re.findall(rf"^vllm:prefix_cache_{name}_total\S* (\S+)$", text, re.MULTILINE)))
            for name in ("hits", "queries")
        )
        return hits, asked


def group_cpu_s(group: int | None) -> float:
    """Processor time that the processes of a group have used so far."""
    times = [psutil.Process(pid).cpu_times() for pid in process_group.members(group or 0)]
    return sum(spent.user + spent.system for spent in times)


def agreement(texts: Sequence[str], lexicon: Sequence[str], spec: PromptSpec) -> float:
    """Share of the answers that are the lexicon's, of those that it has."""
    judged = Counter(said == true for said, true in zip(texts, lexicon, strict=True) if true in spec.choices)
    return judged[True] / judged.total() if judged else 0.0


# -- summaries --------------------------------------------------------------------------------------


def summarise(found: Mapping[str, Sequence[LabelRound]], prompts: int) -> dict[str, Any]:
    """Medians and ranges of labels/s, and what they cost.

    Args:
        found: rounds of each system, the server's among them.
        prompts: labels in a round.
    """
    hits = [r.prefix_hits for r in found["server"] if r.prefix_hits is not None]
    return {
        "systems": {name: spread([r.labels_per_s for r in own]) | _medians(own) for name, own in found.items()},
        "requests_per_label": median(r.requests for r in found["server"]) / prompts,
        "prefix_hits": median(hits) if hits else None,
    }


def _medians(rounds: Sequence[LabelRound]) -> dict[str, float]:
    return {name: median(getattr(r, name) for r in rounds) for name in ("cpu_ms_per_label", "agreement")}


def raw(found: Mapping[str, Sequence[LabelRound]]) -> dict[str, list[dict[str, Any]]]:
    """Every measurement, for JSON."""
    return {name: [asdict(measured) for measured in own] for name, own in found.items()}


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = [f"{'system':<10}{'labels/s':>9}  {'range':<16}{'CPU ms/label':>12}  agrees with the lexicon"]
    for name, row in summary["systems"].items():
        speed = f"{row['low']:,.0f}-{row['high']:,.0f}"
        lines.append(
            f"{name:<10}{row['median']:>9,.0f}  {speed:<16}{row['cpu_ms_per_label']:>12.2f}  {row['agreement']:.1%}"
        )
    hits = summary["prefix_hits"]
    known = "unknown" if hits is None else f"{hits:.0%}"
    lines.append(
        f"{summary['requests_per_label']:.4f} requests a label; {known} of the prompts' tokens from the prefix cache"
    )
    return "\n".join(lines)
