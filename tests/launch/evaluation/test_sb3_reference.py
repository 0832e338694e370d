"""Stable-Baselines3's PPO as the reference: its run folder is that of a training run."""

import json
import re

import numpy as np
import pytest
import torch

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from agents.evaluate import EpisodeNoise
from agents.sb3 import GamesVecEnv, RewardVecEnvWrapper
from envs.seeding import TrainingSeeds
from launch.cli import main
from launch.config.flags import parse
from launch.config.presets import preset
from launch.errors import UserError
from launch.evaluation.policies import RunSource, Sb3Source
from launch.evaluation.sb3_reference import WorkerSeeds, reference_env, reference_ppo
from launch.runs.metrics import read_metrics
from launch.training.driver import games_spec
from rewards.config import PartConfig, RewardConfig

FLAGS = [
    *("--rollout.games-per-worker", "2", "--ppo.minibatch", "64"),
    *("--rollout.num-workers", "2", "--rollout.num-steps", "32", "--model.encoder.hidden", "32"),
    *("--threads", "1", "--no-logging.tensorboard", "--logging.interval-s", "0.001"),
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    where = ["--runs", str(runs), "--name", "reference", "--total-steps", "384", "--seed", "3"]
    assert main(["reference", "debug", *FLAGS, *where]) == 0
    return runs / "reference"


def test_metrics_have_our_names_at_every_update(run_folder):
    lines = read_metrics(run_folder)
    assert [line["step"] for line in lines] == [128, 256, 384]
    wanted = {"policy/entropy", "policy/value_loss", "rollout/episodes", "time/steps_per_s", "time/learn_s"}
    assert wanted <= set(lines[-1])
    assert 0 < lines[0]["policy/entropy"] <= np.log(8) + 1e-6
    summary = json.loads((run_folder / "summary.json").read_text())
    assert summary["steps"] == 384 and summary["updates"] == 3 and summary["stopped_by"] is None


def test_its_weights_are_evaluated_as_ours_and_as_sb3s_with_the_same_actions(run_folder):
    ours, theirs = RunSource.of(run_folder), Sb3Source.of(run_folder / "model.zip")
    assert (theirs.algorithm, theirs.step, theirs.games) == ("ppo", 384, ours.games)
    assert theirs.name == "model-ppo-step-000000000384" and theirs.folder == run_folder / "eval"
    spec = games_spec(ours.config)
    rng = np.random.default_rng(1)
    obs = {key: rng.integers(0, 100, (64, *own.shape)).astype(own.dtype) for key, own in spec.obs.items()}
    acted = [source.build(spec).act(obs, None, None, EpisodeNoise(64)) for source in (ours, theirs)]
    np.testing.assert_array_equal(acted[0].actions, acted[1].actions)
    assert theirs.provenance()["algorithm"] == "ppo" and len(theirs.provenance()["sha256"]) == 64


def test_the_games_are_those_of_the_runs_workers():
    seeds = WorkerSeeds(5, 2, 3)
    assert [seeds.next(game) for game in (0, 4, 4)] == [
        TrainingSeeds(5, 0, 3).next(0),
        *(lambda worker: [worker.next(1), worker.next(1)])(TrainingSeeds(5, 1, 3)),
    ]
    again = WorkerSeeds(5, 2, 3)
    again.load_state_dict(seeds.state_dict())
    assert again.next(4) == seeds.next(4)


def test_every_hyper_parameter_arrives():
    ppo = PPOConfig(learning_rate=1e-4, anneal="linear", epochs=2, minibatch=16, gae_lambda=0.8, clip=0.1, entropy=0.02)
    config = preset("debug").replace(ppo=ppo, total_steps=1024)
    rollout = config.rollout.replace(games_per_worker=4, num_steps=16)
    model = ModelConfig(encoder=EncoderConfig(hidden=16))
    config = config.replace(rollout=rollout, model=model)
    venv = reference_env(config)
    try:
        assert isinstance(venv, GamesVecEnv) and venv.num_envs == 4
        sb3 = reference_ppo(config, venv)
        assert (sb3.n_steps, sb3.batch_size, sb3.n_epochs, sb3.gamma) == (16, 16, 2, 0.99)
        assert (sb3.gae_lambda, sb3.ent_coef, sb3.vf_coef, sb3.max_grad_norm) == (0.8, 0.02, 0.5, 0.5)
        assert sb3.clip_range(1.0) == 0.1 and sb3.seed == config.seed
        # Our learning rate falls with the steps before the batch, SB3's with those after it.
        assert sb3.lr_schedule(1 - 64 / 1024) == pytest.approx(1e-4)
        assert sb3.lr_schedule(0.0) == pytest.approx(1e-4 * 64 / 1024)
    finally:
        venv.close()


def test_a_weighed_reward_is_paid_to_sb3_too():
    config = parse(preset("debug"), ["--reward.env.weight", "0.5", *FLAGS[:4]], "test")
    venv = reference_env(config)
    try:
        assert isinstance(venv, RewardVecEnvWrapper)
        venv.reset()
        for _ in range(30):
            _, reward, _, infos = venv.step(np.zeros(2, int))
            own = np.array([info["env_reward"] for info in infos], np.float32)
            torch.testing.assert_close(torch.from_numpy(reward), torch.from_numpy(0.5 * own))
    finally:
        venv.close()
    assert RewardConfig().env == PartConfig()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["keyroom_oni"], "the environment's reward alone: reward.oni.weight is 0.1, allowed: 0"),
        (["keyroom", "--model.core", "gru"], "model.core is 'gru', allowed: none"),
        (["keyroom", "--env.task", "MiniHack-KeyRoom-S6-v0"], "env.task: unknown task"),
        (["keyrom"], "did you mean keyroom"),
        (["--seed", "1"], "reference needs a preset, or the id of a task"),
    ],
)
def test_what_the_reference_cannot_do_is_refused_before_a_folder_exists(flags, said, tmp_path, capsys):
    runs = ["--runs", str(tmp_path / "runs")] if flags[0] != "--seed" else []
    assert main(["reference", *flags, *runs]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_other_files_are_no_models(tmp_path):
    with pytest.raises(UserError, match="there is no Stable-Baselines3 model"):
        Sb3Source.of(tmp_path / "model.zip")
    (tmp_path / "model.zip").write_text("no zip")
    with pytest.raises(UserError, match="is not a model that Stable-Baselines3 saved"):
        Sb3Source.of(tmp_path / "model.zip")
