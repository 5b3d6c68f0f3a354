"""The planted corpus: what a sound solution is, and that each fault can be switched on alone."""

import random
import re
from typing import Any

from mstar.demo.digits import digit_pools
from mstar.demo.questions import Question, draw_question
from mstar.demo.rationales import Mixture, read_aloud, write_hinted_solution, write_solution

POOL = digit_pools()["pretrain"]
FAULTLESS = Mixture(
    guess=0,
    stop_first=0,
    stop_later=0,
    wrong_cell=0,
    wrong_operator=0,
    slip=0,
    copy_hint=0,
    force_hint=0,
)
EQUATION = re.compile(r"(\d+) ([+-]) (\d+) = (\d+)\.")


def questions(count: int) -> list[Question]:
    rng = random.Random(5)
    return [draw_question(rng, POOL) for _ in range(count)]


def boxed(text: str) -> str:
    found = re.fullmatch(r"(?s).*Answer: \\boxed\{(\d+)\}", text)
    assert found, text
    return found[1]


def faulty(**faults: Any) -> Mixture:
    plain = {name: getattr(FAULTLESS, name) for name in FAULTLESS.__dataclass_fields__}
    return Mixture(**(plain | faults))


def test_a_faultless_solution_is_complete_and_ends_in_the_answer() -> None:
    rng = random.Random(0)
    for question in questions(200):
        text = write_solution(question, FAULTLESS, rng)
        equations = EQUATION.findall(text)
        assert len(equations) == question.level
        for left, sign, right, result in equations:
            assert int(result) == int(left) + (int(right) if sign == "+" else -int(right))
        assert boxed(text) == question.answer
        assert all(step.endswith(".") for step in text.split("\n")[:-1])


def test_a_guess_has_no_step() -> None:
    rng = random.Random(0)
    for question in questions(50):
        text = write_solution(question, faulty(guess=1), rng)
        assert "\n" not in text
        assert not question.options or boxed(text) in question.options


def test_stopping_early_leaves_operations_out() -> None:
    rng = random.Random(0)
    for question in questions(100):
        text = write_solution(question, faulty(stop_first=1), rng)
        assert len(EQUATION.findall(text)) == 1


def test_a_slip_makes_an_equation_wrong() -> None:
    rng = random.Random(0)
    texts = [write_solution(question, faulty(slip=1), rng) for question in questions(50)]
    found = [
        int(result) != int(left) + (int(right) if sign == "+" else -int(right))
        for text in texts
        for left, sign, right, result in EQUATION.findall(text)
    ]
    assert sum(found) > len(found) / 2


def test_an_unsound_chain_may_be_forced_to_end_in_the_hint() -> None:
    rng = random.Random(0)
    mixture = faulty(stop_first=1, force_hint=1)
    for question in questions(50):
        assert boxed(write_hinted_solution(question, mixture, rng)) == question.answer


def test_a_copied_hint_has_no_step() -> None:
    rng = random.Random(0)
    for question in questions(20):
        text = write_hinted_solution(question, faulty(copy_hint=1), rng)
        assert text == f"Answer: \\boxed{{{question.answer}}}"


def test_the_reading_drill_reads_the_digits_in_order() -> None:
    for question in questions(20):
        assert (
            tuple(int(digit) for digit in read_aloud(question).split()) == question.picture.digits
        )
