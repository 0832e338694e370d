"""What HERON pays a step: the newest version of the reward model, or what it is compared with, sums of factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.data import RewardOutput, RewardPart, Rollout
from envs.protocols import State
from rewards.ensemble import AGGREGATES
from rewards.heron.factors import FactorTable
from rewards.heron.inputs import InputScale, StepInputs
from rewards.heron.segmenter import Segmenter
from rewards.heron.segments import Segments
from rewards.kinds import PlainReward

_CHUNK = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorer:
    """One version of the reward: weights and scales, frozen when it was published to the scorers.

    Members' outputs have a zero and a unit of their own; each is standardised by its mean and spread over recent
    steps, as they came out of the network, before they become one. All is computed in float64, so that a step is
    worth the same, to the last digit of a float32, whatever is scored beside it.
    """

    weights: tuple[np.ndarray, ...]
    """float32, as in :meth:`~rewards.heron.network.RewardNetwork.parameters`."""
    scale: InputScale
    """Of the inputs."""
    output_mean: np.ndarray
    """float64 [K]."""
    output_std: np.ndarray
    """float64 [K], above 0."""
    aggregate: str
    """Key of ``AGGREGATES``."""
    version: int
    """1 for the first."""

    def opinions(self, inputs: np.ndarray) -> np.ndarray:
        """float64 [K, M]: each member's standardised reward of each step, float32 [M, D]."""
        outputs = np.empty((len(self.output_mean), len(inputs)))
        for start in range(0, len(inputs), _CHUNK):
            rows = slice(start, start + _CHUNK)
            outputs[:, rows] = self._outputs(self.scale(inputs[rows]).astype(np.float64))
        return (outputs - self.output_mean[:, None]) / self.output_std[:, None]

    def _outputs(self, scaled: np.ndarray) -> np.ndarray:
        """float64 [K, M], as they come."""
        found = []
        for first, bias, second, bias_2, out, bias_3 in zip(*self.weights, strict=True):
            hidden = np.maximum(scaled @ first.astype(np.float64) + bias, 0)
            hidden = np.maximum(hidden @ second.astype(np.float64) + bias_2, 0)
            found.append((hidden @ out.astype(np.float64) + bias_3)[:, 0])
        return np.stack(found)

    def score(self, inputs: np.ndarray) -> np.ndarray:
        """The reward of each step.

        Args:
            inputs: float32 [..., D].

        Returns:
            The members' rewards as one, float32 [...].

        Raises:
            ValueError: D is not that of the inputs that the model has learned from.
        """
        if inputs.shape[-1] != len(self.scale.mean):
            raise ValueError(f"the reward model reads {len(self.scale.mean)} inputs a step, got {inputs.shape[-1]}")
        opinions = self.opinions(inputs.reshape(-1, inputs.shape[-1]))
        opinions = opinions.reshape(len(opinions), *inputs.shape[:-1])
        return AGGREGATES[self.aggregate](opinions).astype(np.float32)

    def state(self) -> State:
        """Everything."""
        return {
            "weights": [weights.copy() for weights in self.weights],
            "input_mean": self.scale.mean.copy(),
            "input_std": self.scale.std.copy(),
            "output_mean": self.output_mean.copy(),
            "output_std": self.output_std.copy(),
            "aggregate": self.aggregate,
            "version": self.version,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Scorer:
        """What ``state`` described."""
        return cls(
            weights=tuple(np.array(weights, np.float32) for weights in state["weights"]),
            scale=InputScale(
                mean=np.array(state["input_mean"], np.float32), std=np.array(state["input_std"], np.float32)
            ),
            output_mean=np.array(state["output_mean"], np.float64),
            output_std=np.array(state["output_std"], np.float64),
            aggregate=str(state["aggregate"]),
            version=int(state["version"]),
        )


class HeronReward(PlainReward):
    """Part ``heron``: what the newest version of the reward model gives a step.

    Until there is a first version, no step has a value: invalid, not 0. The reward has no memory of the episode, so
    stored steps can be scored anew when the model changes. What reads the policy's encoder is an exception: it drifts
    between versions, as the encoder learns.

    Rollouts are cut into segments, the evidence for what the model prefers, as soon as they are scored: segments hold
    what the model read when it scored them, also where it reads through a network that is about to be improved.

    Args:
        inputs: what the model reads of a step.
        segmenter: cuts rollouts into segments; None = nobody learns from them.
    """

    part_names = ("heron",)

    def __init__(self, inputs: StepInputs, segmenter: Segmenter | None = None) -> None:
        self.inputs, self._segmenter = inputs, segmenter
        self._scorer: Scorer | None = None

    @property
    def version(self) -> int:
        """That of the model; 0 until there is one."""
        return 0 if self._scorer is None else self._scorer.version

    def take(self, news: Scorer) -> None:
        """Score with this version from now on."""
        self._scorer = news

    def initial_state(self, num_games: int) -> State:
        """The segmenter's: steps that are in no segment yet."""
        return {} if self._segmenter is None else self._segmenter.initial_state(num_games)

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """The model's reward of each step."""
        shape = rollout.env_reward.shape
        if self._scorer is None:
            return {"heron": RewardPart(value=np.zeros(shape, np.float32), valid=np.zeros(shape, bool))}, state
        value = self._scorer.score(self.inputs(rollout))
        return {"heron": RewardPart(value=value, valid=np.ones(shape, bool))}, state

    def evidence(self, rollout: Rollout, output: RewardOutput, state: State) -> tuple[Segments | None, State]:
        """Segments that the rollout completes; None if it completes none."""
        return (None, state) if self._segmenter is None else self._segmenter.cut(rollout, state)

    def state_dict(self) -> State:
        """The version that scores."""
        return {"scorer": None if self._scorer is None else self._scorer.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        scorer = state["scorer"]
        self._scorer = None if scorer is None else Scorer.from_state(scorer)


class FactorSum(PlainReward):
    """Part ``heron``: pays ``sum_i weight_i * sign_i * factor_i`` at each step, of the factors' values as they are.

    Args:
        table: the factors, the most important first.
        weights: one a factor (``WeightedSumConfig.weights``, ``PowersOfTenConfig.weights``).

    Raises:
        ValueError: there are not as many weights as factors.
    """

    part_names = ("heron",)

    def __init__(self, table: FactorTable, weights: Sequence[float]) -> None:
        if len(weights) != len(table.names):
            raise ValueError(f"{len(weights)} weights for {len(table.names)} factors ({', '.join(table.names)})")
        self._table = table
        self._signed_weights = np.array(weights, np.float64) * table.signs

    def score(self, rollout: Rollout, state: State) -> tuple[Mapping[str, RewardPart], State]:
        """[T, B], valid everywhere.

        Raises:
            ValueError: a factor is not finite.
        """
        value = (self._table.per_step(rollout) @ self._signed_weights).astype(np.float32)
        return {"heron": RewardPart(value=value, valid=np.ones(value.shape, bool))}, state
