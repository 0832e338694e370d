"""Checkpoints that are whole or absent: written beside, fsynced, renamed, verified when read. No pickle.

    <run>/checkpoints/000000200000/  <name>.safetensors ...  state.safetensors  state.json  manifest.json
    <run>/latest -> checkpoints/000000200000            (for people; loading does not depend on it)

``manifest.json`` holds size and SHA-256 of every other file, and its own, so that any flipped bit shows.
A crash at any moment leaves the earlier checkpoints as they were; half-written ones are hidden folders
(``.tmp-*``) that no reader looks at and the next writer sweeps.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.files import fsync_folder, write_synced
from launch.errors import UserError

FORMAT = 6
"""Of run folders and their checkpoints; raised whenever what is saved changes its shape. 6: a run folder says its own
format, and state is kept by the kind of reward."""
_READERS = {5: "commit 376d4e3 (version 0.1.0, unreleased)"}
"""``{older format: what still reads it}``; add a line whenever ``FORMAT`` is raised."""
_MANIFEST, _STATE, _SUFFIX = "manifest.json", "state", ".safetensors"
_UNFINISHED, _ABANDONED = ".tmp-", "abandoned-"
_BLANK_HASH = "0" * 64
_ARRAY_KINDS = "biuf"  # bool, signed, unsigned, float: what safetensors can hold


class CheckpointError(UserError):
    """A checkpoint is damaged, or none of a run's can be used."""


class FormatError(CheckpointError):
    """A run folder or a checkpoint is of another format than this version writes and reads."""


def check_format(what: str, found: int) -> None:
    """Refuse another format, naming the version that reads it.

    Args:
        what: what has it, as in "checkpoint runs/a/checkpoints/000000200000".
        found: its format.

    Raises:
        FormatError: it is not ``FORMAT``.
    """
    if found == FORMAT:
        return
    reader = _READERS.get(
        found, "a newer Yendor" if found > FORMAT else f"a Yendor older than {_READERS[min(_READERS)]}"
    )
    raise FormatError(f"{what} has format {found}, and this Yendor reads format {FORMAT}: use {reader}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """What ``load`` read."""

    step: int
    path: Path
    tensors: Mapping[str, Mapping[str, np.ndarray]]
    """``{file: {name: array}}`` as it was saved; torch tensors come back as numpy arrays."""
    state: Any
    """As it was saved; tuples come back as lists."""
    versions: Mapping[str, str]


def no_fault(point: str) -> None:
    """The fault hook of production: does nothing."""


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Any]],
    state: Any,
    *,
    keep: int = 3,
    versions: Mapping[str, str] | None = None,
    fault: Callable[[str], None] = no_fault,
) -> Path:
    """Write the checkpoint of a step; the caller holds the run folder's lock.

    A valid checkpoint of the same step is left as it is and its path returned. A damaged one, and those of
    later steps (an earlier checkpoint was resumed), are renamed ``abandoned-<step>`` and read no more.

    Args:
        folder: the run folder.
        step: environment steps so far.
        tensors: ``{file: {name: numpy array or torch tensor}}``, one safetensors file each; a file is named
            by small letters, digits, ``_`` and ``-``, and not ``state``.
        state: see ``encode_state``.
        keep: how many checkpoints stay, this one included.
        versions: written to the manifest, for people.
        fault: called with the name of each point at which tests crash.

    Raises:
        ValueError: a file's name or ``keep`` is not allowed.
        TypeError: something cannot be stored without pickle; the text names it.
        OSError: the disk is full or read-only; no checkpoint was changed.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}, but at least 1 checkpoint must stay")
    files = _as_files(step, tensors, state, versions or {})
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    sweep_unfinished(folder)
    final = checkpoints / f"{step:012d}"
    if final.exists() and not _fault_of(final):
        return final
    temporary = checkpoints / f"{_UNFINISHED}{final.name}"
    try:
        temporary.mkdir()
        for name, data in files.items():
            fault(f"before_write:{name}")
            write_synced(temporary / name, data)
            fault(f"after_fsync:{name}")
        fsync_folder(temporary)
        _abandon(checkpoints, step)
        fault("before_rename")
        temporary.rename(final)
        fault("after_rename")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_folder(checkpoints)
    fault("after_folder_fsync")
    _point_latest(folder, final)
    fault("after_latest")
    for old in _found(folder)[keep:]:
        _remove(old, fault)
    return final


