"""How the values of a program's components become one reward.

As in Auto MC-Reward (Li et al. 2023, arXiv 2312.09238) the program says signs, and the scale is ours: 1 for sparse
components, a small one for dense ones. Unlike there each component has a sign of its own, so that small terms neither
mask nor cancel large ones, and what dense components sum to in an episode is bounded, so that no farming outweighs
success.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from envs.protocols import State
from rewards.auto.config import CompositionConfig
from rewards.auto.program import ComponentKind

OTHER = "other"
"""Components that no program declares, taken together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Composed:
    """What a rollout pays."""

    total: np.ndarray
    """float64 [T, B]: the sum of ``components``."""
    components: Mapping[str, np.ndarray]
    """``{label: float64 [T, B]}``: what each pays."""
    raw: Mapping[str, np.ndarray]
    """``{label: float64 [T, B]}``: what the program gave for each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """What must be known of steps to compose their rewards."""

    valid: np.ndarray
    """bool [T, B]; where False the step pays nothing and is as if it had not been."""
    terminated: np.ndarray
    """bool [T, B]."""
    truncated: np.ndarray
    """bool [T, B]."""


class Composer:
    """Composes the values of components; its memory of running episodes is handed in and out.

    Args:
        config: weights and bounds.
        components: names that are told apart; all others are ``OTHER``.
        gamma: discount of the learner, for dense="potential"; see ``_Potential``.
    """

    def __init__(self, config: CompositionConfig, components: Sequence[str], *, gamma: float = 1.0) -> None:
        self.labels = tuple(dict.fromkeys((*components, OTHER)))
        self._config = config
        self._shape = _SHAPES[config.values]
        self._dense = _DENSE[config.dense](config, gamma)

    def initial_state(self, num_games: int) -> State:
        """Memory of episodes before their first step: ``dense`` float64 [B, labels]."""
        return {"dense": np.zeros((num_games, len(self.labels)))}

    def after_switch(self, state: Mapping[str, Any], switched: np.ndarray) -> State:
        """Memory for another program's components, in the middle of episodes.

        Of dense="budget" and "fading" all stays: the budget is the episode's, and another program gets no second one.
        Of dense="potential" nothing stays: the new potential rises from 0, as at the start of an episode.

        Args:
            state: the memory.
            switched: bool [B], games whose memory is of another program.
        """
        return {"dense": np.where(switched[:, None], self._dense.after_switch(state["dense"]), state["dense"])}

    def compose(
        self,
        values: Mapping[str, np.ndarray],
        kinds: Mapping[str, ComponentKind],
        steps: Steps,
        state: Mapping[str, Any],
    ) -> tuple[Composed, State]:
        """What steps pay.

        Args:
            values: ``{component: [T, B]}``; finite where valid.
            kinds: of components; those it does not name are dense.
            steps: of the same T and B.
            state: memory before the first step; it is not written to.

        Returns:
            What is paid, and the memory after the last step.
        """
        raw, sparse, dense = self._by_label(values, kinds, steps.valid)
        paid = np.empty_like(dense)
        memory = np.array(state["dense"], np.float64)
        done = steps.terminated | steps.truncated
        for t, valid in enumerate(steps.valid):
            paid[t], after = self._dense.pay(dense[t], memory, steps.terminated[t])
            memory = np.where(valid[:, None], after, memory)
            memory[done[t]] = 0.0
        paid = np.where(steps.valid[..., None], paid, 0.0) + sparse
        components = {label: paid[..., i] for i, label in enumerate(self.labels)}
        total = sum(components.values(), np.zeros(steps.valid.shape))
        given = {label: raw[..., i] for i, label in enumerate(self.labels)}
        return Composed(total=total, components=components, raw=given), {"dense": memory}

    def _by_label(
        self, values: Mapping[str, np.ndarray], kinds: Mapping[str, ComponentKind], valid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values as given, and weighted of sparse and of dense components: float64 [T, B, labels] each."""
        raw, sparse, dense = np.zeros((3, *valid.shape, len(self.labels)))
        weighted = {
            "sparse": (sparse, self._config.sparse_weight),
            "dense": (dense, self._config.dense_weight),
        }
        for name, given in values.items():
            at = self.labels.index(name if name in self.labels else OTHER)
            value = np.where(valid, given, 0.0)
            raw[..., at] += value
            into, weight = weighted[kinds.get(name, "dense")]
            into[..., at] += weight * self._shape(value)
        return raw, sparse, dense


