"""Rows that repeat, in a batch or from batch to batch: what depends on a row alone is computed once.

That includes the share of a row in a linear layer over several encoders' features side by side (``joint_shares``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

RowFunction = Callable[[Tensor], Tensor]
"""[N, ...] to [N, width], each row for itself."""

_MEMO_ROWS = 4096


def row_bytes(x: Tensor) -> list[bytes]:
    """The rows of [N, ...], on the CPU, as keys of a dictionary."""
    if not x.numel():
        return [b""] * len(x)
    whole = x.numpy().tobytes()
    size = len(whole) // len(x)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


@dataclass(frozen=True, slots=True)
class DistinctRows:
    """The rows of a batch [N, ...] without their repetitions."""

    rows: Tensor
    """[U, ...]."""
    inverse: Tensor | None = None
    """int64 [N]: which of them each row of the batch is; None = each its own."""

    def spread(self, values: Tensor) -> Tensor:
        """Values [U, width] of the rows to [N, width] of the batch, with gradients."""
        if self.inverse is None:
            return values
        # An embedding, because its gradient adds rows faster than that of an index.
        return functional.embedding(self.inverse, values)


def distinct_rows(x: Tensor) -> DistinctRows:
    """The distinct rows of [N, ...], on the CPU, in the order in which they first come."""
    numbers: dict[bytes, int] = {}
    inverse = [numbers.setdefault(row, len(numbers)) for row in row_bytes(x)]
    if len(numbers) == len(x):
        return DistinctRows(x)
    # Walking backwards, the last to be written is the first of its kind.
    first = [0] * len(numbers)
    for i in range(len(inverse) - 1, -1, -1):
        first[inverse[i]] = i
    return DistinctRows(x[torch.tensor(first)], torch.tensor(inverse))


class Memo:
    """Functions of rows that remember their results. Without gradients.

    Args:
        functions: by name; [N, ...] to [N, width], each row for itself.
        forget: names whose rows hardly ever repeat; these functions are just called.
    """

    def __init__(self, functions: Mapping[str, RowFunction], forget: Collection[str] = ()) -> None:
        self._functions = functions
        self._known: dict[str, _Known | None] = {name: None if name in forget else _Known() for name in functions}

    def compute(self, name: str, x: Tensor) -> Tensor:
        """The named function of ``x``: [N, width]."""
        known = self._known[name]
        return self._functions[name](x) if known is None else known.compute(self._functions[name], x)


class _Known:
    """Results of one function; all are forgotten when there is no room for more."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._values: Tensor | None = None

    def compute(self, function: RowFunction, x: Tensor) -> Tensor:
        if self._values is not None and len(self._numbers) + len(x) > len(self._values):
            self._numbers, self._values = {}, None
        numbers, before = self._numbers, len(self._numbers)
        indices, new = [], []
        for i, row in enumerate(row_bytes(x)):
            number = numbers.get(row)
            if number is None:
                number = numbers[row] = len(numbers)
                new.append(i)
            indices.append(number)
        if new or self._values is None:
            values = function(x if len(new) == len(x) else x[torch.tensor(new)])
            if self._values is None:
                self._values = values.new_empty(max(_MEMO_ROWS, len(x)), values.shape[1])
            self._values[before : len(numbers)] = values
        return self._values.index_select(0, torch.tensor(indices))


def joint_shares(weight: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What each piece adds to the layer's output, which is their sum and the bias.

    The pieces need not have equally many rows.

    Args:
        weight: [hidden, the sum of widths].
        features: [N, width] each.

    Returns:
        float32 [N, hidden] each.
    """
    return tuple(share.float() for share in _JointShares.apply(weight, *features))  # pyright: ignore[reportGeneralTypeIssues]


class _JointShares(torch.autograd.Function):
    """Writes the weight's gradient piece by piece; ``Tensor.split`` would pad or join those of its pieces."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, weight: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *features)
        pieces = weight.split([x.shape[1] for x in features], 1)
        return tuple(x @ piece.t() for x, piece in zip(features, pieces, strict=True))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, *features = ctx.saved_tensors
        widths = [x.shape[1] for x in features]
        grad_weight = torch.empty_like(weight)
        for piece, grad, x in zip(grad_weight.split(widths, 1), grads, features, strict=True):
            piece.copy_(grad.t() @ x)
        wanted = ctx.needs_input_grad[1:]
        pieces = weight.split(widths, 1)
        return grad_weight, *(
            (grad @ piece).to(x.dtype) if want else None
            for grad, piece, x, want in zip(grads, pieces, features, wanted, strict=True)
        )
