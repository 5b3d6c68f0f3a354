"""Verdicts become totals and sub-scores, printed as the official tools print them."""

import json
from dataclasses import replace

import pytest

from mstar.benchmarks.judge import GIVE_UP, Judge, NoReply
from mstar.benchmarks.m3cot import M3COT
from mstar.benchmarks.mathvista import MATHVISTA
from mstar.benchmarks.mmbench import MMBENCH, MMBENCH_R
from mstar.benchmarks.mmstar import MMSTAR, MMSTAR_R
from mstar.benchmarks.records import Count, Item, Reader, Verdict
from mstar.benchmarks.scoring import judge_responses, score
from tests.benchmarks.making import METADATA


def silent(*_):
    """Tell nobody."""


def item(name, *, group="", **facets):
    values = {key.replace("_category", "-category"): (value,) for key, value in facets.items()}
    return Item(
        id=name, prompt="", question="q", options=("x", "y"), answer="B", group=group, facets=values
    )


def verdicts(**right):
    return {name.removeprefix("q"): Verdict(answer="B", correct=hit) for name, hit in right.items()}


def test_a_circular_question_is_right_only_when_every_rotation_is():
    ability = {"l2_category": "LR", "category": "function_reasoning"}
    items = [
        item("1", group="1", **ability),
        item("1000001", group="1", **ability),
        item("2", group="2", **ability),
        item("1000002", group="2", **ability),
        item("3", group="3", l2_category="CP", category="image_scene"),
    ]
    found = score(
        MMBENCH, items, verdicts(q1=True, q1000001=True, q2=True, q1000002=False, q3=False)
    )
    assert found.overall == Count(correct=1, total=3)
    assert found.averages == {"vanilla": pytest.approx(2 / 3)}
    assert found.sections["l2-category"] == {
        "LR": Count(correct=1, total=2),
        "CP": Count(correct=0, total=1),
    }
    assert found.responses == 5
    part = score(
        MMBENCH_R, items, verdicts(q1=True, q1000001=True, q2=True, q1000002=False, q3=False)
    )
    assert part.overall == Count(correct=1, total=2)
    assert MMBENCH.show(found) == (
        '"Overall","CP","LR","function_reasoning","image_scene"\n'
        '"0.3333333333333333","0.0","0.5","0.5","0.0"'
    )


def star(name, category, finer):
    values = {"category": (category,), "l2_category": (f"{category}({finer})",)}
    return replace(item(name), facets=values)


def test_mmstar_tells_the_mean_over_questions_and_over_subcategories():
    items = [
        star("1", "math", "geometry"),
        star("2", "math", "geometry"),
        star("3", "math", "geometry"),
        star("4", "math", "statistical reasoning"),
        star("5", "coarse perception", "image emotion"),
    ]
    marks = verdicts(q1=True, q2=True, q3=True, q4=False, q5=False)
    found = score(MMSTAR, items, marks)
    assert found.overall.accuracy == pytest.approx(3 / 5)
    assert found.averages == {"mean over l2_category": pytest.approx(1 / 3)}
    assert MMSTAR.show(found) == (
        "final score:0.6\ncoarse perception:0.0\ncoarse perception(image emotion):0.0\nmath:0.75\n"
        "math(geometry):1.0\nmath(statistical reasoning):0.0"
    )
    assert score(MMSTAR_R, items, marks).overall == Count(correct=3, total=4)


def test_m3cot_prints_domains_topics_and_the_total():
    facets = [
        ("science", "science/biology"),
        ("science", "science/physics"),
        ("mathematics", "mathematics/algebra"),
    ]
    items = [
        replace(item(str(n)), facets={"domain": (domain,), "topic": (topic,)})
        for n, (domain, topic) in enumerate(facets)
    ]
    found = score(M3COT, items, verdicts(q0=True, q1=False, q2=True))
    assert M3COT.show(found).split("\n") == [
        "domain      topic      Acc",
        "mathematics         100.00",
        "mathematics algebra 100.00",
        "science              50.00",
        "science     biology 100.00",
        "science     physics   0.00",
        "Total: 3, Correct: 66.67%",
    ]


