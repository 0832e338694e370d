"""Small maps whose shortest plans are listed, and the exact denoiser of a list of plans."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import torch
from torch import Tensor

MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""Column and row steps of tokens 0 to 3: north, east, south, west."""

FORK = ("S....", ".###.", ".###.", ".###.", "....G")
"""Two ways of 8 steps, which differ at every one."""
ROOM = ("S....", ".....", ".....", ".....", "....G")
"""70 ways of 8 steps."""
PILLARS = (
    "S............",
    ".#.#.#.#.#.#.",
    ".............",
    ".#.#.....#.#.",
    "............G",
)
"""68 ways of 16 steps."""


def shortest_plans(rows: Sequence[str]) -> Tensor:
    """All shortest plans int64 [P, H] from S to G, # being walls."""
    squares = {(x, y): square for y, row in enumerate(rows) for x, square in enumerate(row) if square != "#"}
    start, goal = (next(at for at, square in squares.items() if square == letter) for letter in "SG")
    distance, edge = {goal: 0}, [goal]
    while edge:
        near = [(x + dx, y + dy, distance[x, y] + 1) for x, y in edge for dx, dy in MOVES]
        new = {(x, y): d for x, y, d in near if (x, y) in squares and (x, y) not in distance}
        distance |= new
        edge = list(new)

    def onward(x: int, y: int) -> list[list[int]]:
        if (x, y) == goal:
            return [[]]
        steps = [(token, (x + dx, y + dy)) for token, (dx, dy) in enumerate(MOVES)]
        good = [(token, to) for token, to in steps if distance.get(to) == distance[x, y] - 1]
        return [[token, *rest] for token, to in good for rest in onward(*to)]

    return torch.tensor(onward(*start))


class ExactDenoiser:
    """The conditionals of a distribution over listed plans, in float64. A ``Denoiser`` with one condition.

    Where no plan agrees with what is filled in, it says what it says of an empty plan.

    Args:
        plans: int64 [P, H].
        num_actions: A.
        weights: [P], proportional to the probabilities of the plans; None = all the same.
    """

    def __init__(self, plans: Tensor, num_actions: int, weights: Tensor | None = None) -> None:
        self.plans, self.mask = plans, num_actions + 1
        weights = torch.ones(len(plans)) if weights is None else weights
        self.probability = weights.double() / weights.double().sum()
        self._tokens = torch.nn.functional.one_hot(plans, num_actions + 1).double().flatten(1)
        self.asked: list[int] = []
        """How many plans each call asked about."""

    def __call__(self, tokens: Tensor, rows: Tensor, places: Tensor | None = None) -> Tensor:
        self.asked.append(len(tokens))
        fits = ((tokens[:, None] == self.mask) | (tokens[:, None] == self.plans)).all(-1) * self.probability
        fits = torch.where(fits.sum(-1, keepdim=True) > 0, fits, self.probability)
        found = (fits / fits.sum(-1, keepdim=True)) @ self._tokens
        found = found.unflatten(1, (tokens.shape[1], -1)).log()
        return found if places is None else found.gather(1, places[..., None].expand(-1, -1, found.shape[-1]))


def found_by_passes(plans: Tensor, probability: Tensor, passes: int) -> np.ndarray:
    """How likely decoding in passes finds each plan, [P], the mean over all orders.

    By dynamic programming over the sets of filled places, as bits; it shares nothing with the code that decodes.
    """
    (P, H), bits = plans.shape, 1 << np.arange(plans.shape[1])
    # likely[x, S]: how likely a plan is the same as plan x at the places of S, from sums over supersets.
    likely = np.zeros((P, 1 << H))
    agree = ((plans[:, None] == plans[None]).numpy() * bits).sum(-1)
    for x in range(P):
        np.add.at(likely[x], agree[x], probability.numpy())
    for bit in bits:
        pairs = likely.reshape(P, -1, 2, bit)
        pairs[:, :, 0] += pairs[:, :, 1]
    found = np.zeros((P, 1 << H))
    found[:, -1] = 1.0
    filled = [0]
    for number in range(passes):
        filled.append(filled[-1] + (H - filled[-1]) // (passes - number))
    for before, after in reversed(list(pairwise(filled))):
        subsets = np.array(list(combinations(range(H - before), after - before)))
        for chosen in combinations(range(H), before):
            state, free = sum(bits[list(chosen)]), bits[[place not in chosen for place in range(H)]]
            each = likely[:, state + free] / likely[:, state, None]
            found[:, state] = (each[:, subsets].prod(-1) * found[:, state + free[subsets].sum(-1)]).mean(-1)
    return found[:, 0]
