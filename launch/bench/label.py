"""Labels a second of our client through a server, beside ``LLM.generate`` in one process: the same model and prompts.

    ours      the labelling client sends lists of prompts, several at a time, to ``yendor serve-llm``'s server
    offline   vLLM within one process, given all prompts at once: no HTTP, no waiting

Both are loaded all the time and take turns, so that what the machine does meanwhile meets both. Each round asks about
pairs of captions that no round before asked about: only the instructions can come from the prefix cache. Both bind
answers to the choices and tell the same log probabilities. Efficiency is ours divided by offline, round by round.

How many answers agree with the lexicon is told too. It tells what the model is, not how fast it is: made by heart
(``tests/standin``), all of those on the captions that it was shown; a real one, as many as it agrees in.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import psutil
from pydantic import Field

from envs.data import Config
from launch.bench.label_offline import OfflineAnnotator
from launch.errors import UserError
from launch.llm import process_group
from launch.llm.config import ServerConfig
from launch.llm.server import VLLMServer
from launch.llm.vllm import find_model, find_vllm
from rewards.labels.annotators import LexiconClient, LLMLabelClient
from rewards.labels.questions import PromptSpec, Question, newest_version
from rewards.llm.config import LLMConfig

_TOP_LOGPROBS = 5
"""As many as the client asks for."""
_GAMES = 32
Positive = Annotated[int, Field(gt=0)]


class LabelBench(Config):
    """Labels a second through a server, beside the same model in one process."""

    model: str | None = None
    """A folder, or a name in the local cache. A small one for trials: python tests/standin/make.py OUT."""
    prompts: Positive = 2048
    """Labels in a round."""
    rounds: Positive = 5
    """How often each is measured."""
    captions: Path | None = None
    """JSON list of canonical captions whose pairs are asked about; none = those of random play."""
    task: str = "MiniHack-Room-Ultimate-15x15-v0"
    """The game of that play."""
    steps: Positive = 40_000
    """Its steps."""
    max_batch: Positive = LLMConfig().max_batch
    """Prompts in a list."""
    max_in_flight: Positive = LLMConfig().max_in_flight
    """Lists under way at a time."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Fixes the play and the order of the pairs."""
    server: ServerConfig = ServerConfig()


@dataclass(frozen=True, slots=True)
class LabelRound:
    """What one turn came to."""

    seconds: float
    labels_per_s: float
    cpu_ms_per_label: float
    """Processor time of all processes that take part: unlike the speed, hardly touched by what else a machine does."""
    agreement: float
    """Share of the answers that are the lexicon's, of those that it has."""
    requests: int = 0
    prefix_hits: float | None = None
    """Share of the prompt tokens that came from the prefix cache; None where nothing tells."""


