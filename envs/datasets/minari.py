"""Data sets from and to Minari's HDF5 files, for other offline learners (extra ``minari``).

Minari keeps one group an episode: T actions and T + 1 observations. What it has no place for (seeds, keys,
log-probabilities, further rewards, the manifest) goes into ``infos/yendor`` and into the attribute ``yendor`` of each
episode, so that what was exported can be imported again exactly. Differences that remain while it is there:

* an episode that was left unfinished is marked as truncated, because others would take it for endless;
* an episode whose last observation is not known has zeros in its place.

Files are written and read in pieces, since an episode of NetHack may be larger than memory; they are compressed, but
never as JPEG, which Minari does to bytes that look like an image. Minari's Arrow and Parquet files are not supported:
its own reader mixes long episodes up.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from envs.data import EndStatus
from envs.datasets.columns import plain
from envs.datasets.dataset import Dataset
from envs.datasets.manifest import (
    ENV_REWARD,
    EPISODE_FIELDS,
    EPISODES,
    LAST,
    OBS,
    REWARD,
    STEP_COLUMNS,
    VALID,
    FieldType,
    FileRecord,
    Manifest,
    ShardRecord,
    action_table,
    column_path,
    escaped,
    read_manifest,
    recorded_columns,
    shard_folder,
)
from envs.datasets.shards import sizes_of_ends, sizes_of_steps, write_episodes
from envs.datasets.writer import ColumnWriter, DatasetWriter
from envs.files import unreadable

_EXTRA = "yendor"
"""Name of everything that Minari has no place for."""
_INFOS = f"infos/{_EXTRA}"
_PIECE = 4096
"""Steps that are in memory at a time."""
_CHUNK = 64
"""Steps that are compressed together."""
_MOST_RAW = 4096
"""Bytes of a column of one episode that are not worth compressing."""
_OWN = {"rewards": ENV_REWARD, "terminations": "terminated", "truncations": "truncated", "actions": "action"}
"""Minari's names of our columns."""


def _packages() -> tuple[ModuleType, ModuleType]:
    """h5py and minari."""
    try:
        import h5py
        import minari
    except ImportError as error:
        raise ValueError(f"Minari's files need the extra 'minari' (pip install 'yendor[minari]'): {error}") from None
    return h5py, minari


# ---- export


def export_minari(dataset: Dataset, path: Path) -> None:
    """Write a data set as Minari-HDF5, into ``path/data``, where Minari looks for it.

    Args:
        dataset: what is written.
        path: of a folder that does not exist, or is empty; its name becomes that of the Minari data set.

    Raises:
        ValueError: the extra is not installed, the folder is not empty, or the data set is damaged.
    """
    h5py, minari = _packages()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} is there already, and it is not an empty folder")
    path.mkdir(parents=True, exist_ok=True)
    with _removed_unless_whole(path):
        storage = _new_storage(dataset.manifest, path / "data")
        with h5py.File(path / "data" / "main_data.hdf5", "w") as file:
            for i in range(len(dataset.episodes)):
                _export_episode(dataset, i, file.create_group(f"episode_{i}"))
        storage.update_metadata(
            {
                "dataset_id": _dataset_id(path.resolve().name),
                "minari_version": minari.__version__,
                "total_episodes": len(dataset.episodes),
                "total_steps": dataset.num_steps,
                "dataset_size": float(storage.get_size()),
                "description": f"Play in {', '.join(dataset.manifest.task_ids)}, exported from Yendor",
                _EXTRA: dataset.manifest.replace(shards={}).model_dump(mode="json"),
            }
        )


@contextmanager
def _removed_unless_whole(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        raise


def _dataset_id(name: str) -> str:
    """Of letters, digits, - and _, with a version at its end."""
    plain = re.sub(r"[^-\w]", "_", name, flags=re.ASCII)
    return plain if re.fullmatch(r".+-v\d+", plain) else f"{plain}-v0"


def _new_storage(manifest: Manifest, folder: Path) -> Any:
    from gymnasium import spaces
    from minari.dataset.minari_storage import MinariStorage

    kinds = {key: manifest.columns[OBS + key]["value"] for key in manifest.obs_keys}
    return MinariStorage.new(
        folder,
        observation_space=spaces.Dict({key: _space(kind) for key, kind in kinds.items()}),
        action_space=spaces.Discrete(len(manifest.actions)),
        data_format="hdf5",
        jpeg_encoding=False,
    )


def _space(kind: FieldType) -> Any:
    from gymnasium import spaces

    dtype = np.dtype(kind.dtype)
    if dtype == np.bool_:
        return spaces.MultiBinary(kind.shape or 1)
    if dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, kind.shape, dtype.type)
    limits = np.iinfo(dtype)
    return spaces.Box(limits.min, limits.max, kind.shape, dtype.type)


