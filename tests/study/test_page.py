"""The page: self-contained, safe, and whole whatever is missing."""

import re
from html.parser import HTMLParser

import pytest

from mstar.study.claims import judge
from mstar.study.collect import Trouble
from mstar.study.compare import RowPlan, adoption_of, compare_rows, starting_points
from mstar.study.page import headline, render
from mstar.study.results import Aside
from mstar.study.spec import Claim
from mstar.study.summary import Summary, summary_body
from tests.study.pages import make_cell, make_record, make_records

NASTY = '</style><img src=x onerror="alert(1)">'
PAPER = {"table": 1, "row": "Continuous, 25%", "in_domain": 43.1, "mathvista": 57.2}
ROWS = {
    "sft": 0.4,
    "all": 0.5,
    "prm-top-2": 0.65,
    "random-2": 0.5,
    "prm-top-1": 0.6,
    "x": 0.5,
    "y": 0.5,
}
VOID = {"meta", "br", "img", "input", "link", "hr", "col", "path", "circle", "rect"}


class Checker(HTMLParser):
    """Every element that is opened is closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.ids = []
        self.links = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        assert not {"src", "onerror", "onclick"} & set(found)
        if tag not in VOID - {"path", "circle", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def make_summary(
    records, *, rows=ROWS, baseline="all", gone=(), troubles=(), aside=(), claims=(), of=6
):
    plans = [RowPlan(name=name, recipe=f"{name}.yaml", paper=PAPER, of=of) for name in rows]
    return Summary(
        study="everything",
        baseline=baseline,
        seeds=(0, 1, 2),
        bases=("a", "b"),
        rows=tuple(compare_rows(plans, records, baseline)),
        claims=judge(claims, records),
        starts=starting_points(records),
        adoption=adoption_of(records),
        records=tuple(records),
        missing=tuple(map(make_cell, gone)),
        troubles=tuple(troubles),
        aside=tuple(aside),
    )


def checked(page):
    found = Checker()
    found.feed(page)
    assert found.open == []
    assert len(set(found.ids)) == len(found.ids)
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert not re.search(r"<script|url\(|https?://(?!www\.w3\.org)", page)
    return page


def words(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_page_of_a_whole_study_says_everything():
    page = words(checked(render(make_summary(make_records(ROWS)), now=1.76e9)))
    for said in (
        "3 seeds on 2 bases, 300 test questions",
        "42 of 42",
        "43.1 / 57.2",
        "a, seed 0",
        "mean on b",
        "Equal optimizer updates.",
        "Equal queries.",
        "Pass@16 − Greedy",
        "Reward-Pass@2",
        "steps were adopted",
        "warm-up",
        "sft: evaluated once only",
    ):
        assert said in page, said


def test_the_page_of_nothing_says_what_is_missing():
    gone = make_records(ROWS, seeds=(0,))
    page = words(checked(render(make_summary([], gone=gone), now=1.76e9)))
    assert "No cell is finished yet." in page
    assert "0 of 14" in page
    assert "Not run yet" in page


def test_a_study_of_one_cell_has_a_page():
    page = words(checked(render(make_summary([make_record()], baseline=None), now=1.76e9)))
    assert "names no baseline" in page


def test_claims_stand_on_the_page_with_their_verdicts():
    better = Claim(name="(c)", says=f"the PRM helps {NASTY}", row="prm-top-2", over="random-2")
    page = checked(render(make_summary(make_records(ROWS), claims=[better]), now=0))
    assert "What was claimed, and what shows" in page
    assert "(prm-top-2 over random-2, by accuracy)" in page
    assert ">seen</strong>" in page
    assert "What was claimed" not in render(make_summary(make_records(ROWS)), now=0)


def test_failed_cells_are_named_with_error_and_exit_code():
    records = make_records(ROWS, seeds=(0,))
    trouble = Trouble(cell=make_cell(records[0]), error="it blew up", exit_code=13)
    summary = make_summary(records[1:], gone=records[:1], troubles=[trouble])
    assert "exit code 13: it blew up" in words(checked(render(summary, now=1.76e9)))
    (failed,) = summary_body(summary)["failed"]
    assert failed == {"run": "st-sft-a-s0", "error": "it blew up", "exit_code": 13}


def test_what_is_set_aside_is_named_with_its_reason():
    records = make_records(ROWS, seeds=(0,))
    summary = make_summary(records[1:], aside=[Aside(why="another spec", cell=records[0])])
    assert "another spec" in words(checked(render(summary, now=1.76e9)))


@pytest.mark.parametrize("text", [NASTY, "a & b < c"])
def test_no_text_is_markup(text):
    record = make_records({"all": 0.5}, seeds=(0,))[0]
    trouble = Trouble(cell=make_cell(record), error=text, exit_code=1)
    page = render(make_summary([], gone=[record], troubles=[trouble]), now=1.76e9)
    assert NASTY not in checked(page)


def test_the_headline_does_not_claim_what_cannot_be_told():
    alike = [
        make_record(row, seed=s, answers=[True, False, s == 0, row == "all"])
        for row in ("all", "x")
        for s in (0, 1)
    ]
    said = headline(make_summary(alike, rows=("all", "x"), of=2))
    assert said is not None
    assert said.startswith("all answers most")
    better = [
        make_record(row, seed=s, answers=[row == "x", row == "x", True, row == "x" or s == 0])
        for row in ("all", "x")
        for s in (0, 1)
    ]
    said = headline(make_summary(better, rows=("all", "x"), of=2))
    assert said is not None
    assert "points against all" in said
    assert headline(make_summary(better, rows=("all", "x"), of=3)) is None  # more cells may turn it
