"""Same seeds, same actions: our games show and pay what ``gymnasium.make`` of the same id does."""

import fnmatch

import gymnasium
import numpy as np
import pytest

from envs.data import EndStatus
from envs.differences import DIFFERENCES, UNBUILDABLE, why_unbuildable
from envs.engine.native import why_not
from envs.registered import OWN_TASKS, registered_ids
from envs.seeding import TrainingSeeds
from envs.spec import OBS_KEYS, GamesConfig
from envs.tasks import make, task_ids

FAST_IDS = (
    "MiniHack-Room-Ultimate-5x5-v0",
    "MiniHack-KeyRoom-S5-v0",
    "MiniHack-River-Narrow-v0",
    "MiniHack-MultiRoom-N2-v0",
    "MiniHack-Sokoban1a-v1",
    "MiniHack-WoD-Easy-Restricted-v0",
    "MiniHack-Sink-v0",
    "MiniHack-Memento-Short-F2-v0",
    "MiniHack-ExploreMaze-Easy-v0",
    "NetHackScore-v0",
    "NetHackScout-v0",
    "NetHackStaircasePet-v0",
    "NetHackChallenge-v0",
)
ENGINES = ("plain",) if why_not() else ("plain", "native")
NOT_AT_DEATH = ("blstats", "tty_chars", "tty_colors", "tty_cursor")
"""Keys whose last frame of a lost game differs on purpose (and crops, which are centred by blstats)."""


class Reference:
    """The registered environment, seeded as we seed ours, restarting itself within the step."""

    def __init__(self, task, seeds, game):
        self.env = gymnasium.make(task, fix_moon_phase=True).unwrapped
        self.seeds, self.game = seeds, game
        self.before_quit = None
        quit_game = self.env._quit_game

        def keep_and_quit(observation, done):
            self.before_quit = self._copy(self.env._get_observation(observation))
            quit_game(observation, done)

        self.env._quit_game = keep_and_quit

    @staticmethod
    def _copy(obs):
        return {key: np.array(value) for key, value in obs.items()}

    def reset(self):
        core, disp, lgen = self.seeds.next(self.game)
        if hasattr(self.env, "minigrid_env"):
            self.env.minigrid_env.reset(seed=lgen)
        self.env._previous_action = self.env._previous_obs = None
        if "set_initial_seeds" in vars(self.env.nethack):  # NetHackChallenge puts a refusal here
            del self.env.nethack.set_initial_seeds
        self.env.nethack.set_initial_seeds(core, disp, False, lgen)
        return self._copy(self.env.reset()[0])

    def step(self, action):
        self.before_quit = None
        obs, reward, terminated, _, info = self.env.step(action)
        return self.before_quit or self._copy(obs), reward, terminated, int(info["end_status"])

    def close(self):
        self.env.close()


def shown_and_filled_keys(task):
    """Keys that the registered environment returns, and all that we need NetHack to fill (see DIFFERENCES)."""
    env = gymnasium.make(task, fix_moon_phase=True).unwrapped
    shown = tuple(key for key in env.observation_space.spaces if key in OBS_KEYS)
    filled = ("screen_descriptions",) if "screen_descriptions" in env._observation_keys else ()
    env.close()
    return shown, tuple(dict.fromkeys(shown + filled))


def assert_same_obs(where, ours, theirs, keys, lost=False):
    for key in keys:
        if lost and (key in NOT_AT_DEATH or key.endswith("_crop")):
            continue
        assert ours[key].dtype == theirs[key].dtype, f"{where}: {key}"
        assert np.array_equal(ours[key], theirs[key]), f"{where}: {key}"


def assert_same_step(where, b, step, theirs, reward, ended, status, keys, lost):
    assert step.end_status[b] == status, where
    assert step.reward[b] == np.float32(reward), where
    assert step.terminated[b] == (ended and status != EndStatus.ABORTED), where
    assert step.truncated[b] == (ended and status == EndStatus.ABORTED), where
    if ended:
        assert_same_obs(where, step.final_obs[b], theirs, keys, lost)


def assert_conforms(task, num_games, num_steps, min_episodes, run_seed=3, max_steps=None):
    """Under every engine at once, against one reference."""
    keys, filled = shown_and_filled_keys(task)
    vectors = {
        engine: make(
            GamesConfig(task=task, obs_keys=filled, engine=engine), num_games, TrainingSeeds(run_seed, 0, num_games)
        )
        for engine in ENGINES
    }
    seeds = TrainingSeeds(run_seed, 0, num_games)
    references = [Reference(task, seeds, b) for b in range(num_games)]
    rng = np.random.default_rng(run_seed)
    first = {engine: games.reset() for engine, games in vectors.items()}
    for b, reference in enumerate(references):
        theirs = reference.reset()
        for engine, obs in first.items():
            assert_same_obs(f"{engine}, game {b}, reset", {k: a[b] for k, a in obs.items()}, theirs, keys)
    t, episodes = 0, np.zeros(num_games, int)
    while t < num_steps or (episodes.min() < min_episodes and (max_steps is None or t < max_steps)):
        actions = rng.integers(0, vectors["plain"].spec.num_actions, num_games)
        steps = {engine: games.step(actions) for engine, games in vectors.items()}
        for b, reference in enumerate(references):
            theirs, reward, ended, status = reference.step(actions[b])
            lost = ended and status == EndStatus.DEATH and reference.before_quit is None
            following = reference.reset() if ended else theirs
            episodes[b] += ended
            for engine, step in steps.items():
                where = f"{task}, {engine}, game {b}, step {t}"
                assert_same_step(where, b, step, theirs, reward, ended, status, keys, lost)
                assert_same_obs(where, {k: a[b] for k, a in step.obs.items()}, following, keys)
        t += 1
    for games in (*vectors.values(), *references):
        games.close()
    return t, episodes


@pytest.mark.parametrize("task", FAST_IDS)
def test_conforms(task):
    assert_conforms(task, num_games=2, num_steps=150, min_episodes=0)


@pytest.mark.slow
@pytest.mark.parametrize("task", [id_ for id_ in task_ids() if id_ not in OWN_TASKS])
def test_every_buildable_id_conforms(task):
    max_steps = None if task.startswith("MiniHack") else 6000
    assert_conforms(task, num_games=3, num_steps=300, min_episodes=2, max_steps=max_steps)


def test_every_registered_id_is_buildable_or_has_a_reason():
    buildable = set(task_ids()) - set(OWN_TASKS)
    reasons = {id_ for id_ in registered_ids() if why_unbuildable(id_)}
    assert buildable | reasons == registered_ids()
    assert not buildable & reasons
    assert len(buildable) == 155


def test_the_tables_name_tasks_and_reasons():
    for entry in (*DIFFERENCES, *UNBUILDABLE):
        assert any(fnmatch.fnmatchcase(id_, entry.tasks) for id_ in registered_ids()), entry
        assert entry.what and entry.reason
