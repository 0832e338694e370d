"""A run's folder: created once, owned by one process at a time, and what happened in it as events.

Layout of ``runs/<name>/``::

    config.json  events.jsonl  metrics.jsonl  tensorboard/  labels.sqlite  id  lock
    checkpoints/<step>/  latest  episodes/  eval/  logs/  captions.json  report.html

and what the run's rewards keep there for themselves.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from envs.files import JsonLines, file_lock, fsync_folder, read_lines, unreadable, write_atomic
from launch.errors import UserError
from launch.runs.checkpoint import FORMAT, check_format, sweep_unfinished

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from envs.datasets import Dataset
    from envs.recording import EpisodeRecord

_CONFIG, _EVENTS, _LOCK, _ID = "config.json", "events.jsonl", "lock", "id"
_FORMAT, _UNSAID_FORMAT = "format", 5
"""A run folder's format is a key of its ``config.json``, beside the configuration; up to format 5 there was none."""
_SUBFOLDERS = ("checkpoints", "episodes", "eval", "logs")
_ABSENT = "(absent)"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _locked(folder: Path, shown_as: Path) -> BaseFileLock:
    """The folder's lock, held; its file says by whom."""
    lock, file = file_lock(folder / _LOCK), folder / _LOCK
    try:
        lock.acquire(blocking=False)
    except TimeoutError:
        raise UserError(_in_use(shown_as, file.read_bytes())) from None
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
    file.write_text(json.dumps(owner))
    return lock


def _in_use(folder: Path, owner: bytes) -> str:
    try:
        who = json.loads(owner)
        by = f"process {who['pid']} on {who['host']} since {who['since']}"
    except (ValueError, KeyError, TypeError):  # the owner is just writing its name
        by = "another process"
    return f"run folder {folder} is in use by {by}; choose another --name or wait"


class RunFolder:
    """The folder of a run, locked by this process until ``close``.

    Made by ``create`` or ``open``; a context manager.
    """

    def __init__(self, path: Path, lock: BaseFileLock) -> None:
        self.path = path
        self._lock = lock
        self._events = JsonLines(path / _EVENTS)

    @classmethod
    def create(cls, root: Path, name: str | None, config_json: str, *, prefix: str = "run") -> Self:
        """Make a new run folder; it appears whole or not at all.

        Args:
            root: the folder of all runs, made where it is missing.
            name: the run's name; None takes the next free ``<prefix>-001``.
            config_json: the resolved configuration, a JSON object.
            prefix: what numbered names begin with, usually the preset.

        Raises:
            UserError: the name cannot be a folder's, the run exists, or it is in use.
        """
        if name is not None:
            return cls._create_named(root, name, config_json)
        while True:
            try:
                return cls._create_named(root, next_name(root, prefix), config_json)
            except _TakenError:  # another run took the number in between
                continue

    @classmethod
    def _create_named(cls, root: Path, name: str, config_json: str) -> Self:
        path = root / _checked_name(name)
        config = _as_config(config_json)
        _refuse_existing(path)
        root.mkdir(parents=True, exist_ok=True)
        # Built beside its place and renamed: a crash, or a second run, never meets half a folder.
        temporary = root / f".new-{name}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            lock = _locked(temporary, path)
            for folder in _SUBFOLDERS:
                (temporary / folder).mkdir()
            write_config(temporary, config)
            write_atomic(temporary / _ID, f"{uuid.uuid4().hex}\n")
            try:
                temporary.rename(path)
            except OSError:
                lock.release()
                _refuse_existing(path)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync_folder(root)
        return cls(path, lock)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Take over an existing run, to go on training; sweeps what a crash left half-written.

        Raises:
            UserError: there is no run there, or another process is in it.
        """
        read_config(path)
        folder = cls(path, _locked(path, path))
        sweep_unfinished(path)
        return folder

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as it stands in ``config.json``."""
        return read_config(self.path)

    @property
    def run_id(self) -> str:
        """Identifies the run to others, wherever its folder lies."""
        return (self.path / _ID).read_text().strip()

    @property
    def events_path(self) -> Path:
        """``events.jsonl``."""
        return self.path / _EVENTS

    def check_resume(self, config_json: str, may_change: Iterable[str] = ()) -> dict[str, tuple[Any, Any]]:
        """Compare a configuration with the run's own.

        Args:
            config_json: the resolved configuration to go on with.
            may_change: dotted names, ``*`` allowed, that may differ (total steps, intervals).

        Returns:
            The allowed differences, ``{dotted name: (old, new)}``.

        Raises:
            UserError: another field differs; the text lists every such field, old -> new.
        """
        changes = differences(self.config, _as_config(config_json))
        patterns = tuple(may_change)
        refused = {k: v for k, v in changes.items() if not any(fnmatchcase(k, p) for p in patterns)}
        if refused:
            listed = "; ".join(f"{k}: {_shown(old)} -> {_shown(new)}" for k, (old, new) in refused.items())
            raise UserError(
                f"run folder {self.path} was started with another configuration ({listed}); "
                "resume it without these changes, or start a new run with another --name"
            )
        return changes

    def accept_config(self, config_json: str) -> None:
        """Replace ``config.json`` (after ``check_resume``), with an event where it changed."""
        changes = differences(self.config, _as_config(config_json))
        if changes:
            write_config(self.path, _as_config(config_json))
            shown = {name: [_plain(old), _plain(new)] for name, (old, new) in changes.items()}
            self.event("config_changed", changes=shown)

    def event(self, kind: str, *, step: int | None = None, **fields: Any) -> None:
        """Append to ``events.jsonl``: what happened, at which step, at what time (UTC)."""
        self._events.append({"kind": kind, "step": step, "time": _now(), **fields})

    def close(self) -> None:
        """Release the folder; closing twice does no harm."""
        self._events.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _TakenError(UserError):
    """The folder exists already."""


