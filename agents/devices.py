"""Which processor computes, and in which precision."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch


def device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        ValueError: the named device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = torch.cuda.device_count()
    allowed = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if name not in allowed:
        raise ValueError(f"device '{name}' is not available here; allowed: {', '.join(allowed)}")
    return torch.device(name)


def has_fast_bf16(where: torch.device) -> bool:
    """True where bf16 products are done in hardware (AVX512-BF16 or AMX on CPUs; Ampere and later)."""
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolved(precision: str, *devices: torch.device) -> str:
    """``auto`` as bf16 where every device has it fast, else fp32: acting and learning must agree."""
    if precision != "auto":
        return precision
    return "bf16" if all(map(has_fast_bf16, devices)) else "fp32"


def autocast(precision: str, where: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast, or nothing, for a precision of ``auto``, ``fp32`` or ``bf16``."""
    if resolved(precision, where) == "bf16":
        return torch.autocast(where.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
