"""What a shard holds: its steps and its episodes, as far as they are whole.

Block k, of ``BLOCK_STEPS`` steps, is batch k in each file of steps and in ``episodes``; ``last.<key>`` has a batch for
each block in which episodes ended. A shard whose writer was killed is read up to the last block that is whole in all of
its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.datasets.columns import BLOCK_STEPS, MOST_ROWS, Arrays, ColumnFile, ColumnStream
from envs.datasets.manifest import EPISODE_FIELDS, EPISODES, LAST, STEP_COLUMNS, FileRecord, Manifest, column_path
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


def read_shard(data: Path, manifest: Manifest, name: str) -> Shard:
    """A shard that was closed, or as much of another as is whole in all of its files.

    Raises:
        ValueError: a file is missing or damaged; names it.
    """
    record = manifest.shards.get(name)
    path = column_path(data, name, EPISODES)
    if record is None and not path.exists():  # of its files the last that is made
        return _shard_of(name, [], 0, closed=False)
    blocks = _events(path)
    if record is not None:
        return _shard_of(name, blocks, record.num_steps, closed=True)
    whole, num_steps = _whole(data, manifest, name, blocks)
    return _shard_of(name, blocks[:whole], num_steps, closed=False)


def _events(path: Path) -> list[Arrays]:
    file = ColumnFile(path, EPISODE_FIELDS)
    return [file.batch(k) for k in range(file.num_batches)]


def write_episodes(path: Path, num_blocks: int | None = None) -> FileRecord:
    """Replace what was written into ``episodes`` block by block by one row for each episode, which is read faster.

    Args:
        path: of the file.
        num_blocks: those that count; None: all.
    """
    rows = _latest(_events(path)[:num_blocks])
    with replacing(path) as temporary:
        stream = ColumnStream(temporary, EPISODE_FIELDS)
        for start in range(0, len(rows["first"]), MOST_ROWS):
            stream.append({name: values[start : start + MOST_ROWS] for name, values in rows.items()})
        return stream.close()


def _latest(blocks: Sequence[Arrays]) -> Arrays:
    """One row for each episode: the last that was written."""
    none = {name: np.zeros((0, *kind.shape), kind.dtype) for name, kind in EPISODE_FIELDS.items()}
    rows = {name: np.concatenate([empty, *(block[name] for block in blocks)]) for name, empty in none.items()}
    _, place = np.unique(rows["first"][::-1], return_index=True)  # the first of the reversed
    return {name: values[::-1][place] for name, values in rows.items()}


def _whole(data: Path, manifest: Manifest, name: str, blocks: Sequence[Arrays]) -> tuple[int, int]:
    """Blocks that every file has, and their steps."""
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
    if whole == 0:
        return 0, 0
    last = ColumnFile(files["action"], manifest.columns["action"]).batch(whole - 1)
    return whole, (whole - 1) * BLOCK_STEPS + len(last["value"])


def _shard_of(name: str, blocks: Sequence[Arrays], num_steps: int, *, closed: bool) -> Shard:
    """Of the rows of its ``episodes``."""
    rows = _latest(blocks)
    has_last = rows["length"] >= 0
    rows["length"] = np.where(has_last, rows["length"], num_steps - rows["first"])
    ends = (rows["first"] + rows["length"] - 1)[has_last]
    _, last_sizes = np.unique(ends // BLOCK_STEPS, return_counts=True)
    return Shard(name, closed, num_steps, rows, has_last, last_sizes)
