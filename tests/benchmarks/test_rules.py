"""Cases checked by hand for each rule by which a response is judged."""

import pytest

from mstar.benchmarks import m3cot, mathvista, mmstar
from mstar.benchmarks.finals import final_answer, named_option
from mstar.benchmarks.options import hear_choice, infer, read_choice
from mstar.benchmarks.records import Item

ANIMALS = ("a cat", "a dog", "a cow")


def choice(options=ANIMALS, answer="B"):
    return Item(id="1", prompt="", question="What is it?", options=options, answer=answer)


def number(answer, kind="integer", precision=None):
    return Item(
        id="1", prompt="", question="How many?", answer=answer, kind=kind, precision=precision
    )


@pytest.mark.parametrize(
    ("response", "final"),
    [
        (r"So \boxed{14}.", "14"),
        (r"\boxed{1} and then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"The answer is 3. No: \boxed{B}", "B"),
        ("The answer is (B) a dog.", "(B) a dog"),
        ("**Answer:** B", "B"),
        ("Answer: A\nwait\nFinal answer: **B**", "B"),
        ("The answer is: 12 cm.", "12 cm"),
        ("I see a dog.", None),
        (r"\boxed{}", None),
        ("The answer is", None),
        (r"cut off inside \boxed{1", None),
        ("answer: " + "x" * 2000, None),
    ],
)
def test_the_final_answer_is_what_a_response_marks_last(response, final):
    assert final_answer(response) == final


@pytest.mark.parametrize(
    ("final", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B. a dog", "B"),
        ("a dog", "B"),
        ("A dog", "B"),
        ("E", None),
        ("a horse", None),
        ("A or B", None),
    ],
)
def test_a_final_answer_names_an_option_by_letter_or_text(final, letter):
    assert named_option(final, ANIMALS) == letter


def test_a_bare_letter_is_the_option_of_that_letter_also_where_it_is_anothers_text():
    assert named_option("(b)", ("(b)", "(a)", "(c)")) == "B"


# VLMEvalKit's rule ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. a dog", "B"),
        ("The correct option is B.", "B"),
        ("B because I can see its ears in the picture", None),  # not among the last five words
        ("A or B", None),  # two letters
        ("The answer is B and not C, as one sees from the ears", "B"),
        ("The answer is **C**, rather than A, one would think", "C"),
        ("answer is but a word", None),  # not the letter B
        ("It is a dog.", "B"),  # the only option whose text occurs
        ("a cat or a dog", None),
        ("It is a dog, and " + "so " * 20, None),  # longer than twice all options
        ("Z", "Z"),
        ("I can't process this file.", "Z"),
        ("Failed to obtain answer via API B", None),
        ("", None),
        ("D", None),  # no such option
        ("b", None),  # lower case is no letter
    ],
)
def test_the_harness_reads_a_letter_among_the_last_five_words_or_the_only_text(text, letter):
    assert infer(text, choice()) == letter


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        (r"A is too small and C too large. \boxed{B}", "B"),
        (r"It could be A, B or C. \boxed{a dog}", "B"),
        ("A is a cat, C is a cow. The answer is B because of its ears.", "B"),
        ("A is a cat, C is a cow, B a dog", None),
        (r"\boxed{17}", None),
    ],
)
def test_a_chain_of_thought_is_read_at_its_final_answer(response, letter):
    assert read_choice(choice(), response) == letter


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" (b).", "B"),
        ("Z", "Z"),
        ("The response chooses B", "B"),
        ("Q", None),
        ("A or B", None),
    ],
)
def test_a_judges_reply_is_one_letter(reply, letter):
    assert hear_choice(choice(), reply) == letter


# MMStar -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("b: the dog", "B"),
        ("(C) nothing", "C"),
        ("Option D", "D"),
        ("The answer is A.", "A"),
        ("\nthe answer\nis c", "C"),
        ("A dog", "A"),  # the rule looks at one letter
        ("It is B", None),
        ("(the) B", None),
        ("", None),
    ],
)
def test_mmstar_looks_at_how_a_response_begins(response, letter):
    assert mmstar.official(response) == letter


def test_mmstar_reads_a_marked_answer_before_the_beginning():
    item = choice()
    assert mmstar.extract(item, r"At first I see a cat. \boxed{a dog}") == "B"
    assert mmstar.extract(item, "At first I see a cat.") == "A"
    assert mmstar.extract(item, r"Look: \boxed{a horse}") is None


