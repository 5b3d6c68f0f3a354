import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.answers import canonical_answer, check_answer, open_pairs
from mstar.core.several import parse_several
from mstar.equivalence.asking import question
from tests.core.answer_cases import read_cases

TYPED = read_cases("answer_cases")
MATH = read_cases("answer_cases_math")


def test_there_are_at_least_three_hundred_cases():
    assert len(TYPED) + len(MATH) >= 300
    assert not set(TYPED) & set(MATH)


@pytest.mark.parametrize("case", TYPED, ids=str)
def test_the_typed_checks_say_what_the_table_says(case):
    assert check_answer(case.predicted, case.answer, case.options) == case.same
    assert check_answer(case.answer, case.predicted, case.options) == case.same
    names = [canonical_answer(text, case.options) for text in (case.predicted, case.answer)]
    assert (names[0] == names[1]) == case.same


@pytest.mark.parametrize("case", MATH, ids=str)
def test_the_typed_checks_do_not_guess_at_algebra(case):
    assert not check_answer(case.predicted, case.answer, case.options)


@pytest.mark.parametrize("case", [case for case in TYPED if case.same], ids=str)
def test_nothing_is_open_between_equal_answers(case):
    assert open_pairs(case.predicted, case.answer, case.options) == ()


def test_a_tolerance_and_decimals_count_inside_lists_and_intervals():
    assert check_answer("0.667, 1", "2/3, 1", relative_tolerance=0.01)
    assert not check_answer("0.667, 2", "2/3, 1", relative_tolerance=0.01)
    assert check_answer("x > 0.67", "(2/3, \\infty)", decimals=2)
    assert not check_answer("[0.67, 1]", "(2/3, 1)", decimals=2)


def test_decimals_compare_numbers_rounded_to_so_many_places():
    assert check_answer("0.667", "2/3", decimals=2)
    assert check_answer("3.14159", "3.14", decimals=2)
    assert not check_answer("3.15", "3.14", decimals=2)
    assert check_answer("7.4", "7", decimals=0)
    assert not check_answer("0.67", "0.67 m", decimals=2)


def test_decimals_never_turn_one_option_into_another():
    options = ("3.141", "3.142", "7")
    assert not check_answer("3.141", "B", options, decimals=2)
    assert not check_answer("3.1415", "B", options, decimals=2)
    assert check_answer("7.001", "C", options, decimals=2)


@pytest.mark.parametrize(
    "text",
    [
        *("7", "a red cube", "1,", ",", "(1,", "1)", "(1, 2", "(1)", "{1, 2]", "[1, 2, 3)"),
        *("x > ", "> 3", "x > y", "1 < 2", "1 < x > 2", "1 < 2 < 3", "x < 1 < 2", "x \\in 5"),
        *("x \\in [1]", "1 < x < 2 < y", "f(x) > 3", ", ".join("1" * 65)),
    ],
)
def test_what_is_no_list_and_no_inequality_stays_text(text):
    assert parse_several(text) is None


def test_lists_in_lists_end_somewhere():
    deep = "(" * 30 + "1, 2" + "), 3" * 30
    assert check_answer(deep, deep)
    assert canonical_answer(deep).count("several:") <= 4


LISTED = st.text(alphabet="0123.,;<>=[](){}\\xyz∞≤∈ ", max_size=16) | st.sampled_from(
    [case.predicted for case in [*TYPED, *MATH]]
)


@given(LISTED, LISTED)
def test_lists_and_intervals_are_equal_exactly_when_their_canonical_texts_are(left, right):
    equal = canonical_answer(left) == canonical_answer(right)
    assert check_answer(left, right) == check_answer(right, left) == equal
    assert check_answer(left, left)


@given(LISTED, LISTED)
def test_what_is_open_is_different_to_the_typed_checks(left, right):
    for mine, true in open_pairs(left, right):
        assert not check_answer(mine, true)
        assert not check_answer(left, right)


@pytest.mark.parametrize(
    "unit", ["(", "[1,", "{", "\\{", "x<", "<", "1<x", "1;", "\\le ", "x\\in(", "∞", "(1,2),", "√"]
)
@pytest.mark.parametrize("times", [60, 150, 900, 30_000])
def test_hostile_lists_take_no_time(unit, times):
    text = unit * times
    begin = time.process_time()
    for answer in (text, f"({text})", f"[{text}]", f"1, {text}", f"{text} < x"):
        check_answer(answer, "1", (), 0.1)
        canonical_answer(answer, ("1", "2"))
        open_pairs(answer, text)
        question(answer, "x+1")
    assert time.process_time() - begin < 2.0
