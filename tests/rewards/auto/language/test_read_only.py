"""Nothing that is admitted changes a constant: every way around is refused, and copies and reading are fine."""

import itertools
from contextlib import suppress

import pytest

from rewards.auto.language.admission import admit
from rewards.auto.language.child import answered
from rewards.auto.program import ProgramRejectedError
from tests.rewards.auto.corpus import HEAD


def source_of(before, body="return 1.0"):
    return before + "\n" + HEAD + "".join(f"    {line}\n" for line in body.split("\n"))


def rejection(before, body="return 1.0"):
    with pytest.raises(ProgramRejectedError) as caught:
        admit(source_of(before, body))
    return caught.value.rejection


ALIASES = [
    "S = <>\nT = S",
    "S = <>\nT, U = S, 1",
    "S = T = <>",
    "S = <>\nT = S if S else <>",
    "S = <>\nT = S or <>",
    "U, *T = <>",
    "T = S = <>\nU = T",
]


@pytest.mark.parametrize("before", ALIASES)
def test_every_name_of_a_constant_is_watched(before):
    before = before.replace("<>", "[1]")
    assert admit(source_of(before, "return len(T)"))
    assert rejection(before, "T.append(1)\nreturn 1").code == "E13"


CHANGES = {
    "by_another_name_of_its_type": ("[]", "kind = list\nkind.append(S, 1)"),
    "by_another_name_of_its_type_extended": ("[]", "kind = list\nkind.extend(S, [1])"),
    "by_another_name_of_its_type_updated": ("{}", "kind = dict\nkind.update(S, a=1)"),
    "by_a_type_in_a_list": ("[]", "[list][0].append(S, 1)"),
    "by_a_generic_type": ("[]", "list[int].append(S, 1)"),
    "unpacked_into_arguments": ("[[]]", "def f(x):\n    x.append(1)\nf(*S)"),
    "matched_by_key": ("{'a': []}", "match S:\n    case {'a': x}:\n        x.append(1)"),
    "default_of_next": ("[]", "x = next((y for y in []), S)\nx.append(1)"),
    "default_of_pop": ("[]", "x = {}.pop('a', S)\nx.append(1)"),
    "default_of_setdefault": ("[]", "x = {}.setdefault('a', S)\nx.append(1)"),
    "inserted": ("[]", "x = []\nx.insert(0, S)\nx[0].append(1)"),
    "default_of_an_inner_function": ("[]", "def f(x=S):\n    x.append(1)\nf()"),
    "given_back_to_itself": ("[]", "def f(n):\n    return S if n else f(1)\nf(0).append(1)"),
    "conditional_parameter": ("[]", "def f(x):\n    x.append(1)\nf(S if action else [])"),
    "parameter_bound_to_another_name": ("[]", "def f(x):\n    y = z = x\n    z.append(1)\nf(S)"),
    "parameter_of_a_function_defined_later": ("[]", "def f(x):\n    g(x)\ndef g(y):\n    y.sort()\nf(S)"),
    "walrus_in_a_comprehension": ("[]", "x = [(y := S) for _ in 'a']\ny.append(1)"),
    "walrus_in_a_test": ("[1]", "if x := S:\n    x.append(1)"),
    "and": ("[]", "x = S and 1\nx.append(1)"),
    "loop_over_pairs_of_names": ("[]", "for n, x in ((1, S), (2, [])):\n    x.append(n)"),
    "assigned_in_turn": ("[]", "x = y = []\nx, y = S, x\nx.append(1)"),
    "assigned_to_an_item": ("[]", "x = {}\ny = x['a'] = S\nx['a'].append(1)"),
    "starred_target": ("[]", "[*x] = [S]\nx[0].append(1)"),
    "raised": ("[]", "try:\n    raise ValueError(S)\nexcept ValueError:\n    pass"),
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
    assert found.code == "E13" and found.hint
    nested = any(sign in value for sign in ("[[", "[2, 1]", ": [", ": {", ", ["))
    assert (found.line == 1) == nested and ("'S'" in found.reason) != nested


@pytest.mark.parametrize(
    ("before", "body"),
    [
        ("S = [1]", "s = list(S)\ns.append(1)\ns += S\nreturn len(s)"),
        ("S = [1]", "s = [] + S\ns.append(1)\nreturn len(s)"),
        ("S = {'a': 1}", "s = {**S}\ns['a'] += 1\ns.update(S)\nreturn s"),
        ("S = {'a': (1, 2)}", "s = {k: list(v) for k, v in S.items()}\ns['a'].append(2)\nreturn len(s['a'])"),
        ("S = [(1,)]", "s = [list(row) for row in S]\ns[0].append(2)\nreturn len(s)"),
        ("S = ((1,),)", "x = S[0][0]\nx += 1\nx *= 2\nreturn x"),
        ("S = {'a': ('w', 1)}", "n = 0\nfor k, (v, w) in S.items():\n    w *= 2\n    n += w\nreturn n"),
        ("S = {'a': 1}", "x = {}\nfor k in S:\n    x[k] = []\n    x[k].append(k)\nreturn len(x)"),
        ("S = {'a': 1}", "x = list(S)\nx.append('b')\ny = x[0]\ny += 'c'\nreturn len(y)"),
        ("S = [(1,)]", "n = 1\nfor i, row in enumerate(S):\n    i *= 2\n    n += i + len(row)\nreturn n"),
        ("S = [1]\nT = [2]", "n = 0\nfor name, s in (('s', S), ('t', T)):\n    n += len(s)\nreturn n"),
        ("S = {'a': 1.0}", "def add(d, k, v):\n    d[k] = v\nx = {}\nadd(x, 'a', S['a'])\nreturn x"),
        ("S = {'a': 1.0}", "best = max(S, key=S.get)\nbest += '!'\nreturn len(best)"),
        ("S = {'a': 1.0}", "return S"),
        ("S = {'a': 1.0}", "return S if action else {'a': 2.0}"),
        ("S = ['a']", "def f(x, y):\n    return sum(z in y for z in x)\nreturn f(S, obs['message']) + f(y='', x=S)"),
        ("S = ['a']\nT = ['b']", "s = S if action else T\nreturn len(s) + len([*s]) + ('a' in s) + (s == T) + bool(s)"),
        ("S = ['a']", "x = []\nx.extend(S)\nx += S\nreturn len(x) + len(' '.join(S)) + len({'b'}.union(S))"),
        ("S = {'a': 1}", "x = dict.fromkeys(S, 0)\nx.update(S)\na, = S\n*b, = S\nb.append(a)\nreturn len(b) + x['a']"),
        ("S = [1.0]", "if not S:\n    return 0.0\nreturn math.fsum(S) + sum(map(abs, S)) + max(S) + math.hypot(*S)"),
        ("S = [1]", "match S[0]:\n    case 1:\n        return 1\n    case x if x in S:\n        return 2"),
        ("", "def f(x, seen=[]):\n    seen.append(x)\n    return len(seen)\nreturn f(1)"),
    ],
)
def test_copies_and_reading_are_fine(before, body):
    assert admit(source_of(before, body))


def test_the_place_and_the_remedy_are_shown():
    found = rejection("SEEN = []", "seen = SEEN\nseen.append(1)\nreturn len(seen)")
    assert str(found) == (
        "E13 line 4 col 5: the constant 'SEEN' is only read, and this could change it, or hand it on "
        "(copy it first, with list(SEEN) or dict(SEEN); a tuple goes anywhere)"
    )
    found = rejection("SEEN = []", "seen = SEEN\nseen += [1]\nreturn len(seen)")
    assert found.hint == "write x = x + y, which makes a new value"
    assert rejection("def f(x, seen=[]):\n    seen.append(1)\n    return seen").code == "E26"


def test_a_long_way_of_a_constant_is_followed():
    chain = [f"x{n} = x{n + 1}" for n in range(200)]
    found = rejection("S = []", "\n".join([*chain, "x200 = S", "x0.append(1)", "return 1"]))
    assert (found.code, found.line) == ("E13", 204)


# ---- what is admitted, run by this very interpreter

WRAPS = [
    "{}",
    "({} or [])",
    "([] or {})",
    "([1] and {})",
    "({} if action else [])",
    "(w := {})",
    "[{}][0]",
    "({}, 1)[0]",
    "{{'k': {}}}['k']",
    "{{**{}}}",
    "[*{}]",
    "{}[:1]",
    "list({})",
    "dict({})",
    "set({})",
    "tuple({})",
    "sorted({})",
    "max({})",
    "max({}, [0], key=len)",
    "min([], default={})",
    "sum([], {})",
    "next((q for q in []), {})",
    "same({})",
    "same(*[{}])",
    "same(q={})",
    "copied({})",
    "last({})",
    "last(1, {})",
    "[q for q in {}]",
    "[q for q in ({},)][0]",
    "list(map(same, [{}]))[0]",
    "list(map(same, {}))",
    "{}.get('a', 0)",
    "{{}}.get('a', {})",
    "{}.items()",
    "{}.copy()",
    "{{1}}.union({})",
    "dict.fromkeys('k', {})['k']",
    "({} + [])",
    "({} * 1)",
    "({} | {{}})",
    "(lambda q: q)({})",
    "(lambda q={}: q)()",
    "(lambda: {})()",
    "dict(a={})['a']",
    "alias({})",
    "inner({})",
    "f'{{{}}}'",
    "larger({})",
]
"""Expressions around a constant; braces are doubled, as for ``str.format``."""

USES = [
    "x.append(9)",
    "x += [9]",
    "x *= 2",
    "x |= {9: 9}",
    "x[0] = 9",
    "x['a'] = 9",
    "x['a'] += 1",
    "x.clear()",
    "x.pop()",
    "x.update({8: 8})",
    "x.extend([8])",
    "x.add(8)",
    "x.sort(reverse=True)",
    "x.setdefault('n', 1)",
    "kind.append(x, 9)",
    "kind.extend(x, [9])",
    "table.update(x, {8: 8})",
    "[x.append(9) for _ in [1]]",
    "mutate(x)",
    "mutate(q=x)",
    "list(map(mutate, [x]))",
    "for t in (x, []):\n        t.append(9)",
    "for t in x:\n        t.append(9)",
    "for n, t in ((1, x),):\n        t.append(9)",
    "x, = x\n    x.append(9)",
    "y = x\n    y.append(9)",
    "match x:\n        case list(y) | y:\n            y.append(9)",
    "y = {}\n    y['k'] = x\n    y['k'] += [9]",
    "(y := x).append(9)",
    "x, *y = x\n    y.append(9)",
    "y = x or []\n    y.clear()",
]
HELPERS = """S = [3, 1, 2]
D = {'a': 1, 'b': 2}
def same(q):
    return q
def copied(q):
    return [*q]
def last(*q):
    return q[-1]
def mutate(q):
    q.append(9)
"""
EVERY = 3
"""Of the programs that these make every third is tried; all of them once took a minute, and none had a hole."""
UNCHANGED = "([3, 1, 2], {'a': 1, 'b': 2})"


def test_no_admitted_program_changes_a_constant():
    """What is admitted is run: constants stay what they were. All of it is ours, so this process may judge it."""
    num_admitted = 0
    for wrap, constant, use in itertools.islice(itertools.product(WRAPS, "SD", USES), 0, None, EVERY):
        source = (
            f"{HELPERS}{HEAD}    kind, table, alias, larger = list, dict, same, max\n"
            f"    def inner(q):\n        return q[:]\n    x = {wrap.format(constant)}\n    {use}\n    return 1.0\n"
        )
        request = {"source": source, "fields": {"obs": [], "prev_obs": [], "info": []}, "max_components": 1}
        if "rejection" in answered(request):
            continue
        num_admitted += 1
        names = {}
        exec(source, names)
        for _ in range(2):
            with suppress(TypeError, ValueError, LookupError, AttributeError):
                names["reward"]({}, {}, "kick", {})
            assert repr((names["S"], names["D"])) == UNCHANGED, source
    assert num_admitted > 500 / EVERY