# M3CoT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("(A) seems wrong, so it is (b)", "B"),
        ("[Answer] B [Rationale] because (C)", "B"),
        ("(C)\n[Answer]\n(A)\n[Context] (B)", "A"),
        ("It is A CAT, not a cow", "C"),  # the last of the options, not of the text
        ("I say B.", "B"),
        ("C, or else A", "C"),  # the last in the options' order
        ("it is b!", "B"),
        ("(E)", "E"),  # a letter of no option is still what was said, and wrong
        ("none", None),
    ],
)
def test_m3cot_takes_the_last_bracketed_letter_else_text_else_letter(response, letter):
    assert m3cot.official(choice(), response) == letter


def test_m3cot_reads_a_marked_answer_first_unless_the_authors_mark_is_there():
    assert m3cot.extract(choice(), r"(C) is wrong. \boxed{B}") == "B"
    assert m3cot.extract(choice(), "The answer is B. [Answer] (A)") == "A"
    assert m3cot.extract(choice(), r"\boxed{17} (A)") == "A"


# MathVista --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "response", "extraction", "right"),
    [
        (choice(answer="a dog"), "a dog", "a dog", True),
        (choice(answer="a dog"), 'The answer is "a dog".', "a dog", True),
        (choice(answer="a dog"), 'The answer is "(B) whatever".', "(B) whatever", True),
        (choice(answer="a dog"), "(A) is too small. The answer is (B) a dog.", "B", True),
        (
            choice(answer="a dog"),
            r"\boxed{a dig}",
            "a dig",
            True,
        ),  # the nearest choice, as officially
        (choice(answer="a dog"), "The answer is a dig", None, False),
        (choice(answer="a dog"), "B", "B", True),
        (choice(answer="a dog"), "Cannot determine the answer", None, False),
        (choice(answer="a dog"), "", None, False),
        (number("14"), "14", "14", True),
        (number("14"), " 14\n", "14", True),
        (number("14"), r"So \boxed{14}.", "14", True),
        (number("14"), r"So \boxed{14\text{ cm}}.", "14", True),
        (number("14"), "The answer is 14.0", "14.0", True),
        (number("14"), "The answer is 14.9", "14.9", True),  # int() cuts, as officially
        (number("1400"), "Answer: 1,400 g", "1400", True),
        (number("14"), "The answer is 14 or 15.", None, False),
        (number("-7"), r"\boxed{-7}", "-7", True),
        (number("14"), "There are 14 of them.", None, False),
        (number("14"), 'The answer is "many".', "many", False),
        (number("1.2", "float", 1), "1.24", "1.24", True),
        (number("1.2", "float", 1), "1.26", "1.26", False),
        (number("0.33", "float", 2), r"\boxed{0.3333}", "0.3333", True),
        (number("0.33", "float", 2), "inf", "inf", False),
        (number("1"), "The answer is 1e999", None, False),
        (number("[1, 2]", "list"), "The answer is [1, 2].", "[1, 2]", True),
        (number("[1, 2]", "list"), r"\boxed{[1,2]}", "[1,2]", False),  # compared as text
    ],
)
def test_mathvista_follows_the_official_order(item, response, extraction, right):
    found = mathvista.extract(item, response)
    assert found == extraction
    assert (found is not None and mathvista.correct(item, found)) is right


@pytest.mark.parametrize(
    ("item", "response", "extraction"),
    [
        (choice(), "First (A), then again (B), and (X).", "B"),
        (choice(), "A dog is no cat; a cat it is", "A"),
        (choice(), "no idea", None),
        (number("14"), "There are 3 rows, so 1,400 of them.", "1400"),
        (number("14"), "None that I see", None),
        (number("[2]", "list"), "From [1] to [2, 3].", "[2, 3]"),
    ],
)
def test_mathvistas_fallback_takes_what_is_named_last(item, response, extraction):
    assert mathvista.fallback(item, response) == extraction


@pytest.mark.parametrize(
    ("text", "choice_", "distance"),
    [("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("same", "same", 0)],
)
def test_the_edit_distance_counts_insertions_deletions_and_replacements(text, choice_, distance):
    assert (
        mathvista.edit_distance(text, choice_) == mathvista.edit_distance(choice_, text) == distance
    )


def test_of_equally_near_choices_the_first_is_taken():
    assert mathvista.nearest("x", ("a", "b")) == "a"


@pytest.mark.parametrize(
    ("reply", "heard"), [(" 14 ", "14"), ("None.", None), ("", None), ("x" * 1001, None)]
)
def test_mathvistas_judge_may_say_that_there_is_no_answer(reply, heard):
    assert mathvista.hear(number("14"), reply) == heard
