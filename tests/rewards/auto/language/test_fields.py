"""Which fields a program reads, and which groups of them it gets whole."""

import pytest

from envs.schema import COLUMNS
from rewards.auto.language.admission import admit
from tests.rewards.auto.corpus import HEAD


def of_body(body, before=""):
    return admit(before + HEAD + "".join(f"    {line}\n" for line in body.split("\n")))


@pytest.mark.parametrize(
    ("body", "columns"),
    [
        ("o = prev_obs\nreturn o['hp']", "prev_obs.hp"),
        ("a, b = obs, info\nreturn a['hp'] + b['died']", "obs.hp info.died"),
        ("return (obs if action else prev_obs)['hp']", "obs.hp prev_obs.hp action"),
        ("return [o['hp'] for o in [obs]][0]", "obs.hp"),
        ("return sum(o['hp'] for o in (obs, prev_obs))", "obs.hp prev_obs.hp"),
        ("return sum(obs['hp'] for obs in (obs, prev_obs))", "obs.hp prev_obs.hp"),
        ("return sum(n * o['hp'] for n, o in ((1, obs), (2, prev_obs)))", "obs.hp prev_obs.hp"),
        ("def f(o):\n    o = o or {}\n    return o['hp']\nreturn f(obs)", "obs.hp"),
        ("if prev_obs is None:\n    prev_obs = obs\nreturn prev_obs['hp']", "obs.hp prev_obs.hp"),
        ("prev_obs = prev_obs or obs\nreturn prev_obs['hp']", "obs.hp prev_obs.hp"),
        ("if not info:\n    return 0\nreturn info['died']", "info.died"),
        ("return info['died'] if isinstance(info, dict) and info != None else 0", "info.died"),
        ("some = obs or info\nreturn some.get('hp', 0) + some.get('died', 0)", "obs.hp info.died"),
        ("action = action.lower()\nreturn action == 'kick'", "action"),
    ],
)
def test_names_of_groups_are_followed(body, columns):
    program = of_body(body)
    assert set(program.columns) == set(columns.split())
    assert not program.open_groups


@pytest.mark.parametrize(
    ("body", "columns"),
    [
        ("return obs['hp']", "obs.hp"),
        ("return prev_obs.get('hp', 0)", "prev_obs.hp"),
        ("return 1 if action == 'kick' else 0", "action"),
        ("return obs['gold'] if 'hp' in obs else info['died']", "obs.hp obs.gold info.died"),
        ("f = lambda: info['died']\nreturn f()", "info.died"),
        ("return [obs['hp'] for _ in range(2)][0]", "obs.hp"),
        ("def inner():\n    return obs['hp']\nreturn inner()", "obs.hp"),
        ("return f'{obs[\"hp\"]}'", "obs.hp"),
    ],
)
def test_constant_keys_are_columns(body, columns):
    program = of_body(body)
    assert program.columns == tuple(columns.split())
    assert not program.open_groups


@pytest.mark.parametrize(
    ("helper", "call", "columns"),
    [
        ("def f(obs):\n    return obs['hp']\n", "f(obs)", {"obs.hp"}),
        ("def f(obs):\n    return obs['hp']\n", "f(prev_obs)", {"prev_obs.hp"}),
        ("def f(o):\n    return o['hp']\n", "f(obs) - f(prev_obs)", {"obs.hp", "prev_obs.hp"}),
        ("def f(o):\n    return o['hp']\n", "f(o=obs)", {"obs.hp"}),
        ("def g(x):\n    return x['hp']\ndef f(o):\n    return g(o)\n", "f(obs)", {"obs.hp"}),
        ("def f(o, n):\n    return 0 if n < 0 else o['hp'] + f(o, n - 1)\n", "f(obs, 3)", {"obs.hp"}),
        ("def f(a, b):\n    return f(b, a) if a['hp'] > 1 else b['gold']\n", "f(obs, prev_obs)",
         {"obs.hp", "obs.gold", "prev_obs.hp", "prev_obs.gold"}),
    ],
)  # fmt: skip
def test_helpers_are_followed(helper, call, columns):
    program = of_body(f"return {call}", before=helper)
    assert set(program.columns) == columns
    assert not program.open_groups


@pytest.mark.parametrize(
    ("body", "groups"),
    [
        ("return obs['h' + 'p']", "obs"),
        ("return obs[action]", "obs"),
        ("return obs.get(action, 0)", "obs"),
        ("return sum(v for k, v in info.items() if k in obs)", "obs info"),
        ("return len(obs)", "obs"),
        ("o = [obs, prev_obs]\nreturn o[0]['hp']", "obs prev_obs"),
        ("a = b, c = obs, info\nreturn 0", "obs info"),
        ("a, *b = obs, info\nreturn 0", "obs info"),
        ("for o in (obs, *[info]):\n    pass\nreturn 0", "obs info"),
        ("return 1 if info else 0", "info"),
        ("return 1 if not info else 0", "info"),
        ("some = info or obs\nreturn some['hp']", "info"),
        ("d = dict(obs)\nd['a'] = 1\nreturn d['b']", "obs"),
        ("return 1 if action in info else 0", "info"),
        ("for key in info:\n    pass\nreturn 0", "info"),
        ("return (lambda o: o['hp'])(obs)", "obs"),
        ("return max([obs, prev_obs], key=lambda o: o['hp'])['hp']", "obs prev_obs"),
        ("match obs:\n    case {'hp': hp}:\n        return hp", "obs"),
        ("return {**info}['died']", "info"),
        ("def f(*o):\n    return o[0]['hp']\nreturn f(obs)", "obs"),
        ("def f(o):\n    return o['hp']\ng = f\nreturn g(obs)", "obs"),
        ("def f(a, o):\n    return o['hp']\nreturn f(*[1], obs)", "obs"),
        ("def f(o):\n    return [o for o in o]\nreturn len(f(info))", "info"),
        ("return 1 if 'hp' in obs == prev_obs else 0", "obs prev_obs"),
    ],
)
def test_groups_that_go_elsewhere_are_open(body, groups):
    program = of_body(body)
    assert program.open_groups == set(groups.split())
    assert {f"{group}.{name.partition('.')[2]}" for group in program.open_groups for name in COLUMNS
            if name.startswith(f"{group}.")} <= set(program.needed_columns)  # fmt: skip


def test_dictionaries_of_ones_own_may_be_written_by_helpers():
    program = of_body(
        "parts = {}\nadd(parts, 'a', obs['hp'])\nreturn parts", before="def add(d, k, v):\n    d[k] = v\n"
    )
    assert program.columns == ("obs.hp",)
