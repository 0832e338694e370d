import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rewards.heron.expressions import MAX_CHARS, parse_expression

COLUMNS = {
    "obs.hp": np.array([[10, 0], [3, 7]]),
    "obs.max_hp": np.array([[10, 12], [12, 14]]),
    "obs.gold": np.array([[0, 5], [0, 2]]),
    "obs.blind": np.array([[True, False], [False, True]]),
    "obs.message": np.array([["WHAMM!", ""], ["You kill the newt!", "WHAMM! WHAMM!"]]),
    "action": np.array([["kick", "north"], ["kick", "wait"]]),
    "obs.0": np.array([[0.5, -0.5], [1.0, 2.0]], np.float32),
    "prev_obs.1": np.array([[1.0, 1.0], [0.0, 3.0]], np.float32),
    "action.0": np.array([[1, 0], [0, 1]]),
}


def values(text):
    return parse_expression("f", text)(COLUMNS).tolist()


def problem(text, name="door"):
    with pytest.raises(ValueError) as caught:
        parse_expression(name, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("obs.hp / obs.max_hp * 12", [[12, 0], [3, 6]]),
        ("obs['hp'] // 2 - -obs.hp % 4", [[3, 0], [0, 2]]),
        ("2 * obs.hp ** 2", [[200, 0], [18, 98]]),
        ("0 < obs.hp < 10", [[0, 0], [1, 1]]),
        ("obs.blind + 1", [[2, 1], [1, 2]]),
        ("not obs.blind and obs.hp", [[0, 0], [3, 0]]),
        ("obs.hp or -1", [[10, -1], [3, 7]]),
        ("obs.hp if obs.blind else False", [[10, 0], [0, 7]]),
        ("'WHAMM' in obs.message", [[1, 0], [0, 1]]),
        ("'WHAMM' not in obs.message", [[0, 1], [1, 0]]),
        ("'' == obs.message", [[0, 1], [0, 0]]),
        ("action == 'kick' and 'WHAMM' in obs.message", [[1, 0], [0, 0]]),
        ("action != 'kick'", [[0, 1], [0, 1]]),
        ("abs(obs[0]) + max(prev_obs[1], 1, action[0]) - min(obs[0], 0)", [[1.5, 2], [2, 5]]),
        ("sqrt(obs.hp + 6 - 7 * (obs.hp == 0)) if obs.hp == 10 or obs.hp == 3 else log1p(0)", [[4, 0], [3, 0]]),
        ("True and obs.hp > 1", [[1, 0], [1, 1]]),
    ],
)
def test_hand_computed_values(text, expected):
    result = parse_expression("f", text)(COLUMNS)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected)


def test_columns_in_order_and_each_once():
    expression = parse_expression("f", "prev_obs.hp - obs.hp + obs[2] + prev_obs['hp'] + action[1] + (action == 'a')")
    assert expression.columns == ("prev_obs.hp", "obs.hp", "obs.2", "action.1", "action")


@pytest.mark.parametrize("over", ["sum", "mean", "last", "max", "min"])
def test_an_outermost_call_with_one_argument_names_the_reduction(over):
    expression = parse_expression("f", f" {over}(obs.hp - 1) ")
    assert expression.over == over
    assert expression(COLUMNS).tolist() == [[9, -1], [2, 6]]


def test_without_one_steps_are_summed_and_max_of_two_is_a_function():
    assert parse_expression("f", "obs.hp").over == "sum"
    assert parse_expression("f", "max(obs.hp, 4)").over == "sum"
    assert parse_expression("f", "max(max(obs.hp, 4))").over == "max"


