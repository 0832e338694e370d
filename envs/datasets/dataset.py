"""Reading data sets: any step, any window of steps, without decoding more than the blocks that they lie in.

Example:
    >>> data = Dataset.open(path)
    >>> windows, valid = data.windows(starts, 16, ["action", "obs.glyphs"])  # [N, 16, ...], bool [N, 16]
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from envs.data import EpisodeSeeds
from envs.datasets.columns import Arrays, ColumnFile
from envs.datasets.manifest import (
    ENV_REWARD,
    EPISODE_FIELDS,
    EPISODES,
    LAST,
    REWARD,
    VALID,
    FieldType,
    FileRecord,
    Manifest,
    ShardRecord,
    column_path,
    load_manifest,
    shards_in,
)
from envs.datasets.shards import Shard, read_shard
from envs.files import unreadable

_CACHE_BYTES = 32 << 20
"""Decoded blocks that are kept for the next call."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Episodes:
    """N episodes as arrays, in the order of their steps."""

    seeds: np.ndarray
    """int64 [N, 3]: core, disp, lgen; -1 where they are not known."""
    first: np.ndarray
    """int64 [N]: global index of the first step."""
    length: np.ndarray
    """int64 [N]: steps, at least 1."""
    finished: np.ndarray
    """bool [N]: terminated or truncated. Else a recorder left it, or was killed."""
    end_status: np.ndarray
    """int8 [N]: ``envs.data.EndStatus`` after the last step."""
    env_return: np.ndarray
    """float64 [N]: sum of the environment's own reward."""
    policy: np.ndarray
    """int16 [N]: which one began it, a place in ``Manifest.policies``."""
    task: np.ndarray
    """int16 [N]: place in ``Manifest.tasks``."""
    digest: np.ndarray
    """int64 [N]: of its observations; -1: none."""
    has_last: np.ndarray
    """bool [N]: the observation after its last action is there. Not so where a writer was killed."""
    shard: np.ndarray
    """int64 [N]: place in ``Dataset.shards``."""

    def __len__(self) -> int:
        return len(self.first)

    def seeds_of(self, episode: int) -> EpisodeSeeds:
        """Seeds of one episode."""
        return EpisodeSeeds(*self.seeds[episode].tolist())


class _Piece(NamedTuple):
    """Rows of one batch."""

    batch: int
    """Place in the grid."""
    rows: np.ndarray | slice
    """Within the batch."""
    at: np.ndarray | slice
    """Where they go."""


@dataclass(frozen=True, eq=False)
class _Grid:
    """Where the rows of all shards lie: K batches, one after the other."""

    first: np.ndarray
    """int64 [K + 1]: global number of each batch's first row; the last entry is the number of rows."""
    shard: np.ndarray
    """int64 [K]."""
    batch: np.ndarray
    """int64 [K]: number within the shard's files."""

    @classmethod
    def of(cls, sizes: Sequence[np.ndarray]) -> _Grid:
        """Of rows in each batch, for each shard."""
        none = [np.zeros(0, np.int64)]
        rows = np.concatenate([*none, *sizes])
        return cls(
            first=np.concatenate([[0], np.cumsum(rows)]),
            shard=np.repeat(np.arange(len(sizes)), [len(s) for s in sizes]),
            batch=np.concatenate([*none, *(np.arange(len(s)) for s in sizes)]),
        )

    @cached_property
    def firsts(self) -> list[int]:
        """``first`` as Python's numbers: for a few rows, ``bisect`` is many times faster than numpy."""
        return self.first.tolist()

    @property
    def num_rows(self) -> int:
        return int(self.first[-1])

    def run(self, start: int, stop: int, at: int) -> Iterator[_Piece]:
        """Consecutive rows, batch by batch.

        Args:
            start: the first.
            stop: after the last.
            at: where the first goes; the others follow.
        """
        k = bisect_right(self.firsts, start) - 1
        while start < stop:
            first, end = self.firsts[k], min(self.firsts[k + 1], stop)
            yield _Piece(k, slice(start - first, end - first), slice(at, at + end - start))
            k, at, start = k + 1, at + end - start, end


def _pieces(grid: _Grid, index: np.ndarray, places: np.ndarray) -> Iterator[_Piece]:
    """Rows of a grid, batch by batch, so that each is decoded once.

    Args:
        grid: where they lie.
        index: int64 [N], their global numbers.
        places: int64 [N], where they go.
    """
    batch = np.searchsorted(grid.first, index, "right") - 1
    if len(batch) > 1 and (batch[1:] < batch[:-1]).any():
        order = np.argsort(batch, kind="stable")
        batch, index, places = batch[order], index[order], places[order]
    bounds = [0, *(np.flatnonzero(batch[1:] != batch[:-1]) + 1).tolist(), len(batch)]
    for start, stop in pairwise(bounds if len(batch) else []):
        k = int(batch[start])
        yield _Piece(k, index[start:stop] - grid.first[k], places[start:stop])


