"""What a reward model's inputs are divided by, so that columns of any unit can be read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LIMIT = 5.0
_WIDER = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class InputScale:
    """Mean and spread of each input.

    A column keeps what it had when it first varied, so that weights learned with it stay valid; until then it is read
    as 0, whatever it holds. Only a column whose spread has doubled since, as the depth does when an agent gets deeper,
    is measured anew: the weights then see it at half its size, which a few gradient steps make up for. It is not
    folded into the weights, as that would extrapolate what was learned of a narrow column far beyond it.
    """

    mean: np.ndarray
    """float32 [D]."""
    std: np.ndarray
    """float32 [D]; 0 = has not varied yet."""

    @classmethod
    def unknown(cls, num_inputs: int) -> InputScale:
        """Nothing has varied yet."""
        return cls(mean=np.zeros(num_inputs, np.float32), std=np.zeros(num_inputs, np.float32))

    def widened(self, inputs: np.ndarray) -> InputScale:
        """The scale to go on with after these inputs, float32 [M, D] with M at least 1."""
        # A column that never changes would have a spread by rounding alone.
        varies = (inputs != inputs[0]).any(0)
        mean = inputs.mean(0, dtype=np.float64).astype(np.float32)
        std = np.where(varies, inputs.std(0, dtype=np.float64), 0).astype(np.float32)
        anew = std > _WIDER * self.std
        return InputScale(mean=np.where(anew, mean, self.mean), std=np.where(anew, std, self.std))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [M, D], in standard deviations from the mean, at most 5 of them."""
        inverse = np.divide(1, self.std, out=np.zeros_like(self.std), where=self.std > 0)
        scaled = (inputs - self.mean) * inverse
        return np.clip(scaled, -_LIMIT, _LIMIT, out=scaled)
