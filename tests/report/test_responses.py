from pathlib import Path

from PIL import Image

from mstar.core.records import Query
from mstar.data.splits import Sample
from mstar.report.collect import collect
from mstar.report.responses import (
    KEPT_BYTES,
    THUMBNAIL,
    collect_responses,
    draw_queries,
    merge,
    picture_of,
)
from mstar.storage.store import Store
from tests.report.making import answers, picture


def sample(image: bytes) -> Sample:
    return Sample(query=Query(id="q", question="?", answer="1"), image=image)


def test_a_picture_that_pillow_warns_of_is_shown_without_a_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    assert picture_of(sample(picture(1, (8, 8)))).width == 8  # a warning would be an error


def test_queries_are_drawn_by_id_alone():
    scored = [item for q in range(40) for item in answers(f"q{q}", 2, 1.0, scores=False)]
    drawn = draw_queries(scored, 5)
    backwards = [
        item for q in reversed(range(40)) for item in answers(f"q{q}", 2, 1.0, scores=False)
    ]
    assert len(drawn) == 5
    assert list(draw_queries(backwards, 5)) == list(drawn)
    assert all(len(group) == 2 for group in drawn.values())


def test_a_query_whose_responses_stand_apart_keeps_them_all():
    hot = [item for q in range(9) for item in answers(f"q{q}", 2, 1.0, scores=False)]
    greedy = [item for q in range(9) for item in answers(f"q{q}", 1, 0.0, scores=False)]
    assert all(len(group) == 3 for group in draw_queries(greedy + hot, 4).values())


def test_equal_responses_are_shown_once_with_how_many_were_selected():
    scored = answers("q", 4, 1.0, scores=True)
    right, wrong = merge(scored, {("q", 0)}, "\n")
    assert (right.count, right.selected, right.correct) == (2, 1, True)
    assert (wrong.count, wrong.selected, wrong.correct) == (2, 0, False)
    assert right.steps == ("sample 0 <i>of</i> q", "\\boxed{0}")
    assert right.scores == (0.9, 0.25)
    assert wrong.scores == ()


def test_the_greedy_response_comes_first_and_apart():
    scored = answers("q", 4, 1.0, scores=False) + answers("q", 1, 0.0, scores=False)
    assert [(s.greedy, s.count) for s in merge(scored, set(), "\n")] == [
        (True, 1),
        (False, 2),
        (False, 2),
    ]


def test_a_small_picture_is_kept_and_a_large_one_is_drawn_smaller():
    small = picture_of(sample(picture(1)))
    assert (small.width, small.height) == (12, 9)
    assert small.source.startswith("data:image/png;base64,")
    large = picture_of(sample(picture(1, (3000, 1500), "BMP")))
    assert (large.width, large.height) == (THUMBNAIL, THUMBNAIL // 2)
    assert large.source.startswith("data:image/jpeg;base64,")
    assert len(large.source) < KEPT_BYTES


def test_an_album_shows_training_and_validation_of_each_iteration(both: Store):
    album = collect_responses(both, collect(both, ["mstar", "continuous"]), 4)
    looks = [(look.run, look.iteration, look.source) for look in album.looks]
    expected = [
        (0, "validation"),
        (1, "training"),
        (1, "validation"),
        (2, "training"),
        (2, "validation"),
    ]
    assert looks == [(run, *rest) for run in ("mstar", "continuous") for rest in expected]
    for look in album.looks:
        assert len(look.groups) == (4 if look.source == "training" else 2)
        assert all(key in album.queries for key, _ in look.groups)


def test_two_runs_show_the_same_queries_of_a_slice(both: Store):
    album = collect_responses(both, collect(both, ["mstar", "continuous"]), 4)
    first, second = (
        [key for key, _ in look.groups]
        for look in album.looks
        if (look.iteration, look.source) == (1, "training")
    )
    assert first == second


def test_a_split_and_another_may_use_the_same_ids(tmp_path: Path, both: Store):
    album = collect_responses(both, collect(both, ["mstar"]), 24)
    assert {key.split("/")[1] for key in album.queries} == {"train", "validation"}