def _export_episode(dataset: Dataset, i: int, group: Any) -> None:
    episodes = dataset.episodes
    T, first = int(episodes.length[i]), int(episodes.first[i])
    group.attrs["id"], group.attrs["total_steps"] = i, T
    group.attrs[_EXTRA] = json.dumps(_said_of(dataset, i))
    for key in dataset.manifest.obs_keys:
        rows = _new_rows(group, f"observations/{key}", T + 1, dataset.manifest.columns[OBS + key]["value"])
        _copy(dataset, OBS + key, first, T, rows)
        rows[T] = dataset.last(key, np.array([i]))[0]
    for name, column in _OWN.items():
        _copy(dataset, column, first, T, _new_rows(group, name, T, _kind_of(dataset.manifest, column)))
    if not episodes.finished[i]:
        group["truncations"][T - 1] = True
    for name, column in _infos(dataset.manifest).items():
        _copy(dataset, column, first, T, _new_rows(group, name, T, _kind_of(dataset.manifest, column)))
    _check_rows(group, T, f"episode {i}")


def _said_of(dataset: Dataset, i: int) -> dict[str, Any]:
    """What Minari has no place for; JSON keeps every bit of a float."""
    found: dict[str, Any] = {name: getattr(dataset.episodes, name)[i].tolist() for name in EPISODE_FIELDS}
    found["has_last"], found["steps"] = bool(dataset.episodes.has_last[i]), found["length"]
    if not found["has_last"]:
        found["length"] = -1  # as it was written
    found["shard"] = dataset.shards[dataset.episodes.shard[i]].name
    del found["first"]
    return found


def _kind_of(manifest: Manifest, column: str) -> FieldType:
    if column.startswith(VALID):
        return manifest.columns[REWARD + column.removeprefix(VALID)]["valid"]
    return manifest.columns[column]["value"]


def _infos(manifest: Manifest) -> dict[str, str]:
    """``{name in an episode's group: column}`` of what has no other place."""
    columns = [name for name in STEP_COLUMNS if name not in _OWN.values()]
    columns += [f"{kind}{name}" for name in manifest.reward_names for kind in (REWARD, VALID)]
    return {f"{_INFOS}/{escaped(name)}": name for name in columns if name != ENV_REWARD}


def _new_rows(group: Any, name: str, rows: int, kind: FieldType) -> Any:
    size = np.dtype(kind.dtype).itemsize * int(np.prod(kind.shape))
    packed: dict[str, Any] = {}
    if rows * size > _MOST_RAW:
        packed = {"chunks": (min(rows, _CHUNK), *kind.shape), "compression": "gzip", "compression_opts": 1}
    return group.create_dataset(name, (rows, *kind.shape), kind.dtype, **packed)


def _copy(dataset: Dataset, column: str, first: int, rows: int, into: Any) -> None:
    for start in range(0, rows, _PIECE):
        stop = min(start + _PIECE, rows)
        into[start:stop] = dataset.read(column, first + start, first + stop)


def _check_rows(group: Any, steps: int, name: str) -> None:
    """T of each, but T + 1 observations."""
    found = {f"observation {key}": (rows, steps + 1) for key, rows in _observations(group).items()}
    found |= {field: (group.get(field), steps) for field in _OWN}
    found |= {field: (rows, steps) for field, rows in group.get(_INFOS, {}).items()}
    for field, (rows, expected) in found.items():
        if rows is None or len(rows) != expected:
            raise ValueError(f"{name} has {0 if rows is None else len(rows)} rows of {field}, not {expected}")


def _observations(group: Any) -> Mapping[str, Any]:
    """h5py's data sets by key; ``observation`` where there are no keys."""
    found = group.get("observations")
    return found if hasattr(found, "keys") else {"observation": found}


