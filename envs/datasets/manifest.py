"""What a data set says about itself: its manifest, the names of its columns, and where their files lie.

A data set is a folder::

    manifest.json                     what follows here; replaced in one step at each change
    shards/<shard>/<column>.arrow     one Arrow IPC stream a column (``envs.datasets.columns``)

A shard is what one game slot of one worker played, episode after episode. Its columns:

    action, key, log_prob, policy, terminated, truncated, end_status    one row a step, see ``STEP_COLUMNS``
    obs.<key>                         one row a step: the observation before the action
    reward.<name>                     one row a step: value float32, valid bool
    last.<key>                        one row for each episode that ended: the observation after its last action
    episodes                          one row an episode, see ``EPISODE_FIELDS``
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import quote, unquote

import numpy as np
from pydantic import Field, ValidationError, model_validator

from envs.data import Config
from envs.files import file_lock, unreadable, write_atomic
from envs.protocols import ObsSpec
from envs.spec import GamesConfig, TaskSpec, union_of_names

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT = 1
"""Rises whenever a data set of before can no longer be read."""

OBS, LAST, REWARD, VALID = "obs.", "last.", "reward.", "valid."
"""What names of columns begin with; ``valid.<name>`` is read out of the file of ``reward.<name>``."""
ENV_REWARD = REWARD + "env"
"""The environment's own reward, which every data set holds."""

_MANIFEST, _LOCK, _SHARDS = "manifest.json", ".manifest.lock", "shards"
_LONGEST_NAME = 240
"""Bytes that file systems leave for a column's escaped name."""


class FieldType(Config):
    """What one row of a field is."""

    dtype: str
    """numpy's name of it: int16, float32, bool, ..."""
    shape: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Of one row."""

    @model_validator(mode="after")
    def _known_dtype(self) -> Self:
        try:
            kind = np.dtype(self.dtype).kind
        except TypeError:
            kind = "?"
        if kind not in "biuf" or np.dtype(self.dtype).itemsize > 8 or np.dtype(self.dtype).name != self.dtype:
            raise ValueError(f"columns hold truth values, integers and floats of up to 64 bits, not '{self.dtype}'")
        return self

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}" if self.shape else self.dtype

    @classmethod
    def of(cls, spec: ObsSpec | np.ndarray) -> FieldType:
        """That of an observation key, or of the rows of an array [n, ...]."""
        shape = spec.shape[1:] if isinstance(spec, np.ndarray) else spec.shape
        return cls(dtype=spec.dtype.name, shape=tuple(shape))


def _scalar(dtype: str) -> FieldType:
    return FieldType(dtype=dtype)


STEP_COLUMNS: Mapping[str, FieldType] = {
    "action": _scalar("int16"),  # token: the first action that presses the same key
    "key": _scalar("int16"),  # the key code that it pressed
    "log_prob": _scalar("float32"),  # of the behaviour policy, NaN where it gives none
    "policy": _scalar("int16"),  # place in ``Manifest.policies``
    "terminated": _scalar("bool"),
    "truncated": _scalar("bool"),
    "end_status": _scalar("int8"),  # ``envs.data.EndStatus``
}
"""Columns of every step, beside observations and rewards."""
REWARD_FIELDS: Mapping[str, FieldType] = {"value": _scalar("float32"), "valid": _scalar("bool")}
"""Fields of a reward column; an entry that is not valid pays nothing and is stored as 0."""
EPISODES, EVENTS = "episodes", "events"
"""The file of a shard's episodes, and what takes its place while the shard is written."""
EPISODE_FIELDS: Mapping[str, FieldType] = {
    "seeds": FieldType(dtype="int64", shape=(3,)),  # core, disp, lgen; -1 where they are not known
    "first": _scalar("int64"),  # row of the first step in the shard
    "length": _scalar("int64"),  # -1: it was running when its writer stopped
    "finished": _scalar("bool"),  # terminated or truncated, not just left
    "end_status": _scalar("int8"),
    "env_return": _scalar("float64"),
    "policy": _scalar("int16"),  # that of the first step
    "task": _scalar("int16"),  # place in ``Manifest.tasks``
    "digest": _scalar("int64"),  # of its observations; -1: none
}
"""Fields of ``episodes`` and ``events``; in ``events`` a later row with the same ``first`` counts."""


