import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from envs.data import FinalObs, Rollout
from envs.features import FeatureTable
from rewards.heron.columns import check_columns, columns_of
from rewards.heron.factors import CATALOGUE, REDUCTIONS, Factor, FactorError, FactorTable, factor, parse_ranking

SUCCESSFUL, DEATH = 2, 1


def rollout_of(features=None, ends=(), status=None, env_reward=None, obs=None, finals=None, actions=None, T=3, B=2):
    """A rollout of T steps; ``ends`` are the (t, b) of episodes that terminate there."""
    terminated = np.zeros((T, B), bool)
    for t, b in ends:
        terminated[t, b] = True
    return Rollout(
        obs=obs or {},
        actions=np.zeros((T, B), np.int64) if actions is None else actions,
        env_reward=np.zeros((T, B), np.float32) if env_reward is None else np.array(env_reward, np.float32),
        terminated=terminated,
        truncated=np.zeros((T, B), bool),
        end_status=np.zeros((T, B), np.int8) if status is None else np.array(status, np.int8),
        final_obs=FinalObs(at=np.argwhere(terminated), obs=finals or {}),
        policy_version=np.zeros((T, B), np.int64),
        episode_id=np.zeros((T, B), np.int64),
        step_in_episode=np.zeros((T, B), np.int32),
        features={name: np.array(column) for name, column in (features or {}).items()},
    )


# Game 0 plays three steps and wins with the last; game 1 dies at its second step and starts again.
GAME = rollout_of(
    features={
        "obs.depth": [[1, 3], [2, 2], [1, 1]],
        "prev_obs.xp_level": [[1, 4], [1, 4], [3, 1]],
        "obs.xp_level": [[1, 4], [3, 3], [3, 1]],
        "obs.hp": [[6, 2], [9, 0], [12, 14]],
        "obs.max_hp": [[12, 8], [12, 8], [12, 14]],
        "prev_obs.gold": [[0, 9], [7, 9], [7, 0]],
        "obs.gold": [[7, 9], [7, 0], [2, 0]],
        "info.new_tiles_seen": [[5, 0], [0, 2], [1, 3]],
        "info.inventory_change": [[1, 0], [-1, 0], [2, 0]],
        "obs.message": [
            ["You kill the newt! You destroy the kobold zombie!", "You are killed by the newt."],
            ["You kill it!\nYou kill poor kitten!", "The newt is killed."],
            ["The kitten kills the newt.", "You destroyed it? You killed it?"],
        ],
        "obs.hunger": [[1, 0], [2, 0], [3, 6]],
        "prev_obs.turn": [[1, 50], [2, 50], [5, 1]],
        "obs.turn": [[2, 50], [5, 51], [5, 2]],
        "info.steps_since_change": [[0, 7], [1, 0], [2, 0]],
    },
    ends=[(1, 1), (2, 0)],
    status=[[0, 0], [0, DEATH], [SUCCESSFUL, 0]],
    env_reward=[[0, 0], [0, -1], [1, 0]],
)

BY_HAND = {
    # Steps of game 0, its segment; steps of game 1's first episode, its segment.
    "success": ([0, 0, 1], 1, [0, 0], 0),
    "alive": ([0, 0, 0], 0, [0, -1], -1),
    "max_depth": ([1, 2, 1], 2, [3, 2], 3),
    "xp_level": ([0, 2, 0], 2, [0, -1], -1),
    "hp": ([0.5, 0.75, 1], 0.75, [0.25, 0], 0.125),
    "gold": ([7, 0, -5], 2, [0, -9], -9),
    "new_tiles": ([5, 0, 1], 6, [0, 2], 2),
    "items": ([1, -1, 2], 2, [0, 0], 0),
    "kills": ([2, 2, 0], 4, [0, 0], 0),
    "hunger": ([1, 2, 3], 2, [0, 0], 0),
    "turns": ([1, 3, 0], 4, [0, 1], 1),
    "no_progress": ([0, 1, 1], 2, [1, 0], 1),
}


def test_every_catalogue_factor_is_computed_by_hand():
    assert list(BY_HAND) == list(CATALOGUE)
    table = FactorTable(parse_ranking(list(CATALOGUE)))
    steps = table.per_step(GAME)
    assert steps.shape == (3, 2, 12) and steps.dtype == np.float64
    segments = table.over_segments(np.concatenate([steps[:, 0], steps[:2, 1]]), np.array([3, 2]))
    for place, (name, (won, won_all, lost, lost_all)) in enumerate(BY_HAND.items()):
        assert steps[:, 0, place].tolist() == won, name
        assert steps[:2, 1, place].tolist() == lost, name
        assert segments[:, place].tolist() == [won_all, lost_all], name


