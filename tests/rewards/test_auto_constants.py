"""What constants and defaults may be, where they may go, and that admission lets nothing change them."""

import pytest

from rewards.auto.admission import admit
from rewards.auto.program import ProgramRejectedError
from rewards.auto.syntax.answering import answered
from tests.rewards.auto.corpus import HEAD


def source_of(before, body="return 1.0"):
    return before + "\n" + HEAD + "".join(f"    {line}\n" for line in body.split("\n"))


def rejection(before, body="return 1.0"):
    with pytest.raises(ProgramRejectedError) as caught:
        admit(source_of(before, body), answered)
    return caught.value.rejection


@pytest.mark.parametrize(
    "value",
    [
        "10 ** 3", "2 ** 0.5", "10 % 3", "1 << 4", "~1", "not 1", "1 < 2", "1 if 2 else 3", "1 or 2",
        "math.sqrt(2)", "math.fsum(x * x for x in [1, 2])", "float('inf')", "-float('inf')", "max(1, 2)", "max([1, 2])",
        "min([1], default=0)", "round(1.5, 1)", "divmod(7, 2)", "'a' + 'b'", "'a' * 3", "'%d' % 3", "f'{1 + 1:.2f}'",
        "('a',) + ('b',)", "[1][0]", "[1, 2][:1]", "{'a': 1}['a']", "{'a': 1}.get('b', 2)", "len([1])", "(*[1], 2)",
        "[*range(3)]", "{**{'a': 1}, 'b': 2}", "tuple([1])", "frozenset({1, 2})", "set([1])", "dict(a=1, key=[2])",
        "range(5)", "list(range(5))", "sum([1, 2])", "sum([1, 2], 3)", "any(x > 1 for x in [1])", "isinstance(1, int)",
        "[x * x for x in range(3)]", "{x for x in [1]}", "{k: 1 for k in ('a', 'b')}", "[y for x in [[1]] for y in x]",
        "dict(zip(['a'], [1]))", "list(enumerate(['a'], 1))", "list(map(str, [1]))", "list(map(math.sqrt, [1]))",
        "list(filter(None, [0, 1]))", "sorted({'b': 1, 'a': 2})", "sorted(['b'], key=len)", "list(reversed([1]))",
        "'a b'.split()", "' '.join(['a'])", "' '.join(x for x in 'ab')", "'A'.lower()", "{'a': 1}.keys()",
        "list({'a': 1}.items())", "{1}.union({2})", "[1].copy()", "dict.fromkeys(['a'], 0)", "[[1], [2]]",
        "{'a': {'b': [1]}}", "next((x for x in [1]), None)", "None", "True", "[] and [1]",
    ],
)  # fmt: skip
def test_what_is_computed_from_literals_is_constant(value):
    assert admit(source_of(f"X = {value}\nY = X\nZ = [X, Y]"), answered)
    assert admit(source_of(f"def f(x={value}):\n    return x", "return len(str(f()))"), answered)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("zip([1])", "used up"), ("(x for x in [1])", "used up"), ("reversed([1])", "used up"),
        ("map(str, [1])", "used up"),
        ("enumerate([1])", "used up"), ("filter(None, [1])", "used up"), ("[zip([1])]", "used up"),
        ("(zip([1]),)", "used up"), ("{'a': zip([1])}['a']", "used up"), ("[1] and zip([1])", "used up"),
        ("zip([1]) if 1 else 2", "used up"), ("max(zip([1]), zip([2]), key=bool)", "used up"),
        ("sum([], zip([1]))", "used up"), ("min([], default=zip([1]))", "used up"), ("dict(a=zip([1]))", "used up"),
        ("dict(key=zip([1]))", "used up"), ("dict.fromkeys([1], zip([1]))", "used up"),
        ("math.prod([], start=zip([1]))", "used up"), ("[zip(x) for x in [[1]]]", "used up"),
        ("{}.get('a', zip([1]))", "used up"), ("next((x for x in []), zip([1]))", "used up"),
        ("lambda: 1", "lambda"), ("[lambda: 1]", "lambda"), ("f", "function 'f'"), ("{'hp': f}", "function 'f'"),
        ("len", "function 'len'"), ("f()", "'f' is called"), ("[f() for _ in range(2)]", "'f' is called"),
        ("list(map(f, [1]))", "a function is called"), ("sorted([1], key=lambda x: x)", "a function is called"),
        ("max([1], key=f)", "a function is called"), ("[1].append(2)", "'append'"), ("[[1]][0].pop()", "'pop'"),
        ("UNKNOWN", "not bound above"), ("(Y := 1)", "':='"), ("[(Y := x) for x in [1]]", "':='"),
    ],
)  # fmt: skip
def test_what_is_no_constant(value, reason):
    later = "\ndef f(x=1):\n    return x\nUNKNOWN = 1"
    found = rejection(f"X = {value}{later}")
    assert (found.code, found.line) == ("E13", 1)
    assert reason in found.reason and found.hint
    assert rejection(f"def g(x={value}):\n    return x{later}").code == "E26"


