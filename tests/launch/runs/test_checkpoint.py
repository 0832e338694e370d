import json
import math
import os
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from launch.runs.checkpoint import (
    CheckpointError,
    decode_state,
    encode_state,
    load,
    load_latest,
    save,
    steps_of,
    sweep_unfinished,
)

TENSORS = {
    "model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.float64)},
    "optimizer": {"m.0": np.array(7, np.int64), "empty": np.zeros((0, 4), np.float16)},
}
STATE = {
    "step": 2**70,
    "rng": {"key": np.arange(4, dtype=np.uint64) + 2**63, "gauss": math.nan},
    "list": [1, 2.5, None, True, "x", -math.inf, b"\x00\xff"],
    "counts": {7: np.int64(3), -1: np.float32(0.1)},
    "$odd": {"$array": "not a word"},
    "empty": {},
}
FILES = ["model.safetensors", "optimizer.safetensors", "state.safetensors", "state.json", "manifest.json"]


def same(a, b):
    """Equal in type, dtype, shape and bits; nan equals nan; tuples are lists."""
    if isinstance(a, tuple):
        a = list(a)
    if isinstance(a, (np.ndarray, np.generic)):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        both_nan = a != a and b != b
        return isinstance(b, float) and (both_nan or (a == b and math.copysign(1, a) == math.copysign(1, b)))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def fail(text):
    raise AssertionError(text)


def flip(path, at, bit=0):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_round_trip(tmp_path):
    path = save(tmp_path, 200, TENSORS, STATE, versions={"torch": "2"})
    found = load_latest(tmp_path, fail)
    assert found is not None
    assert found.step == 200 and found.path == path == tmp_path / "checkpoints" / "000000000200"
    assert same({k: dict(sorted(v.items())) for k, v in TENSORS.items()},
                {k: dict(sorted(found.tensors[k].items())) for k in TENSORS})  # fmt: skip
    assert same(STATE, found.state)
    assert found.versions == {"torch": "2"}
    assert found.tensors["model"]["w"].flags.writeable
    assert found.state["rng"]["key"].flags.writeable
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)
    assert (tmp_path / "latest").resolve() == path.resolve()


def test_torch_tensors_come_back_as_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.arange(4.0).reshape(2, 2).T)
    save(tmp_path, 1, {"model": {"w": weight, "n": torch.tensor(3)}}, {})
    found = load_latest(tmp_path, fail)
    assert found is not None
    assert same(found.tensors["model"]["w"], np.array([[0, 2], [1, 3]], np.float32))
    assert same(found.tensors["model"]["n"], np.array(3, np.int64))