def test_the_catalogue_is_described_and_its_columns_can_be_computed():
    for name, known in CATALOGUE.items():
        assert known.name == name and known.sign == 1 and known.description.endswith(".")
    assert {name for name, known in CATALOGUE.items() if known.margin == 0} == {"success", "alive"}
    FeatureTable(FactorTable(list(CATALOGUE.values())).columns, num_games=1)


def test_signs_are_those_that_are_written():
    table = FactorTable(parse_ranking(["-turns", "hunger", "gold", "- hp @ .5"]))
    assert table.signs.tolist() == [-1, 1, 1, -1]
    # The table itself applies none.
    assert FactorTable(parse_ranking(["-gold"])).per_step(GAME)[0, 0].tolist() == [7]


def test_margins_and_expressions_are_read():
    ranking = [" success ", "gold@2.5", "-door = mean('@ = x' in obs.message) @ 1e-1", "at = '@' in obs.message"]
    success, gold, door, at = parse_ranking(ranking)
    assert (success.margin, gold.margin, door.margin, at.margin) == (0, 2.5, 0.1, None)
    assert (door.name, door.sign, door.over, door.columns) == ("door", -1, "mean", ("obs.message",))
    assert door.description == "mean('@ = x' in obs.message)"
    assert parse_ranking(["success@3"])[0].margin == 3


def test_factors_may_stand_between_texts():
    @factor("obs.hp", over="min", margin=2)
    def wounds(columns):
        """Least hit points.

        More of it.
        """
        return columns["obs.hp"]

    ranking = parse_ranking(["success", wounds, CATALOGUE["gold"]])
    assert [one.name for one in ranking] == ["success", "wounds", "gold"]
    assert (wounds.over, wounds.margin, wounds.sign, wounds.description) == ("min", 2, 1, "Least hit points.")
    assert FactorTable(ranking).per_step(GAME)[:, 0, 1].tolist() == [6, 9, 12]


@pytest.fixture
def users_module(monkeypatch):
    module = ModuleType("heron_users_module")
    module.kicks = Factor(
        name="theirs", columns=("action",), per_step=lambda columns: columns["action"] == "kick", sign=-1, margin=1
    )
    module.plain = len
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def test_a_users_own_factor_gets_the_rankings_name_sign_and_margin(users_module):
    as_is, minus = parse_ranking([f"a={users_module}:kicks", f"-b = {users_module} : kicks @3"])
    assert (as_is.name, as_is.sign, as_is.margin) == ("a", -1, 1)
    assert (minus.name, minus.sign, minus.margin) == ("b", -1, 3)


def test_faults_of_a_users_module_are_named(users_module):
    for entry, expected in {
        f"a={users_module}:kick": f"the module '{users_module}' has no 'kick'; factors in it: kicks",
        f"a={users_module}:plain": "is a builtin_function_or_method, not a Factor: decorate a function with @factor",
        "a=no_such.module:kick": "cannot import the module 'no_such.module' of factor 'a': ModuleNotFoundError: "
        "No module named 'no_such'; PYTHONPATH must lead to its folder",
    }.items():
        with pytest.raises(ValueError, match="ranking entry 1: ") as caught:
            parse_ranking([entry])
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("kicks = Factor()", "NameError: name 'Factor' is not defined"),
        ("from rewards.heron.factors import Factor\nkicks = Factor()", "TypeError: "),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("def kicks(:", "SyntaxError: "),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("assert False", "AssertionError"),
    ],
)
def test_whatever_a_users_module_raises_is_one_sentence(tmp_path, monkeypatch, code, expected):
    (tmp_path / "heron_faulty_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError) as caught:
        parse_ranking(["success", "kicks = heron_faulty_module:kicks"])
    said = str(caught.value)
    assert said.startswith("ranking entry 2: cannot import the module 'heron_faulty_module' of factor 'kicks': ")
    assert expected in said and "\n" not in said and "PYTHONPATH" not in said and not said.endswith(":")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("dephts", "unknown factor 'dephts'; nearest: max_depth"),
        ("qqq", "unknown factor 'qqq'; known are success, alive"),
        ("success", "there is a factor 'success' already"),
        ("success = obs.hp", "there is a factor 'success' already"),
        ("", "has no name"),
        ("-", "has no name"),
        ("= obs.hp", "has no name"),
        ("@3", "has no name"),
        ("--turns", "'-turns' cannot name a factor"),
        ("my door = obs.hp", "'my door' cannot name a factor"),
        ("gold@", "margin '' is not a number of at least 0"),
        ("gold@much", "margin 'much' is not a number of at least 0"),
        ("gold@-1", "margin '-1' is not a number of at least 0"),
        ("gold@nan", "margin 'nan' is not"),
        ("gold@inf", "margin 'inf' is not"),
        ("door = sum(obs.hpp)", "factor 'door', character 5: unknown schema field 'obs.hpp'; nearest: obs.hp"),
        ("gold=", "factor 'gold': the expression is empty"),
        ("r = env_reward", "unknown schema field 'env_reward'"),
        (3, "expected [-]NAME[=EXPRESSION][@MARGIN] or a Factor, not 3"),
    ],
)
def test_errors_name_the_entry(entry, expected):
    with pytest.raises(ValueError) as caught:
        parse_ranking(["success", entry])
    assert str(caught.value).startswith("ranking entry 2: ") and expected in str(caught.value)


