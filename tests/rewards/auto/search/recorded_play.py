"""Episodes made up for tests: whatever columns a test wants, and quiet ones for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.data import EndStatus, EpisodeSeeds
from envs.features import COLUMNS
from envs.recording import RECORDED_COLUMNS, EpisodeRecord

ACTIONS = ("north", "kick", "open")
_DTYPES: dict[str, Any] = {"int": np.int64, "bool": bool, "str": np.str_}
_ENDS = {"success": EndStatus.TASK_SUCCESSFUL, "death": EndStatus.DEATH, "out of time": EndStatus.ABORTED}


def played(T: int, ending: str = "out of time", *, messages: Sequence[str] = (), **columns: Any) -> EpisodeRecord:
    """An episode of T steps; ``info__visits_here=[...]`` sets a column, all others are 0, False or empty.

    Distances are 99, and the hero takes the first action all the time.
    """
    held = {name: np.zeros(T, _DTYPES[COLUMNS[name].dtype]) for name in RECORDED_COLUMNS}
    held |= {name: np.full(T, 99) for name in held if name.endswith("_distance")}
    held |= {name.replace("__", "."): np.array(values) for name, values in columns.items()}
    texts = np.array([*messages, *[""] * (T - len(messages))])
    held["obs.message"] = texts
    names = columns.get("action", [ACTIONS[0]] * T)
    held["action"] = np.array(names)
    status = np.zeros(T, np.int8)
    status[-1] = _ENDS[ending]
    return EpisodeRecord(
        task="MiniHack-Room-5x5-v0",
        seeds=EpisodeSeeds(1, 2, 3),
        action_names=ACTIONS,
        actions=np.array([ACTIONS.index(name) for name in names], np.int64),
        env_reward=(status == EndStatus.TASK_SUCCESSFUL).astype(np.float32),
        end_status=status,
        terminated=status > 0,
        truncated=status < 0,
        columns=held,
        captions=texts,
    )
