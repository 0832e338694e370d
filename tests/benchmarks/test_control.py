"""Classic control: every reward meets the same learner, and what is measured is the environment's own return."""

import json
from typing import get_args

import gymnasium
import numpy as np
import pytest
import torch

from envs.protocols import PolicyStep
from envs.seeding import evaluation_seeds
from launch.errors import UserError
from rewards.heron.config import ModelConfig
from tests.benchmarks.__main__ import main
from tests.benchmarks.control.command import run
from tests.benchmarks.control.config import TASKS, RewardName, check_control, control_defaults
from tests.benchmarks.control.training import (
    REWARDS,
    AveragedPolicy,
    _noise,
    check_columns,
    games_spec,
    learner,
    train_control,
    true_results,
)
from tests.benchmarks.store import Results
from tests.benchmarks.studies.jobs import STUDIES, ControlJob
from tests.benchmarks.studies.runner import Study
from tests.benchmarks.studies.tables import control_table

PENDULUM = TASKS["Pendulum-v1"]
TINY_MODEL = ModelConfig(members=1, hidden=8, min_segments=8, first_steps=4, publish_updates=1)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def tiny(task=PENDULUM, **changes):
    """A run that ends before the policy learns anything; a reward model does."""
    small = {"steps": 160, "evaluations": 2, "episodes": 2, "segment_steps": 4, "update_steps": 40}
    return control_defaults(task).replace(**(small | {"model": TINY_MODEL} | changes))


class Pushing:
    """Always pushes alike."""

    version = 3

    def __init__(self, push):
        self.push = push

    def initial_state(self, num_games):
        return None

    def act(self, obs, recurrent_state, action_mask, noise, *, deterministic=False):
        return PolicyStep(actions=np.full((len(obs["vector"]), 1), self.push, np.float32))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_environment_has_rankings_that_can_be_run(task):
    config = control_defaults(task)
    check_control(config, control_defaults(task))
    check_columns(config, task.env, games_spec(task.env))
    assert config.ranking == task.ranking and 1e4 <= config.steps <= 1e5


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_trains_and_is_evaluated_on_the_environments_own_return(name):
    reported = []
    outcome = train_control(PENDULUM, tiny(reward=name), lambda step, mean: reported.append((step, mean)))
    assert outcome.step == [80, 160] and outcome.num_policies == (3 if name == "ensemble" else 1)
    assert reported == [(step, np.mean(each)) for step, each in zip(outcome.step, outcome.env_return, strict=True)]
    assert np.shape(outcome.env_return) == (2, 2) and (np.array(outcome.env_return) < -1).all()
    assert outcome.ended == [0, 0]  # a time limit is no end of its own
    assert ("version" in outcome.figures[-1]) == (name == "heron")
    if name == "heron":
        assert outcome.figures[-1]["version"] == 4 and outcome.figures[-1]["segments"] == 40


def test_there_is_a_way_to_train_with_every_reward_that_can_be_named():
    assert set(REWARDS) == set(get_args(RewardName))


def test_a_clipped_heron_fines_what_falls_short_of_the_threshold():
    def last_paid(bound):
        (paid,) = REWARDS["heron"](tiny(bound=bound, bound_at=0.5), games_spec(PENDULUM.env))
        model = learner(PENDULUM, paid, seed=1)
        model.learn(160)
        parts, _ = paid.rewards.score(model.get_env().last, {})
        return parts["heron"].value

    free, clipped = last_paid("none"), last_paid("clip")
    np.testing.assert_array_equal(clipped, np.minimum(free - np.float32(0.5), 0))


def test_the_same_seed_gives_the_same_run():
    config = tiny(steps=80, evaluations=1)
    first, again, other = (train_control(PENDULUM, config.replace(seed=seed)) for seed in (1, 1, 2))
    assert first.env_return == again.env_return != other.env_return


def test_true_results_are_what_the_environment_pays_in_the_listed_episodes():
    results = true_results("Pendulum-v1", Pushing(1.0), 3)
    env = gymnasium.make("Pendulum-v1")
    for result, seeds in zip(results, evaluation_seeds(3), strict=True):
        env.reset(seed=seeds.core)
        total, truncated = 0.0, False
        while not truncated:
            _, reward, _, truncated, _ = env.step(np.array([1.0], np.float32))
            total += float(reward)
        assert result.env_return == pytest.approx(total)
    env.close()


def test_an_ensemble_plays_the_mean_of_its_policies_actions():
    acted = AveragedPolicy([Pushing(1.0), Pushing(-0.5), Pushing(0.25)]).act(
        {"vector": np.zeros((2, 3))}, None, None, None
    )
    assert acted.actions.tolist() == [[0.25], [0.25]]


@pytest.mark.parametrize(("steps", "expected"), [(1, 0.0), (20, 0.95)])
def test_noise_has_its_standard_deviation_and_persists(steps, expected):
    np.random.seed(0)  # noqa: NPY002 - the generator that Stable-Baselines3's noise draws from
    noise = _noise(200, 0.5, steps)
    drawn = np.array([noise() for _ in range(400)])[100:]
    assert drawn.std() == pytest.approx(0.5, rel=0.05)
    assert np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1] == pytest.approx(expected, abs=0.02)


# -- the command


TINY_FLAGS = ["--reward", "true", "--steps", "8", "--evaluations", "1", "--episodes", "1"]


