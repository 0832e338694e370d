"""Recording play: as many steps as were asked for, of episodes that no evaluation plays; readable when interrupted."""

import numpy as np
import pytest

from agents.evaluate import evaluate
from envs.datasets import Dataset
from envs.seeding import ListedSeeds
from envs.spec import GamesConfig
from envs.tasks import make
from launch.errors import UserError
from launch.evaluation.policies import RandomSource, WalkerSource
from launch.offline.recording import Recording, play, record, run_jobs
from launch.offline.relabel import verify

GAMES = GamesConfig(task="Yendor-Maze2D-Umaze-v0", obs_keys=("glyphs_crop", "blstats"))


def sources(games=GAMES):
    """Random play, and a walker with noise."""
    return RandomSource(games=games), WalkerSource(games=games.replace(obs_keys=("glyphs", "blstats")), epsilon=0.3)


def recording(path, **changes):
    """A small one in this process."""
    values = {
        "data": path,
        "sources": sources(),
        "shares": (1.0, 3.0),
        "games": GAMES,
        "num_steps": 801,
        "num_workers": 0,
        "games_per_worker": 3,
    }
    return Recording(**values | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """801 steps of two policies."""
    path = tmp_path_factory.mktemp("recorded") / "data"
    record(recording(path))
    return Dataset.open(path, verify=True)


def test_each_policy_plays_its_share_to_the_step(data):
    policy = data.read("policy")
    assert data.num_steps == 801 and np.bincount(policy).tolist() == [200, 601]
    assert [shard.num_steps for shard in data.shards] == [67, 66, 67, 200, 201, 200]
    assert [shard.name for shard in data.shards][:2] == ["00-000-0000", "00-000-0001"]
    assert [made["policy"] for made in data.manifest.policies] == ["random", "walker"]
    assert data.manifest.obs_keys == GAMES.obs_keys and data.manifest.task_ids == (GAMES.task,)


def test_what_is_recorded_is_what_was_played(data):
    episodes, log_prob = data.episodes, data.read("log_prob")
    assert episodes.length[episodes.finished].max() <= 30
    assert (episodes.policy[~episodes.finished] == [0, 0, 0, 1, 1, 1]).all() and episodes.has_last.all()
    of_random = data.read("policy") == 0
    assert log_prob[of_random] == pytest.approx(-np.log(len(data.manifest.actions)))
    assert np.isfinite(log_prob).all() and (log_prob <= 0).all()
    truncated = data.read("truncated")
    assert truncated.sum() == (episodes.end_status == -1).sum() > 10


def test_no_evaluation_plays_these_episodes(data):
    seeds = data.episodes.seeds
    assert seeds.max() < 1 << 30 and len(np.unique(seeds, axis=0)) == len(seeds)


def test_it_replays(data):
    found = verify(data.path, 1000)
    assert found.columns == ("obs.glyphs_crop", "obs.blstats")
    assert found.episodes == len(data.episodes) and found.steps == data.num_steps


def test_an_episode_is_what_an_evaluation_of_its_seeds_plays(data):
    walker = sources()[1]
    chosen = np.flatnonzero((data.episodes.policy == 1) & data.episodes.finished)[[0, 7]]
    seeds = [data.episodes.seeds_of(i) for i in chosen]
    games = walker.games
    with_spec = make(games, 1, ListedSeeds(seeds[:1]))
    policy = walker.build(with_spec.spec)
    with_spec.close()
    results = evaluate(policy, lambda num, source: make(games, num, source), seeds, num_games=2, noise_seed=1)
    expected = dict(zip(seeds, data.episodes.env_return[chosen].tolist(), strict=True))
    assert {r.seeds: r.env_return for r in results} == pytest.approx(expected)


def test_the_same_recording_is_the_same(data, tmp_path):
    record(recording(tmp_path / "again"))
    again = Dataset.open(tmp_path / "again")
    assert again.episodes.digest.tolist() == data.episodes.digest.tolist()
    np.testing.assert_array_equal(again.read("action"), data.read("action"))
    record(recording(tmp_path / "other", seed=2, num_steps=60))
    assert not set(Dataset.open(tmp_path / "other").episodes.digest) & set(data.episodes.digest)


def test_workers_share_the_steps_and_no_episode(tmp_path):
    shared = recording(tmp_path / "data", num_workers=3, num_steps=100, games_per_worker=2)
    jobs = shared.jobs()
    assert [(job.policy, job.worker) for job in jobs] == [(p, w) for p in (0, 1) for w in (0, 1, 2)]
    assert sum(sum(job.lengths) for job in jobs) == 100
    assert sum(sum(job.lengths) for job in jobs if job.policy == 1) == 75


def test_what_was_recorded_before_an_interruption_stays(tmp_path):
    def interrupt(steps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(recording(tmp_path / "data"), interrupt)
    left = Dataset.open(tmp_path / "data", verify=True)
    assert left.num_steps == 32 * 3 and all(shard.closed for shard in left.shards)
    assert verify(left.path, 100).steps > 0


def test_episodes_may_be_shorter_than_the_task_s(tmp_path):
    games = GAMES.replace(max_episode_steps=8)
    record(recording(tmp_path / "data", games=games, num_steps=100))
    episodes = Dataset.open(tmp_path / "data").episodes
    assert episodes.length.max() == 8


def test_games_of_several_tasks(tmp_path):
    games = GAMES.replace(task="Yendor-Fork-v0,Yendor-Maze2D-Umaze-v0", obs_keys=("blstats",))
    record(recording(tmp_path / "data", games=games, sources=sources(games), num_steps=200))
    data = Dataset.open(tmp_path / "data")
    assert data.manifest.task_ids == ("Yendor-Fork-v0", "Yendor-Maze2D-Umaze-v0")
    assert data.episodes.task[data.episodes.shard == 1].tolist()[0] == 1
    assert verify(data.path, 100).episodes > 0


def test_bad_input_is_one_sentence(data, tmp_path):
    with pytest.raises(UserError, match="is there already, and it is not an empty folder"):
        record(recording(data.path))
    crops = (RandomSource(games=GAMES.replace(crop=5)),)
    with pytest.raises(UserError, match="policy random knows games with crop 5, and these have 9"):
        record(recording(tmp_path / "data", sources=crops, shares=(1.0,)))
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_workers_on_ray_record_what_this_process_does(tmp_path):
    record(recording(tmp_path / "data", num_workers=1))
    record(recording(tmp_path / "here"))
    on_ray, here = Dataset.open(tmp_path / "data"), Dataset.open(tmp_path / "here")
    assert on_ray.episodes.digest.tolist() == here.episodes.digest.tolist()
    bad = recording(tmp_path / "bad", sources=(WalkerSource(games=GAMES, epsilon=2.0),), shares=(1.0,))
    with pytest.raises(UserError, match=r"^the walker's epsilon is a share from 0 to 1"):
        list(run_jobs(play, bad.jobs(), 1))
