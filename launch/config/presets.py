"""Where a configuration begins: presets, functions that return a complete one, or a task; and what is paid."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from agents.config import PPOConfig
from envs.spec import GamesConfig
from launch.config.train_config import RolloutConfig, TrainConfig
from launch.errors import UserError, nearest, unknown_name
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


_TASK = re.compile(r"[\w.:/-]+-v\d+(,[\w.:/-]+-v\d+)*")
"""What ids of tasks look like; whether there is such a task is looked up when the run is to start."""


def starting_from(name: str) -> TrainConfig:
    """A preset's configuration, or the default one of a task.

    Raises:
        UserError: there is neither; names the nearest.
    """
    if name in PRESETS:
        return preset(name)
    if _TASK.fullmatch(name):
        named = name.partition(",")[0].replace("/", "-")  # part of the run folder's name
        return TrainConfig(preset=named, env=GamesConfig(task=name))
    from envs.tasks import task_ids  # imports gymnasium, and all that registers tasks

    near = nearest(name, (*PRESETS, *task_ids()))
    if not near:
        raise UserError(
            f"unknown preset or task '{name}'; presets are {', '.join(PRESETS)}; 'yendor tasks' lists tasks"
        )
    raise UserError(f"unknown preset or task '{name}'; did you mean {' or '.join(near)}?")


def paying(reward: RewardConfig, names: Sequence[str]) -> RewardConfig:
    """The rewards with these kinds paid beside the environment's own, and no others.

    A kind that has no weight yet is given its usual one.

    Raises:
        UserError: there is no such kind.
    """
    kinds = [name for name in reward.kinds if name != "env"]
    for name in names:
        if name not in kinds:
            raise unknown_name("reward", name, kinds)
    return reward.paying(names)
