import numpy as np
import pytest

from envs.captions import canonical_of_raw
from launch.config.presets import preset

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
    factors = {one.name: one for one in preset(name).reward.heron.table().factors}
    for known, message in EVENTS[name]:
        assert _worth(factors[known], message) == 1
        assert [_worth(factors[known], accident) for accident in ACCIDENTS[name]] == [0] * len(ACCIDENTS[name])
