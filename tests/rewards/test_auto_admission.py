import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.features import COLUMNS
from rewards.auto import admission
from rewards.auto.admission import admit, admit_file, check_apart
from rewards.auto.program import ProgramRejectedError
from rewards.auto.rejections import REJECTIONS, describe_rejections
from rewards.auto.syntax.answering import answered
from tests.rewards.auto.corpus import CASES, HEAD

NUMBER = HEAD + "    return 1.0\n"


def of_body(body, before=""):
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    return admit(before + HEAD + lines, answered)


def rejection(source, check=answered):
    with pytest.raises(ProgramRejectedError) as caught:
        admit(source, check)
    return caught.value.rejection


def test_bytes_and_text_are_the_same_program():
    assert admit(NUMBER.encode()) == admit(NUMBER)
    assert admit(NUMBER).source == NUMBER
    assert admit(NUMBER).columns == ()


def test_a_file_is_admitted(tmp_path):
    path = tmp_path / "reward.py"
    path.write_text(NUMBER)
    assert admit_file(path).source == NUMBER
    path.write_bytes(b"#" * 10**6)
    with pytest.raises(ProgramRejectedError, match="E01"):
        admit_file(path)
    with pytest.raises(FileNotFoundError):
        admit_file(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (b"# \xff\n" + NUMBER.encode(), "E02"),
        (b"# \xed\xa0\x80\n" + NUMBER.encode(), "E02"),
        ("# \ud800\n" + NUMBER, "E02"),
        (b"", "E10"),
        (b"\xff\xfe" + NUMBER.encode("utf-16-le"), "E02"),
        (b"#" * 20_000, "E01"),
        ("# " + "\u00e9" * 10_000 + "\n" + NUMBER, "E01"),
    ],
)
def test_bytes_that_are_refused(source, code):
    assert rejection(source).code == code


def test_sizes_at_the_bound_are_admitted():
    filler = ("#" * 99 + "\n") * 163
    fits = filler + "#" * (admission.MAX_BYTES - len(filler) - len(NUMBER) - 1) + "\n" + NUMBER
    assert len(fits) == admission.MAX_BYTES
    assert admit(fits, answered)
    assert rejection(fits + "\n").code == "E01"
    assert of_body("return " + "(" * 40 + "1" + ")" * 40)
    assert of_body("return " + "-" * 20 + "1")


def test_brackets_and_signs_in_texts_and_comments_do_not_count():
    assert of_body(f"x = {'(' * 100!r}  # {'[' * 100}\n# {'-' * 80}\nreturn len(x)")


def test_a_rejection_shows_its_place():
    found = rejection(HEAD + "    x = 1.0\n    return x + len('{0.x}'.format(obs))\n")
    assert (found.code, found.line, found.column) == ("E22", 3, 20)
    assert found.source_line == "    return x + len('{0.x}'.format(obs))"
    assert str(found) == (
        "E22 line 3 col 20: the method 'format' is not available (use an f-string such as f'{x:.2f}')"
    )


def test_characters_are_refused_where_they_stand():
    found = rejection(NUMBER + "# a\u200bb\n")
    assert (found.code, found.line, found.column) == ("E03", 3, 4)
    assert "U+200B" in found.reason


def test_a_carriage_return_says_how_to_mend_it():
    assert "end lines with \\n" in rejection(NUMBER + "# a\r\n").reason
    assert rejection(NUMBER.replace("\n", "\r")).code == "E03"
    assert rejection("# a\r" + NUMBER.replace("\n", "\r\n")).code == "E03"


