"""The module level: what constants and defaults may be, what components are declared, what reward takes."""

import pytest

from rewards.auto.language.admission import admit
from rewards.auto.program import ProgramRejectedError
from tests.rewards.auto.corpus import HEAD


def source_of(before, body="return 1.0"):
    return before + "\n" + HEAD + "".join(f"    {line}\n" for line in body.split("\n"))


def rejection(before, body="return 1.0"):
    with pytest.raises(ProgramRejectedError) as caught:
        admit(source_of(before, body))
    return caught.value.rejection


PLAIN = [
    "10 ** 3", "2 ** 0.5", "10 % 3", "1 << 4", "~1", "not 1", "1 < 2", "1 if 2 else 3", "1 or 2", "None", "True",
    "math.sqrt(2)", "math.fsum(x * x for x in [1, 2])", "float('inf')", "-float('inf')", "max(1, 2)", "max([1, 2])",
    "min([1], default=0)", "round(1.5, 1)", "divmod(7, 2)", "'a' + 'b'", "'a' * 3", "'%d' % 3", "f'{1 + 1:.2f}'",
    "('a',) + ('b',)", "[1][0]", "{'a': 1}['a']", "{'a': 1}.get('b', 2)", "len([1])", "(*[1], 2)", "tuple([1])",
    "frozenset({1, 2})", "range(5)", "sum([1, 2])", "sum([1, 2], 3)", "any(x > 1 for x in [1])", "isinstance(1, int)",
    "' '.join(['a'])", "' '.join(x for x in 'ab')", "'A'.lower()", "((1, 2), (3, (4, 5)))",
    "tuple(sorted(['b'], key=len))",
]  # fmt: skip
COLLECTIONS = [
    "[1, 2][:1]", "[*range(3)]", "{**{'a': 1}, 'b': 2}", "set([1])", "dict(a=1, key=(2,))", "list(range(5))",
    "[x * x for x in range(3)]", "{x for x in [1]}", "{k: 1 for k in ('a', 'b')}", "[y for x in ((1,),) for y in x]",
    "dict(zip(['a'], [1]))", "list(enumerate(['a'], 1))", "list(map(str, [1]))", "sorted({'b': 1, 'a': 2})",
    "sorted(['b'], key=len)", "list(reversed([1]))", "'a b'.split()", "{'a': 1}.keys()", "list({'a': 1}.items())",
    "{1}.union({2})", "[1].copy()", "dict.fromkeys(['a'], 0)", "[(1,), (2,)]", "{'a': ('b', 1)}", "[] and [1]",
    "[1] * 2", "[1] + [2]", "{1} | {2}", "[1] if 1 else [2]", "[k for k, *_ in [(1, 2)]]",
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN)
def test_what_cannot_be_changed_goes_anywhere(value):
    body = "held = [X]\nheld.append(X)\nreturn len(str(held))"
    assert admit(source_of(f"X = {value}\nY = X\nZ = [X, Y]\nW = {{'a': X}}", body))
    assert admit(source_of(f"def f(x={value}):\n    return x", "return len(str(f()))"))


@pytest.mark.parametrize("value", COLLECTIONS)
def test_collections_are_constant_and_lie_in_nothing_else(value):
    assert admit(source_of(f"X = {value}\nY = X\nZ = (len(X), *Y)", "return len(Y)"))
    for outer in (
        "[X]",
        "(X,)",
        "{'a': X}",
        "dict(a=X)",
        "{**{'a': X}}",
        "[X for _ in 'ab']",
        "max(X, [9])",
        "{}.get(1, X)",
    ):
        found = rejection(f"X = {value}\nY = {outer}")
        assert (found.code, found.line) == ("E13", 2) and "tuples" in found.hint
    found = rejection(f"def f(x={value}):\n    return x")
    assert found.code == "E26" and found.hint == "write None as the default, and make it in the function"


@pytest.mark.parametrize("value", ["[[1], [2]]", "{'a': {'b': 1}}", "{'a': [1]}", "({1: 2},)", "[[]]", "(1, (2, [3]))"])
def test_collections_within_others_are_refused_with_what_to_write(value):
    found = rejection(f"X = {value}")
    assert (found.code, found.line) == ("E13", 1)
    assert found.hint == "write tuples within it, ((1, 2), (3, 4)), or a constant for each"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("zip([1])", "used up"), ("(x for x in [1])", "used up"), ("reversed([1])", "used up"),
        ("map(str, [1])", "used up"),
        ("enumerate([1])", "used up"), ("filter(None, [1])", "used up"), ("[zip([1])]", "used up"),
        ("(zip([1]),)", "used up"), ("{'a': zip([1])}['a']", "used up"), ("[1] and zip([1])", "used up"),
        ("zip([1]) if 1 else 2", "used up"), ("max(zip([1]), zip([2]), key=bool)", "used up"),
        ("sum([], zip([1]))", "used up"), ("list(map(list, [[1]]))", "a function is called"),
        ("min([], default=zip([1]))", "used up"), ("dict(a=zip([1]))", "used up"),
        ("dict(key=zip([1]))", "used up"), ("dict.fromkeys([1], zip([1]))", "used up"),
        ("math.prod([], start=zip([1]))", "used up"), ("[zip(x) for x in ((1,),)]", "used up"),
        ("{}.get('a', zip([1]))", "used up"), ("next((x for x in []), 1)", "'next' is called"),
        ("lambda: 1", "lambda"), ("[lambda: 1]", "lambda"), ("f", "function 'f'"), ("{'hp': f}", "function 'f'"),
        ("len", "function 'len'"), ("f()", "'f' is called"), ("[f() for _ in range(2)]", "'f' is called"),
        ("list(map(f, [1]))", "a function is called"), ("sorted([1], key=lambda x: x)", "a function is called"),
        ("max([1], key=f)", "a function is called"), ("[1].append(2)", "'append'"), ("[1].pop()", "'pop'"),
        ("UNKNOWN", "not bound above"), ("(Y := 1)", "':='"), ("[(Y := x) for x in [1]]", "':='"),
    ],
)  # fmt: skip
def test_what_is_no_constant(value, reason):
    later = "\ndef f(x=1):\n    return x\nUNKNOWN = 1"
    found = rejection(f"X = {value}{later}")
    assert (found.code, found.line) == ("E13", 1)
    assert reason in found.reason and found.hint
    assert rejection(f"def g(x={value}):\n    return x{later}").code == "E26"


