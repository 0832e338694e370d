"""The error of decoding itself: what each way of filling in plans gives when the denoiser is exact.

The data are all shortest plans of three small maps, each as likely; the denoiser is enumerated. Nothing is learned and
nothing is sampled: the probability with which a decoding finds each plan is computed. Whatever is wrong is the
decoding's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveInt

from agents.config import Decoding
from agents.heads.decoding import decode
from envs.data import Config
from tests.agents.heads.enumerated import FORK, MOVES, PILLARS, ROOM, ExactDenoiser, found_by_passes, shortest_plans

MAPS = {"fork": FORK, "room": ROOM, "pillars": PILLARS}


class SamplersBench(Config):
    """The error of ways to fill in plans, given an exact denoiser."""

    passes: tuple[PositiveInt, ...] = (1, 2, 3, 5)
    """Numbers of passes, in a random order; as many as there are tokens is always added."""
    confidence: tuple[PositiveInt, ...] = (3,)
    """Numbers of passes, the surest places first."""
    entropy_bounds: tuple[Annotated[float, Field(ge=0)], ...] = (0.5, 0.1)
    """Nats a pass."""


def measure(flags: SamplersBench) -> tuple[str, dict[str, Any]]:
    """The table, and all numbers."""
    maps = {}
    for name, rows in MAPS.items():
        exact = ExactDenoiser(shortest_plans(rows), len(MOVES))
        P, H = exact.plans.shape
        maps[name] = {"plans": P, "horizon": H, "decodings": _decodings(exact, flags)}
    return table(maps), {"summary": maps}


def _decodings(exact: ExactDenoiser, flags: SamplersBench) -> dict[str, dict[str, float]]:
    """Errors by decoding."""
    H = exact.plans.shape[1]
    found = {}
    for passes in dict.fromkeys((*flags.passes, H)):
        name = {1: "1 pass", H: "a pass a token"}.get(passes, f"{passes} passes")
        # In a single pass, and with a pass for each token, the order makes no difference.
        if passes in (1, H):
            found[name] = _computed(exact, Decoding(kind="passes", passes=passes))
        else:
            found[name] = errors(found_by_passes(exact.plans, exact.probability, passes), exact) | {"passes": passes}
    for passes in flags.confidence:
        decoding = Decoding(kind="passes", passes=passes, order="confidence")
        found[f"{passes} passes, surest first"] = _computed(exact, decoding)
    for bound in flags.entropy_bounds:
        found[f"entropy bound {bound}"] = _computed(exact, Decoding(entropy_bound=bound))
    found["left to right"] = _computed(exact, Decoding(kind="left_to_right"))
    return found


def _computed(exact: ExactDenoiser, decoding: Decoding) -> dict[str, float]:
    """Errors of a decoding whose order is no matter of chance, or makes no difference."""
    plans = exact.plans[None]
    uniform = torch.rand(*plans.shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    forced = decode(exact, torch.full_like(plans, exact.mask), decoding, uniform, plans)
    probability = forced.log_prob[0].exp()
    passes = (probability * forced.evaluations[0]).sum() / probability.sum()
    return errors(probability.numpy(), exact) | {"passes": passes.item()}


def errors(found: np.ndarray, exact: ExactDenoiser) -> dict[str, float]:
    """Total variation and share of valid plans, of the probability [P] with which each plan is found."""
    shared = np.minimum(found, exact.probability.numpy()).sum()
    return {"total_variation": max(0.0, 1.0 - float(shared)), "valid": float(found.sum())}


def table(maps: Mapping[str, Mapping[str, Any]]) -> str:
    """The summary for people: total variation, share of valid plans, and passes of these."""
    names: Sequence[str] = list(next(iter(maps.values()))["decodings"])
    heads = [f"{name}: {row['plans']} of {row['horizon']}" for name, row in maps.items()]
    lines = [f"{'':<24}" + "  ".join(f"{head:<22}" for head in heads)]
    lines += [f"{'decoding':<24}" + "  ".join([f"{'distance  valid passes':<22}"] * len(maps))]
    for name in names:
        rows = [row["decodings"][name] for row in maps.values()]
        cells = (f"{r['total_variation']:>8.3f}  {r['valid']:>5.2f} {r['passes']:>6.1f}" for r in rows)
        lines.append(f"{name:<24}" + "  ".join(cells))
    return "\n".join(lines)
