"""One column's file: an Arrow IPC stream of compressed record batches, written block by block and read at random.

A stream has no footer: whatever was cut off its end, the batches before can be read. Each batch is written to the file
by one call, so that a killed process leaves at most one torn batch behind. Files are open only while something is
written to them, or mapped: hundreds of columns need no file handles.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from envs.datasets.manifest import FieldType, FileRecord
from envs.files import replacing, unreadable

BLOCK_STEPS = 64
"""Steps in a record batch; the last of a shard may have fewer."""

MOST_ROWS = 1 << 12
"""No batch has more; what seems to is damaged."""

Fields = Mapping[str, FieldType]
Arrays = dict[str, np.ndarray]
"""``{field: [n, ...]}``."""

_PADDING = 64
"""Bytes; what seems to have as many too many is damaged."""
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""What every stream of Arrow ends with."""
_CODEC = pa.Codec("zstd", 1)
_OPTIONS = pa.ipc.IpcWriteOptions(compression=_CODEC, use_threads=False)


def _schema(fields: Fields) -> pa.Schema:
    return pa.schema([pa.field(name, _arrow_type(kind), nullable=False) for name, kind in fields.items()])


def _arrow_type(kind: FieldType) -> pa.DataType:
    scalar = pa.from_numpy_dtype(np.dtype(kind.dtype))
    return pa.fixed_shape_tensor(scalar, kind.shape) if kind.shape else scalar


def _arrow_array(values: np.ndarray, type_: pa.DataType) -> pa.Array:
    """Without a copy, but for truth values, of which Arrow keeps eight in a byte."""
    if isinstance(type_, pa.BaseExtensionType):
        storage = type_.storage_type
        flat = _arrow_array(values.reshape(-1), storage.value_type)
        rows = pa.Array.from_buffers(storage, len(values), [None], children=[flat])
        return pa.ExtensionArray.from_storage(type_, rows)
    packed = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(packed)])


# Arrow's own reader of record batches hands each buffer to a pool of threads and builds arrays that are not needed:
# for one column of 64 rows that takes several times as long as what follows.

_U16, _I32, _U32, _I64 = (struct.Struct(code).unpack_from for code in ("<H", "<i", "<I", "<q"))


def _layout(metadata: bytes) -> tuple[int, tuple[int, ...]]:
    """Rows of a record batch, and offset and length of each of its buffers (Arrow's ``Message.fbs``)."""
    batch = _follow(metadata, _slot(metadata, _follow(metadata, 0), 2))
    length = _slot(metadata, batch, 0)
    rows = 0 if length == batch else _I64(metadata, length)[0]  # 0 is not written
    vector = _follow(metadata, _slot(metadata, batch, 2))
    return rows, struct.unpack_from(f"<{2 * _U32(metadata, vector)[0]}q", metadata, vector + 4)


def _follow(metadata: bytes, at: int) -> int:
    return at + _U32(metadata, at)[0]


def _slot(metadata: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies; at its beginning: nowhere, it has its default."""
    return table + _U16(metadata, table - _I32(metadata, table)[0] + 4 + 2 * number)[0]


def _decoded(buffer: pa.Buffer, rows: int, kind: FieldType) -> np.ndarray:
    """[rows, ...] of a buffer: its length before compression, or -1 if it was not compressed, and its content."""
    numbers = rows * math.prod(kind.shape)
    dtype = np.dtype(kind.dtype)
    needed = -(-numbers // 8) if dtype == np.bool_ else numbers * dtype.itemsize
    if needed == 0:
        return np.zeros((rows, *kind.shape), dtype)
    (size,) = _I64(buffer)
    content = buffer.slice(8)
    if not needed <= (content.size if size == -1 else size) < needed + _PADDING:
        raise ValueError(f"{rows} rows do not fit its size")
    if size != -1:
        content = _CODEC.decompress(content, size)
    if dtype == np.bool_:
        bits = np.unpackbits(np.frombuffer(content, np.uint8, needed), count=numbers, bitorder="little")
        return bits.view(np.bool_).reshape(rows, *kind.shape)
    return np.frombuffer(content, dtype, numbers).reshape(rows, *kind.shape)


def plain(error: OSError) -> OSError:
    """The operating system's error alone; Arrow and HDF5 spell out their own calls in it."""
    return OSError(error.errno, os.strerror(error.errno)) if error.errno else error


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
        self._path, self._schema = path, _schema(fields)
        self._unwritten = _Unwritten()
        self._arrow = pa.ipc.new_stream(self._unwritten, self._schema, options=_OPTIONS)
        self._hash, self._size = hashlib.sha256(), 0
        path.touch(exist_ok=False)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one batch and hand it to the operating system.

        Args:
            arrays: ``{field: [n, ...]}``, of the fields' dtypes and shapes.
        """
        columns = [_arrow_array(arrays[field.name], field.type) for field in self._schema]
        self._arrow.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
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
            raise ValueError(unreadable(path, plain(error))) from None
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
            except (EOFError, OSError, pa.ArrowException):  # the stream's end, or where it was cut
                break
            if not ends:
                self._check(message)
            ends.append(source.tell())
        return ends

    def _check(self, message: pa.Message) -> None:
        try:
            found = pa.ipc.read_schema(message)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{self.path} is damaged: {error}") from None
        if not found.equals(self._schema):
            expected = ", ".join(f"{name} {kind}" for name, kind in self._fields.items())
            raise ValueError(f"{self.path} does not hold what the manifest says: {expected}")

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
            message = pa.ipc.read_message(self._bytes.slice(start, end - start))
            rows, buffers = _layout(message.metadata.to_pybytes())
            if not 0 <= rows <= MOST_ROWS or rows != (rows if num_rows is None else num_rows):
                raise ValueError(f"it has {rows} rows")
            return self._decode(message.body, rows, buffers)
        except (OSError, pa.ArrowException, struct.error, IndexError, ValueError) as error:
            raise ValueError(f"{self.path} is damaged in block {number}: {error}") from None

    def _decode(self, body: pa.Buffer, rows: int, buffers: Sequence[int]) -> Arrays:
        arrays, place = {}, 0
        for name, kind in self._fields.items():
            place += 2 if kind.shape else 1  # bitmaps of what is null, which are empty: nothing is
            offset, length = buffers[2 * place : 2 * place + 2]
            arrays[name] = _decoded(body.slice(offset, length), rows, kind)
            place += 1
        return arrays

    def cut(self, num_batches: int) -> FileRecord:
        """Replace the file by one of its first so many batches, properly ended; nothing can be read after that."""
        with io.BytesIO() as whole:
            if self._ends:
                whole.write(self._bytes.slice(0, self._ends[num_batches]))
                whole.write(_END)
            else:
                pa.ipc.new_stream(whole, self._schema, options=_OPTIONS).close()
            content = whole.getvalue()
        with replacing(self.path) as temporary:
            temporary.write_bytes(content)
        return FileRecord(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