# ---- import


@dataclass(frozen=True)
class _Source:
    """A Minari data set that is being imported."""

    file: Any
    """h5py's."""
    manifest: Manifest
    said: Mapping[int, Mapping[str, Any]]
    """Of each episode, as ``_said_of``."""
    exported: bool
    """It was ours before."""
    start: int
    """The smallest action."""

    def rows(self, i: int, column: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Some steps of an episode; of a reward, which of them are valid too."""
        group, said = self.file[f"episode_{i}"], self.said[i]
        if column.startswith(OBS):
            return _observations(group)[column.removeprefix(OBS)][start:stop], None
        if column.startswith(REWARD) and self.exported:
            valid = group[f"{_INFOS}/{escaped(VALID + column.removeprefix(REWARD))}"]
            values = group["rewards" if column == ENV_REWARD else f"{_INFOS}/{escaped(column)}"]
            return values[start:stop], valid[start:stop]
        if column == "truncated" and not said["finished"]:
            return np.zeros(stop - start, bool), None
        own = {ours: theirs for theirs, ours in _OWN.items()}
        if self.exported or column in ("terminated", "truncated", ENV_REWARD):
            found = group[own.get(column, f"{_INFOS}/{escaped(column)}")][start:stop]
        else:
            found = self._unknown(group, said, column, start, stop)
        kind = self.manifest.columns[column]["value"]
        return found.astype(kind.dtype), None

    def _unknown(self, group: Any, said: Mapping[str, Any], column: str, start: int, stop: int) -> np.ndarray:
        """What others do not say, or say otherwise."""
        if column in ("action", "key"):
            return group["actions"][start:stop] - self.start
        rows = np.full(stop - start, np.nan if column == "log_prob" else 0)
        if column == "end_status" and stop == said["steps"]:
            rows[-1] = said["end_status"]
        return rows


def import_minari(path: Path, data: Path) -> Dataset:
    """Read Minari-HDF5 into a new data set.

    What was exported from a data set becomes one that is equal to it. Of others, actions and keys are the numbers of
    actions; seeds and log-probabilities are not known; and what terminated counts as a death.

    Args:
        path: of the Minari data set, or of its ``data`` folder.
        data: of a folder that does not exist, or is empty.

    Raises:
        ValueError: the extra is not installed, there is something at ``data`` already, or what is at ``path`` is no
            Minari-HDF5, is damaged, or holds what a data set cannot: actions that are not discrete, JPEG images.
    """
    h5py, _ = _packages()
    folder = path / "data" if (path / "data").is_dir() else path
    metadata, file_path = _metadata(folder), folder / "main_data.hdf5"
    try:
        with h5py.File(file_path, "r") as file:
            source = _source_of(file, metadata, path)
            with DatasetWriter.create(data, source.manifest) as writer, _removed_unless_whole(data):
                _import_shards(source, writer)
    except OSError as error:  # h5py's are not always of the operating system
        damaged = f"{file_path} is damaged: {error}"
        raise ValueError(unreadable(file_path, plain(error)) if error.errno else damaged) from None
    return Dataset.open(data)


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a Minari data set: it holds no metadata.json") from None
    except OSError as error:
        raise ValueError(unreadable(path, error)) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error})") from None
    if (form := found.get("data_format", "hdf5")) != "hdf5":
        raise ValueError(f"{folder} is Minari data in the format '{form}': only hdf5 can be imported")
    return found


def _source_of(file: Any, metadata: Mapping[str, Any], path: Path) -> _Source:
    """After a look at the number of rows of everything."""
    exported, start = _EXTRA in metadata, 0
    number = int(metadata.get("total_episodes", 0))
    groups = {i: file[f"episode_{i}"] for i in range(number) if f"episode_{i}" in file}
    if len(groups) < number:
        raise ValueError(f"{path} is damaged: it holds {len(groups)} of {number} episodes")
    if exported:
        manifest = read_manifest(metadata[_EXTRA], path, f"{path}: '{_EXTRA}' in metadata.json")
    else:
        manifest, start = _manifest_of(groups, metadata, path)
    for i, group in groups.items():
        _check_rows(group, int(group.attrs.get("total_steps", 0)), f"{path}: episode {i}")
    said = {i: json.loads(group.attrs[_EXTRA]) if exported else _seen_of(group) for i, group in groups.items()}
    said = {i: own for i, own in said.items() if own["steps"]}
    return _Source(file, manifest, said, exported, start)


def _manifest_of(groups: Mapping[int, Any], metadata: Mapping[str, Any], path: Path) -> tuple[Manifest, int]:
    """That of data which we did not export, and their smallest action."""
    from minari.dataset.minari_storage import is_image_space
    from minari.serialization import deserialize_space

    actions = json.loads(metadata.get("action_space", "{}"))
    if actions.get("type") != "Discrete":
        raise ValueError(f"{path} has actions of type {actions.get('type')}: only discrete ones can be imported")
    space = deserialize_space(metadata["observation_space"])
    if metadata.get("jpeg_encoding", True) and any(map(is_image_space, getattr(space, "values", lambda: [space])())):
        raise ValueError(f"{path} keeps its images as JPEG, which is not what was seen: it cannot be imported")
    kinds = {}
    for key, rows in _observations(groups[0]).items() if groups else ():
        if hasattr(rows, "keys"):
            raise ValueError(f"{path} has observations within observation '{key}': only one level can be imported")
        if rows is not None:
            kinds[key] = FieldType.of(rows[:0])
    name = str(metadata.get("dataset_id", path.name))
    numbers = range(int(actions["n"]))
    manifest = Manifest(
        tasks=({"id": name},),
        actions=action_table([f"action {n}" for n in numbers], list(numbers)),
        columns=recorded_columns(kinds),
        policies=({"kind": "minari", "dataset_id": name, "algorithm_name": metadata.get("algorithm_name")},),
    )
    return manifest, int(actions["start"])


def _seen_of(group: Any) -> dict[str, Any]:
    """What can be said of an episode that we did not export."""
    terminated, truncated = (bool(group[name][-1:].any()) for name in ("terminations", "truncations"))
    status = EndStatus.DEATH if terminated else EndStatus.ABORTED if truncated else EndStatus.RUNNING
    return {
        "seeds": (-1, -1, -1),
        "length": len(group["rewards"]),
        "steps": len(group["rewards"]),
        "finished": terminated or truncated,
        "end_status": int(status),
        "env_return": float(group["rewards"][:].sum(dtype=np.float64)),
        "policy": 0,
        "task": 0,
        "digest": -1,
        "has_last": True,
        "shard": "minari",
    }


def _import_shards(source: _Source, writer: DatasetWriter) -> None:
    shards: dict[str, list[int]] = {}
    for i, said in source.said.items():
        shards.setdefault(said["shard"], []).append(i)
    writer.register({name: _import_shard(source, writer.path, name, episodes) for name, episodes in shards.items()})


def _import_shard(source: _Source, data: Path, name: str, episodes: list[int]) -> ShardRecord:
    rows = {
        field: np.array([source.said[i].get(field, 0) for i in episodes], kind.dtype)
        for field, kind in EPISODE_FIELDS.items()
    }
    lengths = np.array([source.said[i]["steps"] for i in episodes])
    rows["first"] = np.cumsum(lengths) - lengths
    num_steps = int(lengths.sum())
    sizes = {LAST: sizes_of_ends(rows["first"], rows["length"]), OBS: sizes_of_steps(num_steps)}
    shard_folder(data, name).mkdir(parents=True)
    files: dict[str, FileRecord] = {}
    for column, fields in source.manifest.columns.items():
        path = column_path(data, name, column)
        if column == EPISODES:
            files[column] = write_episodes(path, rows)
            continue
        own = sizes[LAST if column.startswith(LAST) else OBS].tolist()
        with ColumnWriter(path, fields, own, partial(files.__setitem__, column)) as writer:
            for i in episodes:
                _import_rows(source, i, column, writer)
    return ShardRecord(num_steps=num_steps, files=files)


def _import_rows(source: _Source, i: int, column: str, writer: ColumnWriter) -> None:
    T = source.said[i]["steps"]
    if not column.startswith(LAST):
        for start in range(0, T, _PIECE):
            writer.append(*source.rows(i, column, start, min(start + _PIECE, T)))
    elif source.said[i]["has_last"]:
        writer.append(*source.rows(i, column.replace(LAST, OBS, 1), T, T + 1))
