"""What a shard holds: its steps and its episodes, as far as they are whole.

Block k, of ``BLOCK_STEPS`` steps, is batch k in each file of steps; ``last.<key>`` has a batch for each block in which
episodes ended. While a shard is written it has no ``episodes``, but ``events``, with a batch for each block: a row for
each episode that began, and for each that ended. A shard whose writer was killed is read up to the last block that is
whole in all of its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.datasets.columns import BLOCK_STEPS, MOST_ROWS, Arrays, ColumnFile, ColumnStream
from envs.datasets.manifest import (
    EPISODE_FIELDS,
    EPISODES,
    EVENTS,
    LAST,
    STEP_COLUMNS,
    FileRecord,
    Manifest,
    column_path,
)
from envs.files import replacing


@dataclass(frozen=True, eq=False)
class Shard:
    """What one game played."""

    name: str
    closed: bool
    """Else its writer still runs, or was killed."""
    num_steps: int
    episodes: Mapping[str, np.ndarray]
    """Fields of ``EPISODE_FIELDS``, one row an episode; ``first`` counts from the shard's first step."""
    has_last: np.ndarray
    """bool [episodes]."""
    last_sizes: np.ndarray
    """Rows in each batch of ``last.<key>``."""

    @property
    def step_sizes(self) -> np.ndarray:
        """Rows in each batch of a column of steps."""
        return sizes_of_steps(self.num_steps)


def sizes_of_steps(num_steps: int) -> np.ndarray:
    """int64 [blocks]: steps in each block."""
    sizes = np.full(-(-num_steps // BLOCK_STEPS), BLOCK_STEPS)
    if num_steps % BLOCK_STEPS:
        sizes[-1] = num_steps % BLOCK_STEPS
    return sizes


def sizes_of_ends(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """int64 [batches]: episodes that ended in each block in which any did.

    Args:
        first: int64 [N].
        length: int64 [N], negative where the episode did not end.
    """
    _, sizes = np.unique((first + length - 1)[length >= 0] // BLOCK_STEPS, return_counts=True)
    return sizes


def read_shard(data: Path, manifest: Manifest, name: str) -> Shard:
    """A shard that was closed, or as much of another as is whole in all of its files.

    Raises:
        ValueError: a file is missing or damaged; names it.
    """
    record = manifest.shards.get(name)
    path, events = column_path(data, name, EPISODES), column_path(data, name, EVENTS)
    if record is not None:
        return _shard_of(name, _batches(path), record.num_steps, closed=True)
    if path.exists():  # all was written, but not into the manifest
        batches = ColumnFile(column_path(data, name, "action"), manifest.columns["action"]).num_batches
        return _shard_of(name, _batches(path), _num_steps(data, manifest, name, batches), closed=False)
    blocks = _batches(events) if events.exists() else []  # of its files the last that is made
    whole = _whole(data, manifest, name, blocks) if blocks else 0
    return _shard_of(name, blocks[:whole], _num_steps(data, manifest, name, whole), closed=False)


def _batches(path: Path) -> list[Arrays]:
    file = ColumnFile(path, EPISODE_FIELDS)
    return [file.batch(k) for k in range(file.num_batches)]


def _whole(data: Path, manifest: Manifest, name: str, blocks: Sequence[Arrays]) -> int:
    """Blocks that every file has."""
    files = {column: column_path(data, name, column) for column in manifest.columns if column != EPISODES}
    batches = {
        column: ColumnFile(path, manifest.columns[column]).num_batches
        for column, path in files.items()
        if column in STEP_COLUMNS or path.exists()  # others may have been added since
    }
    whole = min([len(blocks), *(number for column, number in batches.items() if not column.startswith(LAST))])
    ends = np.cumsum([(block["length"] >= 0).any() for block in blocks[:whole]])
    for column, number in batches.items():
        if column.startswith(LAST):  # one batch for each block in which an episode ended
            whole = min(whole, int(np.searchsorted(ends, number, "right")))
    return whole


def _num_steps(data: Path, manifest: Manifest, name: str, blocks: int) -> int:
    if blocks == 0:
        return 0
    last = ColumnFile(column_path(data, name, "action"), manifest.columns["action"]).batch(blocks - 1)
    return (blocks - 1) * BLOCK_STEPS + len(last["value"])


def end_episodes(data: Path, name: str, num_blocks: int | None = None) -> FileRecord:
    """Write ``episodes`` from ``events``, if that was not done before: one row for each episode, which is read faster.

    Args:
        data: the data set.
        name: of the shard.
        num_blocks: blocks that count; None: all.
    """
    path, events = column_path(data, name, EPISODES), column_path(data, name, EVENTS)
    with replacing(path) as temporary:
        record = write_episodes(temporary, _latest(_batches(path if path.exists() else events)[:num_blocks]))
    events.unlink(missing_ok=True)
    return record


def write_episodes(path: Path, rows: Mapping[str, np.ndarray]) -> FileRecord:
    """Write the new file ``episodes`` of a shard.

    Args:
        path: of the file.
        rows: ``EPISODE_FIELDS``, one row an episode.
    """
    stream = ColumnStream(path, EPISODE_FIELDS)
    for start in range(0, len(rows["first"]), MOST_ROWS):
        stream.append({name: values[start : start + MOST_ROWS] for name, values in rows.items()})
    return stream.close()


def _latest(blocks: Sequence[Arrays]) -> Arrays:
    """One row for each episode: the last that was written."""
    none = {name: np.zeros((0, *kind.shape), kind.dtype) for name, kind in EPISODE_FIELDS.items()}
    rows = {name: np.concatenate([empty, *(block[name] for block in blocks)]) for name, empty in none.items()}
    _, place = np.unique(rows["first"][::-1], return_index=True)  # the first of the reversed
    return {name: values[::-1][place] for name, values in rows.items()}


def _shard_of(name: str, blocks: Sequence[Arrays], num_steps: int, *, closed: bool) -> Shard:
    """Of the rows of its ``episodes``."""
    rows = _latest(blocks)
    has_last = rows["length"] >= 0
    last_sizes = sizes_of_ends(rows["first"], rows["length"])
    rows["length"] = np.where(has_last, rows["length"], num_steps - rows["first"])
    return Shard(name, closed, num_steps, rows, has_last, last_sizes)