def test_the_command_writes_everything_it_found(tmp_path, capsys):
    out = tmp_path / "new" / "run.json"
    assert run(["Pendulum-v1", *TINY_FLAGS, "--seed", "4", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert "true return" in capsys.readouterr().out
    assert result["command"].startswith("python -m tests.benchmarks control Pendulum-v1 --reward true --steps 8")
    assert result["config"]["seed"] == 4 and "stable-baselines3" in result["versions"]
    assert result["curve"]["step"] == [8] and result["curve"]["env_return"] == result["curve"]["env_return_each"][0]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["Pendulum-v2"], "unknown environment 'Pendulum-v2'; did you mean Pendulum-v1"),
        (["--seed", "1"], "control needs the environment"),
        (["Pendulum-v1", "--reward", "hero"], "heron"),
        (["Pendulum-v1", "--beta", "0.5"], "beta belongs to reward=weighted_sum"),
        (["Pendulum-v1", "--ranking", "height = nowhere"], "^ranking: "),
        (["Pendulum-v1", "--reward", "sparse", "--goal", "height = nowhere"], "^goal: "),
        (["Pendulum-v1", "--goal", "height = obs[0]"], "goal belongs to reward=sparse; the reward is heron"),
        (["Pendulum-v1", "--reward", "true", "--ranking", "height = obs[0]"], "ranking belongs to reward=heron or "),
        (["Pendulum-v1", "--reward", "sparse", "--bound", "clip"], "bound belongs to reward=heron; .* is sparse"),
        (["Pendulum-v1", "--reward", "true", "--model.hidden", "8"], "model belongs to reward=heron"),
        (["Pendulum-v1", "--reward", "ensemble", "--segment-steps", "7"], "segment_steps belongs to reward=heron"),
        (["Pendulum-v1", "--model.encoder"], "model.encoder has no meaning here: the model reads the action and"),
        (["Pendulum-v1", "--model.inputs", "obs.hp"], "model.inputs has no meaning here"),
        (["Pendulum-v1", "--model.see-factors"], "model.see_factors has no meaning here"),
        (["Pendulum-v1", "--ranking", "height = obs[3]"], "no column 'obs.3': there are 3 components"),
        (["Pendulum-v1", "--ranking", "gold"], "no schema field 'obs.gold'"),
        (["Pendulum-v1", "--steps", "5"], "10 evaluations do not fit into 5 steps"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(argv, says, tmp_path):
    out = tmp_path / "new" / "run.json"
    with pytest.raises(UserError, match=says):
        run([*argv, "--json", str(out)])
    assert not out.parent.exists()


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        run(["Pendulum-v1", *TINY_FLAGS, "--json", str(tmp_path)])


def test_where_the_result_cannot_go_is_said_before_anything_is_played(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run\.json cannot be written: "):
        run(["Pendulum-v1", *TINY_FLAGS, "--json", str(tmp_path / "file" / "run.json")])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("reward", ["heron", "weighted_sum"])
def test_a_factor_that_fails_ends_the_run_in_one_sentence(reward, capsys):
    flags = ["--reward", reward, "--ranking", "x = 1 / (abs(obs[0]) - abs(obs[0]))"]
    assert main(["control", "Pendulum-v1", *flags, "--steps", "8", "--evaluations", "1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m tests.benchmarks: factor 'x' is not finite at step ") and error.count("\n") == 1


# -- the study


def test_the_study_has_every_reward_in_every_environment_with_every_seed():
    jobs = [job for job in STUDIES["heron_control"] if isinstance(job, ControlJob)]
    assert len(jobs) == (9 + 10) * 3 and {job.env for job in jobs} == set(TASKS)
    assert {job.flags[1] for job in jobs} == set(REWARDS)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)  # a study that was cut has everything once


def test_a_job_of_the_study_is_one_command(tmp_path):
    job = ControlJob(name="pendulum_true-seed4", env="Pendulum-v1", seed=4, flags=tuple(TINY_FLAGS))
    results = Results(tmp_path / "heron_control.parquet")
    assert Study([job], results, tmp_path / "runs", 1, lambda text: None).run()
    assert results.read()["pendulum_true-seed4"]["config"]["seed"] == 4 and "pendulum_true" in control_table(results)


def test_the_table_says_what_the_results_say(tmp_path):
    finals = {"heron-seed1": -150, "heron-seed2": -170, "heron_clip-seed3": -20, "weighted_sum_0.3-seed1": -9}
    results = Results(tmp_path / "heron_control.parquet")
    for name, final in finals.items():
        curve = {"step": [1000, 2000], "env_return": [-1000, final], "ended": [0, 0]}
        results.add({name: {"env": "Pendulum-v1", "num_policies": 1, "curve": curve}})
    table = control_table(results)
    # 160 +- 12.706 * sqrt(200) / sqrt(2)
    assert "| heron | 1 | 2,000 | 2 | **-160.0** (-150.0, -170.0) | -287.1 to -32.9 | -580.0 | 0% |" in table
    assert "| weighted_sum_0.3 | 1 | 2,000 | 1 | **-9.0** (-9.0) | one seed | -504.5 | 0% |" in table
    assert "| heron_clip | 1 | 2,000 | 1 | **-20.0** (-20.0) | one seed |" in table