def _refuse_existing(path: Path) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / _CONFIG).exists():
        raise _TakenError(f"{path} exists and is not a run folder; choose another --name")
    _locked(path, path).release()  # says so where the run is still going on
    raise _TakenError(f"run folder {path} exists already; continue it with --resume {path} or choose another --name")


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
        raise UserError(
            f"'{name}' cannot name a run: allowed are letters, digits, '_', '.', '+' and '-', "
            "beginning with a letter, a digit or '_'"
        )
    return name


def next_name(root: Path, prefix: str) -> str:
    """The name after the highest ``<prefix>-<number>`` in ``root``, from ``<prefix>-001`` on."""
    pattern = re.compile(re.escape(prefix) + r"-(\d+)")
    found = (pattern.fullmatch(p.name) for p in root.iterdir()) if root.is_dir() else ()
    return f"{prefix}-{max((int(m[1]) for m in found if m), default=0) + 1:03d}"


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run; takes no lock.

    Raises:
        UserError: there is no run in ``path``, its ``config.json`` cannot be read, or it is of another format.
    """
    file = path / _CONFIG
    if not file.is_file():
        raise UserError(f"{path} is not a run folder (it has no {_CONFIG})")
    try:
        config = _as_config(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    check_format(f"run folder {path}", config.pop(_FORMAT, _UNSAID_FORMAT))
    return config


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Replace a run's ``config.json``, in this version's format."""
    text = json.dumps({_FORMAT: FORMAT, **config}, indent=2, ensure_ascii=False) + "\n"
    write_atomic(path / _CONFIG, text)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a run, oldest first; takes no lock."""
    return list(read_lines(path / _EVENTS))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where two configurations differ: ``{dotted name: (old, new)}``, in the order of the names."""
    before, after = flatten(old), flatten(new)
    names = sorted({*before, *after})
    pairs = {name: (before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in names}
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one with dotted names; lists and empty mappings are leaves."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def installed_versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on; what is not installed is left out."""
    import platform

    found = {"python": platform.python_version()}
    for name in ("yendor", "torch", "numpy", "nle", "minihack", "gymnasium", "ray", "safetensors"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _as_config(config_json: str) -> dict[str, Any]:
    config = json.loads(config_json)
    if not isinstance(config, dict):
        raise ValueError("a configuration is a JSON object")
    return config


def _plain(value: Any) -> Any:
    return None if value is _ABSENT else value


def _shown(value: Any) -> str:
    return value if value is _ABSENT else json.dumps(value, ensure_ascii=False)


def read_record(path: Path) -> EpisodeRecord:
    """A recorded episode.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    from envs.recording import EpisodeRecord

    try:
        return EpisodeRecord.load(path)
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    except ValueError as error:
        raise UserError(str(error)) from None


def open_data(path: Path, *, verify: bool = False) -> Dataset:
    """A data set of logged play.

    Raises:
        UserError: there is none, or it is damaged.
    """
    from envs.datasets import Dataset

    try:
        return Dataset.open(path, verify=verify)
    except ValueError as error:
        raise UserError(str(error)) from None