def test_mathvista_prints_the_total_and_each_section_best_first():
    def asked(name, task, skills):
        values = METADATA | {"question_type": "free_form", "answer_type": "integer", "task": task}
        facets = {key: (str(value),) for key, value in values.items()} | {"skills": skills}
        return replace(item(name), facets=facets)

    items = [
        asked("1", "math word problem", ("algebraic reasoning",)),
        asked("2", "figure question answering", ("algebraic reasoning", "statistical reasoning")),
        asked("3", "figure question answering", ("statistical reasoning",)),
    ]
    found = score(MATHVISTA, items, verdicts(q1=False, q2=True, q3=True))
    text = MATHVISTA.show(found)
    assert text.startswith("Correct: 2/3 - Accuracy: 66.67%\n" + "=" * 40 + "\n\nquestion_type\n")
    task, skills = text.split("\ntask\n")[1].split("\n\n")[0], text.split("\nskills\n")[1]
    assert task.split("\n")[1:] == [
        "                          Accuracy Correct/Total",
        "figure question answering  100.00%         (2/2)",
        "math word problem            0.00%         (0/1)",
    ]
    assert (
        "statistical reasoning  100.00%         (2/2)\nalgebraic reasoning     50.00%         (1/2)"
        in skills
    )


def free(name):
    return Item(id=name, prompt=f"hint {name}", question="q", answer="14", kind="integer")


def test_the_fallback_reads_only_what_the_rule_cannot():
    texts = {"1": "14", "2": "I count 14", "3": "I cannot say", "4": ""}
    found = judge_responses(MATHVISTA, [free(name) for name in texts], texts, None, silent)
    assert [(v.answer, v.correct, v.by) for v in found.values()] == [
        ("14", True, Reader.RULE),
        ("14", True, Reader.FALLBACK),
        (None, False, Reader.FALLBACK),
        (None, False, Reader.RULE),
    ]
    scores = score(MATHVISTA, [free(name) for name in texts], found)
    assert (scores.unread, scores.by_fallback, scores.by_judge) == (2, 1, 0)
    assert json.loads(json.dumps(scores.as_json()))["accuracy"] == pytest.approx(0.5)


def test_the_judge_is_asked_only_what_the_rule_cannot_read_and_nothing_twice(tmp_path):
    asked = []

    def reply(prompt):
        asked.append(prompt)
        return "14" if "fourteen" in prompt else "None"

    texts = {"1": "14", "2": "fourteen, or 15", "3": "15 or so", "4": ""}
    items = [free(name) for name in texts]
    for _ in range(2):
        judge = Judge(reply, "url model", tmp_path / "judge.jsonl")
        found = judge_responses(MATHVISTA, items, texts, judge, silent)
    assert len(asked) == 2
    assert all("hint" in prompt and "14" not in prompt for prompt in asked)
    assert [(v.answer, v.by) for v in found.values()] == [
        ("14", Reader.RULE),
        ("14", Reader.JUDGE),
        (None, Reader.JUDGE),
        (None, Reader.RULE),
    ]
    other = Judge(reply, "url other-model", tmp_path / "judge.jsonl")
    judge_responses(MATHVISTA, items, texts, other, silent)
    assert len(asked) == 4


def test_a_reply_that_was_cut_off_on_disk_is_asked_for_again(tmp_path):
    memory = tmp_path / "judge.jsonl"
    assert Judge(lambda _: "B", "m", memory).replies(["p"], silent) == ["B"]
    memory.write_text(memory.read_text()[:-4])
    for _ in range(2):
        assert Judge(lambda _: "C", "m", memory).replies(["p"], silent) == ["C"]
    assert Judge(lambda _: "D", "m", memory).replies(["p"], silent) == ["C"]


def test_where_the_judge_fails_the_fallback_reads_and_it_is_given_up(tmp_path):
    asked: list[str] = []

    def dead(prompt):
        asked.append(prompt)
        raise NoReply("no answer")

    texts = {str(n): f"{n}, I think" for n in range(100)}
    judge = Judge(dead, "m", tmp_path / "judge.jsonl")
    found = judge_responses(MATHVISTA, [free(name) for name in texts], texts, judge, silent)
    assert GIVE_UP <= len(asked) < 2 * GIVE_UP
    assert found["14"] == Verdict(answer="14", correct=True, by=Reader.FALLBACK)
    assert judge.as_json() == {"asked": 100, "failed": 100, "reason": "no answer"}
