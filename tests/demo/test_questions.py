"""The questions: answers checked by working the text out again, from the text alone."""

import random
import re
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from mstar.demo.digits import CELL_NAMES, digit_pools
from mstar.demo.prompts import format_prompt
from mstar.demo.questions import LEVELS, MAX_VALUE, OPTION_COUNT, Question, draw_question

POOL = digit_pools()["test"]
SEEDS = st.integers(min_value=0, max_value=2**32)


def work_out(text: str, digits: tuple[int, ...]) -> int:
    """Read the question as a person would: clause by clause."""
    opening, *clauses = text.removesuffix(".").split(", ")
    value = digits[CELL_NAMES.index(opening.split(" ")[1])]
    for clause in clauses:
        if clause in {"double it", "then doubled"}:
            value *= 2
            continue
        verb, name = clause.split(" ")
        digit = digits[CELL_NAMES.index(name)]
        value += digit if verb in {"add", "plus"} else -digit
    return value


def draw(seed: int) -> Question:
    return draw_question(random.Random(seed), POOL)


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_the_answer_is_what_the_text_asks_for(seed: int) -> None:
    question = draw(seed)
    assert question.answer == str(work_out(question.text, question.picture.digits))


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_options_are_distinct_values_in_range_and_hold_the_answer_once(seed: int) -> None:
    question = draw(seed)
    if question.kind == "free_form":
        assert question.options == ()
        return
    assert len(set(question.options)) == OPTION_COUNT
    assert question.answer in question.options
    assert all(0 <= int(option) <= MAX_VALUE for option in question.options)


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_stopping_one_step_early_is_a_distractor_unless_it_gives_the_answer(seed: int) -> None:
    question = draw(seed)
    wrong = [str(value) for value in question.values()[:-1] if str(value) != question.answer]
    if question.options and wrong:
        assert wrong[-1] in question.options


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_every_running_value_is_in_range(seed: int) -> None:
    values = draw(seed).values()
    assert len(values) - 1 in LEVELS
    assert min(values) >= 0
    assert max(values) <= MAX_VALUE


def test_a_question_does_not_contain_its_options() -> None:
    assert not any(re.search(r"\d|Options", draw(seed).text) for seed in range(200))


def test_half_of_the_questions_are_multiple_choice_and_all_levels_occur() -> None:
    questions = [draw(seed) for seed in range(1000)]
    kinds = Counter(question.kind for question in questions)
    assert 420 < kinds["multiple_choice"] < 580
    assert {question.level for question in questions} == set(LEVELS)


def test_a_prompt_shows_options_and_hint_only_where_there_are_some() -> None:
    assert format_prompt("Q.", ()) == "Q."
    assert format_prompt("Q.", ("20", "21")) == "Q. Options: 20 21"
    assert format_prompt("Q.", ("20", "21"), hint="21") == "Q. Options: 20 21 Hint: 21"
    assert format_prompt("Q.", (), hint="21") == "Q. Hint: 21"
