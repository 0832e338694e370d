"""Presets: functions that return a complete configuration of a run."""

from __future__ import annotations

from collections.abc import Callable

from agents.config import PPOConfig
from envs.tasks import GamesConfig
from launch.config.train import RolloutConfig, TrainConfig
from launch.errors import unknown_name
from rewards.config import RewardConfig
from rewards.heron.config import ModelConfig, TreeConfig
from rewards.oni.config import RetrievalConfig
from rewards.parts import PartConfig

PENALTY_STEP = -0.001
"""MiniHack's own experiments use -0.001 a frozen step; the class default of -0.01 drowns the goal."""


def room() -> TrainConfig:
    """MiniHack-Room-Random-5x5: find the stairs in a small room. Plain PPO, seconds to a minute."""
    return TrainConfig(
        preset="room",
        total_steps=200_000,
        env=GamesConfig(task="MiniHack-Room-Random-5x5-v0", penalty_step=PENALTY_STEP),
    )


def keyroom() -> TrainConfig:
    """MiniHack-KeyRoom-S5: pick up a key, open a door, find the stairs. Plain PPO."""
    return TrainConfig(
        preset="keyroom",
        total_steps=500_000,
        env=GamesConfig(task="MiniHack-KeyRoom-S5-v0", penalty_step=PENALTY_STEP),
    )


def keyroom_oni() -> TrainConfig:
    """KeyRoom-S5 with the environment's reward and ONI's beside it; --reward.oni.kind says which of the three."""
    return _with_oni(keyroom(), "keyroom_oni")


def river_narrow() -> TrainConfig:
    """MiniHack-River-Narrow: push a boulder into the water and cross. Plain PPO."""
    return _task("river_narrow", "MiniHack-River-Narrow-v0", 1_000_000)


def wod_easy() -> TrainConfig:
    """MiniHack-WoD-Easy-Restricted: zap a wand of death at a minotaur, then reach the stairs. Sparse; plain PPO."""
    return _task("wod_easy", "MiniHack-WoD-Easy-Restricted-v0", 1_000_000)


def wod_easy_heron() -> TrainConfig:
    """WoD-Easy-Restricted with HERON's reward beside the environment's; --reward.heron.ranking names the factors."""
    return _with_heron(wod_easy(), "wod_easy_heron", "killed = 'ou kill' in obs.message")


def river_narrow_heron() -> TrainConfig:
    """River-Narrow with HERON's reward beside the environment's."""
    return _with_heron(river_narrow(), "river_narrow_heron", "filled = 'you can cross it' in obs.message")


def locked_door_heron() -> TrainConfig:
    """LockedDoor with HERON's reward beside the environment's."""
    return _with_heron(
        locked_door(),
        "locked_door_heron",
        "new_tiles",
        "hits = 'WHAMM' in obs.message",
        "at_door = mean(info.closed_door_distance <= 1) @ 0.5",
        "kicks = 'In what direction?' in obs.message and action == 'kick'",
        "-strange = 'strange direction' in obs.message",
    )


def locked_door() -> TrainConfig:
    """MiniHack-LockedDoor: kick a locked door open. Sparse; plain PPO."""
    return _task("locked_door", "MiniHack-LockedDoor-v0", 1_000_000)


def locked_door_oni() -> TrainConfig:
    """LockedDoor with ONI's reward beside the environment's."""
    return _with_oni(locked_door(), "locked_door_oni")


def corridor() -> TrainConfig:
    """MiniHack-Corridor-R5: five rooms joined by corridors. Sparse; plain PPO."""
    return _task("corridor", "MiniHack-Corridor-R5-v0", 1_000_000)


def corridor_oni() -> TrainConfig:
    """Corridor-R5 with ONI's reward beside the environment's."""
    return _with_oni(corridor(), "corridor_oni")


def nethack_score() -> TrainConfig:
    """NetHack's score task with ONI's 28 actions, prompts and macros; reward scaled by 0.1 and clipped."""
    return TrainConfig(
        preset="nethack_score",
        total_steps=1_000_000,
        env=GamesConfig(task="NetHackScoreExtended-v0"),
        reward=RewardConfig(env=PartConfig(weight=0.1, clip=10.0)),
    )


def nethack_score_oni() -> TrainConfig:
    """The score task with ONI's weights: environment 0.1, retrieval 0.4."""
    reward = RewardConfig(env=PartConfig(weight=0.1, clip=10.0), oni=RetrievalConfig(weight=0.4))
    return nethack_score().replace(preset="nethack_score_oni", reward=reward)


def debug() -> TrainConfig:
    """A few seconds of Room-5x5 in one process, to see that everything works."""
    return TrainConfig(
        preset="debug",
        total_steps=4_096,
        env=GamesConfig(task="MiniHack-Room-5x5-v0", penalty_step=PENALTY_STEP),
        rollout=RolloutConfig(num_workers=0, games_per_worker=8, num_steps=64),
        ppo=PPOConfig(minibatch=256, epochs=1),
    )


def _task(name: str, task: str, total_steps: int) -> TrainConfig:
    return TrainConfig(
        preset=name,
        total_steps=total_steps,
        env=GamesConfig(task=task, penalty_step=0.0),
    )


def _with_oni(config: TrainConfig, name: str) -> TrainConfig:
    reward = RewardConfig(env=config.reward.env, oni=RetrievalConfig(weight=0.1))
    return config.replace(preset=name, reward=reward)


def _with_heron(config: TrainConfig, name: str, *progress: str) -> TrainConfig:
    """HERON with the ranking success > alive > progress > -turns.

    In a segment, fewer turns means more actions that take no time. Turns are rounded down to multiples of 32, twice a
    segment's steps: segments of less than 32 turns are alike, and 31 turns are still better than 32. The model may see
    what the factors are made of: most of them are events that nothing else tells of.
    """
    ranking = ("success", "alive", *progress, "-turns @ 32")
    heron = TreeConfig(weight=0.3, ranking=ranking, model=ModelConfig(see_factors=True))
    reward = RewardConfig(env=config.reward.env, heron=heron)
    return config.replace(preset=name, reward=reward)


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    build.__name__: build
    for build in (
        debug,
        room,
        keyroom,
        keyroom_oni,
        river_narrow,
        river_narrow_heron,
        wod_easy,
        wod_easy_heron,
        locked_door,
        locked_door_oni,
        locked_door_heron,
        corridor,
        corridor_oni,
        nethack_score,
        nethack_score_oni,
    )
}


def preset(name: str) -> TrainConfig:
    """The configuration that a preset returns.

    Raises:
        UserError: there is no such preset; names the nearest.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]()
