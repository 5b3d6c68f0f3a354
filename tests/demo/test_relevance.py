"""The generator reads its own questions back, and knows which steps of a response are relevant."""

import io
import random

import pytest
from PIL import Image

from mstar.core.records import Query
from mstar.data.splits import Sample
from mstar.demo.dataset import draw_split
from mstar.demo.digits import render_image
from mstar.demo.rationales import Mixture, step_wordings, write_solution
from mstar.demo.relevance import generator, rate, read_picture, read_question

FAULTLESS = Mixture(guess=0, stop_first=0, stop_later=0, wrong_cell=0, wrong_operator=0, slip=0)
QUESTIONS = draw_split("validation", 60, seed=7)
WHOLE = {"relevant_steps": 1.0, "operations_shown": 1.0, "sound": 1.0}


def stored(question):
    buffer = io.BytesIO()
    render_image(question.picture).save(buffer, "PNG", optimize=True)
    query = Query(
        id="any", question=question.text, answer=question.answer, options=question.options
    )
    return Sample(query=query, image=buffer.getvalue())


def test_a_stored_question_reads_back_whole_whatever_seed_drew_it():
    for question in QUESTIONS:
        sample = stored(question)
        assert read_question(question.text, question.options, sample.image) == question


def test_a_faultless_rationale_is_sound_in_every_style():
    for number, question in enumerate(QUESTIONS):
        rate_one = generator(stored(question))
        assert rate_one is not None
        assert rate_one(write_solution(question, FAULTLESS, random.Random(number))) == WHOLE


def test_a_bare_guess_that_is_right_is_to_the_point_and_shows_nothing():
    question = QUESTIONS[0]
    found = rate(step_wordings(question), f"Answer: \\boxed{{{question.answer}}}")
    assert found == {"relevant_steps": 1.0, "operations_shown": 0.0, "sound": 0.0}


def deep():
    return next(question for question in QUESTIONS if question.level == 3)


def steps(question):
    return write_solution(question, FAULTLESS, random.Random(0)).split("\n")


def test_stopping_early_shows_part_of_the_operations():
    question = deep()
    lines = steps(question)
    without_last = "\n".join([*lines[:-2], lines[-1]])
    found = rate(step_wordings(question), without_last)
    assert found["relevant_steps"] == 1.0
    assert found["operations_shown"] == pytest.approx(2 / 3)
    assert not found["sound"]


@pytest.mark.parametrize(
    "extra", ["So 99 + 1 = 100.", "It is a fine picture.", "Start with top-left: 11."]
)
def test_a_step_that_no_valid_rationale_has_is_irrelevant(extra):
    question = deep()
    lines = steps(question)
    found = rate(step_wordings(question), "\n".join([extra, *lines]))
    assert found["relevant_steps"] == pytest.approx(len(lines) / (len(lines) + 1))
    assert found["operations_shown"] == 1.0
    assert not found["sound"]


def test_a_step_that_is_said_twice_counts_once():
    question = deep()
    lines = steps(question)
    found = rate(step_wordings(question), "\n".join([lines[0], *lines]))
    assert found["relevant_steps"] < 1


def test_an_empty_response_shows_nothing():
    assert rate(step_wordings(deep()), "") == dict.fromkeys(WHOLE, 0.0)


def test_questions_of_another_make_are_not_claimed():
    ours = stored(QUESTIONS[0])
    blank = io.BytesIO()
    Image.new("RGB", (32, 32)).save(blank, "PNG")
    other = Query(id="q", question="What is shown?", answer="a cat")
    assert generator(Sample(query=other, image=ours.image)) is None
    assert generator(Sample(query=ours.query, image=blank.getvalue())) is None
    assert generator(Sample(query=ours.query, image=b"no image")) is None
    wrong = Query(id="q", question=ours.query.question, answer="31")
    assert generator(Sample(query=wrong, image=ours.image)) is None


def test_a_picture_of_another_size_is_none_of_ours():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    assert read_picture(buffer.getvalue()) is None