_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
_arrays = hnp.arrays(
    st.sampled_from(["?", "i1", "u1", "<i2", ">i4", "<i8", "<u8", "<f2", "<f4", "<f8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), _text, st.binary(max_size=8), _arrays,
    _arrays.filter(lambda a: a.ndim == 0).map(lambda a: a[()]),
)  # fmt: skip
_keys = st.one_of(_text, st.integers(), st.just("$array"), st.tuples(st.integers(), _text))
_states = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(_keys, inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=12,
)


def _native(value):
    """What must come back: native byte order, lists for tuples."""
    if isinstance(value, (np.ndarray, np.generic)):
        native = np.asarray(value).astype(value.dtype.newbyteorder("="))
        return native if isinstance(value, np.ndarray) else native[()]
    if isinstance(value, (list, tuple)):
        return [_native(v) for v in value]
    return {k: _native(v) for k, v in value.items()} if isinstance(value, dict) else value


@settings(max_examples=150, deadline=None)
@given(_states)
def test_state_codec_is_exact(state):
    tree, arrays = encode_state(state)
    assert same(_native(state), decode_state(json.loads(json.dumps(tree, allow_nan=False)), arrays))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=_states)
def test_checkpointed_state_is_exact(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("run")
    save(folder, 1, {}, state)
    found = load_latest(folder, fail)
    assert found is not None
    assert same(_native(state), found.state)


@pytest.mark.parametrize("bad", [object(), {1, 2}, np.array(["a"]), np.array([object()]), 1j, np.datetime64("now")])
def test_what_would_need_pickle_is_refused(tmp_path, bad):
    with pytest.raises(TypeError, match=r"state\.a\.1"):
        save(tmp_path, 1, {}, {"a": [0, bad]})
    assert load_latest(tmp_path, fail) is None


def test_bad_arguments(tmp_path):
    for name in ("state", "A", "../x", ""):
        with pytest.raises(ValueError, match="cannot name a file"):
            save(tmp_path, 1, {name: {}}, {})
    with pytest.raises(ValueError, match="keep is 0"):
        save(tmp_path, 1, {}, {}, keep=0)
    with pytest.raises(TypeError, match=r"model\.w is a list"):
        save(tmp_path, 1, {"model": {"w": [1]}}, {})


def test_old_checkpoints_go_and_latest_follows(tmp_path):
    for step in (100, 200, 300, 400, 5_000_000_000_000):
        save(tmp_path, step, TENSORS, STATE, keep=3)
    assert steps_of(tmp_path) == [5_000_000_000_000, 400, 300]
    assert (tmp_path / "latest").resolve().name == "5000000000000"


def test_the_same_step_is_not_written_twice(tmp_path):
    path = save(tmp_path, 100, TENSORS, {"a": 1})
    before = {p: p.stat().st_mtime_ns for p in path.iterdir()}
    assert save(tmp_path, 100, TENSORS, {"a": 2}) == path
    assert {p: p.stat().st_mtime_ns for p in path.iterdir()} == before


def _two(folder):
    save(folder, 100, TENSORS, {"n": 1})
    return save(folder, 200, TENSORS, STATE)


def _assert_falls_back(folder, *names):
    said = []
    found = load_latest(folder, said.append)
    assert found is not None and found.step == 100 and found.state == {"n": 1}
    assert len(said) == 1 and "000000000200" in said[0] and any(name in said[0] for name in names)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_falls_back(tmp_path, name):
    (_two(tmp_path) / name).unlink()
    _assert_falls_back(tmp_path, name)


@pytest.mark.parametrize("name", FILES)
def test_truncation_anywhere_falls_back(tmp_path, name):
    path = _two(tmp_path) / name
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in {0, 1, 7, 8, len(data) - 1, *rng.integers(0, len(data), 12).tolist()}:
        path.write_bytes(data[:length])
        _assert_falls_back(tmp_path, name)
    path.write_bytes(data + b"\n")
    _assert_falls_back(tmp_path, name)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_falls_back(tmp_path, name):
    path = _two(tmp_path) / name
    rng = np.random.default_rng(1)
    size = path.stat().st_size
    for at in {0, size - 1, *rng.integers(0, size, 40).tolist()}:
        bit = int(rng.integers(8))
        flip(path, at, bit)
        _assert_falls_back(tmp_path, name)
        flip(path, at, bit)
    found = load_latest(tmp_path, fail)
    assert found is not None and found.step == 200


def test_a_renamed_checkpoint_is_not_believed(tmp_path):
    path = _two(tmp_path)
    path.rename(path.with_name("000000000300"))
    said = []
    found = load_latest(tmp_path, said.append)
    assert found is not None and found.step == 100
    assert "holds step 200" in said[0]


def test_none_valid_is_an_error_and_none_at_all_is_none(tmp_path):
    assert load_latest(tmp_path, fail) is None
    path = _two(tmp_path)
    for folder in (path, path.with_name("000000000100")):
        flip(folder / "state.json", 0)
    said = []
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints .* can be used"):
        load_latest(tmp_path, said.append)
    assert len(said) == 2


def test_going_on_after_a_fall_back_leaves_the_damaged_behind(tmp_path):
    for step in (100, 200, 300):
        save(tmp_path, step, TENSORS, {"first": step})
    for step in (200, 300):
        flip(tmp_path / "checkpoints" / f"{step:012d}" / "model.safetensors", -1)
    for step in (200, 250):
        save(tmp_path, step, TENSORS, {"second": step})
        found = load_latest(tmp_path, fail)
        assert found is not None and found.state == {"second": step}
    assert steps_of(tmp_path) == [250, 200, 100]
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("abandoned-*")) == [
        "abandoned-000000000200-1",
        "abandoned-000000000300-1",
    ]


def test_no_pickle_is_ever_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    path = _two(tmp_path)
    for name in FILES:
        (path / name).write_bytes(pickle.dumps(Evil()))
        (path / "model.pt").write_bytes(pickle.dumps(Evil()))
    _assert_falls_back(tmp_path, *FILES)
    with pytest.raises(CheckpointError):
        load(path)
    assert not (tmp_path / "owned").exists()


def _fault_points(folder):
    points = []
    for step in (100, 200):
        save(folder, step, TENSORS, {"n": 1}, keep=2)
    save(folder, 300, TENSORS, STATE, keep=2, fault=points.append)
    return points


def test_a_crash_at_any_point_leaves_a_valid_checkpoint(tmp_path):
    (tmp_path / "probe").mkdir()
    points = _fault_points(tmp_path / "probe")
    assert len(points) == 2 * len(FILES) + 6
    for number, point in enumerate(points):
        folder = tmp_path / str(number)
        folder.mkdir()
        for step in (100, 200):
            save(folder, step, TENSORS, {"n": 1}, keep=2)
        child = os.fork()
        if child == 0:  # dies as kill -9 would: nothing is cleaned up
            save(
                folder,
                300,
                TENSORS,
                STATE,
                keep=2,
                fault=lambda at, d=point: os._exit(9) if at == d else None,
            )
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        renamed = number >= points.index("after_rename")
        found = load_latest(folder, fail)
        assert found is not None and found.step == (300 if renamed else 200), point
        assert (folder / "latest").resolve().name in ("000000000200", "000000000300")
        sweep_unfinished(folder)
        save(folder, 400, TENSORS, STATE, keep=2)
        assert steps_of(folder) == [400, 300 if renamed else 200]
        assert not list((folder / "checkpoints").glob(".tmp-*"))


def test_a_full_disk_leaves_the_old_and_no_litter(tmp_path):
    save(tmp_path, 100, TENSORS, STATE)

    def full(point):
        if point == "after_fsync:model.safetensors":
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 200, TENSORS, STATE, fault=full)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["000000000100"]
    assert load_latest(tmp_path, fail) is not None