_SHAPES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "signs": np.sign,
    "clipped": lambda value: np.clip(value, -1.0, 1.0),
}
"""What counts of a value, by ``CompositionConfig.values``."""


class _DenseRule(Protocol):
    """How dense components pay; memory and pay are float64 [B, labels]."""

    def __init__(self, config: CompositionConfig, gamma: float) -> None: ...

    def pay(self, dense: np.ndarray, memory: np.ndarray, terminated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What one step pays for weighted values, and the memory after it if the episode goes on."""
        ...

    def after_switch(self, memory: np.ndarray) -> np.ndarray:
        """What of it holds for another program."""
        ...


class _Budget:
    """The running sum of what was paid stays within the budget, up and down: ``P' = clip(P + x, -b, b)`` pays P' - P.

    So what an episode has paid is within the budget at every step, and, being a weighted mean of such sums, its
    discounted sum is too, for every discount. Going back and forth gains nothing: all that goes up again had come down,
    and from start to end an episode can rise by no more than the budget. (Clipping gross sums of gains and of losses
    instead would let a random walk use up the signal in a few steps; summing what lies beyond the bound would leave
    the signal dead until that is undone.) Where the bound cuts a step short, its components are cut in proportion.
    """

    def __init__(self, config: CompositionConfig, gamma: float) -> None:
        self._budget = config.dense_budget

    def pay(self, dense: np.ndarray, memory: np.ndarray, terminated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Memory: what each component has paid."""
        before, change = memory.sum(axis=1), dense.sum(axis=1)
        wanted = before + change
        after = np.minimum(np.maximum(wanted, -self._budget), self._budget)
        cut = (after != wanted) & (change != 0.0)
        if not cut.any():
            return dense, memory + dense
        share = np.where(cut, (after - before) / np.where(cut, change, 1.0), 1.0).clip(0.0, 1.0)
        paid = dense * share[:, None]
        return paid, memory + paid

    def after_switch(self, memory: np.ndarray) -> np.ndarray:
        """All of it."""
        return memory


class _Fading:
    """The sum of dense values fades into the budget: of their sum S, ``P = b * S / (b + |S|)`` is paid by then.

    P is within the budget at every step, as that of ``_Budget`` is, and by the same argument its discounted sum is. But
    it never stands still: the first step pays nearly all of its value, the hundredth a little, so that a long way to
    the goal is paid for up to its end. Going back and forth gains nothing, because P follows from S.
    """

    def __init__(self, config: CompositionConfig, gamma: float) -> None:
        self._budget = config.dense_budget

    def pay(self, dense: np.ndarray, memory: np.ndarray, terminated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Memory: what each component has summed to, before it fades."""
        before, change = memory.sum(axis=1), dense.sum(axis=1)
        risen = self._faded(before + change) - self._faded(before)
        slope = (self._budget / (self._budget + np.abs(before))) ** 2
        # Where components cancel out, nothing is paid in all; each then weighs as much as the next one would.
        share = np.where(change != 0.0, risen / np.where(change != 0.0, change, 1.0), slope)
        return dense * share[:, None], memory + dense

    def _faded(self, total: np.ndarray) -> np.ndarray:
        return self._budget * total / (self._budget + np.abs(total))

    def after_switch(self, memory: np.ndarray) -> np.ndarray:
        """All of it."""
        return memory


class _Potential:
    """The weighted values after a step are the potential of the state reached: a step pays ``gamma * new - old``.

    Ng, Harada and Russell (1999, Policy Invariance Under Reward Transformations): with the learner's own discount this
    changes no optimal policy. gamma=1 pays by how much the potential rose, which is exact for an undiscounted learner;
    a discounted one keeps an incentive of ``(1 - gamma) * potential`` a step, at most the potential in all, and in turn
    nothing is ever paid for standing still. The potential is 0 before an episode and where one terminates; at a time
    limit it stays, because learners bootstrap there from the state reached, as if the episode went on.
    """

    def __init__(self, config: CompositionConfig, gamma: float) -> None:
        self._gamma = gamma

    def pay(self, dense: np.ndarray, memory: np.ndarray, terminated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Memory: the potential of each component."""
        reached = np.where(terminated[:, None], 0.0, dense)
        return self._gamma * reached - memory, reached

    def after_switch(self, memory: np.ndarray) -> np.ndarray:
        """None of it."""
        return np.zeros_like(memory)


_DENSE: Mapping[str, type[_DenseRule]] = {"budget": _Budget, "fading": _Fading, "potential": _Potential}
"""By ``CompositionConfig.dense``."""