class Dataset:
    """A data set, as it was when it was opened; ``open`` makes one. Steps are numbered over all shards.

    Not for several threads at once.

    Args:
        path: of the data set.
        manifest: of it.
        shards: what is in it.
        cache_bytes: how much of what was decoded is kept for the next call.
    """

    def __init__(
        self, path: Path, manifest: Manifest, shards: Sequence[Shard], *, cache_bytes: int = _CACHE_BYTES
    ) -> None:
        self.path, self.manifest, self.shards = path, manifest, tuple(shards)
        self._steps = _Grid.of([shard.step_sizes for shard in shards])
        self._ends = _Grid.of([shard.last_sizes for shard in shards])
        self._files: dict[tuple[int, str], ColumnFile] = {}
        self._cache: OrderedDict[tuple[int, str], Arrays] = OrderedDict()
        self._cached_bytes, self._cache_bytes = 0, cache_bytes

    @classmethod
    def open(cls, path: Path, *, verify: bool = False, cache_bytes: int = _CACHE_BYTES) -> Self:
        """Open a data set; reads little but its manifest and its episodes.

        Args:
            path: of the data set.
            verify: read every closed file and compare it with the manifest.
            cache_bytes: how much of what was decoded is kept for the next call.

        Raises:
            ValueError: there is none, it is of another format, or a file is missing or damaged; one sentence.
        """
        manifest = load_manifest(path)
        for name, record in manifest.shards.items():
            _check_sizes(path, name, record)
        shards = [read_shard(path, manifest, name) for name in sorted({*shards_in(path), *manifest.shards})]
        data = cls(path, manifest, [shard for shard in shards if shard.num_steps], cache_bytes=cache_bytes)
        if verify:
            data.verify()
        return data

    def verify(self) -> None:
        """Read every closed file and compare it with the manifest.

        Raises:
            ValueError: one of them is damaged or missing; names it.
        """
        for name, record in self.manifest.shards.items():
            for column, file in record.files.items():
                _check_hash(column_path(self.path, name, column), file)

    # ---- what there is

    @property
    def num_steps(self) -> int:
        """S: steps of all shards."""
        return self._steps.num_rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that can be read a step: ``valid.<name>`` beside each ``reward.<name>``."""
        found = [name for name in self.manifest.columns if name != EPISODES and not name.startswith(LAST)]
        return (*found, *(VALID + name for name in self.manifest.reward_names))

    @cached_property
    def episodes(self) -> Episodes:
        """Every episode of which there is a step."""
        own = {field.name for field in fields(Episodes)}.intersection(EPISODE_FIELDS)
        found = {name: [shard.episodes[name] for shard in self.shards] for name in own}
        starts = np.cumsum([0, *(shard.num_steps for shard in self.shards)])
        found["first"] = [first + start for first, start in zip(found["first"], starts[:-1], strict=True)]
        found["has_last"] = [shard.has_last for shard in self.shards]
        found["shard"] = [np.full(len(shard.has_last), i) for i, shard in enumerate(self.shards)]
        joined = {name: _joined(parts, name) for name, parts in found.items()}
        for i in np.flatnonzero(~joined["has_last"]).tolist():  # what its writer did not live to add up
            first = int(joined["first"][i])
            rewards = self.read(ENV_REWARD, first, first + int(joined["length"][i]))
            joined["env_return"][i] = rewards.sum(dtype=np.float64)
        return Episodes(**joined)

    def episode_of(self, index: np.ndarray) -> np.ndarray:
        """Which episode each step belongs to, int64 [N].

        Args:
            index: int64 [N], steps.
        """
        return np.searchsorted(self.episodes.first, index, "right") - 1

    # ---- reading

    def read(self, column: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Consecutive steps of a column, [stop - start, ...].

        Raises:
            ValueError: there is no such column, or no such step, or a file is damaged.
        """
        stop = self.num_steps if stop is None else stop
        if not 0 <= start <= stop <= self.num_steps:
            raise ValueError(f"there are no steps {start} to {stop} among {self.num_steps}")
        file, field, kind = self._find(column)
        out = np.empty((stop - start, *kind.shape), kind.dtype)
        self._fill(out, self._steps, file, field, self._steps.run(start, stop, 0))
        return out

    def take(self, column: str, index: np.ndarray) -> np.ndarray:
        """Any steps of a column, [N, ...].

        Args:
            column: one of ``columns``.
            index: int64 [N], steps.

        Raises:
            ValueError: there is no such column, or no such step, or a file is damaged.
        """
        index = _checked(index, self.num_steps, "step")
        file, field, kind = self._find(column)
        out = np.empty((len(index), *kind.shape), kind.dtype)
        self._fill(out, self._steps, file, field, _pieces(self._steps, index, np.arange(len(index))))
        return out

    def load(self, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole columns, ``{column: [S, ...]}``.

        Raises:
            ValueError: there is no such column, or a file is damaged.
        """
        return {column: self.read(column) for column in columns}

    def last(self, key: str, index: np.ndarray | None = None) -> np.ndarray:
        """The observations after the last action of episodes, [N, ...]; zeros where ``has_last`` is not.

        Args:
            key: of the observation.
            index: int64 [N], episodes; None: all.

        Raises:
            ValueError: there is no such key, or no such episode, or a file is damaged.
        """
        has_last = self.episodes.has_last
        index = _checked(np.arange(len(has_last)) if index is None else index, len(has_last), "episode")
        file, field, kind = self._find(LAST + key)
        row = np.where(has_last, np.cumsum(has_last) - 1, -1)[index]
        there = np.flatnonzero(row >= 0)
        out = np.zeros((len(index), *kind.shape), kind.dtype)
        self._fill(out, self._ends, file, field, _pieces(self._ends, row[there], there))
        return out

    def reward(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A whole reward column: value float32 [S], valid bool [S].

        Raises:
            ValueError: there is no such reward, or a file is damaged.
        """
        return self.read(REWARD + name), self.read(VALID + name)

    def windows(
        self, starts: np.ndarray, length: int, columns: Sequence[str]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """H consecutive steps each; none crosses the end of its episode.

        Args:
            starts: int64 [N], the first steps.
            length: H.
            columns: some of ``columns``.

        Returns:
            ``{column: [N, H, ...]}``, zeros after an episode's end; and valid bool [N, H], False there.

        Raises:
            ValueError: there is no such column, or no such step, or a file is damaged.
        """
        starts = _checked(starts, self.num_steps, "step")
        lengths, pieces = [], []
        for n, start in enumerate(starts.tolist()):
            end = self._episode_ends[bisect_right(self._episode_ends, start)]
            lengths.append(min(length, end - start))
            pieces += self._steps.run(start, start + lengths[-1], n * length)
        pieces.sort(key=itemgetter(0))  # so that each batch is decoded once
        found = {}
        for column in columns:
            file, field, kind = self._find(column)
            out = np.zeros((len(starts) * length, *kind.shape), kind.dtype)
            self._fill(out, self._steps, file, field, pieces)
            found[column] = out.reshape(len(starts), length, *kind.shape)
        return found, np.arange(length) < np.array(lengths, np.int64)[:, None]

    # ---- inside

    @cached_property
    def _episode_ends(self) -> list[int]:
        """After the last step of each episode."""
        return (self.episodes.first + self.episodes.length).tolist()

    def _find(self, column: str) -> tuple[str, str, FieldType]:
        """The column whose file it is, the field in it, and its type."""
        name, field = column, "value"
        if column.startswith(VALID):
            name, field = REWARD + column[len(VALID) :], "valid"
        if name not in self.manifest.columns or name == EPISODES:
            raise ValueError(f"{self.path} has no column '{column}'; it has {', '.join(self.columns)}")
        return name, field, self.manifest.columns[name][field]

    def _fill(self, out: np.ndarray, grid: _Grid, column: str, field: str, pieces: Iterable[_Piece]) -> None:
        for k, rows, at in pieces:
            out[at] = self._batch(grid, column, k)[field][rows]

    def _batch(self, grid: _Grid, column: str, k: int) -> Arrays:
        """A decoded batch, of those at hand or of its file."""
        key = (k, column)
        found = self._cache.get(key)
        if found is not None:
            self._cache.move_to_end(key)
            return found
        rows = int(grid.first[k + 1] - grid.first[k])
        found = self._file(int(grid.shard[k]), column).batch(int(grid.batch[k]), rows)
        self._cache[key] = found
        self._cached_bytes += _num_bytes(found)
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            self._cached_bytes -= _num_bytes(self._cache.popitem(last=False)[1])
        return found

    def _file(self, number: int, column: str) -> ColumnFile:
        if (number, column) not in self._files:
            shard = self.shards[number]
            path = column_path(self.path, shard.name, column)
            record = self.manifest.shards.get(shard.name)
            if record is not None and column not in record.files:
                raise ValueError(f"shard '{shard.name}' of {self.path} has no column '{column}': it was recorded later")
            sizes = shard.last_sizes if column.startswith(LAST) else shard.step_sizes
            self._files[number, column] = ColumnFile(path, self.manifest.columns[column], len(sizes))
        return self._files[number, column]


def _num_bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _joined(parts: Sequence[np.ndarray], name: str) -> np.ndarray:
    kind = EPISODE_FIELDS.get(name)
    none = np.zeros((0, *kind.shape), kind.dtype) if kind else np.zeros(0, parts[0].dtype if parts else np.int64)
    return np.concatenate([none, *parts])


def _checked(index: np.ndarray, size: int, what: str) -> np.ndarray:
    index = np.asarray(index, np.int64)
    if index.size and ((low := index.min()) < 0 or index.max() >= size):
        raise ValueError(f"there is no {what} {low if low < 0 else index.max()} among {size}")
    return index


def _check_sizes(data: Path, shard: str, record: ShardRecord) -> None:
    for column, file in record.files.items():
        path = column_path(data, shard, column)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise ValueError(unreadable(path, error)) from None
        if size != file.size:
            raise ValueError(f"{path} is damaged: it has {size} bytes, not {file.size}")


def _check_hash(path: Path, record: FileRecord) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(unreadable(path, error)) from None
    if found != record.sha256:
        raise ValueError(f"{path} is damaged: its SHA-256 is {found}, not {record.sha256}")
