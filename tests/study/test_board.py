"""What is left, from what was measured."""

import pytest

from mstar.history import Entry
from mstar.study.board import Board, PlannedStep, State, counts, kind_of
from mstar.study.grid import Cell
from tests.runs import made_up


def cell(row, seed=0):
    return Cell(row=row, base=None, seed=seed, run=f"st-{row}-s{seed}")


def entry(index, name, seconds, *, adopted=False):
    ref = made_up("step", name)
    return Entry(index=index, name=name, ref=ref, adopted=adopted, seconds=seconds, finished_at=1.0)


def plan(row, *, shared=("warm-up/train",)):
    names = ["warm-up/train", "iter-01/train", "iter-02/train"]
    return [PlannedStep(name=n, token=n if n in shared else f"{row} {n}") for n in names]


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def board(now):
    found = Board([cell("a"), cell("b")], 2, elapsed=lambda: now[0])
    for row in "ab":
        found.plan(cell(row), plan(row))
    return found


def state(board, row):
    return next(each for each in board.snapshot() if each.cell.row == row)


def test_steps_of_all_iterations_are_of_one_kind():
    assert kind_of("iter-03/train") == kind_of("iter-11/train") == "iter/train"
    assert kind_of("warm-up/train") == "warm-up/train"


def test_nothing_can_be_told_before_a_step_is_measured(board):
    assert board.seconds_left() is None


def test_a_shared_step_is_expected_once(board):
    board.start(cell("a"))
    board.finish_step(cell("a"), entry(0, "warm-up/train", 100.0))
    board.finish_step(cell("a"), entry(1, "iter-01/train", 10.0))
    # One training is left for a, two for b, which adopts the warm-up: two cells at once, and b takes 20 s by itself.
    assert board.seconds_left() == pytest.approx(20.0)


def test_time_that_a_step_has_taken_already_is_not_left(board, now):
    board.finish_step(cell("a"), entry(0, "warm-up/train", 100.0))
    board.finish_step(cell("a"), entry(1, "iter-01/train", 10.0))
    board.finish_step(cell("b"), entry(0, "warm-up/train", 0.0, adopted=True))
    for row, step in (("a", "iter-02/train"), ("b", "iter-01/train")):
        board.at(cell(row), step)
    now[0] = 4.0
    assert board.seconds_left() == pytest.approx(16.0)


def test_adopted_steps_say_nothing_about_how_long_making_takes(board):
    board.finish_step(cell("a"), entry(0, "warm-up/train", 0.0, adopted=True))
    assert board.seconds_left() is None
    assert (state(board, "a").adopted, state(board, "a").seconds) == (1, 0)


def test_a_rows_own_steps_say_most_about_it(board):
    for row, seconds in (("a", 10.0), ("b", 50.0)):
        board.finish_step(cell(row), entry(0, "warm-up/train", 1.0))
        board.finish_step(cell(row), entry(1, "iter-01/train", seconds))
    board.end(cell("a"), State.FINISHED)
    assert board.seconds_left() == pytest.approx(50.0)


def test_hearing_of_a_step_twice_changes_nothing(board):
    for _ in range(2):
        board.finish_step(cell("a"), entry(0, "warm-up/train", 5.0))
    assert (state(board, "a").steps, state(board, "a").seconds) == (1, 5.0)


def test_nothing_is_left_when_every_cell_is_over(board):
    board.keep(cell("a"))
    board.end(cell("b"), State.FAILED, error="x", exit_code=9)
    assert board.seconds_left() == 0
    found = counts(board.snapshot())
    assert (found[State.KEPT], found[State.FAILED], found[State.WAITING]) == (1, 1, 0)
