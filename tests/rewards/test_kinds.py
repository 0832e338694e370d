"""Kinds of reward from outside: what is found, and what is refused in a sentence."""

import pickle
import subprocess
import sys

import pytest
from pydantic import ValidationError

from envs.data import RewardPart
from rewards.config import RewardConfig
from rewards.kinds import PlainReward, RewardError, custom_kind
from rewards.mix import build_mix

WHOLE = """
from rewards.kinds import RewardKind
from rewards.parts import PartConfig


class Mine(PartConfig):
    weight: float = 0.5
    size: int = 3


class Kind(RewardKind[Mine]):
    name = "mine"
    config = Mine
"""


@pytest.fixture
def written(tmp_path):
    """Writes a file of a kind; returns what names the kind."""

    def write(source):
        path = tmp_path / "own.py"
        path.write_text(source)
        return f"{path}:Kind"

    return write


def test_a_kind_from_a_file_has_a_field_of_its_own(written):
    source = written(WHOLE)
    config = RewardConfig.model_validate({"custom": [source], "mine": {"size": 5}})
    assert config.mine.size == 5 and list(config.paid) == ["env", "mine"]
    assert RewardConfig.model_validate_json(config.model_dump_json()) == config
    assert config.replace(mine={"weight": 0.0}).paying(["mine"]).mine.weight == custom_kind(source).usual_weight


def test_a_configuration_crosses_processes_that_have_not_imported_the_file(written):
    config = RewardConfig.model_validate({"custom": [written(WHOLE)], "mine": {"size": 5}})
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).mine.size)"
    sent = pickle.dumps(config)
    assert subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=True).stdout == b"5\n"
    assert pickle.loads(sent) == config
    assert pickle.loads(pickle.dumps(RewardConfig())) == RewardConfig()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "mine"', "", "must have a name of small letters, digits and _, not None"),
        ('name = "mine"', 'name = "my-own"', "must have a name of small letters, digits and _, not 'my-own'"),
        ('name = "mine"', 'name = "oni"', "is called 'oni', which means something else here"),
        ('name = "mine"', 'name = "intrinsic"', "is called 'intrinsic', which means something else here"),
        ('name = "mine"', 'name = "paid"', "is called 'paid', which means something else here"),
        ("config = Mine", "", "must have a config, a subclass of rewards.parts.PartConfig"),
        ("config = Mine", "config = dict", "must have a config, a subclass of rewards.parts.PartConfig"),
        ("size: int = 3", "size: int", "needs a default, and 'size' has none"),
        ("size: int = 3", "size: int = 1 / 0", r"cannot be imported: ZeroDivisionError: division by zero \(line 8\)"),
        ("class Mine", "klass Mine", "cannot be imported: SyntaxError: .*own.py, line 6"),
        ("from rewards.parts", "from rewards.nothing", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_is_no_whole_kind_is_refused(written, old, new, sentence):
    assert WHOLE.count(old) == 1
    with pytest.raises(ValidationError, match=sentence):
        RewardConfig.model_validate({"custom": [written(WHOLE.replace(old, new))]})


def test_two_kinds_of_one_name_are_refused(written):
    source = written(WHOLE)
    with pytest.raises(ValidationError, match="is called 'mine', and so is another"):
        RewardConfig.model_validate({"custom": [source, source]})


@pytest.mark.parametrize("custom", [None, 3, "own.py:Kind", [3]])
def test_a_list_of_names_is_asked_for(custom):
    with pytest.raises(ValidationError, match=r"valid (tuple|string)"):
        RewardConfig.model_validate({"custom": custom})


@pytest.mark.parametrize(("names", "said"), [((), "none"), (("own",), "own"), (("mine", "other"), "mine, other")])
def test_parts_are_called_as_their_kind_is(written, monkeypatch, names, said):
    class Reward(PlainReward):
        part_names = names

        def score(self, rollout, state):
            part = RewardPart(value=rollout.env_reward, valid=rollout.env_reward == 0)
            return dict.fromkeys(names, part), state

    source = written(WHOLE)
    monkeypatch.setattr(type(custom_kind(source)), "model", lambda self, config, context: Reward(), raising=False)
    config = RewardConfig.model_validate({"custom": [source]})
    with pytest.raises(RewardError, match=f"reward.mine: .*part_names must be 'mine'.*; they are {said}$"):
        build_mix(config, lambda name, part: None)
