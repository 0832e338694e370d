import pytest

from launch.config.presets import preset
from launch.config.start import paying, starting_from
from launch.errors import UserError


def test_a_run_starts_from_a_preset_or_from_a_task():
    assert starting_from("keyroom") == preset("keyroom")
    config = starting_from("MiniHack-Room-5x5-v0")
    assert (config.env.task, config.preset) == ("MiniHack-Room-5x5-v0", "MiniHack-Room-5x5-v0")
    assert {name for name, part in config.reward.parts.items() if part.weight > 0} == {"env"}
    with pytest.raises(UserError, match=r"did you mean .*MiniHack-Room-5x5-v0"):
        starting_from("MiniHack-Room-5x5")


def test_rewards_are_paid_by_name():
    reward = preset("keyroom").reward
    assert (reward.oni.weight, reward.heron.weight) == (0.0, 0.0)
    both = paying(reward, ["heron", "oni"])
    assert (both.oni.weight, both.heron.weight, both.env) == (0.1, 0.3, reward.env)
    kept = paying(both.replace(oni=both.oni.replace(weight=0.7)), ["oni"])
    assert (kept.oni.weight, kept.heron.weight) == (0.7, 0.0)
    with pytest.raises(UserError, match="unknown reward 'honi'"):
        paying(reward, ["honi"])