def test_what_is_undefined_is_nan_and_does_not_get_lost():
    nan = math.nan
    np.testing.assert_equal(values("obs.hp / obs.gold"), [[nan, 0], [nan, 3.5]])
    for text in (
        "1 / (1 / obs.gold)", "1 / obs.gold > 3", "not (1 / obs.gold)", "max(1 / obs.gold, 5)", "(1 / obs.gold) ** 0",
        "(1 / obs.gold) and 1", "1 if obs.hp % obs.gold else 0", "sqrt(obs.gold - 1)", "obs.gold ** -1",
        "log1p(obs.gold - 7) if obs.gold == 0 else 1", "(obs.gold + 1e90) ** 8 * (obs.gold == 0)", "1 == 1 / obs.gold",
    ):  # fmt: skip
        result = np.array(values(text))
        assert np.isnan(result[[0, 1], [0, 0]]).all(), text


def test_what_a_condition_leaves_out_may_be_undefined():
    assert values("obs.hp / obs.gold if obs.gold else 0") == [[0, 0], [0, 3.5]]
    assert values("obs.gold and obs.hp / obs.gold > 3") == [[0, 0], [0, 1]]
    assert values("0 < obs.gold < 1 / obs.gold") == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(obs.hpp)", "factor 'door', character 5: unknown schema field 'obs.hpp'; nearest: obs.hp"),
        ("1 + hp", "character 5: unknown schema field 'hp'; nearest: obs.hp"),
        ("'é' in obs.message and obs.zzz", "character 24: unknown schema field 'obs.zzz'"),
        ("obs", "character 1: 'obs' needs a field"),
        ("obs.hp.real", "as obs.hp, not of 'obs.hp'"),
        ("hero.hp", "as obs.hp, not of 'hero'"),
        ("obs[-1]", "character 5: obs[...] needs the name of a field in quotes, or a number from 0 on"),
        ("obs[obs.hp]", "character 5"),
        ("obs[True]", "character 5"),
        ("info[0]", "unknown schema field 'info.0'"),
        ("obs.0 > 1", "character 1: write obs[0] for the column obs.0"),
        ("1 + obs.message", "character 5: obs.message is text where a number is needed"),
        ("obs.message", "character 1: obs.message is text where a number is needed"),
        ("'a'", "is text where a number is needed"),
        ("sum(obs.message)", "character 5: obs.message is text"),
        ("obs.message and 1", "character 1: obs.message is text"),
        ("1 < obs.message", "character 1: obs.message is text and 1 a number: they cannot be compared"),
        ("obs.message < 'a'", "texts can be compared with ==, != and 'in' only"),
        ("obs.hp is 3", "numbers can be compared with"),
        ("3 in obs.message", "character 1: left of 'in' stands a text in quotes, not 3"),
        ("action in obs.message", "character 1: left of 'in' stands a text in quotes, not action"),
        ("'a' in obs.hp", "character 8: right of 'in' stands a field of text, as obs.message, not obs.hp"),
        ("'a' in 'ab'", "character 8: right of 'in' stands a field of text"),
        ("'a key' in obs.message", "character 1: messages have N for numbers and 'the' for articles: write 'the key'"),
        ("'12 gold' in obs.message", "write 'N gold'"),
        ("lambda: 1", "character 1: 'lambda: 1' is not allowed here; allowed are fields"),
        ("[x for x in obs.hp]", "is not allowed here"),
        ("f'{obs.hp}'", "is not allowed here"),
        ("(y := obs.hp)", "is not allowed here"),
        ("__import__('os')", "character 1: the call '__import__('os')' is not allowed"),
        ("obs.hp.__class__()", "is not allowed; allowed are"),
        ("obs.hp & 1", "character 1: this operator is not allowed"),
        ("~obs.hp", "this operator is not allowed"),
        ("1 + mean(obs.hp)", "character 5: mean(...) takes one argument and stands outermost"),
        ("1 + max(obs.hp)", "character 5: max(...) takes two or more arguments"),
        ("max()", "takes two or more arguments"),
        ("abs(obs.hp, 1)", "abs(...) takes one argument, not 2"),
        ("abs(*obs.hp)", "character 5: '*obs.hp' is not allowed here"),
        ("sum(obs.hp, start=1)", "takes one argument"),
        ("2 ** obs.hp", "character 6: the exponent of ** must be a plain number from -8 to 8"),
        ("obs.hp ** 9", "the exponent of **"),
        ("obs.hp + 1e999", "numbers may be at most"),
        ("obs.hp + 2j", "is neither a number nor a text"),
        ("obs.hp == None", "is neither a number nor a text"),
        ("(obs.hp", "character 1: not an expression"),
        ("obs.hp +", "not an expression"),
        ("obs.hp\n+ 1", "character 7: '\\n' is not a character that can be printed"),
        ("", "the expression is empty"),
        ("3", "reads no field"),
        ("obs.hp" + " + 1" * 200, f"has 806 characters, allowed are {MAX_CHARS}"),
        ("obs.hp" + "+1" * 100, "has 202 parts, allowed are 100"),
        ("-" * 400 + "obs.hp", "allowed are 100"),
    ],
)
def test_errors_are_one_sentence_with_the_place(text, expected):
    message = problem(text)
    assert expected in message and message.startswith("factor 'door'")


