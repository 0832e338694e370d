"""Recorded episodes made by hand: for tests only."""

import numpy as np

from envs.data import EndStatus, EpisodeSeeds
from envs.features import COLUMNS
from envs.recording import RECORDED_COLUMNS, EpisodeRecord

_DTYPES = {"int": np.int64, "bool": np.bool_, "str": np.dtype("U8")}


def episode(ending, length, without=(), **columns):
    """An episode whose columns are 0, False or "" but for those given: ``obs_hp=[...]``, or one value for all steps.

    Args:
        ending: ``success``, ``death``, ``out of time`` or ``unfinished``.
        length: steps.
        without: columns that were not recorded.
        columns: the first underscore stands for the dot.
    """
    given = {name.replace("_", ".", 1): value for name, value in columns.items()}
    given = {name.replace("prev.obs_", "prev_obs."): value for name, value in given.items()}
    assert set(given) <= set(COLUMNS), given
    status = np.zeros(length, np.int8)
    status[-1] = {
        "success": EndStatus.TASK_SUCCESSFUL,
        "death": EndStatus.DEATH,
        "out of time": EndStatus.ABORTED,
        "unfinished": EndStatus.RUNNING,
    }[ending]
    last = np.arange(length) == length - 1
    return EpisodeRecord(
        task="Room",
        seeds=EpisodeSeeds(1, 2, 3),
        action_names=("north", "south"),
        actions=np.zeros(length, np.int64),
        env_reward=(last & (ending == "success")).astype(np.float32),
        end_status=status,
        terminated=last & (ending in ("success", "death")),
        truncated=last & (ending == "out of time"),
        columns={
            name: np.broadcast_to(np.array(given.get(name, 0), _DTYPES[COLUMNS[name].dtype]), length).copy()
            if COLUMNS[name].dtype != "str"
            else np.broadcast_to(np.array(given.get(name, ""), np.str_), length).copy()
            for name in RECORDED_COLUMNS
            if name not in without
        },
        captions=np.zeros(length, "U1"),
    )


def walk(ending, path, **columns):
    """An episode along columns of the map: ``[3, 4, 5, 4]`` are three steps."""
    return episode(ending, len(path) - 1, prev_obs_x=path[:-1], obs_x=path[1:], **columns)
