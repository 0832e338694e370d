"""Training speed of the placements: short runs."""

import numpy as np
import pytest

from agents.config import EncoderConfig, ModelConfig, PPOConfig
from agents.model import ActorCritic
from envs.protocols import GamesSpec, ObsSpec
from launch.bench.harness import alternate
from launch.bench.training import TrainBench, measure
from launch.errors import UserError

TINY = TrainBench(
    batch=32, games=2, ppo=PPOConfig(minibatch=16, epochs=1), model=ModelConfig(encoder=EncoderConfig(hidden=16))
)


@pytest.mark.parametrize("task", ["MiniHack-Room-5x5-v0", "NetHackScore-v0"])
def test_training_is_measured_in_whole_updates(task):
    system = TINY.replace(task=task).placement_spec("yendor").build()
    try:
        system.warm_up()
        measured = system.run_round(0.2)
    finally:
        system.close()
    assert measured.steps > 0 and measured.steps % 32 == 0 and measured.seconds >= 0.2
    assert all(measured.split[activity] > 0 for activity in ("games", "inference", "learn"))
    assert sum(measured.split.values()) <= 1.001


@pytest.mark.slow
def test_placements_of_several_processes_are_measured_in_turn():
    specs = [TINY.placement_spec(name) for name in ("yendor-split", "yendor-symmetric")]
    found = alternate(specs, 2, 0.5, report=lambda text: None)
    assert [len(own) for own in found.values()] == [2, 2]
    assert all(r.steps % 32 == 0 and r.steps > 0 and r.memory_mb > 100 for own in found.values() for r in own)
    assert "wait" in found["yendor-split"][0].split


def test_all_have_the_same_batch_and_games():
    specs = [TINY.placement_spec(name) for name in TINY.placements()]
    assert [spec.config.rollout.num_workers for spec in specs] == [0, 2, 2]
    assert [spec.config.rollout.games_per_worker for spec in specs] == [2, 1, 1]
    assert {spec.config.batch_steps for spec in specs} == {32}


def test_the_default_is_the_reference_network():
    config = TrainBench().train_config(16)
    shapes = {
        "glyphs_crop": ObsSpec(shape=(9, 9), dtype=np.dtype(np.int16)),
        "blstats": ObsSpec(shape=(27,), dtype=np.dtype(np.int64)),
    }
    assert set(config.env.obs_keys) == set(shapes)
    spec = GamesSpec(tasks=("a",), obs=shapes, action_names=tuple("abcdefgh"), has_messages=False)
    num_parameters = sum(p.numel() for p in ActorCritic(config.model, spec, 1).parameters())
    assert 0.88e6 < num_parameters < 0.91e6
    assert (config.batch_steps, config.ppo.minibatch, config.ppo.epochs) == (2048, 512, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"systems": "yendor,yendor-splt"}, "unknown system 'yendor-splt'; did you mean yendor-split"),
        ({"task": "MiniHack-Room-6x6-v0"}, "unknown task 'MiniHack-Room-6x6-v0'"),
        ({"batch": 8}, "ppo.minibatch 16 is larger than a batch of 8 steps"),
        ({"games": 5}, "batch 32 cannot be dealt evenly over 5 games"),
        ({"games": 1}, "games 1 cannot be dealt evenly over workers 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        measure(TINY.replace(**changes))
