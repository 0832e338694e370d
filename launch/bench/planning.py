"""How long a plan takes: heads and ways of filling in, on one thread, in turns.

A plan is everything that a planner does for a game when it needs a new one: encoding, the condition's tokens, N
candidates, the critic's scores, the choice. Times are of the process's CPU, so that load on the machine disturbs less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from agents.config import (
    AutoregressiveConfig,
    CriticConfig,
    Decoding,
    EncoderConfig,
    FactorisedConfig,
    MaskedConfig,
    OneStepConfig,
    PlanHeadConfig,
    PlannerConfig,
)
from agents.offline import PlanningModel
from agents.planner import LoggedWindows, PlanningPolicy
from agents.rollout import GeneratorNoise
from envs.data import Config
from envs.protocols import GamesSpec, ObsSpec, Policy
from envs.spec import MOVES
from launch.bench.harness import in_turn, ratio_spread, ratios
from launch.offline.planning import PlannerSource

REFERENCE = "autoregressive"
_OBS = {
    "blstats": ObsSpec(shape=(27,), dtype=np.dtype(np.int64)),
    "glyphs": ObsSpec(shape=(21, 79), dtype=np.dtype(np.int16)),
}


class PlanBench(Config):
    """How long plans take: heads and ways of filling them in, on one thread, alternating."""

    runs: tuple[Path, ...] = ()
    """Offline runs, of different heads, whose networks are measured; none = networks with random weights."""
    games: tuple[Annotated[int, Field(gt=0)], ...] = (1, 8, 64)
    """Games that need a plan at the same moment."""
    candidates: Annotated[int, Field(gt=0)] = 8
    """Candidates of each plan."""
    rounds: Annotated[int, Field(gt=0)] = 60
    """Plans of each system and number of games."""
    horizon: Annotated[int, Field(gt=0)] = 16
    """Tokens of a plan, of random networks."""
    width: Annotated[int, Field(gt=0)] = 64
    """Width of random networks."""
    layers: Annotated[int, Field(gt=0)] = 2
    """Layers of random networks."""
    seed: int = 0
    """Of weights, observations and the order of rounds."""


def measure(flags: PlanBench) -> tuple[str, Any]:
    """The table, and every measurement in milliseconds of CPU time."""
    torch.set_num_threads(1)
    systems = dict(_of_runs(flags) if flags.runs else _random(flags))
    cases, passes = {}, {}
    for name, policy in systems.items():
        for num in flags.games:
            cases[f"{name} x {num}"], passes[f"{name} x {num}"] = _case(policy, num, flags)
    found = in_turn(cases, flags.rounds, warm_up=3, order=np.random.default_rng(flags.seed))
    rows = {case: _row(values) | {"evaluations": passes[case]} for case, values in found.items()}
    for case, values in found.items():
        name, _, num = case.rpartition(" x ")
        if (reference := found.get(f"{REFERENCE} x {num}")) is not None and name != REFERENCE:
            rows[case] |= ratio_spread(ratios(reference, values))
    return _table(rows), {"reference": REFERENCE, "systems": rows, "cpu_ms": found}


def _row(values: Sequence[float]) -> dict[str, float]:
    return {"p50_ms": float(np.median(values)), "p99_ms": float(np.quantile(values, 0.99))}


def _decodings(head: PlanHeadConfig, *, trained: bool) -> Mapping[str, Decoding]:
    """Ways to fill in, by what they are called."""
    if not isinstance(head, MaskedConfig):
        return {head.kind: Decoding()}
    found = {f"masked, {k} passes": Decoding(kind="passes", passes=k) for k in (1, 2, 3, 5)}
    # How many passes entropies allow is a matter of what was learned.
    return found | ({"masked, entropy-bounded": Decoding(kind="entropy")} if trained else {})


def _of_runs(flags: PlanBench) -> Iterator[tuple[str, Policy]]:
    for run in flags.runs:
        source = PlannerSource.of(run, None, PlannerConfig(candidates=flags.candidates))
        for name, decoding in _decodings(source.config.head, trained=True).items():
            planner = PlannerConfig(candidates=flags.candidates, decoding=decoding, warm_start=False)
            source = PlannerSource.of(run, None, planner, keeps_plans=True)
            yield name, source.build(_spec())


def _random(flags: PlanBench) -> Iterator[tuple[str, Policy]]:
    sizes: dict[str, Any] = {"width": flags.width, "layers": flags.layers}
    heads = [
        *(kind(horizon=flags.horizon, **sizes) for kind in (AutoregressiveConfig, MaskedConfig, FactorisedConfig)),
        OneStepConfig(**sizes),
    ]
    for head in heads:
        torch.manual_seed(flags.seed)
        spec, critic = _spec(), CriticConfig(reward="goal")
        model = PlanningModel(head, critic, EncoderConfig(hidden=128), {"blstats": _OBS["blstats"]}, len(MOVES))
        for name, decoding in _decodings(head, trained=False).items():
            config = PlannerConfig(candidates=flags.candidates, decoding=decoding, refuse=0, warm_start=False)
            yield name, PlanningPolicy(model, config, spec, _no_windows(head), knows_goals=True, keeps_plans=True)


def _spec() -> GamesSpec:
    return GamesSpec(tasks=("Yendor-Maze2D-Large-v0",), obs=_OBS, action_names=tuple(MOVES))


def _no_windows(head: PlanHeadConfig) -> LoggedWindows:
    squares = torch.zeros(2, 2, dtype=torch.int64)
    return LoggedWindows(
        obs={"blstats": torch.zeros(2, 27, dtype=torch.int64)},
        condition={"hero": squares, "goal": squares, "return_bin": torch.full((2,), -1)},
        plans=torch.zeros(2, head.horizon, dtype=torch.int64),
        critic_goal=squares,
        chunk=torch.zeros(2, 4, dtype=torch.int64),
        weight=torch.ones(2),
    )


def _case(policy: Policy, num: int, flags: PlanBench) -> tuple[Callable[[int], float], float]:
    """Milliseconds of one call for ``num`` games that all need a plan; and network evaluations a plan."""
    generator = np.random.default_rng(flags.seed)
    obs = {key: np.zeros((num, *spec.shape), spec.dtype) for key, spec in _OBS.items()}
    obs["blstats"][:, :2] = generator.integers(1, 20, (num, 2))
    noise = GeneratorNoise(num, flags.seed)
    memory = policy.initial_state(num)
    told = policy.act(obs, memory, None, noise).head_record or {}

    def measured(number: int) -> float:
        start = time.process_time()
        policy.act(obs, memory, None, noise)
        return 1000 * (time.process_time() - start)

    return measured, float(told["evaluations"].mean())


def _table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The summary for people."""
    lines = [f"{'system x games':<32}{'p50 ms':>9}{'p99 ms':>9}{'evaluations':>13}  {REFERENCE} / it"]
    for case, row in rows.items():
        ratio = ""
        if "ratio_median" in row:
            ratio = f"{row['ratio_median']:.2f}x ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        lines.append(f"{case:<32}{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}{row['evaluations']:>13.1f}  {ratio}")
    return "\n".join(lines)