class Action(Config):
    """One action of the table."""

    name: str
    key: int
    """The key code that it presses."""
    token: int
    """Index of the first action with the same key: what the ``action`` column holds."""


def action_table(names: Sequence[str], keys: Sequence[int]) -> tuple[Action, ...]:
    """The actions of games, each with its token.

    Args:
        names: A names.
        keys: the key code of each.
    """
    first: dict[int, int] = {}
    for index, key in enumerate(keys):
        first.setdefault(int(key), index)
    return tuple(Action(name=name, key=int(key), token=first[int(key)]) for name, key in zip(names, keys, strict=True))


class FileRecord(Config):
    """A file that was closed and will not change."""

    sha256: str
    size: int
    """Bytes."""


class ShardRecord(Config):
    """A shard that was closed."""

    num_steps: int
    files: dict[str, FileRecord]
    """By column."""


class Manifest(Config):
    """What a data set holds, and where it came from."""

    format: int = FORMAT
    tasks: tuple[dict[str, Any], ...]
    """Specification of each task, its ``id`` among it."""
    games: dict[str, Any] = Field(default_factory=dict)
    """The configuration that the games were played with (``envs.spec.GamesConfig``)."""
    actions: tuple[Action, ...]
    columns: dict[str, dict[str, FieldType]]
    """``{column: {field: type}}`` of what every closed shard holds."""
    policies: tuple[dict[str, Any], ...] = ()
    """Provenance of each policy; the ``policy`` column holds places in it."""
    rewards: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Provenance of reward columns, by name (without ``reward.``)."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the programs that played, by distribution."""
    shards: dict[str, ShardRecord] = Field(default_factory=dict)
    """Those that were closed."""

    @property
    def task_ids(self) -> tuple[str, ...]:
        """Ids of the tasks."""
        return tuple(str(task["id"]) for task in self.tasks)

    @property
    def action_names(self) -> tuple[str, ...]:
        """A names."""
        return tuple(action.name for action in self.actions)

    @property
    def obs_keys(self) -> tuple[str, ...]:
        """Observation keys that there is a column of."""
        return tuple(name[len(OBS) :] for name in self.columns if name.startswith(OBS))

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Names of the reward columns, ``env`` among them."""
        return tuple(name[len(REWARD) :] for name in self.columns if name.startswith(REWARD))

    @classmethod
    def of_games(
        cls,
        config: GamesConfig,
        specs: Sequence[TaskSpec],
        obs: Mapping[str, ObsSpec],
        policies: Sequence[Mapping[str, Any]] = (),
    ) -> Manifest:
        """The manifest of a data set that games of NetHack will be recorded into.

        Args:
            config: of the games.
            specs: their tasks (``envs.tasks.specs_of``).
            obs: the observation keys to be kept, ``GamesSpec.obs`` or a part of it.
            policies: provenance of each policy.

        Raises:
            ValueError: two tasks press different keys for an action of the same name.
        """
        keys: dict[str, int] = {}
        for spec in specs:
            for name, key in zip(spec.action_names, spec.keys, strict=True):
                if keys.setdefault(name, int(key)) != int(key):
                    raise ValueError(f"action '{name}' presses key {key} in {spec.id} and {keys[name]} in another task")
        names = union_of_names(specs)
        return cls(
            tasks=tuple(describe_task(spec) for spec in specs),
            games=config.model_dump(mode="json"),
            actions=action_table(names, [keys[name] for name in names]),
            columns=recorded_columns({key: FieldType.of(spec) for key, spec in obs.items()}),
            policies=tuple(dict(policy) for policy in policies),
            versions=installed_versions(),
        )

    def require(self, *, tasks: Sequence[str] | None = None, actions: Sequence[Action] | None = None) -> None:
        """Check that the data are of certain games.

        Args:
            tasks: ids of the tasks that they must be of, in any order.
            actions: the table that they must have (``action_table``).

        Raises:
            ValueError: they are of others; one sentence.
        """
        if tasks is not None and set(tasks) != set(self.task_ids):
            raise ValueError(f"the data are of {', '.join(self.task_ids)}, not of {', '.join(tasks)}")
        if actions is None or tuple(actions) == self.actions:
            return
        if len(actions) != len(self.actions):
            raise ValueError(f"the data have {len(self.actions)} actions, not {len(actions)}")
        index = next(i for i, (own, other) in enumerate(zip(self.actions, actions, strict=True)) if own != other)
        own, other = self.actions[index], actions[index]
        raise ValueError(
            f"the data have another action table: action {index} is '{own.name}' (key {own.key}), "
            f"not '{other.name}' (key {other.key})"
        )


def describe_task(spec: TaskSpec) -> dict[str, Any]:
    """A task's specification as JSON; its controls and logic by name."""
    found: dict[str, Any] = {}
    for field in fields(spec):
        value = getattr(spec, field.name)
        found[field.name] = getattr(value, "__qualname__", str(value)) if callable(value) else value
    found["keys"] = [int(key) for key in spec.keys]
    return json.loads(json.dumps(found))