def test_a_ranking_is_a_list_that_is_not_empty():
    for ranking in ([], "success"):
        with pytest.raises(ValueError, match="a ranking is a list"):
            parse_ranking(ranking)


# No colon: what stands around it is imported.
@pytest.mark.filterwarnings("ignore")  # of Python's parser, about odd numbers and escapes
@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(blacklist_characters=":"), max_size=30) | st.text("-=@'\"ab1. ()<", max_size=20))
def test_any_text_is_an_entry_or_a_value_error(entry):
    try:
        (parsed,) = parse_ranking([entry])
    except ValueError as error:
        assert str(error).startswith("ranking entry 1: ")
    else:
        assert isinstance(parsed, Factor)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "a b"}, "'a b' cannot name a factor"),
        ({"columns": ()}, "factor 'f' reads no column"),
        ({"columns": ("env_reward",)}, "factor 'f': unknown schema field 'env_reward'"),
        ({"over": "median"}, "factor 'f' has over='median', allowed are sum, mean, last, max, min"),
        ({"sign": 0}, "factor 'f' has the sign 0"),
        ({"margin": -1.0}, "factor 'f' has the margin -1.0"),
        ({"margin": float("nan")}, "factor 'f' has the margin nan"),
    ],
)
def test_a_factor_checks_its_fields(fields, expected):
    with pytest.raises(ValueError) as caught:
        Factor(**({"name": "f", "columns": ("obs.hp",), "per_step": len} | fields))
    assert expected in str(caught.value)


def test_the_decorator_wants_columns():
    for misuse in (lambda: factor(), lambda: factor(len)):
        with pytest.raises(ValueError, match="@factor needs the names of the columns"):
            misuse()


def one_factor(per_step, columns=("obs.hp", "obs.gold")):
    return FactorTable([Factor(name="mine", columns=columns, per_step=per_step)])


@pytest.mark.parametrize(
    ("per_step", "expected"),
    [
        (lambda c: c["obs.hp"][0], "factor 'mine' has the shape [2], expected [T, B] = [3, 2]"),
        (lambda c: c["obs.hp"].astype(str), "factor 'mine' gives <U21, expected numbers or booleans"),
        (lambda c: c["obs.turn"], "factor 'mine' reads 'obs.turn', which it did not name; named: obs.hp, obs.gold"),
        (lambda c: np.where(c["obs.hp"] == 0, np.nan, 1), "factor 'mine' is not finite at step 1 of game 1"),
        (lambda c: np.where(c["obs.gold"] == 2, np.inf, 1), "factor 'mine' is not finite at step 2 of game 0"),
        (lambda c: np.subtract(c["obs.hp"], 1, out=c["obs.hp"]), "read-only"),
        (lambda c: {}["door"], "factor 'mine' failed: KeyError: 'door'"),
        (lambda c: c["obs.hp"] + "1", "factor 'mine' failed: UFuncTypeError: ufunc 'add' did not contain"),
        (lambda: 1, "factor 'mine' failed: TypeError: "),
        (lambda c: [[1], [1, 2]], "factor 'mine' failed: ValueError: "),
    ],
)
def test_what_a_factor_gives_is_checked(per_step, expected):
    with pytest.raises(FactorError) as caught:
        one_factor(per_step).per_step(GAME)
    assert expected in str(caught.value)


def test_a_division_by_zero_is_an_error_and_not_a_zero():
    table = FactorTable(parse_ranking(["success", "share = obs.gold / obs.hp"]))
    with pytest.raises(FactorError, match="factor 'share' is not finite at step 1 of game 1"):
        table.per_step(GAME)
    guarded = FactorTable(parse_ranking(["share = obs.gold / obs.hp if obs.hp else -1"]))
    assert guarded.per_step(GAME)[:, 1, 0].tolist() == [4.5, -1, 0]


