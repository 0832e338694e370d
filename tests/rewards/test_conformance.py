"""The conformance suite itself, as users meet it."""

import numpy as np
import pytest

from envs.schema import COLUMNS
from rewards.conformance import check_reward_model, sample_rollout
from rewards.mix import EnvReward


class Locked(EnvReward):
    def evidence(self, rollout, output, state):
        return (lambda: None), state


def test_a_rollout_to_check_with_holds_columns_of_every_type():
    names = ("obs.x", "prev_obs.message", "info.new_tiles_seen", "action", "info.succeeded")
    rollout = sample_rollout(columns=names)
    kinds = {"int": "i", "bool": "b", "str": "U"}
    assert {name: column.dtype.kind for name, column in rollout.features.items()} == {
        name: kinds[COLUMNS[name].dtype] for name in names
    }
    assert len(np.unique(rollout.features["prev_obs.message"])) > 1
    check_reward_model(EnvReward, rollout)


def test_a_column_that_is_not_in_the_schema_is_refused():
    with pytest.raises(ValueError, match=r"obs\.hitpoints"):
        sample_rollout(columns=("obs.hitpoints",))


def test_evidence_must_cross_processes():
    with pytest.raises(AssertionError, match="evidence cannot be sent to another process"):
        check_reward_model(Locked, sample_rollout())
