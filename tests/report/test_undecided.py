from dataclasses import replace

import pytest

from mstar.report import page
from mstar.report.collect import collect, undecided_of
from tests.report.making import NOW, make_run, make_store, plain_spec


@pytest.mark.parametrize(
    ("results", "count"),
    [
        ({"undecided": 3}, 3),
        ({"correct": 3}, None),
        ({"greedy": {"undecided": 1}, "sampled": [{"undecided": 2}, {"undecided": 4}]}, 7),
        ({"greedy": None, "sampled": [{"undecided": 0}]}, 0),
        ({"greedy": {"tokens": 1}, "sampled": []}, None),
    ],
)
def test_undecided_answers_are_counted_where_there_can_be_some(results, count):
    assert undecided_of(results) == count


def test_the_page_says_how_many_answers_were_undecided_only_where_some_can_be(tmp_path):
    store = make_store(tmp_path)
    make_run(store, tmp_path, plain_spec(), until=4)
    (run,) = collect(store, ["continuous"])
    assert "Undecided" not in str(page._facts([run], NOW))
    first, *others = run.steps
    shared = replace(run, steps=(replace(first, undecided=12), *others))
    said = str(page._facts([shared, shared], NOW))
    assert "Undecided answers" in said
    assert "12, none of them counted as right" in said
