import pickle
import subprocess
import sys

import pytest
from pydantic import ValidationError

from envs.spec import GamesConfig
from envs.tasks import make, specs_of, task, task_ids


def test_ids_are_nle_minihack_and_ours():
    ids = task_ids()
    assert len(ids) == 160 and list(ids) == sorted(set(ids))
    assert {"NetHackScore-v0", "MiniHack-KeyRoom-S5-v0", "NetHackScoreExtended-v0"} <= set(ids)


def test_key_room_specification():
    spec = task("MiniHack-KeyRoom-S5-v0")
    compass = ("north", "east", "south", "west", "northeast", "southeast", "southwest", "northwest")
    assert spec.action_names == (*compass, "pickup", "apply")
    assert spec.keys[:4] == tuple(map(ord, "kljh"))
    assert (spec.max_episode_steps, spec.penalty_step, spec.character) == (200, -0.01, "rog-hum-cha-mal")
    assert spec.des is not None and not spec.level_drawn_each_episode


def test_extended_score_has_onis_28_actions():
    spec = task("NetHackScoreExtended-v0")
    assert len(spec.action_names) == len(set(spec.action_names)) == 28
    assert spec.action_names[23:] == ("cast", "quaff", "pray", "pickup", "pay")


def test_specifications_cross_processes():
    spec = task("MiniHack-MultiRoom-N2-v0")
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_an_unknown_id_is_one_sentence_with_the_nearest():
    with pytest.raises(ValueError, match=r"^unknown task 'MiniHack-KeyRoom-S6-v0'; did you mean .*KeyRoom-S5-v0"):
        task("MiniHack-KeyRoom-S6-v0")


def test_an_id_that_cannot_be_built_says_why():
    with pytest.raises(ValueError, match=r"^task 'MiniHack-Boxoban-Hard-v0' cannot be built: its level files"):
        task("MiniHack-Boxoban-Hard-v0")


def test_configuration_changes_reach_the_specification():
    config = GamesConfig(
        task="NetHackScore-v0, MiniHack-Room-5x5-v0", max_episode_steps=7, penalty_step=0.0, character="@"
    )
    specs = specs_of(config)
    assert [spec.id for spec in specs] == ["NetHackScore-v0", "MiniHack-Room-5x5-v0"]
    assert all((s.max_episode_steps, s.penalty_step, s.character) == (7, 0.0, "@") for s in specs)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("task", "a,,b", "must be a task id"),
        ("obs_keys", ("glyph",), "unknown observation key 'glyph'"),
        ("obs_keys", (), "at least one key"),
        ("crop", 8, "must be odd"),
        ("max_episode_steps", 0, "greater than or equal to 1"),
        ("character", "monk", "unknown character 'monk'"),
    ],
)
def test_bad_configuration_names_the_field(field, value, sentence):
    with pytest.raises(ValidationError, match=sentence) as error:
        GamesConfig(**{field: value})
    assert error.value.errors()[0]["loc"] == (field,)


def test_fewer_games_than_tasks():
    with pytest.raises(ValueError, match="2 tasks need at least one game each"):
        make(GamesConfig(task="NetHackScore-v0,MiniHack-Room-5x5-v0"), 1, None)


def test_configurations_load_without_games():
    code = "import sys, envs.spec, envs.tasks; print([m for m in ('nle', 'minihack', 'gymnasium') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
