import numpy as np
import pytest

from envs.captions import canonical_of_raw
from launch.config.presets import paying, preset, starting_from
from launch.errors import UserError
from rewards.heron.factors import FactorTable

ACCIDENTS = {
    "river_narrow_heron": [b"You fall into the water!  You sink like the rock."],
    "locked_door_heron": [b"This door is locked.", b"Ouch!  That hurts!"],
    "wod_easy_heron": [b"You die...", b"The minotaur hits!"],
}
EVENTS = {
    "river_narrow_heron": [("filled", b"You push the boulder into the water.  Now you can cross it!")],
    "locked_door_heron": [("hits", b"WHAMM!!"), ("kicks", b"In what direction?")],
    "wod_easy_heron": [("killed", b"You kill the minotaur!")],
}


def _worth(factor, raw):
    """What one step with this message is worth to a factor that reads messages."""
    columns = {"obs.message": np.array([[canonical_of_raw(raw)]]), "action": np.array([["kick"]])}
    return float(factor.per_step({name: columns[name] for name in factor.columns})[0, 0])


@pytest.mark.parametrize("name", EVENTS)
def test_factors_that_read_messages_know_the_event_from_the_accident(name):
    factors = {one.name: one for one in FactorTable.from_ranking(preset(name).reward.heron.ranking).factors}
    for known, message in EVENTS[name]:
        assert _worth(factors[known], message) == 1
        assert [_worth(factors[known], accident) for accident in ACCIDENTS[name]] == [0] * len(ACCIDENTS[name])


def test_a_run_starts_from_a_preset_or_from_a_task():
    assert starting_from("keyroom") == preset("keyroom")
    config = starting_from("MiniHack-Room-5x5-v0")
    assert (config.env.task, config.preset) == ("MiniHack-Room-5x5-v0", "MiniHack-Room-5x5-v0")
    assert set(config.reward.paid) == {"env"}
    with pytest.raises(UserError, match=r"did you mean .*MiniHack-Room-5x5-v0"):
        starting_from("MiniHack-Room-5x5")


def test_rewards_are_paid_by_name():
    reward = preset("keyroom").reward
    assert (reward.oni.weight, reward.heron.weight) == (0.0, 0.0)
    both = paying(reward, ["heron", "oni"])
    assert (both.oni.weight, both.heron.weight, both.env) == (0.1, 0.3, reward.env)
    kept = paying(both.replace(oni=both.oni.replace(weight=0.7)), ["oni"])
    assert (kept.oni.weight, kept.heron.weight) == (0.7, 0.0)
    with pytest.raises(UserError, match="unknown reward 'honi'; did you mean"):
        paying(reward, ["honi"])