def measure(flags: LabelBench) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured.

    Raises:
        UserError: no model is named, there is no vLLM, or there are too few captions.
        RunError: the server or the other process ended.
    """
    if flags.model is None:
        raise UserError(
            "bench label needs --model PATH; 'python tests/standin/make.py OUT' makes a small one for trials"
        )
    spec = PromptSpec(newest_version(is_pair=True))
    rounds = _draw(_captions(flags), flags)
    truths = [_lexicon_says(spec, questions) for questions in rounds]
    vllm, model = find_vllm(flags.server.vllm), find_model(flags.model)
    found: dict[str, list[LabelRound]] = {"ours": [], "offline": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yendor-bench-")))
        offline = stack.enter_context(OfflineAnnotator(vllm, model, flags.server, folder / "offline.log"))
        server = stack.enter_context(VLLMServer(flags.model, flags.server, folder / "server.log"))
        print("both are loaded")
        for number, (questions, truth) in enumerate(zip(rounds, truths, strict=True)):
            turn = {
                "ours": _ours(server, flags, spec, questions, truth),
                "offline": _offline(offline, spec, questions, truth),
            }
            if number == 0:  # warms both up
                continue
            for name, measured in turn.items():
                found[name].append(measured)
                print(f"round {number}/{flags.rounds}  {name:<8}{measured.labels_per_s:>8,.0f} labels/s")
    summary = summarise(found, flags.prompts)
    measurements = {name: [asdict(measured) for measured in own] for name, own in found.items()}
    return table(summary), {"vllm": vllm.version, "summary": summary, "measurements": measurements}


def _captions(flags: LabelBench) -> list[str]:
    """The texts that pairs are made of."""
    if flags.captions is not None:
        try:
            found = json.loads(flags.captions.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"captions: {flags.captions} cannot be read: {error}") from None
        return list(dict.fromkeys(map(str, found)))
    from envs.captions import canonical_of_raw
    from envs.seeding import TrainingSeeds
    from envs.tasks import GamesConfig, make

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


def _draw(captions: Sequence[str], flags: LabelBench) -> list[list[Question]]:
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


def _lexicon_says(spec: PromptSpec, questions: Sequence[Question]) -> list[str]:
    replies = asyncio.run(LexiconClient().label(spec, questions))
    return [reply.text for reply in replies]


def _ours(
    server: VLLMServer, flags: LabelBench, spec: PromptSpec, questions: Sequence[Question], truth: Sequence[str]
) -> LabelRound:
    before, cpu_s = _counters(server), time.process_time() + _cpu_s(server.group)
    seconds, texts, requests = asyncio.run(_through_the_client(server, flags, spec, questions))
    cpu_s = time.process_time() + _cpu_s(server.group) - cpu_s
    hits, asked = (now - then for now, then in zip(_counters(server), before, strict=True))
    return LabelRound(
        seconds,
        len(texts) / seconds,
        cpu_s / len(texts) * 1e3,
        _agreement(texts, truth, spec),
        requests,
        hits / asked if asked else None,
    )


async def _through_the_client(
    server: VLLMServer, flags: LabelBench, spec: PromptSpec, questions: Sequence[Question]
) -> tuple[float, list[str], int]:
    """Seconds, answers and requests: as many lists under way as the labeller would have."""
    config = LLMConfig(
        base_url=server.base_url, model=server.model, max_batch=flags.max_batch, max_in_flight=flags.max_in_flight
    )
    client = LLMLabelClient(config)
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


def _offline(
    offline: OfflineAnnotator, spec: PromptSpec, questions: Sequence[Question], truth: Sequence[str]
) -> LabelRound:
    cpu_s = _cpu_s(offline.group)
    seconds, texts = offline.answer(spec, questions, _TOP_LOGPROBS)
    cpu_s = _cpu_s(offline.group) - cpu_s
    return LabelRound(seconds, len(texts) / seconds, cpu_s / len(texts) * 1e3, _agreement(texts, truth, spec))


def _cpu_s(group: int | None) -> float:
    """Processor time that the processes of a group have used so far."""
    times = [psutil.Process(pid).cpu_times() for pid in process_group.members(group or 0)]
    return sum(spent.user + spent.system for spent in times)


def _agreement(texts: Sequence[str], truth: Sequence[str], spec: PromptSpec) -> float:
    judged = Counter(said == true for said, true in zip(texts, truth, strict=True) if true in spec.choices)
    return judged[True] / judged.total() if judged else 0.0


def _counters(server: VLLMServer) -> tuple[float, float]:
    """Prompt tokens that the prefix cache held, and that it was asked for, since the server's start."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.base_url.removesuffix("/v1") + "/metrics", timeout=30) as answer:
        text = answer.read().decode()
    hits, asked = (
        sum(map(float, re.findall(rf"^vllm:prefix_cache_{name}_total\S* (\S+)$", text, re.MULTILINE)))
        for name in ("hits", "queries")
    )
    return hits, asked


def summarise(found: dict[str, list[LabelRound]], prompts: int) -> dict[str, Any]:
    """Medians and ranges of labels/s, the efficiency round by round, and what it cost."""
    speeds = {name: [r.labels_per_s for r in own] for name, own in found.items()}
    ratios = [ours / offline for ours, offline in zip(speeds["ours"], speeds["offline"], strict=True)]
    hits = [r.prefix_hits for r in found["ours"] if r.prefix_hits is not None]
    return {
        "contenders": {name: {**_range(speeds[name]), **_medians(own)} for name, own in found.items()},
        "efficiency": _range(ratios),
        "requests_per_label": median(r.requests for r in found["ours"]) / prompts,
        "prefix_hits": median(hits) if hits else None,
    }


def _medians(rounds: Sequence[LabelRound]) -> dict[str, float]:
    return {name: median(getattr(r, name) for r in rounds) for name in ("cpu_ms_per_label", "agreement")}


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values)}


def table(summary: dict[str, Any]) -> str:
    """The summary for people."""
    lines = [f"{'contender':<10}{'labels/s':>9}  {'range':<16}{'CPU ms/label':>12}  agrees with the lexicon"]
    for name, row in summary["contenders"].items():
        speed = f"{row['low']:,.0f}-{row['high']:,.0f}"
        lines.append(
            f"{name:<10}{row['median']:>9,.0f}  {speed:<16}{row['cpu_ms_per_label']:>12.2f}  {row['agreement']:.1%}"
        )
    own, hits = summary["efficiency"], summary["prefix_hits"]
    lines.append(f"efficiency {own['median']:.2f} ({own['low']:.2f}-{own['high']:.2f}): ours / offline, round by round")
    known = "unknown" if hits is None else f"{hits:.0%}"
    lines.append(
        f"{summary['requests_per_label']:.4f} requests a label; {known} of the prompts' tokens from the prefix cache"
    )
    return "\n".join(lines)
