import threading

import pytest

from mstar.core.records import Query
from mstar.equivalence.asking import as_latex, question
from mstar.equivalence.checking import Checker
from mstar.equivalence.pool import Pool, Verdict
from tests.core.answer_cases import read_cases

TYPED = read_cases("answer_cases")
MATH = read_cases("answer_cases_math")


@pytest.fixture(scope="module")
def checker():
    pytest.importorskip("math_verify")
    with Pool(timeout=60, workers=1) as pool:
        yield Checker(pool)


def correct(checker, case):
    query = Query(id="q", question="?", answer=case.answer, options=case.options)
    (graded,) = checker.grade_all([(f"\\boxed{{{case.predicted}}}", query)])
    assert not graded.undecided
    return graded.grade.correct


@pytest.mark.parametrize("case", MATH, ids=str)
def test_math_verify_decides_as_the_table_says(checker, case):
    assert correct(checker, case) == case.same


@pytest.mark.parametrize("case", TYPED, ids=str)
def test_what_the_typed_checks_decided_stays_decided_behind_math_verify(checker, case):
    assert correct(checker, case) == case.same


def test_the_library_works_and_is_stopped_in_a_thread_that_is_not_the_main_one():
    pytest.importorskip("math_verify")
    good, slow = (question(text, r"2\sqrt{3}") for text in (r"\sqrt{12}", "9^{9^{9^{9}}}"))
    assert good is not None
    assert slow is not None
    found = []

    def work():
        with Pool(timeout=60) as pool:
            found.append(pool.ask(good))
            pool.timeout = 0.5
            found.append(pool.ask(slow))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(120)
    assert found == [Verdict.RIGHT, Verdict.UNDECIDED]


def test_a_tolerance_counts_between_an_expression_and_a_decimal(checker):
    query = Query(id="q", question="?", answer=r"\sqrt{2}")
    pool = checker._asker
    loose, rounded = Checker(pool, relative_tolerance=0.01), Checker(pool, decimals=2)
    for text, near, by_decimals in ((r"\boxed{1.41}", True, True), (r"\boxed{1.43}", False, False)):
        assert not checker.grade_all([(text, query)])[0].grade.correct
        assert loose.grade_all([(text, query)])[0].grade.correct == near
        assert rounded.grade_all([(text, query)])[0].grade.correct == by_decimals


@pytest.mark.parametrize("text", ["9^{9^{9^{9}}}", "100000000!", r"2^{2^{2^{2^{2^{2}}}}}"])
def test_a_hanging_input_is_undecided_and_the_next_one_is_decided(checker, text):
    asked = question(text, r"\sqrt{3}")
    assert asked is not None
    with Pool(timeout=0.5, workers=1) as pool:
        assert pool.ask(asked) is Verdict.UNDECIDED
        assert pool.killed == 1
        next_one = question(r"\sqrt{12}", r"2\sqrt{3}")
        assert next_one is not None
        pool.timeout = 60
        assert pool.ask(next_one) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("2√3", r"2\sqrt{3}"),
        ("√(x+1)", r"\sqrt{x+1}"),
        ("x^10", "x^{10}"),
        ("x^(n+1)", "x^{n+1}"),
        ("sqrt(2)", r"\sqrt{2}"),
        ("2*pi", r"2*\pi"),
        ("3 × 4", r"3 \times  4"),
        ("x_10", "x_{10}"),
    ],
)
def test_an_expression_is_written_as_math_verify_reads_it(text, latex):
    assert as_latex(text) == latex


@pytest.mark.parametrize(
    "text",
    [
        *(
            "cat",
            "a red cube",
            "5 cm",
            "7:30",
            "50%",
            r"50\%",
            "B",
            "(B)",
            "30°",
            "$5",
            "x = 2 = 3",
        ),
        *(r"\angle A", r"\triangle ABC", r"\input{x}", r"\frac{1}{2", "}{", "½", "x" * 201, ""),
        *("3 & 4", "#1", "a'b'", '"5"', r"\text{5}", "__import__('os')", "1;2"),
    ],
)
def test_what_is_no_expression_is_never_asked(text):
    assert as_latex(text) is None


@pytest.mark.parametrize("case", [case for case in TYPED if case.same], ids=str)
def test_nothing_is_asked_of_equal_answers(case):
    assert question(case.predicted, case.answer, case.options) is None
