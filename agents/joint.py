"""A linear layer over features that lie side by side, applied to each piece for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
