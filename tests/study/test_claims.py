"""A claim is seen, not seen, or cannot be told; nothing else decides which but its interval."""

import pytest

from mstar.errors import SpecError
from mstar.study.claims import Verdict, exploration, judge, judged_body, pass_at_k, reward_pass
from mstar.study.records import Point, Sampled
from mstar.study.spec import Claim, load_study
from tests.study.making import write_study
from tests.study.pages import make_record

GOOD, BAD = [True] * 36 + [False] * 4, [True] * 4 + [False] * 36


def claim(row="ours", over="theirs", by="accuracy"):
    return Claim(name="(a)", says="ours is better", row=row, over=over, by=by)


def cells(row, answers, **changes):
    return [make_record(row, seed=seed, answers=answers, **changes) for seed in range(3)]


def point(iteration, greedy, *sampled, at=1.0):
    """``sampled``: (temperature, Pass@16, Reward-Pass@2); ``at`` is the temperature in use."""
    return Point(
        iteration=iteration,
        updates=10 * iteration,
        queries=100 * iteration,
        questions=8,
        greedy=greedy,
        temperature=at,
        sampled=tuple(
            Sampled(temperature=t, pass_at={1: 0.1, 16: p}, reward_pass_at_2=r)
            for t, p, r in sampled
        ),
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [(GOOD, BAD, Verdict.SEEN), (BAD, GOOD, Verdict.NOT_SEEN), (GOOD, GOOD, Verdict.OPEN)],
)
def test_the_interval_alone_gives_the_verdict(ours, theirs, verdict):
    (judged,) = judge([claim()], [*cells("ours", ours), *cells("theirs", theirs)])
    assert judged.verdict is verdict
    assert judged.measured
    assert (judged.measured.pairs, judged.measured.questions) == (3, 40)


@pytest.mark.parametrize("pairs", [1, 2])
def test_fewer_than_three_pairs_tell_nothing_however_clear_they_are(pairs):
    records = [*cells("ours", GOOD)[:pairs], *cells("theirs", BAD)[:pairs]]
    (judged,) = judge([claim()], records)
    assert judged.verdict is Verdict.OPEN
    assert judged.measured
    assert judged.measured.difference.mean == pytest.approx(0.8)


def test_differences_that_are_equal_by_chance_tell_nothing_of_other_seeds():
    low, high = (point(0, 0.2), point(1, 0.4)), (point(0, 0.2), point(1, 0.5))
    records = [*cells("ours", GOOD, points=high), *cells("theirs", GOOD, points=low)]
    (judged,) = judge([claim(by="updates")], records)
    assert judged.verdict is Verdict.OPEN


def test_a_claim_without_cells_cannot_be_told():
    (judged,) = judge([claim()], cells("ours", GOOD))
    assert (judged.verdict, judged.measured) == (Verdict.OPEN, None)
    body = judged_body(judged)
    assert (body["verdict"], body["difference"], body["pairs"]) == ("cannot be told", None, 0)


def test_equal_amounts_are_read_where_the_shorter_of_the_two_ends():
    short = (point(0, 0.2), point(1, 0.4))
    long = (point(0, 0.2), point(2, 0.4))
    records = [*cells("ours", GOOD, points=short), *cells("theirs", GOOD, points=long)]
    for by, at in (("updates", 10), ("queries", 100)):
        (judged,) = judge([claim(by=by)], records)
        assert judged.measured
        assert judged.measured.at == at
        assert judged.measured.difference.mean == pytest.approx(0.1)


def test_what_sampling_finds_is_read_at_the_temperature_in_use():
    found = point(0, 0.3, (0.6, 0.6, 0.5), (1.2, 0.9, 0.4), at=1.2)
    assert pass_at_k(found) == 0.9
    assert exploration(found) == pytest.approx(0.6)
    assert reward_pass(found) == 0.4
    for unknown in (point(0, 0.3, (0.6, 0.6, 0.5)), point(0, 0.3, (1.0, 0.6, None), at=None)):
        assert pass_at_k(unknown) is exploration(unknown) is reward_pass(unknown) is None
    assert exploration(point(0, None, (1.0, 0.6, None))) is None


def test_a_last_policy_that_was_not_measured_is_not_taken_for_an_earlier_one():
    unmeasured = (point(0, 0.2, (1.0, 0.8, None)), point(1, 0.3, (1.0, 0.7, None)), point(2, 0.4))
    records = cells("ours", GOOD, points=unmeasured)
    (judged,) = judge([claim(over=None, by="pass@k lost")], records)
    assert judged.measured is None


def test_what_is_lost_of_exploration_may_be_claimed_of_one_row_or_over_another():
    losing = (point(0, 0.2, (1.0, 0.8, None)), point(1, 0.6, (1.0, 0.9, None)))
    keeping = (point(0, 0.2, (1.0, 0.8, None)), point(1, 0.3, (1.0, 0.9, None)))
    records = [*cells("ours", GOOD, points=losing), *cells("theirs", GOOD, points=keeping)]
    alone, both, last = judge(
        [
            claim(over=None, by="exploration lost"),
            claim(by="exploration lost"),
            claim(row="theirs", over="ours", by="exploration"),
        ],
        records,
    )
    assert alone.measured
    assert alone.measured.difference.mean == pytest.approx(0.3)
    assert both.measured
    assert both.measured.difference.mean == pytest.approx(0.3)
    assert last.measured
    assert last.measured.difference.mean == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"row": "som"}, r"claims: \(a\): no row is called 'som'; did you mean some\?"),
        ({"over": "al"}, r"claims: \(a\): no row is called 'al'; did you mean all\?"),
        ({"over": None}, "by accuracy a row has more than another"),
        ({"by": "luck"}, r"claims\.0\.by: should be 'accuracy'"),
    ],
)
def test_a_claim_about_what_is_not_there_is_a_mistake(tmp_path, wrong, said):
    good = {"name": "(a)", "says": "some is better", "row": "some", "over": "all"}
    assert load_study(write_study(tmp_path, claims=[good])).claims[0].by == "accuracy"
    with pytest.raises(SpecError, match=said):
        load_study(write_study(tmp_path, claims=[good | wrong]))


def test_a_key_that_stands_twice_in_a_study_is_a_mistake(tmp_path):
    file = write_study(tmp_path)
    file.write_text(file.read_text() + "parallel: 1\nparallel: 3\n")
    with pytest.raises(SpecError, match="'parallel' stands twice"):
        load_study(file)
