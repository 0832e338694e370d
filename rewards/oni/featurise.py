"""Captions as integers: hashed n-grams, or characters."""

from __future__ import annotations

import re
from itertools import pairwise
from zlib import crc32

import numpy as np

_TOKEN = re.compile(rb"[a-z']+|[^\sa-z']")
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier of Fibonacci hashing: spreads the low bits of a sum over the high ones."""
_BASE = np.uint64(0x100000001B3)


def ngram_ids(text: str, buckets: int, chars: tuple[int, ...] = (), max_bytes: int = 1024) -> np.ndarray:
    """Hashed n-grams of a text: its words, pairs of neighbouring words, and runs of characters.

    Case is folded. The hash is fixed, so the same text has the same n-grams in every process.

    Args:
        text: any text.
        buckets: number of ids, a power of two.
        chars: lengths of the runs of characters; none = words only.
        max_bytes: the rest of a longer text is not read.

    Returns:
        int64 [M], sorted, each id once; at least one.
    """
    data = text.lower().encode()[:max_bytes]
    words = [b"^", *_TOKEN.findall(data), b"$"]
    pairs = [first + b" " + second for first, second in pairwise(words)]
    codes = [np.array([crc32(gram) for gram in (*words[1:-1], *pairs)], np.uint64)]
    padded = np.frombuffer(b" " + data + b" ", np.uint8).astype(np.uint64)
    codes += [_runs(padded, length) for length in chars]
    spread = np.concatenate(codes) * _MIX >> np.uint64(64 - (buckets.bit_length() - 1))
    return np.unique(spread.astype(np.int64))


def _runs(data: np.ndarray, length: int) -> np.ndarray:
    """uint64: polynomial hash of each run of so many bytes; modulo 2**64."""
    count = max(len(data) - length + 1, 0)
    code = np.full(count, length, np.uint64)
    for at in range(length):
        code = code * _BASE + data[at : at + count]
    return code * _MIX


def character_ids(text: str, max_length: int) -> np.ndarray:
    """Characters of a text, cut at a length.

    Returns:
        int64 [M], M at least 1: the code, 1 to 127, of an ASCII character (1 also for NUL, and for an empty text); 127
        for the rest of Latin-1; 63, that of a question mark, for every other character. Never 0, which is padding.
    """
    data = np.frombuffer(text.encode("latin-1", "replace")[:max_length] or b"\0", np.uint8).astype(np.int64)
    return np.clip(data, 1, 127)
