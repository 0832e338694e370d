"""Writing data sets: shards while they are played, and columns that are added later.

Several processes may write different shards, or different columns, of one data set: each opens a writer of its own.

Example:
    >>> with DatasetWriter.create(path, manifest) as writer:
    ...     shard = writer.shard("worker0-game0")
    ...     shard.begin(seeds)
    ...     shard.step(action=3, log_prob=-0.7, policy=0, reward=0.0, terminated=True, truncated=False,
    ...                end_status=EndStatus.DEATH, obs=obs)
    ...     shard.end(last_obs)
    >>> writer = DatasetWriter.open(path)
    >>> for shard in writer.lacking("reward.mine"):
    ...     with writer.column(shard, "reward.mine") as column:
    ...         column.append(value, valid)
    >>> writer.publish_reward("mine", {"made_by": "hand"})
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from envs.datasets.columns import ColumnFile, ColumnStream, Fields
from envs.datasets.manifest import (
    ENV_REWARD,
    EPISODES,
    LAST,
    OBS,
    REWARD,
    REWARD_FIELDS,
    FieldType,
    FileRecord,
    Manifest,
    ShardRecord,
    column_path,
    load_manifest,
    save_manifest,
    shard_folder,
    shard_lock,
    shards_in,
    update_manifest,
)
from envs.datasets.shard_writer import ShardWriter
from envs.datasets.shards import Shard, end_episodes, read_shard


class DatasetWriter:
    """Adds shards and columns to a data set; ``create`` and ``open`` make one.

    Args:
        path: of the data set.
        manifest: as it is now.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._open: list[ShardWriter] = []

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> Self:
        """Begin a data set.

        Args:
            path: of a folder that does not exist, or is empty.
            manifest: what will be recorded (``Manifest.of_games``).

        Raises:
            ValueError: there is something already.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} is there already, and it is not an empty folder")
        path.mkdir(parents=True, exist_ok=True)
        save_manifest(path, manifest)
        return cls(path, manifest)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Go on with a data set: new shards, new columns.

        Raises:
            ValueError: there is none, or its manifest cannot be read.
        """
        return cls(path, load_manifest(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every shard that is open; closing twice does no harm."""
        closed = {shard.name: shard.finish() for shard in self._open if not shard.closed}
        self._open.clear()
        self.register({name: record for name, record in closed.items() if record is not None})

    # ---- shards

    def shard(self, name: str, task: int = 0) -> ShardWriter:
        """A new shard: what one game will play.

        Args:
            name: one that no other process uses.
            task: place of the game's task in ``Manifest.tasks``.

        Raises:
            ValueError: there is a shard of this name, it cannot be one, or there is no such task.
        """
        if not 0 <= task < len(self.manifest.tasks):
            raise ValueError(f"there is no task {task} in a data set of {len(self.manifest.tasks)}")
        try:
            shard_folder(self.path, name).mkdir(parents=True)
        except FileExistsError:
            raise ValueError(f"{self.path} has a shard '{name}' already") from None
        writer = ShardWriter(self.path, self.manifest, name, task, lambda record: self.register({name: record}))
        self._open.append(writer)
        return writer

    def add_policies(self, policies: Sequence[Mapping[str, Any]]) -> int:
        """Add the provenance of policies that will play; returns the place of the first."""
        new = tuple(dict(policy) for policy in policies)
        self._update(lambda now: now.replace(policies=now.policies + new))
        return len(self.manifest.policies) - len(new)

    def repair(self) -> list[str]:
        """Close the shards that killed writers left: each is cut to its whole blocks, and dropped if it has none.

        Returns:
            Their names.

        Raises:
            ValueError: one is still being written, or a file of it is missing or damaged.
        """
        self.manifest = load_manifest(self.path)
        found = self._unclosed()
        for name in found:
            lock = shard_lock(self.path, name)
            try:
                lock.acquire(blocking=False)
            except TimeoutError:
                raise ValueError(f"shard '{name}' of {self.path} is being written") from None
            try:
                self._repair(name)
            finally:
                lock.release()
                Path(lock.lock_file).unlink(missing_ok=True)
        return found

    def _repair(self, name: str) -> None:
        shard, files = read_shard(self.path, self.manifest, name), {}
        if shard.num_steps == 0:
            shutil.rmtree(shard_folder(self.path, name))
            return
        for column, fields in self.manifest.columns.items():
            path = column_path(self.path, name, column)
            if column == EPISODES:
                files[column] = end_episodes(self.path, name, len(shard.step_sizes))
            elif path.exists():
                sizes = shard.last_sizes if column.startswith(LAST) else shard.step_sizes
                files[column] = ColumnFile(path, fields).cut(len(sizes))
        self.register({name: ShardRecord(num_steps=shard.num_steps, files=files)})

    def _unclosed(self) -> list[str]:
        return sorted(set(shards_in(self.path)).difference(self.manifest.shards))

    def register(self, shards: Mapping[str, ShardRecord]) -> None:
        """Enter shards whose files are all there into the manifest."""
        if shards:
            self._update(lambda now: now.replace(shards=now.shards | dict(shards)))

    def _update(self, change: Callable[[Manifest], Manifest]) -> None:
        self.manifest = update_manifest(self.path, change)

    # ---- columns

    def lacking(self, column: str) -> list[str]:
        """Shards that have no such column yet: those left to be written before it can be published.

        Raises:
            ValueError: a shard was never closed.
        """
        self.manifest = load_manifest(self.path)
        for name in self._unclosed():
            raise ValueError(f"shard '{name}' of {self.path} was never closed: it is being written, or needs a repair")
        return [name for name, record in sorted(self.manifest.shards.items()) if column not in record.files]

    def column(self, shard: str, column: str, kind: FieldType | None = None) -> ColumnWriter:
        """Write a further column of one shard; no reader sees it before it is published.

        Args:
            shard: one that was closed.
            column: ``reward.<name>``; or ``obs.<key>`` and ``last.<key>``, which belong together.
            kind: what a row of an observation is.

        Raises:
            ValueError: there is no such shard, it has this column, or there cannot be one of this name.
        """
        record = self.manifest.shards.get(shard)
        if record is None:
            raise ValueError(f"{self.path} has no closed shard '{shard}'")
        if column in record.files:
            raise ValueError(f"shard '{shard}' of {self.path} has a column '{column}' already")
        fields = _fields_of(column, kind)
        path = column_path(self.path, shard, column)
        path.unlink(missing_ok=True)  # what an earlier try left
        return ColumnWriter(
            path,
            fields,
            _sizes(read_shard(self.path, self.manifest, shard), column),
            lambda file: self._update(lambda now: _with_file(now, shard, column, file)),
        )

    def publish_reward(self, name: str, provenance: Mapping[str, Any]) -> None:
        """Let readers see the column ``reward.<name>``, which every shard has.

        Args:
            name: without ``reward.``.
            provenance: what made it.

        Raises:
            ValueError: a shard lacks it.
        """
        self._publish({REWARD + name: dict(REWARD_FIELDS)}, rewards={name: dict(provenance)})

    def publish_observation(self, key: str, kind: FieldType) -> None:
        """Let readers see the columns ``obs.<key>`` and ``last.<key>``, which every shard has.

        Args:
            key: without ``obs.``.
            kind: what a row is.

        Raises:
            ValueError: a shard lacks one of them, or holds something else.
        """
        self._publish({OBS + key: {"value": kind}, LAST + key: {"value": kind}})

    def _publish(self, columns: Mapping[str, dict[str, FieldType]], rewards: Mapping[str, Any] | None = None) -> None:
        for column, fields in columns.items():
            if lacking := self.lacking(column):
                raise ValueError(f"shard '{lacking[0]}' of {self.path} has no column '{column}' yet")
            for shard in self.manifest.shards:
                ColumnFile(column_path(self.path, shard, column), fields, 0)
        self._update(
            lambda now: now.replace(columns=now.columns | dict(columns), rewards=now.rewards | dict(rewards or {}))
        )

    def drop(self, column: str) -> None:
        """Remove a column: ``reward.<name>``, or ``obs.<key>`` and its ``last.<key>`` with it.

        Raises:
            ValueError: there is none, it cannot be spared, or a shard was never closed.
        """
        self.lacking(column)
        if not column.startswith((OBS, REWARD)) or column == ENV_REWARD:
            raise ValueError(f"column '{column}' cannot be dropped: only observations and further rewards can")
        gone = {column, column.replace(OBS, LAST, 1)}
        if column not in self.manifest.columns and not any(column in s.files for s in self.manifest.shards.values()):
            raise ValueError(f"{self.path} has no column '{column}'; it has {', '.join(self.manifest.columns)}")
        self._update(lambda now: _without(now, gone))
        for shard in self.manifest.shards:
            for name in gone:
                column_path(self.path, shard, name).unlink(missing_ok=True)


def _sizes(shard: Shard, column: str) -> list[int]:
    return (shard.last_sizes if column.startswith(LAST) else shard.step_sizes).tolist()


def _fields_of(column: str, kind: FieldType | None) -> Fields:
    if column.startswith(REWARD):
        return REWARD_FIELDS
    if column.startswith((OBS, LAST)) and kind is not None:
        return {"value": kind}
    raise ValueError(f"a column '{column}' cannot be added: only rewards, and observations of a known type, can")


def _with_file(manifest: Manifest, shard: str, column: str, file: FileRecord) -> Manifest:
    record = manifest.shards[shard]
    changed = record.replace(files=record.files | {column: file})
    return manifest.replace(shards=manifest.shards | {shard: changed})


def _without(manifest: Manifest, columns: set[str]) -> Manifest:
    def kept(named: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in named.items() if name not in columns}

    return manifest.replace(
        columns=kept(manifest.columns),
        rewards={name: made for name, made in manifest.rewards.items() if REWARD + name not in columns},
        shards={name: record.replace(files=kept(record.files)) for name, record in manifest.shards.items()},
    )


class ColumnWriter:
    """Writes a further column of one shard; made by ``DatasetWriter.column``, to be used in a ``with`` block.

    Args:
        path: of the new file.
        fields: what a row is.
        sizes: rows of each batch.
        on_close: gets the file when all rows are there.
    """

    def __init__(
        self, path: Path, fields: Fields, sizes: Sequence[int], on_close: Callable[[FileRecord], None]
    ) -> None:
        self.num_rows = sum(sizes)
        """How many there must be: the shard's steps, or its episodes that ended."""
        self._path, self._fields, self._on_close = path, fields, on_close
        self._sizes, self._given = list(reversed(sizes)), 0
        self._stream = ColumnStream(path, fields)
        self._waiting = {name: np.zeros((0, *kind.shape), kind.dtype) for name, kind in fields.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._path.unlink()

    def append(self, values: np.ndarray, valid: np.ndarray | None = None) -> None:
        """The next rows, in the order of the shard's steps, or of its episodes for ``last.<key>``.

        Args:
            values: [n, ...], of the column's own dtype; of a reward: any float.
            valid: bool [n], of a reward; None: all are.

        Raises:
            ValueError: they are of another type, a valid reward is not finite, or there are too many.
        """
        arrays = {"value": values}
        if "valid" in self._fields:
            valid = np.ones(len(values), bool) if valid is None else valid
            arrays = {"value": np.where(valid, values, 0).astype(np.float32), "valid": valid}
            if not np.isfinite(arrays["value"]).all():
                raise ValueError(f"{self._path.name}: a valid reward is not finite")
        for name, kind in self._fields.items():
            if (found := FieldType.of(arrays[name])) != kind:
                raise ValueError(f"{self._path.name} is made of {kind}, not of {found}")
        self._given += len(values)
        if self._given > self.num_rows:
            raise ValueError(f"{self._path.name} needs {self.num_rows} rows, and was given {self._given}")
        self._waiting = {name: np.concatenate([own, arrays[name]]) for name, own in self._waiting.items()}
        self._write()

    def _write(self) -> None:
        start, there = 0, len(self._waiting["value"])
        while self._sizes and start + self._sizes[-1] <= there:
            stop = start + self._sizes.pop()
            self._stream.append({name: rows[start:stop] for name, rows in self._waiting.items()})
            start = stop
        self._waiting = {name: rows[start:] for name, rows in self._waiting.items()}

    def close(self) -> None:
        """Close the file and enter it into the manifest.

        Raises:
            ValueError: rows are missing; the file is removed.
        """
        file = self._stream.close()
        if self._given < self.num_rows:
            self._path.unlink()
            raise ValueError(f"{self._path.name} needs {self.num_rows} rows, and was given {self._given}")
        self._on_close(file)
