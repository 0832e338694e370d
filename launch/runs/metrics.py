"""What a run measures, written as JSONL always and for TensorBoard on request; and means over recent episodes."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from envs.files import JsonLines, read_lines
from launch.errors import nearest
from launch.runs.glossary import GLOSSARY

if TYPE_CHECKING:
    from envs.data import EpisodeResult
    from envs.protocols import State

_FILE = "metrics.jsonl"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", "[^/]+"))


class MetricsWriter:
    """Appends to ``metrics.jsonl`` and, if asked, to TensorBoard's files.

    Args:
        folder: the run folder.
        tensorboard: also write TensorBoard scalars (imported here, without torch).
        resume_step: lines of later steps are dropped: the run goes on from an earlier checkpoint.
        glossary: the metrics that may be written.

    Attributes:
        num_dropped: how many lines of an abandoned future were dropped.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tensorboard: bool = True,
        resume_step: int | None = None,
        glossary: Mapping[str, str] = GLOSSARY,
    ) -> None:
        self._patterns = {name: _pattern(name) for name in glossary}
        self._allowed: set[str] = set()
        self._lines = JsonLines(folder / _FILE)
        self.num_dropped = 0
        if resume_step is not None:
            self.num_dropped = self._lines.keep(lambda line: line["step"] <= resume_step)
        self._board = _TensorBoard(folder / "tensorboard", resume_step) if tensorboard else None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line and flush it. A value that is not finite is written as null.

        Raises:
            ValueError: a name has no definition in the glossary; the text has the nearest ones.
        """
        for name in metrics:
            self._check(name)
        values = {name: float(value) for name, value in metrics.items()}
        self._lines.append({"step": step, "time": round(time.time(), 3), **values})
        if self._board is not None:
            self._board.write(step, {k: v for k, v in values.items() if math.isfinite(v)})

    def _check(self, name: str) -> None:
        if name in self._allowed:
            return
        if not any(pattern.fullmatch(name) for pattern in self._patterns.values()):
            near = ", ".join(nearest(name, self._patterns)) or "nothing like it"
            raise ValueError(f"metric '{name}' is not defined in the glossary (it has {near})")
        self._allowed.add(name)

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _TensorBoard:
    """Scalars in TensorBoard's file format, by TensorBoard's own writer (torch's would import torch)."""

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # Generated modules, whose classes a type checker cannot see.
        self._event: Any = event_pb2
        self._summary: Any = summary_pb2
        self._writer = EventFileWriter(str(folder))
        if resume_step is not None:
            # Tells TensorBoard to forget what an abandoned future wrote.
            start = self._event.SessionLog(status=self._event.SessionLog.START)
            self._writer.add_event(self._event.Event(step=resume_step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        rows = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        summary = self._summary.Summary(value=rows)
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``, oldest first; null where a value was not finite."""
    return list(read_lines(folder / _FILE))


_GAME_FIELDS = ("score", "max_depth", "max_xp_level")
SINGLE_LEVELS = ("MiniHack", "Yendor-")
"""How the ids of tasks begin whose games are one level, with neither depth nor much of a score."""


class WindowedEpisodes:
    """Means over the most recent episodes: the ``rollout/`` metrics.

    Args:
        window: how many episodes are remembered.
    """

    def __init__(self, window: int = 100) -> None:
        self._rows: deque[dict[str, float]] = deque(maxlen=window)
        self._num_episodes = 0

    def add(self, results: Iterable[EpisodeResult]) -> None:
        """Remember finished episodes, in the order in which they ended."""
        from envs.data import EndStatus

        for result in results:
            row = {
                "success": float(result.success),
                "env_return": result.env_return,
                "episode_steps": float(result.num_steps),
                "truncated_share": float(result.end_status == EndStatus.ABORTED),
            }
            if not result.task.startswith(SINGLE_LEVELS):
                row |= {key: float(result.game[key]) for key in _GAME_FIELDS if key in result.game}
            self._rows.append(row)
            self._num_episodes += 1

    @property
    def returns(self) -> list[float]:
        """Of the environment's own reward, over the remembered episodes, the oldest first."""
        return [row["env_return"] for row in self._rows]

    def metrics(self) -> dict[str, float]:
        """Means under their names; only ``rollout/episodes`` while no episode has ended."""
        found = {"rollout/episodes": float(self._num_episodes)}
        for key in dict.fromkeys(key for row in self._rows for key in row):
            values = [row[key] for row in self._rows if key in row]
            found[f"rollout/{key}"] = math.fsum(values) / len(values)
        return found

    def state_dict(self) -> State:
        """The remembered episodes, for the checkpoint."""
        return {"rows": [dict(row) for row in self._rows], "num_episodes": self._num_episodes}

    def load_state_dict(self, state: State) -> None:
        """Continue from ``state_dict``."""
        self._rows = deque((dict(row) for row in state["rows"]), maxlen=self._rows.maxlen)
        self._num_episodes = int(state["num_episodes"])
