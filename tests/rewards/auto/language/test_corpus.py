"""What admission makes of the corpus."""

import ast
from collections import Counter

import pytest

from envs.schema import COLUMNS
from rewards.auto.language.admission import admit
from rewards.auto.program import REJECTIONS, ProgramRejectedError
from tests.rewards.auto.corpus import CASES, cases

REJECTED = cases("reject")
ADMITTED = cases("benign", "timeout", "contained")


def named(some):
    return pytest.mark.parametrize("case", some, ids=[case.name for case in some])


def test_there_is_enough_of_each_kind():
    number = Counter(case.expected for case in CASES)
    assert set(number) == {"benign", "reject", "timeout", "contained"}
    assert number["benign"] >= 32
    assert number["reject"] + number["timeout"] + number["contained"] >= 120
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({case.source for case in CASES}) == len(CASES)


def test_nearly_every_code_has_a_case():
    # E06 needs a parser that dies; the tests of admission have one.
    assert set(REJECTIONS) - {case.code for case in REJECTED} == {"E06"}


@named(REJECTED)
def test_is_refused_with_its_code(case):
    with pytest.raises(ProgramRejectedError) as caught:
        admit(case.source)
    rejection = caught.value.rejection
    assert rejection.code == case.code, str(rejection)
    assert rejection.hint and rejection.reason.isprintable()


@named(ADMITTED)
def test_is_admitted(case):
    program = admit(case.source)
    assert program.source == case.source
    assert set(program.needed_columns) <= set(COLUMNS)


@named(cases("benign"))
def test_benign_programs_read_only_columns_that_are_seen(case):
    """Every field named in quotes in a subscript of an input is among the columns."""
    program = admit(case.source)
    for node in ast.walk(ast.parse(case.source)):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and isinstance(node.slice, ast.Constant)
        ):
            name = f"{node.value.id}.{node.slice.value}"
            assert name not in COLUMNS or name in program.needed_columns
