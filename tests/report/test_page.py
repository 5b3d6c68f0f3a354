import html
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mstar.errors import NotFound, StorageError
from mstar.report import page as module
from mstar.report.collect import collect
from mstar.report.page import LIMIT_BYTES, write_report
from mstar.storage.store import Store
from tests.report.making import (
    NASTY,
    NOW,
    VERSION,
    make_run,
    make_spec,
    make_store,
    picture,
    plain_spec,
)


class Balanced(HTMLParser):
    """Fails on a tag that is not closed or closed twice; counts what it meets."""

    VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name == "href" and value]
        self.sources += [value for name, value in attrs if name == "src" and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(store: Store, runs: Sequence[str], folder: Path) -> str:
    path = folder / "deep" / "report.html"
    write_report(store, runs, path, now=NOW)
    return path.read_text(encoding="utf-8")


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser


def album(page: str) -> Any:
    start = page.index('id="album">') + len('id="album">')
    return json.loads(page[start : page.index("</script>", start)])


def test_a_page_is_balanced_and_its_ids_are_unique(both: Store, tmp_path: Path):
    found = parsed(written(both, ["mstar", "continuous"], tmp_path))
    assert len(found.ids) == len(set(found.ids))
    assert found.tags.count("section") == 9
    assert found.tags.count("h1") == 1
    assert found.tags.count("table") == found.tags.count("caption")


def test_every_link_leads_into_the_page_and_nothing_is_fetched(both: Store, tmp_path: Path):
    page = written(both, ["mstar", "continuous"], tmp_path)
    found = parsed(page)
    assert found.links
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert not found.sources
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src &#x27;none&#x27;" in page


def test_the_same_store_and_clock_give_the_same_page(both: Store, tmp_path: Path):
    first = written(both, ["mstar", "continuous"], tmp_path / "1")
    assert written(both, ["mstar", "continuous"], tmp_path / "2") == first


def test_a_question_cannot_break_out_of_the_page(both: Store, tmp_path: Path):
    page = written(both, ["mstar"], tmp_path)
    found = parsed(page)
    assert found.tags.count("script") == 2  # the data and the page's own
    assert "img" not in found.tags  # pictures are made by the script
    assert "onerror=" not in page.replace("onerror=\\", "")
    questions = [query["question"] for query in album(page)["queries"].values()]
    assert NASTY in questions


def test_what_a_worker_wrote_is_text_too(both: Store, tmp_path: Path):
    page = written(both, ["mstar"], tmp_path)
    assert VERSION not in page
    assert html.escape(VERSION, quote=False) in page


@pytest.mark.parametrize("until", range(0, 22, 3))
def test_a_run_that_is_not_done_says_what_is_missing(tmp_path: Path, until: int):
    store = make_store(tmp_path)
    make_run(store, tmp_path, make_spec(), until=until)
    page = written(store, ["mstar"], tmp_path)
    parsed(page)
    assert f"not finished: {until} of 22 steps are done" in page
    assert 'class="absent"' in page


def test_a_finished_run_misses_nothing(both: Store, tmp_path: Path):
    page = written(both, ["mstar"], tmp_path)
    assert page.count('class="absent"') == 1  # for those who allow no scripts
    assert "finished" in page


def test_a_run_without_prm_says_why(both: Store, tmp_path: Path):
    page = written(both, ["continuous"], tmp_path)
    assert "continuous trains no PRM" in page
    assert "Reward-Pass@2 is not known here: this run asks no PRM." in page
    assert "No PRM ranks responses in this run" in page
    assert "fixed at 1." in page


def test_sft_and_a_run_without_a_test_split_have_a_page(tmp_path: Path):
    store = make_store(tmp_path)
    make_run(store, tmp_path, make_spec("sft", evolve={"method": "sft"}))
    make_run(store, tmp_path, make_spec("blind", data={"test": None}))
    page = written(store, ["sft", "blind"], tmp_path)
    parsed(page)
    assert "SFT samples no responses" in page
    assert "its spec names no test split" in page


def test_adopted_steps_are_marked(both: Store, tmp_path: Path):
    page = written(both, ["mstar", "continuous"], tmp_path)
    [_, run] = collect(both, ["mstar", "continuous"])
    adopted = [step.name for step in run.steps if step.adopted]
    assert "warm-up/train" in adopted
    assert page.count(">adopted<") == len(adopted)
    assert "were adopted from another run" in page


def test_the_responses_carry_scores_and_what_was_selected(both: Store, tmp_path: Path):
    data = album(written(both, ["mstar"], tmp_path))
    look = next(item for item in data["looks"] if item["name"] == "1: training")
    first = look["groups"][0]["responses"][0]
    assert first["scores"] == [0.9, 0.25]
    assert first["selected"] == 1
    assert first["correct"] == 1
    wrong = look["groups"][0]["responses"][-1]
    assert "scores" not in wrong
    assert "correct" not in wrong
    assert wrong["answer"] is None


def test_large_pictures_do_not_make_a_large_page(tmp_path: Path):
    store = make_store(tmp_path)
    noise = picture(3, (2400, 1800), "JPEG")
    make_run(store, tmp_path, make_spec(), image=noise)
    assert len(written(store, ["mstar"], tmp_path).encode()) < 1_000_000


def test_a_page_above_the_limit_shows_fewer_queries(
    both: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = written(both, ["mstar", "continuous"], tmp_path / "whole")
    assert len(whole.encode()) < LIMIT_BYTES
    limit = len(whole.encode()) - 1
    monkeypatch.setattr(module, "LIMIT_BYTES", limit)
    smaller = written(both, ["mstar", "continuous"], tmp_path / "smaller")
    assert len(smaller.encode()) < limit
    assert len(album(smaller)["queries"]) < len(album(whole)["queries"])


def test_a_page_is_replaced_as_a_whole(
    both: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "report.html"
    path.write_text("before")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StorageError, match="disk full"):
        write_report(both, ["mstar"], path, now=NOW)
    assert path.read_text() == "before"
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


def test_an_unknown_run_writes_nothing(both: Store, tmp_path: Path):
    with pytest.raises(NotFound):
        write_report(both, ["nobody"], tmp_path / "report.html", now=NOW)
    assert not list(tmp_path.iterdir())


def test_a_run_that_all_others_are_compared_with_needs_no_prm_in_its_spec(tmp_path: Path):
    store = make_store(tmp_path)
    spec = plain_spec().model_copy(update={"prm": None})
    make_run(store, tmp_path, spec)
    assert "its spec says prm: null" in written(store, ["continuous"], tmp_path)