@pytest.mark.parametrize("kind", [str.encode, str])
def test_what_editors_put_into_files_is_taken_out(kind):
    plain = admit(NUMBER, answered)
    for source in (NUMBER.replace("\n", "\r\n"), "\ufeff" + NUMBER, "\ufeff" + NUMBER.replace("\n", "\r\n")):
        assert admit(kind(source), answered) == plain
        assert admit(kind(source), answered).sha == plain.sha
    assert rejection(kind("\ufeff\ufeff" + NUMBER)).code == "E03"


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        (HEAD + "    return obs @ obs\n", "E20", 2),
        (HEAD + "    x = 1\n    x @= 2\n    return x\n", "E20", 3),
        (HEAD + "    return (obs" + "\n.a" * 200 + ")\n", "E04", 2),
        (HEAD + "    return (1" + "\n and 1" * 300 + ")\n", "E04", 2),
        (NUMBER + "\n" * 700, "E01", 601),
        (b"# a\n# \xff\n" + NUMBER.encode(), "E02", 2),
        ("# a\n# \ud800\n" + NUMBER, "E02", 2),
        ("#!/usr/bin/python\n# coding: latin-1\n" + NUMBER, "E02", 2),
        ("import os\n" + NUMBER, "E15", 1),
    ],
)
def test_a_rejection_has_a_line(source, code, line):
    found = rejection(source)
    assert (found.code, found.line) == (code, line)


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("obs['max_hps']", "nearest: obs['max_hp'], prev_obs['max_hp'], info['max_depth']"),
        ("prev_obs['max_hps']", "nearest: prev_obs['max_hp'], obs['max_hp'], info['max_depth']"),
        ("info['hp']", "it is obs['hp'] and prev_obs['hp']"),
        ("obs['max_depth']", "it is info['max_depth']"),
        ("obs['action']", "it is action, the parameter"),
        ("obs.hp", "write obs['hp']"),
        ("np.mean([1])", "use math, min, max, sum"),
        ("getattr(obs, 'hp')", "read fields as obs['hp']"),
        ("list(map(str.lower, ['A']))", "write a comprehension, [x.lower() for x in xs], or lambda x: x.lower()"),
        ("(1.0).is_integer()", "write x == int(x)"),
        ("Dict()", "types of typing stand in annotations only"),
    ],
)
def test_hints_say_what_to_write(expression, hint):
    assert rejection(f"{HEAD}    return {expression}\n").hint == hint


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("from math import log\ndef f(log):\n    return log\n", "write math.sqrt(x): math is there without an import"),
        ("def f():\n    from math import log\n", "write math.sqrt(x): math is there without an import"),
        ("import numpy as np\n", "take it out: programs use nothing but the language and math"),
        ("import math, sys\n", "take it out: programs use nothing but the language and math"),
    ],
)
def test_imports_say_what_to_write(source, hint):
    assert rejection(source + NUMBER).hint == hint


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return obs['zzz']", "obs has no field 'zzz'"),
        ("return info.get('zzz', 0)", "info has no field 'zzz': get would always give its default"),
        ("return 'zzz' in info", "info has no field 'zzz': this would never be in it"),
        ("o = obs\nreturn o['max_hpp']", "obs has no field 'max_hpp'"),
        ("math = 1\nreturn math", "math is bound anew"),
        ("o = obs\no['hp'] = 1\nreturn 0", "o is written to"),
        ("e = 1\ntry:\n    pass\nexcept KeyError as e:\n    pass\nreturn e", "what 'except ... as e' binds is read"),
    ],
)
def test_reasons_say_what_is_true(body, reason):
    found = rejection(HEAD + "".join(f"    {line}\n" for line in body.split("\n")))
    assert found.reason == reason


def test_a_wrong_field_of_an_alias_has_the_nearest_name():
    assert rejection(HEAD + "    o = obs\n    return o['max_hpp']\n").hint.startswith("nearest: obs['max_hp']")


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


def test_components_are_read_off():
    program = admit('COMPONENTS: dict[str, str] = {"goal": "sparse", "explore": "dense"}\n' + NUMBER, answered)
    assert program.components == {"goal": "sparse", "explore": "dense"}
    assert program.kind_of("goal") == "sparse"
    assert not of_body("return 1").components


