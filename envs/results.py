"""The results of finished episodes."""

from __future__ import annotations

import os

import numpy as np

from envs.data import EndStatus, EpisodeResult, EpisodeSeeds
from envs.game import BL_DEPTH, BL_GOLD, BL_SCORE, BL_TIME, BL_XP_LEVEL, Game

_LOG_TAIL_BYTES = 2048


def end_reason(game: Game, end_status: int) -> str:
    """NetHack's own word for how a game ended (``DIED``, ``STARVING``, ...), else that of ``EndStatus``."""
    if end_status == EndStatus.DEATH and game.is_over():
        return game.how_done().name
    return EndStatus(end_status).name


def death_message(game: Game) -> str:
    """How the hero died, in NetHack's own words ("killed by a jackal, while praying").

    From the log that NetHack writes when a game ends; empty if it has none.
    """
    with (game.folder / "xlogfile").open("rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
        lines = log.read().decode("latin-1").splitlines()
    fields: dict[str, str] = {}
    for field in lines[-1].split("\t") if lines else ():
        name, _, value = field.partition("=")
        fields[name] = value
    return fields.get("death", "") + (f", while {fields['while']}" if "while" in fields else "")


def episode_result(
    game: Game,
    *,
    seeds: EpisodeSeeds,
    env_return: float,
    last_reward: float,
    num_steps: int,
    end_status: int,
    last_blstats: np.ndarray,
    max_blstats: np.ndarray,
) -> EpisodeResult:
    """The result of an episode that has just ended.

    Args:
        game: still showing the end.
        seeds: of the episode.
        env_return: undiscounted sum of rewards.
        last_reward: reward of the last step.
        num_steps: steps taken.
        end_status: value of ``EndStatus``.
        last_blstats: the last non-zero ones.
        max_blstats: their maxima over the episode.
    """
    return EpisodeResult(
        task=game.spec.id,
        seeds=seeds,
        env_return=env_return,
        num_steps=num_steps,
        end_status=end_status,
        success=end_status == EndStatus.TASK_SUCCESSFUL and last_reward > 0,
        game={
            "score": float(last_blstats[BL_SCORE]),
            "max_depth": float(max_blstats[BL_DEPTH]),
            "max_xp_level": float(max_blstats[BL_XP_LEVEL]),
            "gold": float(last_blstats[BL_GOLD]),
            "turns": float(last_blstats[BL_TIME]),
            "end_reason": end_reason(game, end_status),
            "death_message": death_message(game) if game.is_over() else "",
        },
    )