def test_functions_are_no_values_outside_functions():
    for line in ("g = lambda x: x", "g = f", "TERMS = {'hp': f}"):
        found = rejection(f"def f(x):\n    return x\n{line}")
        assert found.code == "E13" and "def" in found.hint


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("X = [1]\nX[0] = 2", "E12"),
        ("X = [1]\nX.append(2)", "E12"),
        ("X = 1\nX += 1", "E12"),
        ("X = {}\nX['a'], Y = 1, 2", "E12"),
        ("X = {}\nX['a'] = Y = 1", "E12"),
        ("X = []\nfor x in range(3):\n    X.append(x)", "E12"),
        ("X = 1\nX = 2", "E25"),
        ("X, X = 1, 2", "E25"),
        ("X = X = 1", "E25"),
        ("X, *X = 1, 2", "E25"),
        ("def f():\n    return 1\nf = 1", "E25"),
    ],
)
def test_constants_are_written_once(before, code):
    assert rejection(before).code == code


@pytest.mark.parametrize(
    "before",
    [
        "SPARSE = 'sparse'\nCOMPONENTS = {'goal': SPARSE}",
        "GOAL = 'goal'\nCOMPONENTS = {GOAL: 'sparse'}",
        "GOAL, SPARSE = 'goal', 'sparse'\nKIND = SPARSE\nCOMPONENTS = {GOAL: KIND}",
        "COMPONENTS: dict[str, str] = {'goal': 'Sparse'}",
        "COMPONENTS = KINDS = {'goal': 'SPARSE'}",
    ],
)
def test_components_are_read_through_constants(before):
    assert admit(source_of(before)).components == {"goal": "sparse"}


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("COMPONENTS = ['goal']", "a dict"),
        ("COMPONENTS = {'a b': 'dense'}", "letters, digits and _"),
        ("COMPONENTS = {'1a': 'dense'}", "letters, digits and _"),
        ("COMPONENTS = {'a__b': 'dense'}", "letters, digits and _"),
        (f"COMPONENTS = {{'{'a' * 65}': 'dense'}}", "at most 64"),
        ("COMPONENTS = {1: 'dense'}", "a text in quotes"),
        ("COMPONENTS = {'a' + 'b': 'dense'}", "a text in quotes"),
        ("COMPONENTS = {**{'a': 'dense'}}", "a text in quotes"),
        ("COMPONENTS = {GOAL: 'dense'}\nGOAL = 'goal'", "a text in quotes"),
        ("COMPONENTS = {'a': 'dense', 'a': 'sparse'}", "twice"),
        ("COMPONENTS = {'a': 'medium'}", "neither 'sparse' nor 'dense'"),
        ("COMPONENTS = {'a': 1}", "neither 'sparse' nor 'dense'"),
        ("COMPONENTS = {'sparse': ['goal']}", "the other way round"),
        ("COMPONENTS, X = [{'a': 'dense'}, 1]\nCOMPONENTS = {}", "twice"),
        ("COMPONENTS, *X = (('a', 'dense'), 1)", "a line of its own"),
    ],
)
def test_components_that_are_none(before, words):
    found = rejection(before)
    assert found.code == "E14" and words in found.reason + found.hint


@pytest.mark.parametrize("signature", ["obs, prev_obs, action, info=None", "obs, prev_obs=None, action='', info=None"])
def test_parameters_of_reward_may_have_defaults(signature):
    program = admit(f"def reward({signature}):\n    return obs['hp'] - info['died']\n")
    assert program.columns == ("obs.hp", "info.died")


@pytest.mark.parametrize(
    ("signature", "named"),
    [
        ("obs, prev_obs, action, info, **kw", "leave out '**kw'"),
        ("obs, prev_obs, action, info, *args", "leave out '*args'"),
        ("obs, prev_obs, action, info, *, x=1", "leave out '*'"),
        ("obs, prev_obs, /, action, info", "leave out '/'"),
        ("obs, prev_obs, action, *, info", "leave out '*'"),
        ("obs, prev_obs, action", "(obs, prev_obs, action)"),
    ],
)
def test_what_is_wrong_with_the_parameters_of_reward_is_named(signature, named):
    with pytest.raises(ProgramRejectedError) as caught:
        admit(f"def reward({signature}):\n    return 1.0\n")
    assert caught.value.rejection.code == "E11" and named in caught.value.rejection.reason
