"""Labels a second of our client through a server, beside ``LLM.generate`` in one process: the same model and prompts.

    server    the labelling client and ``yendor serve-llm``'s server: see ``launch.bench.labelling``
    offline   vLLM within one process, given all prompts at once: no HTTP, no waiting

Both are loaded all the time and take turns. Efficiency is the server's labels/s divided by those offline, round by
round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from launch.bench.harness import in_turn, ratios, spread
from launch.bench.labelling import LabelBench, LabelRound, Served, Workload, group_cpu_s, print_round, raw
from launch.bench.labelling import summarise as summarise_labels
from launch.bench.labelling import table as labels_table
from launch.llm.server import VLLMServer
from launch.llm.vllm import find_model, find_vllm
from tests.benchmarks.comparators.offline_vllm import OfflineAnnotator

_TOP_LOGPROBS = 5
"""As many as the client asks for."""


class LabelComparison(LabelBench):
    """Labels a second through a server, beside the same model in one process."""


def measure(flags: LabelComparison) -> tuple[str, dict[str, Any]]:
    """The table, and all that was measured.

    Raises:
        UserError: no model is named, there is no vLLM, or there are too few captions.
        RunError: the server or the other process ended.
    """
    workload = Workload.draw(flags)
    assert flags.model is not None, "a workload was drawn"
    vllm, model = find_vllm(flags.server.vllm), find_model(flags.model)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yendor-bench-")))
        offline = stack.enter_context(OfflineAnnotator(vllm, model, flags.server, folder / "offline.log"))
        server = stack.enter_context(VLLMServer(flags.model, flags.server, folder / "server.log"))
        print("both are loaded")
        cases = {
            "server": Served(server, flags, workload).run_round,
            "offline": lambda number: run_offline(offline, workload, number),
        }
        found = in_turn(cases, flags.rounds, report=print_round)
    summary = summarise(found, flags.prompts)
    return table(summary), {"vllm": vllm.version, "summary": summary, "measurements": raw(found)}


def run_offline(offline: OfflineAnnotator, workload: Workload, number: int) -> LabelRound:
    """One round without a server."""
    cpu_s = group_cpu_s(offline.group)
    seconds, texts = offline.answer(workload.spec, workload.questions[number], _TOP_LOGPROBS)
    return workload.round_of(number, seconds, group_cpu_s(offline.group) - cpu_s, texts)


def summarise(found: Mapping[str, Sequence[LabelRound]], prompts: int) -> dict[str, Any]:
    """See ``launch.bench.labelling.summarise``; with the efficiency."""
    speeds = {name: [r.labels_per_s for r in own] for name, own in found.items()}
    return summarise_labels(found, prompts) | {"efficiency": spread(ratios(speeds["server"], speeds["offline"]))}


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    own = summary["efficiency"]
    shown = f"efficiency {own['median']:.2f} ({own['low']:.2f}-{own['high']:.2f}): server / offline, round by round"
    return f"{labels_table(summary)}\n{shown}"
