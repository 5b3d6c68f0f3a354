"""What finished cells say together: means, pairs, equal updates, and what adoption saved."""

import pytest

from mstar.core.comparison import paired_estimate
from mstar.core.metrics import wilson_interval
from mstar.study.compare import RowPlan, adoption_of, compare_rows, result_of, starting_points
from mstar.study.records import Answered, Cost, Point, packed
from tests.study.pages import make_record, make_test

RIGHT, WRONG = True, False


def plans(*names, of=2):
    return [RowPlan(name=name, recipe=f"{name}.yaml", paper=None, of=of) for name in names]


def mean_of(estimate):
    assert estimate is not None
    return estimate.mean


def curve(*points):
    """(updates, greedy) by iteration; queries are twice the updates."""
    return tuple(
        Point(iteration=i, updates=u, queries=2 * u, questions=8, greedy=g)
        for i, (u, g) in enumerate(points)
    )


@pytest.mark.parametrize("answers", [[RIGHT], [WRONG] * 9, [WRONG, RIGHT, RIGHT] * 7])
def test_answers_are_kept_a_bit_each(answers):
    assert Answered(questions="q", count=len(answers), correct=packed(answers)).answers() == answers


def test_one_cell_has_the_interval_of_its_questions():
    found = result_of([make_test([RIGHT, WRONG, RIGHT, RIGHT])])
    assert found is not None
    assert found.accuracy.mean == 0.75
    assert (found.accuracy.low, found.accuracy.high) == wilson_interval(3, 4)
    assert found.questions == 4


def test_a_difference_is_paired_by_seed_and_base_whatever_the_order():
    base = [
        make_record("all", b, s, [RIGHT, WRONG, s == 0, b == "x"]) for s in (0, 1) for b in "xy"
    ]
    ours = [make_record("top", b, s, [RIGHT, RIGHT, s == 0, RIGHT]) for s in (0, 1) for b in "xy"]
    rows = compare_rows(plans("all", "top", of=4), [*base, *reversed(ours)], "all")
    assert rows[0].difference is None
    assert rows[1].difference == paired_estimate(
        [r.final.answers() for r in ours], [r.final.answers() for r in base]
    )
    assert mean_of(rows[1].difference) == pytest.approx(0.375)
    assert rows[1].pairs == 4


def test_no_difference_of_accuracies_reaches_beyond_all_and_none():
    ours = [[RIGHT] * 9 + [WRONG], [WRONG] * 10]
    theirs = [[WRONG] * 10, [RIGHT] * 10]
    found = paired_estimate(ours, theirs)
    assert (found.low, found.high) == (-1.0, 1.0)


def test_only_cells_that_both_rows_have_are_compared():
    records = [make_record("all", seed=0), make_record("all", seed=1), make_record("top", seed=1)]
    (_, top) = compare_rows(plans("all", "top"), records, "all")
    assert top.pairs == 1
    assert mean_of(top.difference) == 0


def test_tests_of_other_questions_are_never_paired():
    other = make_record("top", tests={"final": make_test([RIGHT] * 4, questions="others")})
    (_, top) = compare_rows(plans("all", "top"), [make_record("all"), other], "all")
    assert (top.pairs, top.difference) == (0, None)


def test_rows_are_read_at_the_smallest_total_of_updates():
    records = [
        make_record("all", points=curve((0, 0.2), (10, 0.4), (20, 0.6))),
        make_record("all", seed=1, points=curve((0, 0.2), (10, 0.6), (20, 0.8))),
        make_record("few", points=curve((0, 0.2), (5, 0.5))),
        make_record("few", seed=1, points=curve((0, 0.2), (5, 0.5))),
        make_record("mid", points=curve((0, 0.2), (15, 0.5))),
    ]
    every, few, mid = compare_rows(plans("all", "few", "mid"), records, "all")
    assert every.equal["updates"].at == few.equal["updates"].at == 5
    assert mean_of(every.equal["updates"].accuracy) == pytest.approx((0.3 + 0.4) / 2)
    assert mean_of(few.equal["updates"].difference) == pytest.approx(0.5 - 0.35)
    # With the baseline alone, the middle row is read where it ends itself.
    assert mid.equal["updates"].against == 15
    assert mean_of(mid.equal["updates"].difference) == pytest.approx(0.5 - 0.5)
    assert few.equal["queries"].at == 10


def test_a_row_that_was_evaluated_once_has_no_part_in_equal_updates():
    records = [
        make_record("all", points=curve((0, 0.2), (10, 0.4))),
        make_record("sft", points=curve((3, 0.4))),
    ]
    every, sft = compare_rows(plans("all", "sft"), records, "all")
    assert "updates" not in sft.equal
    assert every.equal["updates"].at == 10


def test_rows_without_results_are_there_without_numbers():
    (row,) = compare_rows(plans("all"), [], None)
    assert (row.overall, row.difference, dict(row.equal), row.of) == (None, None, {}, 2)


def test_a_start_that_rows_share_counts_once():
    tests = {"base": make_test([RIGHT, WRONG]), "final": make_test([RIGHT, RIGHT])}
    records = [make_record("all", tests=tests), make_record("top", tests=tests)]
    assert starting_points(records)["base"].accuracy.n == 1


def test_starts_that_differ_between_rows_are_told_apart():
    def starting(row, answers):
        tests = {"warm-up": make_test(answers), "final": make_test(answers)}
        return make_record(row, tests=tests)

    found = starting_points([starting("student", [RIGHT] * 4), starting("alone", [WRONG] * 4)])
    assert {name: result.accuracy.mean for name, result in found.items()} == {
        "warm-up (student)": 1.0,
        "warm-up (alone)": 0.0,
    }


def test_the_share_saved_is_of_all_step_time():
    cost = Cost(steps=4, adopted=1, seconds=30, saved=10)
    found = adoption_of([make_record(cost=cost), make_record(seed=1, cost=cost)])
    assert (found.steps, found.adopted, found.share) == (8, 2, 0.25)
    assert adoption_of([]).share == 0