def installed_versions() -> dict[str, str]:
    """Versions of what decides how a game plays out."""
    return {name: metadata.version(name) for name in ("yendor", "nle", "minihack", "numpy")}


def recorded_columns(obs: Mapping[str, FieldType]) -> dict[str, dict[str, FieldType]]:
    """Columns of a data set that nothing was added to yet.

    Args:
        obs: ``{key: type}`` of the observations to be kept.
    """
    columns = {name: {"value": kind} for name, kind in STEP_COLUMNS.items()}
    columns |= {OBS + key: {"value": kind} for key, kind in obs.items()}
    columns[ENV_REWARD] = dict(REWARD_FIELDS)
    columns |= {LAST + key: {"value": kind} for key, kind in obs.items()}
    return columns | {EPISODES: dict(EPISODE_FIELDS)}


# ---- files


def shard_folder(data: Path, shard: str) -> Path:
    """Where a shard's files lie."""
    return data / _SHARDS / escaped(shard)


def column_path(data: Path, shard: str, column: str) -> Path:
    """The file of a column; names may hold anything that can be printed."""
    return shard_folder(data, shard) / f"{escaped(column)}.arrow"


def shard_lock(data: Path, shard: str) -> BaseFileLock:
    """Held by who writes a shard (``envs.files.file_lock``)."""
    return file_lock(shard_folder(data, shard) / ".writer.lock")


def shards_in(data: Path) -> list[str]:
    """Names of the shards that there are files of, closed or not."""
    folder = data / _SHARDS
    return [unquote(path.name) for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def escaped(name: str) -> str:
    """A name of a column or shard, fit for a file.

    Raises:
        ValueError: it cannot be one.
    """
    if not name.strip(".") or not name.isprintable():
        raise ValueError(f"a column or shard cannot be named {name!r}: a name must be of printable characters")
    escaped = quote(name, safe="@+=,")
    if len(escaped) > _LONGEST_NAME:
        raise ValueError(f"'{name[:40]}...' is too long for the name of a column or shard")
    return escaped


def save_manifest(data: Path, manifest: Manifest) -> None:
    """Write, or replace in one step, the manifest of a data set."""
    write_atomic(data / _MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def load_manifest(data: Path) -> Manifest:
    """The manifest of a data set.

    Raises:
        ValueError: there is no data set, its manifest is damaged, or it is of another format; one sentence.
    """
    path = data / _MANIFEST
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{data} is not a data set: it holds no {_MANIFEST}") from None
    except OSError as error:
        raise ValueError(unreadable(path, error)) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error})") from None
    return read_manifest(found, data, str(path))


def read_manifest(found: Any, data: Path, file: str) -> Manifest:
    """A manifest from JSON.

    Args:
        found: what was read.
        data: of what.
        file: where it stood.

    Raises:
        ValueError: it is damaged, or of another format; one sentence.
    """
    version = found.get("format") if isinstance(found, dict) else None
    if isinstance(version, int) and version != FORMAT:
        raise ValueError(f"{data} is a data set of format {version}; this program reads format {FORMAT}")
    try:
        return Manifest.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{file} is damaged: {place}: {first['msg']}") from None


def update_manifest(data: Path, change: Callable[[Manifest], Manifest]) -> Manifest:
    """Change the manifest of a data set, one process after the other.

    Args:
        data: the data set.
        change: gets the manifest as it is now.

    Returns:
        What it is then.
    """
    with file_lock(data / _LOCK):
        manifest = change(load_manifest(data))
        save_manifest(data, manifest)
    return manifest
