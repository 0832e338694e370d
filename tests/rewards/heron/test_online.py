"""HERON under a training loop that is not ours: steps in, versions of the reward out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.data import EndStatus, FinalObs, Rollout
from envs.protocols import GamesSpec, ObsSpec
from rewards import conformance
from rewards.heron.config import JudgesConfig, ModelConfig, TreeConfig
from rewards.heron.online import OnlineHeron

LIMIT = 10
GAMES = GamesSpec(
    tasks=("Slope",) * 2,
    obs={"vector": ObsSpec(shape=(2,), dtype=np.dtype(np.float32))},
    action_names=(),
    action_shape=(1,),
    action_dtype=np.dtype(np.float32),
    action_low=np.array([-1], np.float32),
    action_high=np.array([1], np.float32),
)
CONFIG = TreeConfig(
    ranking=("height = obs[0]", "-energy = action[0] * action[0]"),
    segment_steps=5,
    model=ModelConfig(members=2, hidden=16, min_segments=16, capacity_segments=128, first_steps=48, publish_updates=1),
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def play(num_steps, num_games=2, seed=0):
    """One rollout of random walks [T, B] with drift; episodes of ten steps, ended by time."""
    rng = np.random.default_rng(seed)
    T, B = num_steps, num_games
    seen, reached = rng.normal(size=(2, T + 1, B, 2)).astype(np.float32)
    truncated = np.zeros((T, B), bool)
    truncated[LIMIT - 1 :: LIMIT] = True
    seen[1:] = np.where(truncated[..., None], seen[1:], reached[1:])
    at = np.argwhere(truncated).reshape(-1, 2)
    return Rollout(
        obs={"vector": seen},
        actions=rng.uniform(-1, 1, (T, B, 1)).astype(np.float32),
        env_reward=np.full((T, B), np.nan, np.float32),  # nobody may look at it
        terminated=np.zeros((T, B), bool),
        truncated=truncated,
        end_status=np.where(truncated, EndStatus.ABORTED, EndStatus.RUNNING).astype(np.int8),
        final_obs=FinalObs(at=at, obs={"vector": reached[1:][truncated]}),
        policy_version=np.zeros((T, B), np.int64),
        episode_id=np.arange(T)[:, None] // LIMIT * B + np.arange(B),
        step_in_episode=np.repeat(np.arange(T)[:, None] % LIMIT, B, axis=1).astype(np.int32),
    )


def steps_of(rollout):
    everyone = list(range(rollout.num_games))
    return [conformance.cut_rollout(rollout, (t, t + 1), everyone) for t in range(rollout.num_steps)]


def observe(heron, rollouts):
    for rollout in rollouts:
        heron.observe(rollout, {})
    return heron


class Keeper:
    """In the trainer's place: keeps segments, learns nothing."""

    def __init__(self):
        self.kept = []

    def add(self, segments):
        self.kept.append(segments)

    def update(self):
        return None


def worth(heron, rollout):
    parts, _ = heron.score(rollout, heron.initial_state(rollout.num_games))
    return parts["heron"]


def test_it_learns_the_ranking_from_rollouts_of_one_step():
    heron = OnlineHeron(CONFIG, GAMES, update_steps=40, seed=1)
    fresh = play(50, seed=9)
    assert heron.version == 0 and not worth(heron, fresh).valid.any()
    versions = []
    for rollout in steps_of(play(400)):
        heron.observe(rollout, {})
        versions.append(heron.version)
    assert versions == sorted(versions) and versions[-1] > 5 and heron.trainer.metrics()["segments"] == 128
    part = worth(heron, fresh)
    assert part.valid.all()
    assert np.corrcoef(part.value.ravel(), fresh.reached("vector")[..., 0].ravel())[0, 1] > 0.8


def test_an_update_comes_after_every_so_many_steps_of_all_games_together():
    heron = OnlineHeron(CONFIG, GAMES, update_steps=64, seed=1)
    versions = []
    for rollout in steps_of(play(200)):
        heron.observe(rollout, {})
        versions.append(heron.version)
    rises = np.flatnonzero(np.diff(versions)) + 2  # steps of each game
    assert rises[0] == 64 and (np.diff(rises) == 32).all()  # 16 segments of 5 steps of two games need 40 steps


def test_how_steps_are_parcelled_does_not_matter():
    played = play(100, num_games=1)
    single, whole = (OnlineHeron(CONFIG, GAMES, update_steps=100, seed=1) for _ in range(2))
    observe(single, steps_of(played))
    observe(whole, [played])
    assert single.version == whole.version == 1
    np.testing.assert_array_equal(worth(single, played).value, worth(whole, played).value)


def test_a_game_that_was_reset_leaves_its_unfinished_segment():
    first, second = play(3, num_games=1), play(LIMIT, num_games=1, seed=1)
    reset, fresh = (OnlineHeron(CONFIG, GAMES, update_steps=1000, seed=1) for _ in range(2))
    reset.trainer, fresh.trainer = Keeper(), Keeper()
    observe(reset, [first, replace(second, episode_id=second.episode_id + 1)])
    observe(fresh, [second])
    (kept,), (wanted,) = reset.trainer.kept, fresh.trainer.kept
    assert len(kept) == 2
    np.testing.assert_array_equal(kept.inputs, wanted.inputs)


def test_it_goes_on_from_its_state_in_the_middle_of_a_segment():
    before, after = steps_of(play(130))[:83], steps_of(play(130))[83:]
    straight = observe(OnlineHeron(CONFIG, GAMES, update_steps=40, seed=1), before)
    resumed = OnlineHeron(CONFIG, GAMES, update_steps=40, seed=1)
    resumed.load_state_dict(straight.state_dict())
    assert resumed.version == straight.version > 0
    observe(straight, after)
    observe(resumed, after)
    fresh = play(20, seed=9)
    np.testing.assert_array_equal(worth(straight, fresh).value, worth(resumed, fresh).value)
    assert resumed.version == straight.version


def test_conformance():
    learned = observe(OnlineHeron(CONFIG, GAMES, update_steps=80, seed=1), [play(80)]).state_dict()

    def make():
        heron = OnlineHeron(CONFIG, GAMES, update_steps=80, seed=2)
        heron.load_state_dict(learned)
        return heron

    conformance.check_reward_model(make, play(24, num_games=3))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"judges": JudgesConfig(sources=("tree", "labeller"))},
            "judges.sources is tree, labeller; here only the tree",
        ),
        ({"judges": JudgesConfig(sources=("labeller",))}, "judges.sources is labeller"),
        ({"model": ModelConfig(encoder=True)}, "model.encoder needs a run's policy network"),
    ],
)
def test_what_only_a_run_has_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        OnlineHeron(CONFIG.replace(**changes), GAMES, update_steps=40, seed=1)


def test_updates_that_never_come_are_refused():
    with pytest.raises(ValueError, match="update_steps is 0"):
        OnlineHeron(CONFIG, GAMES, update_steps=0, seed=1)
