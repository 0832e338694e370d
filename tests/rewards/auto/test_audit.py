"""The audit log: its chain, what it refuses, and what it says after a crash."""

import hashlib
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.auto.audit import MAX_SOURCE, MAX_TEXT, NO_LINE, AuditLog, BrokenLogError, read, verify


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def _filled(path, num=4):
    log = AuditLog(path)
    for i in range(num):
        log.append("admitted", program=f"{i:064x}", step=i)
    return log


def _sha(line):
    return hashlib.sha256(line).hexdigest()


def test_every_line_carries_the_hash_of_the_line_before(path):
    log = _filled(path)
    lines = path.read_bytes().splitlines()
    stated = [json.loads(line) for line in lines]
    assert [s["previous"] for s in stated] == [NO_LINE, *map(_sha, lines[:-1])]
    assert log.head == _sha(lines[-1])
    assert [(s["kind"], s["step"]) for s in stated] == [("admitted", i) for i in range(4)]
    assert verify(path) is None and read(path) == stated
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_goes_on_where_it_was(path):
    _filled(path, 2)
    again = AuditLog(path)
    again.append("quarantined", why="timeout")
    assert verify(path) is None and len(read(path)) == 3
    assert AuditLog(path).head == again.head


def test_control_characters_are_escaped_and_long_texts_cut(path):
    log = AuditLog(path)
    log.append(
        "rejected", why="\x1b[2J\n\u202e\x7f\x9b\ud800", note="ä" * 3000, source="x" * 10_000, worst=float("nan")
    )
    log.append("rejected", why={"deep": ["y" * 5000]}, source="x" * 20_000)
    content = path.read_bytes()
    assert all(0x20 <= byte < 0x7F for byte in content.replace(b"\n", b"")) and content.count(b"\n") == 2
    first, second = read(path)
    assert first["why"] == "\x1b[2J\n\u202e\x7f\x9b\ud800" and first["worst"] == "nan"
    assert first["note"] == "ä" * (MAX_TEXT // 2) + f" ... ({6000 - MAX_TEXT} bytes cut)"
    assert first["source"] == "x" * 10_000
    assert second["source"].startswith("x" * MAX_SOURCE + " ...")
    assert second["why"]["deep"][0].startswith("y" * MAX_TEXT + " ...")


def test_names_of_the_log_itself_and_unknown_types_are_refused(path):
    log = _filled(path, 1)
    for fields in ({"previous": "x"}, {"sha256": "x"}, {"time": 0}):
        with pytest.raises(ValueError, match="cannot"):
            log.append("admitted", **fields)
    with pytest.raises(ValueError, match="cannot be of kind 'seal'"):
        log.append("seal")
    with pytest.raises(TypeError):
        log.append("admitted", program=object())
    log.append("admitted")
    assert verify(path) is None and len(read(path)) == 2


_WHOLE = st.integers(0, 10**4)


@pytest.fixture(scope="module")
def touched(tmp_path_factory):
    """A file to write to, and two contents that hold: without a sealed line, and with one."""
    path, contents = tmp_path_factory.mktemp("log") / "audit.jsonl", []
    for tear in (b"", b'{"previous":"12'):
        _filled(path, 2)
        path.write_bytes(path.read_bytes() + tear)
        AuditLog(path).append("admitted", step=2)
        assert verify(path) is None
        contents.append(path.read_bytes())
        path.unlink()
    return path, contents


@settings(deadline=None, max_examples=100)
@given(place=_WHOLE, bit=st.integers(1, 255), torn=st.booleans())
def test_any_flipped_byte_is_found(touched, place, bit, torn):
    path, contents = touched
    content = bytearray(contents[torn])
    place %= len(content)
    content[place] ^= bit
    path.write_bytes(content)
    found = verify(path)
    line = content[:place].count(b"\n") + 1
    assert found is not None and found.line == line
    if not found.torn:
        with pytest.raises(BrokenLogError, match=f"line {line}"):
            AuditLog(path)
        with pytest.raises(BrokenLogError, match=f"line {line}"):
            read(path)


def test_no_byte_is_without_guard(touched):
    path, (_, sealed) = touched
    for place in range(len(sealed)):
        content = bytearray(sealed)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        found = verify(path)
        assert found is not None and found.line == content[:place].count(b"\n") + 1


@pytest.mark.parametrize(
    "change", [lambda ls: ls[:1] + ls[2:], lambda ls: [ls[0], ls[2], ls[1], ls[3]], lambda ls: [ls[0], *ls]]
)
def test_removed_moved_and_repeated_lines_are_found(path, change):
    _filled(path)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    found = verify(path)
    assert found is not None and (found.line, found.torn) == (2, False)
    assert found.why == "it does not follow the line before"


@pytest.mark.parametrize(
    "body", [b'{"a":1', b'{"kind":"seal","previous":"x"', b'{"previous":"0","kind":"seal"', b'{"a":', b"x"]
)
def test_lines_of_somebody_else_are_found_even_with_a_hash_of_their_own(path, body):
    _filled(path, 1)
    foreign = body + b',"sha256":"' + _sha(body).encode() + b'"}\n'
    path.write_bytes(path.read_bytes() + foreign)
    found = verify(path)
    assert found is not None and (found.line, found.torn) == (2, False)


def test_a_cut_tail_shows_only_in_the_head(path):
    log = _filled(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert verify(path) is None and AuditLog(path).head != log.head


def test_a_torn_line_is_reported_and_sealed_wherever_it_was_torn(path):
    _filled(path, 3)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for end in range(start + 1, len(whole), 7):
        path.write_bytes(whole[:end])
        found = verify(path)
        assert found is not None and found.torn and found.line == 3
        log = AuditLog(path)
        assert log.torn == found and path.read_bytes() == whole[:end]  # nothing is repaired by looking
        assert [s["step"] for s in read(path)] == [0, 1]
        log.append("admitted", step=9)
        assert verify(path) is None and log.torn is None
        assert [s["kind"] for s in read(path)] == ["admitted", "admitted", "seal", "admitted"]
        assert read(path)[2]["previous"] == _sha(whole[start:end])
        assert path.read_bytes().startswith(whole[:end])


def test_a_crash_while_sealing_is_sealed_too(path):
    _filled(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    AuditLog(path).append("admitted", step=9)
    sealed = path.read_bytes()
    for end in range(len(whole) - 29, len(sealed), 11):
        path.write_bytes(sealed[:end])
        log = AuditLog(path)
        log.append("admitted", step=10)
        assert verify(path) is None and read(path)[-1]["step"] == 10


def test_a_seal_does_not_excuse_what_was_not_torn(path):
    _filled(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:-9])
    AuditLog(path).append("admitted", step=9)
    _, sealed, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(sealed + last)  # what it followed is gone
    found = verify(path)
    assert found is not None and found.line == 1


def test_two_writers_are_noticed(path):
    first, second = _filled(path, 1), AuditLog(path)
    second.append("admitted")
    with pytest.raises(BrokenLogError, match="somebody else"):
        first.append("admitted")
    assert verify(path) is None and len(read(path)) == 2


def test_a_full_disk_leaves_a_torn_line_that_is_sealed(path, monkeypatch):
    log = _filled(path, 1)
    real, written = os.write, []

    def write(descriptor, data):
        if written:
            raise OSError(28, "No space left on device")
        written.append(real(descriptor, bytes(data)[:20]))
        return written[0]

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        log.append("admitted", step=1)
    monkeypatch.undo()
    assert log.torn is not None
    log.append("admitted", step=2)
    assert verify(path) is None and [s["kind"] for s in read(path)] == ["admitted", "seal", "admitted"]
