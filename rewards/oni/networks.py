"""Networks that give a caption a number, several members of an ensemble in one, and the integers that they read.

They differ in how they read a text (hashed n-grams, or characters); what they share is :class:`CaptionNetwork`. Initial
weights come from a seed of their own, so that torch's global generator is never drawn from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_TOKEN = re.compile(rb"[a-z']+|[^\sa-z']")
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier of Fibonacci hashing: spreads the low bits of a sum over the high ones."""
_BASE = np.uint64(0x100000001B3)


class CaptionNetwork(Protocol):
    """K members that each give a text one number (a logit, or a score)."""

    def encode(self, text: str) -> np.ndarray:
        """int64 [M]: what the network reads of a text; computed once for each."""
        ...

    def __call__(self, encoded: Sequence[np.ndarray]) -> Tensor:
        """float32 [K, N] for N encoded texts."""
        ...

    def parameters(self) -> Sequence[Tensor]:
        """All weights, always in the same order."""
        ...


class NGramNetwork:
    """A bag of hashed n-grams, embedded, summed, and one hidden layer on top: fastText's recipe.

    Joulin et al. 2017, "Bag of tricks for efficient text classification" (arXiv 1607.01759). A sum over M n-grams
    is divided by the root of M, so that long captions do not shout. All members share one table of embeddings,
    each with columns of its own: one look-up serves all.

    Args:
        members: K.
        generator: where the initial weights come from.
        buckets: rows of the table, a power of two.
        width: units of the hidden layer of each member.
        chars: lengths of character n-grams beside words and pairs of words.
    """

    def __init__(
        self, members: int, generator: torch.Generator, *, buckets: int, width: int, chars: tuple[int, ...] = ()
    ) -> None:
        self._members, self._buckets, self._chars = members, buckets, chars
        self._table = _normal((buckets, members * width), 0.1, generator)
        self._bias = _normal((members * width,), 0.1, generator)
        self._out = _normal((members, width), 1 / math.sqrt(width), generator)
        self._out_bias = _normal((members, 1), 0.0, generator)

    def encode(self, text: str) -> np.ndarray:
        """Ids of its n-grams."""
        return ngram_ids(text, self._buckets, self._chars)

    def __call__(self, encoded: Sequence[np.ndarray]) -> Tensor:
        """float32 [K, N] for N encoded texts."""
        lengths = np.array([len(ids) for ids in encoded])
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)[:-1]]))
        ids = torch.from_numpy(np.concatenate(encoded))
        scale = torch.from_numpy((1 / np.sqrt(lengths)).astype(np.float32))
        bags = functional.embedding_bag(ids, self._table, offsets, mode="sum") * scale[:, None]
        hidden = torch.relu(bags + self._bias).view(len(encoded), self._members, -1)
        return (hidden * self._out).sum(-1).T + self._out_bias

    def parameters(self) -> Sequence[Tensor]:
        """Table, bias, output weights, output bias."""
        return [self._table, self._bias, self._out, self._out_bias]


class CharNetwork:
    """Convolutions over characters, and the largest response anywhere in the text.

    A small relative of the network of Zhang et al. 2015, "Character-level convolutional networks for text
    classification" (arXiv 1509.01626), which ONI uses.

    Args:
        members: K.
        generator: where the initial weights come from.
        width: channels of each layer of each member.
        max_length: the rest of a longer caption is not read.
    """

    _CHARACTERS, _EMBEDDING, _KERNEL = 128, 16, 5

    def __init__(self, members: int, generator: torch.Generator, *, width: int, max_length: int) -> None:
        self._max_length = max_length
        inner, kernel = self._EMBEDDING, self._KERNEL
        self._layers = [
            [
                _normal((self._CHARACTERS, inner), 1.0, generator),
                _normal((width, inner, kernel), math.sqrt(2 / (inner * kernel)), generator),
                _normal((width,), 0.0, generator),
                _normal((width, width, kernel), math.sqrt(2 / (width * kernel)), generator),
                _normal((width,), 0.0, generator),
                _normal((1, width), 1 / math.sqrt(width), generator),
                _normal((1,), 0.0, generator),
            ]
            for _ in range(members)
        ]

    def encode(self, text: str) -> np.ndarray:
        """Its characters."""
        return character_ids(text, self._max_length)

    def __call__(self, encoded: Sequence[np.ndarray]) -> Tensor:
        """float32 [K, N] for N encoded texts."""
        lengths = np.array([len(ids) for ids in encoded])
        padded = np.zeros((len(encoded), int(lengths.max())), np.int64)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(encoded)
        ids = torch.from_numpy(padded)
        return torch.stack([_convolve(ids, *layers) for layers in self._layers])

    def parameters(self) -> Sequence[Tensor]:
        """Member after member: embedding, two convolutions, output."""
        return [tensor for layers in self._layers for tensor in layers]


def _convolve(
    ids: Tensor, table: Tensor, first: Tensor, bias: Tensor, second: Tensor, bias_2: Tensor, out: Tensor, bias_3: Tensor
) -> Tensor:
    """float32 [N] for characters [N, L], 0 where a text has ended: what lies there does not count."""
    inside = (ids > 0).float()[:, None]
    x = functional.embedding(ids, table).transpose(1, 2) * inside
    x = torch.relu(functional.conv1d(x, first, bias, padding="same")) * inside
    x = torch.relu(functional.conv1d(x, second, bias_2, padding="same")) * inside
    return functional.linear(x.amax(2), out, bias_3)[:, 0]


def _normal(shape: tuple[int, ...], std: float, generator: torch.Generator) -> Tensor:
    return nn.Parameter(torch.randn(shape, generator=generator) * std)


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