def load(path: Path) -> Checkpoint:
    """Read and verify one checkpoint.

    Raises:
        CheckpointError: a file is missing, has another size or hash, or cannot be understood.
    """
    from safetensors.numpy import load as from_safetensors

    manifest = _read_manifest(path)
    data = {name: _read_verified(path / name, entry) for name, entry in manifest["files"].items()}
    arrays = {
        name.removesuffix(_SUFFIX): {k: np.array(v) for k, v in from_safetensors(content).items()}
        for name, content in data.items()
        if name.endswith(_SUFFIX)
    }
    state = decode_state(json.loads(data["state.json"]), arrays.pop(_STATE))
    return Checkpoint(step=manifest["step"], path=path, tensors=arrays, state=state, versions=manifest["versions"])


def load_latest(folder: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest valid checkpoint of a run; changes nothing on the disk.

    Args:
        folder: the run folder.
        report: called with one sentence about each damaged checkpoint that was passed over.

    Returns:
        None where the run has no checkpoint at all.

    Raises:
        FormatError: one that is whole is of another format.
        CheckpointError: there are checkpoints but none is valid. Never start from scratch then.
    """
    wrong: list[str] = []
    for path in _found(folder):
        try:
            checkpoint = load(path)
        except FormatError:
            raise
        except CheckpointError as error:
            wrong.append(str(error))
            report(f"{error}; trying the checkpoint before it")
            continue
        return checkpoint
    if wrong:
        raise CheckpointError(
            f"none of the {len(wrong)} checkpoints in {folder} can be used ({'; '.join(wrong)}); "
            "start a new run with another --name"
        )
    return None


def steps_of(folder: Path) -> list[int]:
    """Steps of a run's checkpoints, newest first, valid or not."""
    return [int(path.name) for path in _found(folder)]


def sweep_unfinished(folder: Path) -> int:
    """Remove what a crash left half-written or half-removed; returns the number of folders removed."""
    left = sorted((folder / "checkpoints").glob(f"{_UNFINISHED}*"))
    for path in left:
        shutil.rmtree(path)
    return len(left)


def _found(folder: Path) -> list[Path]:
    checkpoints = folder / "checkpoints"
    if not checkpoints.is_dir():
        return []
    return sorted((p for p in checkpoints.iterdir() if re.fullmatch(r"\d{12,}", p.name)), reverse=True)


def _as_files(
    step: int, tensors: Mapping[str, Mapping[str, Any]], state: Any, versions: Mapping[str, str]
) -> dict[str, bytes]:
    from safetensors.numpy import save as to_safetensors

    files: dict[str, bytes] = {}
    for name, group in tensors.items():
        if not re.fullmatch(r"[a-z0-9_-]+", name) or name == _STATE:
            raise ValueError(
                f"'{name}' cannot name a file of a checkpoint: allowed are small letters, digits, '_' and "
                f"'-', but not '{_STATE}'"
            )
        arrays = {key: _as_array(value, f"{name}.{key}") for key, value in group.items()}
        files[name + _SUFFIX] = to_safetensors(arrays)
    tree, arrays = encode_state(state)
    files[_STATE + _SUFFIX] = to_safetensors(arrays)
    files["state.json"] = json.dumps(tree, allow_nan=False).encode()
    entries = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    manifest = {"format": FORMAT, "step": step, "files": entries, "versions": dict(versions)}
    files[_MANIFEST] = _signed(manifest)  # written last
    return files


def _as_array(value: Any, path: str) -> np.ndarray:
    # A torch tensor, recognised by what it can do: this module must not import torch.
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{path} is a {type(value).__name__}, expected a numpy array or a torch tensor")
    return plain_array(value, path)


def _signed(manifest: Mapping[str, Any]) -> bytes:
    blank = _manifest_bytes({**manifest, "sha256": _BLANK_HASH})
    return _manifest_bytes({**manifest, "sha256": hashlib.sha256(blank).hexdigest()})


def _manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        data = (path / _MANIFEST).read_bytes()
        manifest = json.loads(data)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} has no {_MANIFEST}") from None
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path}: {_MANIFEST} is damaged ({error})") from error
    unsigned = {k: v for k, v in manifest.items() if k != "sha256"} if isinstance(manifest, dict) else {}
    if data != _signed(unsigned):
        raise CheckpointError(f"checkpoint {path}: {_MANIFEST} is damaged (its own hash differs)")
    check_format(f"checkpoint {path}", manifest["format"])
    if manifest["step"] != int(path.name):
        raise CheckpointError(f"checkpoint {path} holds step {manifest['step']}, not the step of its name")
    return manifest


def _read_verified(path: Path, entry: Mapping[str, Any]) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path.parent}: {path.name} is missing") from None
    if len(data) != entry["bytes"]:
        raise CheckpointError(f"checkpoint {path.parent}: {path.name} has {len(data)} bytes, expected {entry['bytes']}")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise CheckpointError(f"checkpoint {path.parent}: the SHA-256 of {path.name} differs")
    return data


