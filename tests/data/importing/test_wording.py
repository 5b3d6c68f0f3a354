"""What a data set wraps around a question and an answer is taken off, and nothing else."""

import pytest

from mstar.data.importing.wording import answer_kind, read_answer, read_question
from tests.data.importing.published import HINT


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        (f"<image>\n{HINT}How long?\nChoices:\n(A) 3\n(B) 4", "How long?", ("3", "4")),
        ("<image>\nHow long?", "How long?", ()),
        ("How long?\n<image>", "How long?", ()),
        ("Question: How long?\nChoices:\nA:40°\nB:60°", "How long?", ("40°", "60°")),
        (
            "Which?\nChoices:\n(A)  a dog\n(B)  a cat\nand more",
            "Which?",
            ("a dog", "a cat\nand more"),
        ),
        ("Which?\nChoices: (A) 3/11 (B) 8/11 (C) 6/11", "Which?", ("3/11", "8/11", "6/11")),
        ("Which?\nOptions:\nA. red\nB. blue", "Which?", ("red", "blue")),
        (
            (
                "First perform reasoning, then finally select the question from the choices in the following "
                "format: Answer: xxx.\nQuestion: Which?\nChoices:\n(A) 1\n(B) 2"
            ),
            "Which?",
            ("1", "2"),
        ),
        (
            (
                "Hint: Please answer the question requiring an integer answer and provide the final value, "
                "e.g., 1, 2, 3, at the end.\nQuestion: 图中有几个三角形"
            ),
            "图中有几个三角形",
            (),
        ),
        ("A table of (A) and (B).\nQuestion: why?", "A table of (A) and (B).\nQuestion: why?", ()),
    ],
)
def test_a_question_is_apart_from_hint_mark_and_choices(text, question, options):
    assert read_question(text) == (question, options)


@pytest.mark.parametrize(
    "choices", ["(A) only one", "(B) 1\n(C) 2", "(A) 1\n(C) 2", "(A)\n(B) 2", "none of them"]
)
def test_what_is_no_list_of_choices_in_order_stays_in_the_question(choices):
    text = f"Which?\nChoices:\n{choices}"
    assert read_question(text) == (text, ())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is B", "B"),
        ("The answer is 100", "100"),
        ("the answer is: 3.5.", "3.5"),
        ("The answer is 1.2", "1.2"),
        ("The answer is 10^4", "10^4"),
        ("Answer: yes", "yes"),
        ("a red cube", "a red cube"),
        ("It is 3, so the answer is 4", "It is 3, so the answer is 4"),
        ("The answer is ", ""),
        (".", "."),
    ],
)
def test_an_answer_is_taken_out_of_its_sentence_else_it_stays_as_it_is(text, answer):
    assert read_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "options", "kind"),
    [
        ("B", ("1", "2"), "choice"),
        ("Yes", (), "yes/no"),
        ("1,234", (), "integer"),
        ("-3.5", (), "decimal"),
        ("25%", (), "percent"),
        ("3/4", (), "fraction"),
        (r"$\frac{3}{4}$", (), "fraction"),
        ("[2007, 2008]", (), "list"),
        (r"\sqrt{3}", (), "expression"),
        ("2x + 3", (), "expression"),
        ("a red cube", (), "text"),
        ("20°", (), "text"),
        ("[" + "1," * 50_000, (), "text"),
    ],
)
def test_the_kind_of_an_answer_is_recognised(answer, options, kind):
    assert answer_kind(answer, options) == kind
