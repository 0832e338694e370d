"""What passes between host and interpreter: arguments instead of dictionaries, short columns, the loop's answer."""

import numpy as np
import pytest

from rewards.auto.sandbox.engine import EngineError
from rewards.auto.sandbox.looping import answer_of, encode
from rewards.auto.sandbox.rewriting import plan_of
from tests.rewards.auto.written_programs import body, program


@pytest.mark.parametrize("came", [
    None, (), ([1.0], None, None), ([1.0], None, None, {}), (None, ["a"], [[1.0]], {}), (None, [1], [[1.0, 2.0]], {}),
    (None, ["a", "a"], [[1.0, 2.0]] * 2, {}), ([1.0, 2.0], None, None, {5: "x"}), ([1.0, 2.0], None, None, {0: 1}),
])  # fmt: skip
def test_an_answer_of_another_form_is_refused(came: object) -> None:
    with pytest.raises(EngineError, match="what came back"):
        answer_of(came, 2)


def test_encoding_is_short_where_it_can_be() -> None:
    assert encode(np.array([0, 255])).codes == b"\0\xff"
    assert encode(np.array([0, 255])).table is None
    below = encode(np.array([-2, 3]))
    assert (below.codes, below.table) == (b"\0\5", list(range(-2, 4)))
    far = encode(np.array([10**9, 5, 10**9]))
    assert (far.codes, far.table) == (b"\0\1\0", [10**9, 5])
    many = np.arange(300) * 7
    assert encode(many).codes == many.tolist()


@pytest.mark.parametrize(
    ("lines", "dictionaries"),
    [
        ("return obs['hp'] - prev_obs['hp']", []),
        ("return obs['hp'] + len(obs)", ["obs"]),
        ("obs['hp'] = 3\nreturn obs['hp']", ["obs"]),
        ("return [obs for obs in (1, 2)][0] + prev_obs['hp']", ["obs"]),
        ("return (lambda obs: obs['hp'])({'hp': 1})", ["obs"]),
        ("return obs['hp'] + obs['nonsense']", ["obs"]),
        ("match 3:\n    case obs:\n        return obs", ["obs"]),
        ("def f():\n    global prev_obs\nreturn obs['hp']", ["prev_obs"]),
    ],
)
def test_only_groups_of_which_nothing_but_constant_fields_is_read_become_arguments(
    lines: str, dictionaries: list[str]
) -> None:
    plan = plan_of(body(lines, "obs.hp", "prev_obs.hp"))
    groups = [column.split(".")[0] for p in plan.parameters if p.is_group for column in p.columns[:1]]
    assert groups == dictionaries


@pytest.mark.parametrize(
    "source",
    [
        "def reward(obs, prev_obs, action, info):\n    return obs['hp'] and reward({'hp': 0}, {}, '', {})\n",
        "def reward(obs, prev_obs, action, info=3):\n    return obs['hp']\n",
        "def reward(obs, prev_obs, action, info):\n    return obs['hp']\nalias = reward\n",
        "def reward(obs, *more):\n    return obs['hp']\n",
    ],
)
def test_an_unusual_function_stays_as_it_is(source: str) -> None:
    plan = plan_of(program(source, "obs.hp"))
    assert plan.source == source
    assert [p.is_group for p in plan.parameters] == [True, True, False, True]