def _fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint, None if nothing is."""
    try:
        load(path)
    except CheckpointError as error:
        return str(error)
    return None


def _abandon(checkpoints: Path, step: int) -> None:
    for path in _found(checkpoints.parent):
        if int(path.name) >= step:
            number = 1
            while (target := checkpoints / f"{_ABANDONED}{path.name}-{number}").exists():
                number += 1
            path.rename(target)


def _point_latest(folder: Path, final: Path) -> None:
    temporary = folder / ".latest"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(final, folder))
    temporary.replace(folder / "latest")
    fsync_folder(folder)


def _remove(path: Path, fault: Callable[[str], None]) -> None:
    # Out of sight first: a crash half way through must not leave a checkpoint with missing files.
    hidden = path.with_name(f"{_UNFINISHED}{path.name}")
    path.rename(hidden)
    fault("after_hide")
    shutil.rmtree(hidden)
    fault("after_prune")


# -- state as JSON and arrays ----------------------------------------------------------------------


def encode_state(state: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A nested state as (JSON tree, ``{dotted name: array}``), exact both ways.

    What JSON cannot say becomes an object with one key that begins with ``$``:

        {"$array": name}   numpy array, kept under ``name``      {"$float": "nan" | "inf" | "-inf"}
        {"$scalar": name}  numpy scalar, likewise                {"$bytes": base64}
        {"$map": [[key, value], ...]}  a mapping whose keys are not all plain strings

    Tuples come back as lists. Python integers may be of any size.

    Args:
        state: nested mappings and lists of numpy arrays and scalars, numbers, strings, bytes and None.

    Raises:
        TypeError: a value is of another type; the text names its dotted path.
    """
    arrays: dict[str, np.ndarray] = {}
    return _encode(state, "state", arrays), arrays


def decode_state(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The state of ``encode_state``.

    Raises:
        ValueError: the tree names an array that is missing, or uses an unknown ``$`` word.
    """
    if isinstance(tree, list):
        return [decode_state(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        word, content = next(iter(tree.items()))
        if word.startswith("$"):
            return _decode_special(word, content, arrays)
    return {key: decode_state(value, arrays) for key, value in tree.items()}


def plain_array(array: np.ndarray, path: str) -> np.ndarray:
    """The array in native byte order and C layout, as safetensors wants it.

    Raises:
        TypeError: the dtype cannot be stored.
    """
    if array.dtype.kind not in _ARRAY_KINDS or array.dtype.itemsize > 8:
        raise TypeError(f"{path} has dtype {array.dtype}; a checkpoint holds bool, integer and float arrays")
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _encode(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        return {"$scalar": _keep(np.asarray(value), path, arrays)}
    if isinstance(value, np.ndarray):
        return {"$array": _keep(value, path, arrays)}
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return _encode_mapping(value, path, arrays)
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{path}.{i}", arrays) for i, item in enumerate(value)]
    raise TypeError(
        f"{path} is a {type(value).__name__}; a checkpoint holds mappings, lists, numpy arrays, numbers, "
        "strings, bytes and None"
    )


def _encode_mapping(value: Mapping[Any, Any], path: str, arrays: dict[str, np.ndarray]) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: _encode(inner, f"{path}.{key}", arrays) for key, inner in value.items()}
    return {
        "$map": [
            [_encode(key, f"{path}.key{i}", arrays), _encode(inner, f"{path}.{key}", arrays)]
            for i, (key, inner) in enumerate(value.items())
        ]
    }


def _keep(array: np.ndarray, path: str, arrays: dict[str, np.ndarray]) -> str:
    name, number = path, 1
    while name in arrays:  # {"a": {"b": x}, "a.b": y} would meet
        number += 1
        name = f"{path}#{number}"
    arrays[name] = plain_array(array, path)
    return name


def _decode_special(word: str, content: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if word in ("$array", "$scalar"):
        if content not in arrays:
            raise ValueError(f"the state names array '{content}', which is missing")
        return arrays[content] if word == "$array" else arrays[content][()]
    if word == "$float":
        return float(content)
    if word == "$bytes":
        return base64.b64decode(content)
    if word == "$map":
        return {_hashable(decode_state(k, arrays)): decode_state(v, arrays) for k, v in content}
    raise ValueError(f"the state uses the unknown word '{word}'")


def _hashable(key: Any) -> Any:
    return tuple(_hashable(item) for item in key) if isinstance(key, list) else key