ALIASES = [
    "S = <>\nT = S",
    "S = <>\nT, U = S, 1",
    "S = T = <>",
    "S = <>\nT = [S][0]",
    "S = <>\nT = max([S])",
    "T, *U = [<>]",
]


@pytest.mark.parametrize("before", ALIASES)
def test_every_name_of_a_constant_is_watched(before):
    before = before.replace("<>", "[1]")
    assert admit(source_of(before, "return len(T)"), answered)
    assert rejection(before, "T.append(1)\nreturn 1").code == "E13"


CHANGES = {
    "directly": ("[]", "S.append(1)"),
    "item": ("[1]", "S[0] = 2"),
    "slice": ("[1]", "S[:] = []"),
    "item_among_targets": ("[1]", "x, S[0] = 1, 2"),
    "starred_slice": ("[1]", "[*S[0:1], x] = 1, 2"),
    "item_in_place": ("{'a': 1}", "S['a'] += 1"),
    "inner_item": ("{'a': {}}", "S['a']['b'] = 1"),
    "inner_method": ("{'a': []}", "S.get('a').append(1)"),
    "setdefault": ("{}", "S.setdefault('a', 1)"),
    "alias": ("[]", "s = S\ns.append(1)"),
    "alias_in_place": ("[]", "s = S\ns += [1]"),
    "alias_in_place_by_text": ("[]", "s = S\ns += 'ab'"),
    "alias_repeated": ("[1]", "s = S\ns *= 2"),
    "alias_minus": ("{1}", "s = S\ns -= {1}"),
    "alias_or": ("{'a': 1}", "s = S\ns |= {'b': 2}"),
    "alias_of_the_alias": ("[]", "a = b = S\nc = b\nc.append(1)"),
    "alias_below": ("[]", "for _ in range(2):\n    s.append(1) if _ else 0\n    s = S"),
    "parameter": ("[]", "def f(x):\n    x.append(1)\nf(S)"),
    "parameter_by_name": ("[]", "def f(x):\n    x.append(1)\nf(x=S)"),
    "parameter_starred": ("[]", "def f(a, x):\n    x.append(1)\nf(*[1, S])"),
    "parameters_of_any_number": ("[]", "def f(*x):\n    x[0].append(1)\nf(S)"),
    "parameters_by_any_name": ("[]", "def f(**x):\n    x['a'].append(1)\nf(a=S)"),
    "parameter_of_a_parameter": ("[]", "def g(y):\n    y.clear()\ndef f(x):\n    g(x)\nf(S)"),
    "parameter_of_a_lambda": ("[]", "f = lambda x: x.append(1)\nf(S)"),
    "parameter_of_an_alias": ("[]", "def f(x):\n    x.append(1)\ng = f\ng(S)"),
    "parameter_in_a_list": ("[]", "def f(x):\n    x.append(1)\n[f][0](S)"),
    "default": ("[]", "def f(x=S):\n    x.append(1)\nf()"),
    "default_of_a_lambda": ("[]", "(lambda x=S: x.append(1))()"),
    "walrus": ("[]", "(s := S).append(1)"),
    "choice": ("[]", "(S if action else []).append(1)"),
    "or": ("[]", "s = S or []\ns.append(1)"),
    "loop": ("[[]]", "for row in S:\n    row.append(1)"),
    "loop_over_a_display": ("[]", "for s in (S,):\n    s.append(1)"),
    "loop_over_values": ("{'a': []}", "for v in S.values():\n    v.append(1)"),
    "loop_over_items": ("{'a': []}", "for k, v in S.items():\n    v.append(1)"),
    "loop_over_items_deep": ("{'a': {'b': []}}", "for k, v in S.items():\n    for j, w in v.items():\n        w.pop()"),
    "loop_over_pairs": ("{'a': []}", "for pair in S.items():\n    pair[1].append(1)"),
    "loop_over_numbered": ("[[]]", "for i, row in enumerate(S):\n    row.append(1)"),
    "loop_over_zipped": ("[[]]", "for row, i in zip(S, S):\n    row.append(1)"),
    "loop_over_reversed": ("[[]]", "for row in reversed(S):\n    row.append(1)"),
    "comprehension": ("[[]]", "x = [row.append(1) for row in S]"),
    "comprehension_kept": ("[[]]", "x = [row for row in S]\nx[0].append(1)"),
    "generator": ("[[]]", "x = next((row for row in S), None)\nx.append(1)"),
    "unpacked": ("[[], 1]", "a, b = S\na.append(1)"),
    "unpacked_rest": ("[1, []]", "a, *b = S\nb[0].append(1)"),
    "unpacked_display": ("[]", "(s,) = (S,)\ns.append(1)"),
    "matched": ("[]", "match S:\n    case s:\n        s.append(1)"),
    "matched_as": ("[]", "match S:\n    case [*_] as s:\n        s.append(1)"),
    "matched_type": ("[]", "match S:\n    case list(s):\n        s.append(1)"),
    "matched_inside": ("[[]]", "match S:\n    case [row]:\n        row.append(1)"),
    "matched_rest": ("{'a': []}", "match S:\n    case {**rest}:\n        rest['a'].append(1)"),
    "matched_star": ("[[]]", "match S:\n    case [*rest]:\n        rest[0].append(1)"),
    "in_a_list": ("[]", "[S][0].append(1)"),
    "in_a_dict": ("[]", "x = {'a': S}\nx['a'].append(1)"),
    "put_into_a_dict": ("[]", "x = {}\nx['a'] = S\nx['a'] += [1]"),
    "put_into_another_name": ("[]", "x = []\ny = x\nx.append(S)\ny[0].append(1)"),
    "put_in_by_a_function": ("[]", "def f(x):\n    x.append(S)\nx = []\nf(x)\nx.pop().append(1)"),
    "put_in_place": ("[]", "x = []\ny = x\nx += [S]\ny[0].append(1)"),
    "shallow_copy": ("[[]]", "list(S)[0].append(1)"),
    "shallow_copy_of_a_dict": ("{'a': []}", "x = dict(S)\nx['a'].append(1)"),
    "shallow_copy_by_stars": ("{'a': []}", "x = {**S}\nx['a'].append(1)"),
    "shallow_copy_by_star": ("[[]]", "x = [*S]\nx[0].append(1)"),
    "shallow_copy_by_method": ("{'a': [1]}", "x = S.copy()\nx['a'] *= 2"),
    "shallow_copy_by_slice": ("[[]]", "x = S[:]\nx[0].append(1)"),
    "sorted": ("[[]]", "x = sorted(S)\nx[0].append(1)"),
    "added": ("[[]]", "x = S + []\nx[0].append(1)"),
    "repeated": ("[[]]", "x = S * 2\nx[0].append(1)"),
    "mapped": ("[[]]", "x = list(map(lambda row: row.append(1), S))"),
    "mapped_and_kept": ("[[]]", "x = list(map(lambda row: row, S))\nx[0].append(1)"),
    "filtered": ("[[1]]", "x = list(filter(None, S))\nx[0].append(1)"),
    "sorted_by": ("[[2, 1]]", "x = sorted(S, key=lambda row: row.sort() or 1)"),
    "largest": ("[[]]", "max(S).append(1)"),
    "larger": ("[]", "max(S, [1], key=len).append(1)"),
    "larger_by": ("[]", "x = max(S, [1], key=lambda s: s.append(1) or 1)"),
    "default_of_max": ("[]", "max([], default=S).append(1)"),
    "start_of_sum": ("[]", "x = sum([], S)\nx.append(1)"),
    "start_of_prod": ("[]", "x = math.prod([], start=S)\nx.append(1)"),
    "default_of_get": ("[]", "x = {}.get('a', S)\nx.append(1)"),
    "of_fromkeys": ("[]", "x = dict.fromkeys('ab', S)\nx['a'].append(1)"),
    "by_name_in_dict": ("{}", "x = dict(key=S)\nx['key']['a'] = 1"),
    "by_name_in_update": ("{}", "x = {}\nx.update(key=S)\nx['key']['a'] = 1"),
    "given_back": ("[]", "def f():\n    return S\nf().append(1)"),
    "given_back_by_a_lambda": ("[]", "f = lambda: S\nf().append(1)"),
    "given_back_by_any": ("[]", "f = [lambda: S][0]\nx = f()\nx.append(1)"),
    "by_a_closure": ("[]", "def f():\n    s.append(1)\ns = S\nf()"),
    "builtin_by_another_name": ("[[], []]", "f = max\nf(S).append(1)"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_could_change_a_constant_is_refused(name):
    value, body = CHANGES[name]
    found = rejection(f"S = {value}", f"{body}\nreturn 1")
    assert found.code == "E13" and "'S'" in found.reason and found.hint
    assert found.line > 2


@pytest.mark.parametrize("name", CHANGES)
def test_what_could_change_a_default_is_refused(name):
    value, body = CHANGES[name]
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    found = rejection(f"def h(action, S={value}):\n{lines}    return 1\n", "return h(action)")
    assert found.code == "E26" and "'S' in 'h'" in found.reason and found.hint


@pytest.mark.parametrize("body", ["kind = list\nkind.append(S, 1)", "[list][0].append(S, 1)", "list[int].append(S, 1)"])
def test_types_cannot_be_made_to_change_a_constant(body):
    assert rejection("S = []", f"{body}\nreturn 1").code == "E22"


@pytest.mark.parametrize(
    ("before", "body"),
    [
        ("S = [1]", "s = list(S)\ns.append(1)\ns += S\nreturn len(s)"),
        ("S = [1]", "s = [] + S\ns.append(1)\nreturn len(s)"),
        ("S = {'a': 1}", "s = {**S}\ns['a'] += 1\ns.update(S)\nreturn s"),
        ("S = {'a': {'b': 1}}", "s = {k: dict(v) for k, v in S.items()}\ns['a']['b'] = 2\nreturn s['a']"),
        ("S = [[1]]", "s = [list(row) for row in S]\ns[0].append(2)\nreturn len(s)"),
        ("S = [[1]]", "x = S[0][0]\nx += 1\nx *= 2\nreturn x"),
        ("S = {'a': {'w': 1}}", "n = 0\nfor k, v in S.items():\n    w = v['w']\n    w *= 2\n    n += w\nreturn n"),
        ("S = {'a': {'w': 1}}", "x = {}\nfor k in S:\n    x[k] = []\n    x[k].append(k)\nreturn len(x)"),
        ("S = {'a': {'w': 1}}", "x = list(S)\nx.append('b')\ny = x[0]\ny += 'c'\nreturn len(y)"),
        ("S = [[1]]", "n = 1\nfor i, row in enumerate(S):\n    i *= 2\n    n += i + len(row)\nreturn n"),
        ("S = [1]", "x = {}\nx['s'] = S\nx['n'] = 0.0\nx['n'] += 1.0\nreturn x['n']"),
        ("S = [1]\nT = [2]", "n = 0\nfor name, s in (('s', S), ('t', T)):\n    n += len(s)\nreturn n"),
        ("S = {'a': 1.0}", "def add(d, k, v):\n    d[k] = v\nx = {}\nadd(x, 'a', S['a'])\nreturn x"),
        ("S = {'a': 1.0}", "best = max(S, key=S.get)\nbest += '!'\nreturn len(best)"),
        ("S = {'a': 1.0}", "return S"),
        (
            "def f(w={'a': 1.0}, *, keys=['a']):\n    return sum(w[k] for k in keys)",
            "return f() + f({'b': 2}, keys='b')",
        ),
        ("", "def f(x, seen=[]):\n    seen.append(x)\n    return len(seen)\nreturn f(1)"),
        ("S = [1]", "return (lambda x, s=S: x + s[0])(1)"),
    ],
)
def test_copies_and_reading_are_fine(before, body):
    assert admit(source_of(before, body), answered)


def test_the_place_of_the_change_is_shown():
    found = rejection("SEEN = []", "seen = SEEN\nseen.append(1)\nreturn len(seen)")
    assert str(found) == (
        "E13 line 4 col 5: the constant 'SEEN', or what lies within it, may be changed here (change a copy under a "
        "name of its own: list(x), dict(x); of what lies within a constant too)"
    )
    found = rejection("SEEN = []", "seen = SEEN\nseen += [1]\nreturn len(seen)")
    assert found.hint == "write x = x + y, which makes a new value"
    found = rejection("def f(seen=[]):\n    seen.append(1)\n    return seen")
    assert found.hint == "write None as the default, and make it in the function"


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
    assert admit(source_of(before), answered).components == {"goal": "sparse"}


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
        ("COMPONENTS, *X = ({'a': 'dense'}, 1)", "a line of its own"),
    ],
)
def test_components_that_are_none(before, words):
    found = rejection(before)
    assert found.code == "E14" and words in found.reason + found.hint


@pytest.mark.parametrize("signature", ["obs, prev_obs, action, info=None", "obs, prev_obs=None, action='', info={}"])
def test_parameters_of_reward_may_have_defaults(signature):
    program = admit(f"def reward({signature}):\n    return obs['hp'] - info['died']\n", answered)
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
        admit(f"def reward({signature}):\n    return 1.0\n", answered)
    assert caught.value.rejection.code == "E11" and named in caught.value.rejection.reason


def test_a_long_way_of_a_constant_is_followed_or_refused():
    chain = [f"x{n} = x{n + 1}" for n in range(60)]
    found = rejection("S = []", "\n".join([*chain, "x60 = S", "x0.append(1)", "return 1"]))
    assert found.code == "E13"
    chain = [f"x{n} = x{n + 1}" for n in range(200)]
    found = rejection("S = []", "\n".join([*chain, "x200 = S", "x0.append(1)", "return 1"]))
    assert found.code == "E06"