@pytest.mark.parametrize("text", ["env_reward", "obs.env_reward", "info.env_reward", "info.reward", "obs['reward']"])
def test_the_environments_reward_is_out_of_reach(text):
    assert "unknown schema field" in problem(text)


_PIECES = st.sampled_from([
    "obs.hp", "prev_obs[0]", "action", "info", "'a'", '"', "in", "not ", " and ", "if", "else", "(", ")", "[", "]", "+",
    "-", "**", "//", "%", "<", "==", "max", "sum(", ",", "1", "2.5", "True", ".", "@", " ", "lambda", "é", ":=",
])  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of Python's parser, about odd numbers and escapes
@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60) | st.lists(_PIECES, max_size=12).map("".join))
@example("\x00")
@example("'\\")
@example("(" * 300)
@example("not " * 124 + "obs.hp")
@example("obs.hp if " * 49 + "1")
@example("\ud800")
def test_any_text_is_an_expression_or_a_value_error(text):
    try:
        expression = parse_expression("f", text)
    except ValueError as error:
        assert str(error)
    else:
        assert expression.columns


_ATOMS = st.sampled_from(["a", "b", "0", "1", "2", "3.5", "True", "False"])
_BINARY = st.sampled_from(["+", "-", "*", "/", "//", "%", "<", "<=", ">", ">=", "==", "!=", "and", "or"])
_UNARY = st.sampled_from(["-", "not ", "+", "abs({})", "({})"])


def _larger(inner):
    unary = st.builds(lambda op, x: op.format(x) if "{" in op else op + x, _UNARY, inner)
    power = st.builds("{} ** {}".format, _ATOMS, st.integers(-2, 3))
    choice = st.builds("{} if {} else {}".format, inner, inner, inner)
    extreme = st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner)
    return unary | power | choice | extreme | st.builds("{} {} {}".format, inner, _BINARY, inner)


@settings(deadline=None, max_examples=120)
@given(st.recursive(_ATOMS, _larger, max_leaves=8), st.integers(-3, 3), st.integers(-3, 3))
def test_precedence_and_values_are_those_of_python(text, a, b):
    python = "0 * a + (" + text + ")"
    try:
        compile(python, "", "eval")
    except SyntaxError:  # such as "1 + not 2"
        return
    try:
        expected = eval(python, {"__builtins__": {}}, {"a": a, "b": b, "abs": abs, "min": min, "max": max})
    except ZeroDivisionError:
        expected = math.nan
    if isinstance(expected, complex) or abs(expected) > 1e15:
        return
    ours = re.sub(r"\b[ab]\b", lambda found: {"a": "obs.hp", "b": "obs.gold"}[found[0]], python)
    columns = {"obs.hp": np.array([[a]]), "obs.gold": np.array([[b]])}
    np.testing.assert_allclose(parse_expression("f", ours)(columns), [[float(expected)]], rtol=1e-9, atol=1e-12)