def test_code_inside_the_program_is_not_run(tmp_path):
    mark = tmp_path / "mark"
    for source in (f"open({str(mark)!r}, 'w')\n", f"@open({str(mark)!r}, 'w')\n", f"X = [open({str(mark)!r}, 'w')]\n"):
        assert rejection(source + NUMBER, check_apart)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os; os.abort()", "ended with status"),
        ("raise RuntimeError", "ended with status"),
        ("print('{')", "no answer"),
        ("while True: pass", "took more than"),
    ],
)
def test_a_parser_that_dies_or_hangs_is_a_rejection(monkeypatch, script, reason):
    monkeypatch.setattr(admission, "_RUN_CHECK", script)
    monkeypatch.setattr(admission, "CHECK_S", 1.0)
    found = rejection(NUMBER, check_apart)
    assert found.code == "E06"
    assert reason in found.reason


def test_the_process_has_no_environment_and_bounded_memory(monkeypatch):
    monkeypatch.setenv("API_KEY", "secret")
    probe = (
        "import sys; sys.path.append(sys.argv[1]); import os, json, resource; from syntax import child; child.limit();"
        "print(json.dumps({'columns': [], 'components': {}, 'open_groups': ["
        "str('API_KEY' in os.environ), str(resource.getrlimit(resource.RLIMIT_AS)[0]),"
        "str(resource.getrlimit(resource.RLIMIT_CPU)[0])]}))"
    )
    monkeypatch.setattr(admission, "_RUN_CHECK", probe)
    assert admit(NUMBER).open_groups == {"False", str(512 << 20), "5"}


def test_the_check_imports_nothing_but_the_standard_library(monkeypatch):
    probe = (
        "import sys; sys.path.append(sys.argv[1]); import json, syntax.child;"
        "names = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names;"
        "print(json.dumps({'columns': [], 'components': {}, 'open_groups': sorted(names)}))"
    )
    monkeypatch.setattr(admission, "_RUN_CHECK", probe)
    assert admit(NUMBER).open_groups == {"__main__", "syntax"}


def test_every_code_is_described():
    text = describe_rejections()
    assert all(f"| {code} | {kind.title} |" in text for code, kind in REJECTIONS.items())
    assert len(text.splitlines()) == len(REJECTIONS) + 2


PIECES = st.sampled_from(
    ["obs", "prev_obs", "info", "action", "['hp']", "(", ")", "[", "]", "{", "}", ":", ",", "=", ":=", "lambda", " ",
     "\n", "\n    ", "for x in", "if", "else", "match", "case", "def f(o)", "return", "*", "**", "f'{", "}'", "'", '"',
     '"""', "\\", "#", "not ", "-", "1", "1e9", "x", "__class__", ".", "é", "\u200b", "\0", "try", "except", "import",
     "async ", "await ", "yield", "@", "->", "...", "%", "del ", "global x", "with ", "as ", "\t", "class A", "!r", ";"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join), st.binary(max_size=100)))
def test_arbitrary_text_is_admitted_or_refused(text):
    for source in (text, HEAD + "    return " + text if isinstance(text, str) else text):
        try:
            admit(source, answered)
        except ProgramRejectedError as error:
            assert error.rejection.code in REJECTIONS


@settings(max_examples=10, deadline=None)
@given(st.text(max_size=200))
def test_arbitrary_text_through_the_process(text):
    try:
        admit(HEAD + "    return " + text)
    except ProgramRejectedError as error:
        assert error.rejection.code in REJECTIONS


@st.composite
def spoilt(draw):
    """A program of the corpus, with a stretch of it replaced by one of another."""
    source, other = draw(st.sampled_from(CASES)).source, draw(st.sampled_from(CASES)).source
    start, end = sorted(draw(st.integers(0, len(source))) for _ in range(2))
    begin = draw(st.integers(0, len(other)))
    return source[:start] + other[begin : begin + draw(st.integers(0, 60))] + source[min(end, start + 30) :]


@settings(max_examples=400, deadline=None)
@given(spoilt())
def test_admitted_programs_read_columns_of_the_schema(source):
    try:
        program = admit(source, answered)
    except ProgramRejectedError as error:
        assert error.rejection.code in REJECTIONS
    else:
        assert set(program.columns) <= set(COLUMNS)
        assert program.open_groups <= {"obs", "prev_obs", "info"}
        assert "__" not in "".join(program.components)