def test_nothing_is_normalised():
    small, large = (FactorTable(parse_ranking([f"f = obs.gold * {k}"])) for k in (1, 1000))
    np.testing.assert_array_equal(small.per_step(GAME) * 1000, large.per_step(GAME))


def test_a_table_has_distinct_columns_and_names():
    table = FactorTable(parse_ranking(["hp", "success", "x = obs.hp - prev_obs.hp"]))
    assert table.names == ("hp", "success", "x")
    assert table.columns == ("obs.hp", "obs.max_hp", "info.succeeded", "prev_obs.hp")
    for factors in ([], [CATALOGUE["hp"], CATALOGUE["hp"]]):
        with pytest.raises(ValueError, match="factors need a name of their own each"):
            FactorTable(factors)


NAIVE = {"sum": np.sum, "mean": np.mean, "last": lambda x: x[-1], "max": np.max, "min": np.min}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 7), max_size=8), st.data())
def test_over_segments_is_what_a_loop_gives(lengths, data):
    assert NAIVE.keys() == REDUCTIONS.keys()
    overs = ["max", "sum", "last", "mean", "sum", "min"]
    table = FactorTable([Factor(name=f"f{i}", columns=("obs.hp",), per_step=len, over=o) for i, o in enumerate(overs)])
    steps = data.draw(arrays.arrays(np.float64, (sum(lengths), len(overs)), elements=st.floats(-1e6, 1e6)))
    values = table.over_segments(steps, np.array(lengths, np.int64))
    assert values.shape == (len(lengths), len(overs))
    start = 0
    for row, length in zip(values, lengths, strict=True):
        segment = steps[start : start + length]
        expected = [NAIVE[over](segment[:, place]) for place, over in enumerate(overs)]
        np.testing.assert_allclose(row, expected, rtol=1e-9, atol=1e-6)
        start += length


def test_lengths_that_do_not_fit_are_refused():
    table = FactorTable([CATALOGUE["gold"]])
    for lengths in ([2, 2], [3, 0]):
        with pytest.raises(ValueError, match="do not divide 3 steps"):
            table.over_segments(np.zeros((3, 1)), np.array(lengths))


def vector_game(actions=None):
    obs = np.arange(4 * 2 * 2, dtype=np.float32).reshape(4, 2, 2)
    finals = {"vector": np.array([[70.0, 71.0]], np.float32)}
    status = [[0, 0], [0, DEATH], [0, 0]]
    return rollout_of(obs={"vector": obs}, finals=finals, ends=[(1, 1)], status=status, actions=actions)


def test_components_of_vectors_are_columns():
    actions = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    names = ["obs.1", "prev_obs.1", "action.0", "info.died", "obs.1"]
    columns = columns_of(vector_game(actions), names)
    assert list(columns) == ["obs.1", "prev_obs.1", "action.0", "info.died"]
    # Where the episode ended it is the last observation of that episode, not the first of the next.
    assert columns["obs.1"].tolist() == [[5, 7], [9, 71], [13, 15]]
    assert columns["prev_obs.1"].tolist() == [[1, 3], [5, 7], [9, 11]]
    assert columns["action.0"].tolist() == [[0, 2], [4, 6], [8, 10]]
    assert columns["info.died"].tolist() == [[False, False], [False, True], [False, False]]
    table = FactorTable(parse_ranking(["alive", "-speed = abs(obs[1] - prev_obs[1]) + action[0]@1"]))
    assert table.per_step(vector_game())[1].tolist() == [[0, 4], [-1, 64]]


def test_columns_that_are_not_there_are_named():
    for rollout, name, expected in (
        (vector_game(), "obs.2", "the rollout holds no column 'obs.2': there are 2 components, from 0 on"),
        (vector_game(), "action.1", "the rollout holds no column 'action.1': there are 1 components"),
        (GAME, "obs.0", "the rollout holds no column 'obs.0': its observation is not one vector"),
        (GAME, "obs.x", "the rollout holds no schema field 'obs.x'"),
        (GAME, "info.env_reward", "unknown schema field 'info.env_reward'; nearest: "),
    ):
        with pytest.raises(ValueError) as caught:
            columns_of(rollout, [name])
        assert expected in str(caught.value)
    for name in ("obs.00", "info.0", "obs.-1", "env_reward", "reward", "obs.reward"):
        with pytest.raises(ValueError, match="unknown schema field"):
            check_columns([name])
