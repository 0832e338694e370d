"""The archive of programs: pairs of files, written whole, verified on reading, and the descent among them."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rewards.auto.archive import Archive, ArchiveEntry, forest, is_file_name, source_of
from rewards.auto.program import sha_of
from rewards.auto.search.proposal import Finding, Verdict

ACCEPTED = Verdict(findings=[Finding(test="admission", outcome="pass", reason="it may run")])
REJECTED = Verdict(
    findings=[
        Finding(test="dry_run", outcome="fail", reason="1 of 674 failed", figures={"share": 0.25}, code="E50", line=3)
    ]
)


def entry(number, *parents, verdict: Verdict | None = ACCEPTED, **more):
    source = f"def reward(obs, prev_obs, action, info):\n    return {number}\n"
    shas = tuple(parent if isinstance(parent, str) else parent.sha for parent in parents)
    return ArchiveEntry(
        sha=sha_of(source), source=source, by="grammar", parents=shas, round=number, verdict=verdict, **more
    )


def test_what_is_put_comes_back_whole(tmp_path):
    archive = Archive(tmp_path / "deep" / "programs")
    assert archive.entries() == [] and not (tmp_path / "deep").exists()  # reading makes nothing
    kept = entry(
        1,
        "f" * 64,
        verdict=REJECTED,
        task="MiniHack-KeyRoom-S5-v0",
        created_at="2026-11-21T10:00:00Z",
        prompt="Wörter",
        thoughts="…",
        fitness={"selection": {"success": 0.5, "n": 20, "low": 0.3, "high": 0.7}, "steps": 1_000_000},
        analysis={"text": "dies in lava"},
        search="first",
    )
    assert archive.put(kept) == kept
    assert Archive(archive.folder).get(kept.sha) == kept
    assert archive.get(kept.sha[:4].upper()) == kept
    assert (archive.folder / f"{kept.sha}.py").read_bytes() == kept.source.encode()


def test_line_ends_are_kept(tmp_path):
    source = "def reward(obs, prev_obs, action, info):\r\n    return 'ä'\r"
    kept = Archive(tmp_path).put(ArchiveEntry(sha=sha_of(source), source=source, by="x"))
    assert kept.source == source


def test_a_program_is_kept_once_and_updated(tmp_path):
    archive = Archive(tmp_path)
    archive.put(first := entry(1, search="first"))
    assert archive.put(replace(first, search="second")).search == "first"
    analysis = {"goal": np.array([0.0, np.nan])}
    archive.update(first.sha, fitness={"steps": np.int64(5)}, analysis=analysis, verdict=REJECTED)
    found = archive.get(first.sha)
    assert (found.fitness, found.analysis, found.verdict) == ({"steps": 5}, {"goal": [0.0, None]}, REJECTED)
    assert found.search == "first"
    with pytest.raises(ValueError, match="source of a program cannot change"):
        archive.update(first.sha, source="x")
    with pytest.raises(TypeError, match="fitnes"):
        archive.update(first.sha, fitnes={})
    with pytest.raises(ValueError, match="kept under the SHA of its source"):
        archive.put(replace(first, source="x"))


def test_names_that_fit_none_or_several(tmp_path):
    archive = Archive(tmp_path)
    with pytest.raises(ValueError, match=r"no program abcd in .*; there are none"):
        archive.get("abcd")
    for name in ("abc", "xyzw", "a" * 65, ""):
        with pytest.raises(ValueError, match="is no SHA of a program"):
            archive.get(name)
    kept = [entry(number) for number in range(400)]
    by_start = {}
    for one in kept:
        by_start.setdefault(one.sha[:4], []).append(one)
    pair = next((pair for pair in by_start.values() if len(pair) > 1), None)
    assert pair is not None, "among 400 SHAs two begin alike (1 - exp(-400² / 2 / 65536) = 0.7); take other programs"
    for one in pair:
        archive.put(one)
    with pytest.raises(ValueError, match="fits 2 programs") as caught:
        archive.get(pair[0].sha[:4])
    assert all(one.sha[:12] in str(caught.value) for one in pair)
    assert archive.get(pair[1].sha[:20]) == pair[1]
    wrong = pair[0].sha[:9] + ("0" if pair[0].sha[9] != "0" else "1")
    with pytest.raises(ValueError, match=f"no program {wrong} in .*; nearest: {pair[0].sha[:12]}"):
        archive.get(wrong)


def test_changed_and_damaged_files_are_named_and_refused(tmp_path):
    archive = Archive(tmp_path)
    kept = [archive.put(entry(number)) for number in range(4)]
    source, gone, facts, other = kept
    (tmp_path / f"{source.sha}.py").write_text(source.source + "# better\n")
    (tmp_path / f"{gone.sha}.py").unlink()
    (tmp_path / f"{facts.sha}.json").write_text("{")
    with pytest.raises(ValueError, match=rf"{source.sha}\.py has been changed"):
        archive.get(source.sha)
    with pytest.raises(ValueError, match=rf"{gone.sha}\.py cannot be read: no such file"):
        archive.get(gone.sha)
    with pytest.raises(ValueError, match=rf"{facts.sha}\.json is damaged"):
        archive.get(facts.sha)
    entries, complaints = archive.read_all()
    assert entries == [other] and len(complaints) == 3
    with pytest.raises(ValueError):
        archive.entries()
    (tmp_path / f"{source.sha}.py").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="has been changed"):
        archive.get(source.sha)


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: facts | {"format": 2},
        lambda facts: facts | {"sha": "0" * 64},
        lambda facts: facts | {"verdict": {"findings": [{"test": "x"}]}},
        lambda facts: {name: value for name, value in facts.items() if name != "by"},
        lambda facts: [facts],
    ],
)
def test_facts_of_another_kind_are_refused(tmp_path, damage):
    archive = Archive(tmp_path)
    kept = archive.put(entry(1))
    file = tmp_path / f"{kept.sha}.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    with pytest.raises(ValueError, match=rf"{kept.sha}\.json is damaged"):
        archive.get(kept.sha)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_crash_leaves_nothing_half(tmp_path, monkeypatch, fails_at):
    archive = Archive(tmp_path)
    before = archive.put(entry(1))
    lost, renamed, replace_file = entry(2), [], Path.replace

    def crash(path, target):
        renamed.append(target)
        if len(renamed) == fails_at:
            raise KeyboardInterrupt
        return replace_file(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            archive.put(lost)
    (tmp_path / f".{lost.sha}.json.1234").write_text("{")  # what a power cut leaves
    left = set(tmp_path.iterdir())
    assert ((tmp_path / f"{lost.sha}.py") in left) is (fails_at == 2)
    assert archive.entries() == [before]
    with pytest.raises(ValueError, match="no program"):
        archive.get(lost.sha)
    after = archive.put(entry(3))  # whoever writes next clears up
    names = {f"{one.sha}.{end}" for one in (before, after) for end in ("py", "json")}
    assert {path.name for path in tmp_path.iterdir()} == names | {".lock"}
    assert archive.put(lost) == lost


def test_a_crash_in_an_update_leaves_the_old_facts(tmp_path, monkeypatch):
    archive = Archive(tmp_path)
    kept = archive.put(entry(1))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda path, target: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space"):
            archive.update(kept.sha, search="other")
    assert archive.get(kept.sha) == kept


def _puts(folder, numbers, shared):
    archive = Archive(folder)
    for number in numbers:
        archive.put(entry(number))
        facts = archive.get(shared).analysis
        assert isinstance(facts, dict)
        archive.update(shared, analysis={"last": number})


def test_processes_write_side_by_side(tmp_path):
    archive = Archive(tmp_path)
    shared = archive.put(entry(1000))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_puts, args=(tmp_path, range(k, 45, 3), shared.sha)) for k in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [one.round for one in archive.entries()] == [*range(45), 1000]
    assert {path.suffix for path in tmp_path.iterdir()} == {".py", ".json", ""}


# ---- descent


def shape(branches):
    return {branch.entry.round: shape(branch.children) for branch in branches}


def test_descent_is_a_forest_of_first_known_parents(tmp_path):
    archive = Archive(tmp_path)
    first = entry(1)
    second = entry(2, "0" * 64)  # its parent is elsewhere
    third = entry(3, first)
    fourth = entry(4, "1" * 64, second, first)
    fifth = entry(5, third)
    for one in (fifth, fourth, third, second, first):
        archive.put(one)
    assert shape(forest(archive.entries())) == {1: {3: {5: {}}}, 2: {4: {}}}


def test_a_circle_of_parents_loses_nobody():
    a, b = entry(1), entry(2)
    a, b = replace(a, parents=(b.sha,)), replace(b, parents=(b.sha, a.sha))
    assert shape(forest([a, b])) == {2: {1: {}}}


def test_fallbacks_are_the_nearest_accepted_ancestors(tmp_path):
    archive = Archive(tmp_path)
    old = entry(1)
    refused = entry(2, old, verdict=REJECTED)
    unjudged = entry(3, old, verdict=None)
    good = entry(4, old)
    young = entry(5, refused, unjudged, good, "0" * 64)
    for one in (old, refused, unjudged, good, young):
        archive.put(one)
    assert [one.round for one in archive.accepted_ancestors(young.sha[:10])] == [4, 1]
    assert archive.accepted_ancestors(old.sha) == []
    (tmp_path / f"{good.sha}.py").write_text("pass\n")
    with pytest.raises(ValueError, match="has been changed"):
        archive.accepted_ancestors(young.sha)


# ---- names


def test_a_program_is_named_by_sha_or_file(tmp_path):
    kept = Archive(tmp_path / "programs").put(entry(1))
    assert Archive(tmp_path / "programs").get(kept.sha[:8]).source == kept.source and not is_file_name(kept.sha[:8])
    file = tmp_path / "mine.py"
    file.write_bytes(b"x = 1\r\n")
    assert is_file_name(str(file)) and source_of(file) == "x = 1\r\n"
    with pytest.raises(ValueError, match=r"other\.py cannot be read: no such file"):
        source_of(tmp_path / "other.py")
    file.write_bytes(b"x = '\xff'")
    with pytest.raises(ValueError, match=r"mine\.py is not UTF-8 at byte 5"):
        source_of(file)
    with pytest.raises(ValueError, match="is no SHA"):
        Archive(tmp_path).get("mine")
