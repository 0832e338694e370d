import hashlib

import numpy as np
import pyarrow as pa
import pytest

from envs.datasets.columns import ColumnFile, ColumnStream
from envs.datasets.manifest import REWARD_FIELDS, FieldType

GLYPHS = {"value": FieldType(dtype="int16", shape=(3, 5))}
SIZES = (64, 64, 64, 17)


def drawn(fields, seed=0):
    """Batches of those sizes."""
    rng = np.random.default_rng(seed)
    return [
        {name: rng.integers(0, 2, (size, *kind.shape)).astype(kind.dtype) for name, kind in fields.items()}
        for size in SIZES
    ]


def write(path, fields, batches):
    stream = ColumnStream(path, fields)
    for batch in batches:
        stream.append(batch)
    return stream.close()


def same(found, batch):
    return all(np.array_equal(found[name], rows) and found[name].dtype == rows.dtype for name, rows in batch.items())


@pytest.mark.parametrize("fields", [GLYPHS, REWARD_FIELDS])
def test_any_batch_is_read_alone(tmp_path, fields):
    batches = drawn(fields)
    record = write(tmp_path / "x.arrow", fields, batches)
    content = (tmp_path / "x.arrow").read_bytes()
    assert record.size == len(content) and record.sha256 == hashlib.sha256(content).hexdigest()
    file = ColumnFile(tmp_path / "x.arrow", fields, len(batches))
    assert file.num_batches == 4
    for k in (2, 0, 3, 1):
        assert same(file.batch(k, SIZES[k]), batches[k])


@pytest.mark.parametrize("fields", [GLYPHS, REWARD_FIELDS])
def test_any_reader_of_arrow_reads_the_same(tmp_path, fields):
    batches = drawn(fields)
    write(tmp_path / "x.arrow", fields, batches)
    table = pa.ipc.open_stream(tmp_path / "x.arrow").read_all()
    assert [chunk.num_rows for chunk in table.to_batches()] == list(SIZES)
    for name in fields:
        column = table[name].combine_chunks()
        found = column.to_numpy_ndarray() if fields is GLYPHS else column.to_numpy(zero_copy_only=False)
        assert np.array_equal(found, np.concatenate([batch[name] for batch in batches]))


def test_a_file_cut_at_any_byte_gives_its_whole_batches(tmp_path):
    batches = drawn(GLYPHS)
    path, cut = tmp_path / "x.arrow", tmp_path / "cut.arrow"
    ends = []
    stream = ColumnStream(path, GLYPHS)
    for batch in batches:
        stream.append(batch)
        ends.append(path.stat().st_size)
    stream.close()
    content = path.read_bytes()
    for length in np.random.default_rng(0).integers(0, len(content) + 1, 200).tolist():
        cut.write_bytes(content[:length])
        file = ColumnFile(cut, GLYPHS)
        assert file.num_batches == sum(end <= length for end in ends)
        assert all(same(file.batch(k), batches[k]) for k in range(file.num_batches))
        if file.num_batches < 4:
            with pytest.raises(ValueError, match=r"cut\.arrow is damaged: it holds \d of 4 blocks$"):
                ColumnFile(cut, GLYPHS, 4)


def test_a_damaged_file_is_never_more_than_one_sentence(tmp_path):
    path, damaged = tmp_path / "x.arrow", tmp_path / "damaged.arrow"
    write(path, GLYPHS, drawn(GLYPHS))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        changed[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(changed)
        try:
            file = ColumnFile(damaged, GLYPHS)
            for k in range(file.num_batches):
                file.batch(k)
        except ValueError as error:
            assert "damaged.arrow" in str(error) and "\n" not in str(error)


def test_a_file_of_other_rows_is_refused(tmp_path):
    write(tmp_path / "x.arrow", GLYPHS, drawn(GLYPHS))
    with pytest.raises(ValueError, match=r"x\.arrow does not hold what the manifest says: value int64 \[3, 5\]$"):
        ColumnFile(tmp_path / "x.arrow", {"value": FieldType(dtype="int64", shape=(3, 5))})
    with pytest.raises(ValueError, match=r"x\.arrow is damaged in block 3: it has 17 rows$"):
        ColumnFile(tmp_path / "x.arrow", GLYPHS).batch(3, 64)


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_torn_file_is_cut_to_whole_batches(tmp_path, number):
    batches = drawn(GLYPHS)
    torn, whole = tmp_path / "torn.arrow", tmp_path / "whole.arrow"
    write(whole, GLYPHS, batches[:number])
    write(torn, GLYPHS, batches)
    torn.write_bytes(torn.read_bytes()[: -8 if number == 4 else -20])
    record = ColumnFile(torn, GLYPHS).cut(number)
    assert torn.read_bytes() == whole.read_bytes() and record.size == whole.stat().st_size


def test_an_empty_file_holds_nothing_and_can_be_ended(tmp_path):
    path = tmp_path / "x.arrow"
    ColumnStream(path, GLYPHS)
    assert path.stat().st_size == 0 and ColumnFile(path, GLYPHS).num_batches == 0
    ColumnFile(path, GLYPHS).cut(0)
    assert pa.ipc.open_stream(path).read_all().num_rows == 0


def test_types_that_numpy_and_arrow_do_not_share_are_refused():
    for dtype in ("<U3", "object", "complex64", "i2", "longdouble", "nothing"):
        with pytest.raises(ValueError, match="columns hold truth values, integers and floats of up to 64 bits"):
            FieldType(dtype=dtype)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        FieldType(dtype="int8", shape=(0,))
