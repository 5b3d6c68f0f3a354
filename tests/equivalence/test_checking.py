import threading

import pytest

from mstar.core.answers import canonical_answer
from mstar.core.records import Finish, Grade, Query, Response, Scored
from mstar.core.voting import majority_vote, weighted_vote
from mstar.equivalence.checking import Checker
from mstar.equivalence.pool import Verdict


class Known:
    """Answers from a table of equal expressions; what contains ``slow`` is never decided."""

    def __init__(self, *classes):
        self.classes = classes
        self.asked = []
        self.lock = threading.Lock()

    def ask_all(self, questions):
        with self.lock:
            self.asked += questions
        return [self.verdict(question) for question in questions]

    def verdict(self, question):
        if any("9^{9" in text for pair in question.pairs for text in pair):
            return Verdict.UNDECIDED
        same = all(any({a, b} <= known for known in self.classes) for a, b in question.pairs)
        return Verdict.RIGHT if same else Verdict.WRONG


ROOTS = {r"2\sqrt{3}", r"\sqrt{12}", r"\frac{6}{\sqrt{3}}"}


def query(answer, options=()):
    return Query(id="q", question="?", answer=answer, options=options)


def graded(checker, answer, truth, options=()):
    (found,) = checker.grade_all([(f"\\boxed{{{answer}}}", query(truth, options))])
    return found


def responses(*answers):
    return [
        Scored(
            response=Response(
                query_id="q",
                sample=sample,
                text="",
                tokens=(1,),
                finish=Finish.STOP,
                temperature=1.0,
                policy="p",
                seed=sample,
            ),
            grade=Grade(answer=answer, correct=False),
            step_scores=(0.5,),
        )
        for sample, answer in enumerate(answers)
    ]


def test_what_the_typed_checks_decide_is_never_asked():
    asker = Known()
    checker = Checker(asker)
    for answer, truth, correct in (("7", "7.0", True), ("7", "8", False), ("a", "b", False)):
        assert graded(checker, answer, truth).grade.correct == correct
    assert not graded(checker, "B", "A", ("21", "30")).grade.correct
    assert checker.grade_all([("no box", query("7"))])[0].grade == Grade(answer=None, correct=False)
    assert not asker.asked


def test_what_they_leave_open_is_asked_and_each_question_once():
    asker = Known(ROOTS)
    checker = Checker(asker)
    found = checker.grade_all([(r"\boxed{\sqrt{12}}", query(r"2\sqrt{3}"))] * 5)
    assert all(one.grade.correct for one in found)
    assert graded(checker, r"\sqrt{12}", r"$2\sqrt{3}$").grade.correct
    assert len(asker.asked) == 1


def test_an_undecided_answer_is_not_right_and_is_told_from_a_wrong_one():
    asker = Known(ROOTS)
    checker = Checker(asker)
    for _ in range(2):
        found = graded(checker, "9^{9^{9}}", r"2\sqrt{3}")
        assert (found.grade.correct, found.undecided) == (False, True)
    wrong = graded(checker, r"\sqrt{5}", r"2\sqrt{3}")
    assert (wrong.grade.correct, wrong.undecided) == (False, False)
    assert checker.undecided == 1
    assert len(asker.asked) == 2  # one that hung is not put again


def test_votes_count_together_for_answers_shown_to_be_the_same():
    group = responses("5", r"\sqrt{12}", r"2\sqrt{3}", "5", r"$\frac{6}{\sqrt{3}}$")
    assert majority_vote(group).grade.answer == "5"
    name = Checker(Known(ROOTS)).namer([g.grade.answer for g in group])
    assert majority_vote(group, (), name).grade.answer == r"\sqrt{12}"
    assert weighted_vote(group, (), name).grade.answer == r"\sqrt{12}"
    assert name(r"2\sqrt{3}", ()) == name(r"\sqrt{12}", ()) == canonical_answer(r"\sqrt{12}")


def test_without_equal_expressions_votes_count_as_they_always_did():
    answers = ["5", "5.0", "a red cube", "A red cube.", r"\sqrt{5}", r"\sqrt{7}", "7:30"]
    name = Checker(Known()).namer(answers)
    assert [name(answer, ()) for answer in answers] == [canonical_answer(a) for a in answers]


def test_an_undecided_answer_stands_for_itself_in_a_vote():
    checker = Checker(Known(ROOTS))
    name = checker.namer([r"\sqrt{12}", "9^{9^{9}}"])
    assert name("9^{9^{9}}", ()) == canonical_answer("9^{9^{9}}")
    assert checker.undecided == 1


@pytest.mark.parametrize("answers", [("B", r"\sqrt{12}"), (r"\sqrt{12}", "B")])
def test_in_a_vote_an_expression_joins_the_option_that_it_is(answers):
    options = (r"\sqrt{3}", r"2\sqrt{3}")
    name = Checker(Known(ROOTS)).namer(answers, options)
    assert name(answers[0], options) == name(answers[1], options)


def test_classes_never_run_into_each_other_where_sameness_is_not_transitive():
    class Close(Known):
        def verdict(self, question):
            ((one, other),) = question.pairs
            distance = abs(int(one.partition("+")[2]) - int(other.partition("+")[2]))
            return Verdict.RIGHT if distance <= 1 else Verdict.WRONG

    name = Checker(Close()).namer(["x+1", "x+2", "x+3"])
    assert name("x+2", ()) == name("x+1", ()) != name("x+3", ())


def test_a_checker_serves_several_threads():
    checker, found = Checker(Known(ROOTS)), list[bool]()

    def work(answer):
        found.extend(graded(checker, answer, r"2\sqrt{3}").grade.correct for _ in range(50))

    threads = [threading.Thread(target=work, args=(a,)) for a in (r"\sqrt{12}", r"\sqrt{5}") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 150 + [True] * 150
