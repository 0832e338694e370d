"""One column's file: an Arrow IPC stream of compressed record batches, written block by block and read at random.

A stream has no footer: whatever was cut off its end, the batches before can be read. Each batch is written to the file
by one call, so that a killed process leaves at most one torn batch behind. Files are open only while something is
written to them, or mapped: hundreds of columns need no file handles.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from envs.datasets.manifest import FieldType, FileRecord
from envs.files import unreadable

BLOCK_STEPS = 64
"""Steps in a record batch; the last of a shard may have fewer."""

Fields = Mapping[str, FieldType]
Arrays = dict[str, np.ndarray]
"""``{field: [n, ...]}``."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1), use_threads=False)


def _schema(fields: Fields) -> pa.Schema:
    return pa.schema([pa.field(name, _arrow_type(kind), nullable=False) for name, kind in fields.items()])


def _arrow_type(kind: FieldType) -> pa.DataType:
    scalar = pa.from_numpy_dtype(np.dtype(kind.dtype))
    return pa.fixed_shape_tensor(scalar, kind.shape) if kind.shape else scalar


def _arrow_array(values: np.ndarray, kind: FieldType) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if not kind.shape:
        return flat
    rows = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(kind.shape)))
    return pa.ExtensionArray.from_storage(_arrow_type(kind), rows)


def _numpy_array(column: pa.Array, kind: FieldType) -> np.ndarray:
    flat = column.storage.flatten() if isinstance(column, pa.ExtensionArray) else column
    return flat.to_numpy(zero_copy_only=False).reshape(-1, *kind.shape)


class _Unwritten(io.RawIOBase):
    """What Arrow has made of a batch, until it is written as a whole."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        part = bytes(data)  # type: ignore[arg-type] - any buffer
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class ColumnStream:
    """Writes a column's file, batch by batch.

    Args:
        path: of the new file.
        fields: what a row is.

    Raises:
        FileExistsError: there is one already.
    """

    def __init__(self, path: Path, fields: Fields) -> None:
        self._path, self._fields = path, fields
        self._schema = _schema(fields)
        self._unwritten = _Unwritten()
        self._arrow = pa.ipc.new_stream(self._unwritten, self._schema, options=_OPTIONS)
        self._hash, self._size = hashlib.sha256(), 0
        path.touch(exist_ok=False)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one batch and hand it to the operating system.

        Args:
            arrays: ``{field: [n, ...]}``, of the fields' dtypes and shapes.
        """
        columns = [_arrow_array(arrays[name], kind) for name, kind in self._fields.items()]
        self._arrow.write_batch(pa.record_batch(columns, schema=self._schema))
        self._write()

    def _write(self) -> None:
        data = self._unwritten.take()
        with self._path.open("ab", buffering=0) as file:
            file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def close(self) -> FileRecord:
        """Write the end of the stream; nothing can be appended then."""
        self._arrow.close()
        self._write()
        return FileRecord(sha256=self._hash.hexdigest(), size=self._size)


class ColumnFile:
    """Reads any batch of a column's file; decodes nothing else.

    Args:
        path: of the file.
        fields: what a row must be.
        num_batches: how many there must be; None: as many as are whole.

    Raises:
        ValueError: the file cannot be read, is of other fields, or has fewer batches; names it.
    """

    def __init__(self, path: Path, fields: Fields, num_batches: int | None = None) -> None:
        self.path, self._fields, self._schema = path, fields, _schema(fields)
        try:
            with pa.memory_map(str(path)) as file:
                self._bytes = file.read_buffer()  # stays mapped when the file is closed
        except OSError as error:
            raise ValueError(unreadable(path, error)) from None
        self._ends = self._find_batches(num_batches)
        if num_batches is not None and self.num_batches < num_batches:
            raise ValueError(f"{path} is damaged: it holds {self.num_batches} of {num_batches} blocks")

    def _find_batches(self, most: int | None) -> list[int]:
        """Ends of the whole messages, the schema's first; empty where even that is torn."""
        source = pa.BufferReader(self._bytes)
        ends: list[int] = []
        while most is None or len(ends) <= most:
            try:
                message = pa.ipc.read_message(source)
            except (EOFError, OSError, pa.ArrowInvalid):  # the stream's end, or where it was cut
                break
            if not ends:
                self._check(message)
            ends.append(source.tell())
        return ends

    def _check(self, message: pa.Message) -> None:
        try:
            found = pa.ipc.read_schema(message)
        except (OSError, pa.ArrowInvalid) as error:
            raise ValueError(f"{self.path} is damaged: {error}") from None
        if not found.equals(self._schema):
            raise ValueError(f"{self.path} holds {_spelled(found)}, but the manifest says {_spelled(self._schema)}")

    @property
    def num_batches(self) -> int:
        """Whole batches."""
        return max(len(self._ends) - 1, 0)

    def batch(self, number: int, num_rows: int | None = None) -> Arrays:
        """Decode one batch: ``{field: [rows, ...]}``, arrays that must not be written to.

        Args:
            number: which.
            num_rows: how many rows it must have, if that is known.

        Raises:
            ValueError: it is damaged; names the file.
        """
        start, end = self._ends[number : number + 2]
        try:
            batch = pa.ipc.read_record_batch(self._bytes.slice(start, end - start), self._schema)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise ValueError(f"{self.path} is damaged in block {number}: {error}") from None
        if num_rows is not None and batch.num_rows != num_rows:
            raise ValueError(f"{self.path} is damaged: block {number} has {batch.num_rows} rows, not {num_rows}")
        return {name: _numpy_array(batch.column(i), kind) for i, (name, kind) in enumerate(self._fields.items())}

    def all_batches(self, number: int) -> Arrays:
        """The rows of the first so many batches, one after the other."""
        batches = [self.batch(k) for k in range(number)]
        empty = {name: np.empty((0, *kind.shape), kind.dtype) for name, kind in self._fields.items()}
        return {name: np.concatenate([none, *(b[name] for b in batches)]) for name, none in empty.items()}


def _spelled(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def cut(arrays: Mapping[str, np.ndarray], sizes: Sequence[int]) -> list[Arrays]:
    """``{field: [sum(sizes), ...]}`` as one mapping for each size."""
    ends = np.cumsum(sizes)
    return [
        {name: array[end - size : end] for name, array in arrays.items()}
        for size, end in zip(sizes, ends.tolist(), strict=True)
    ]
