"""A run's curves follow from what is stored, whenever they are read."""

import json

import pytest

from mstar.storage import keys
from mstar.tracking.points import configuration
from mstar.tracking.reading import AtWork, Story
from tests.report.making import make_run, make_spec, make_store


def told(story, upto=None):
    """All points of a run's first chapters, as (tag, x, value)."""
    found = []
    for written in story.written[:upto]:
        chapter = written.chapter
        losses = story.losses(written.manifest) if chapter.losses else ()
        found += [
            (tag, point.x, value)
            for point in chapter.points(losses, 0)
            for tag, value in point.values.items()
        ]
    return found


def read(store, name="mstar"):
    story = Story(store, name)
    story.look()
    return story


def series(points, tag):
    return [(x, value) for name, x, value in points if name == tag]


def test_the_loss_of_all_the_policy_s_train_steps_is_one_curve_over_the_run_s_optimizer_steps(
    store,
):
    loss = series(told(read(store)), "train/loss")
    assert [x for x, _ in loss] == list(range(1, 16)), "warm-up and two iterations of five steps"
    assert [value for _, value in loss[:5]] == [1.0 / step for step in range(1, 6)]


def test_models_beside_the_policy_have_curves_of_their_own(store):
    points = told(read(store))
    for curve in ("prm", "completer"):
        assert [x for x, _ in series(points, f"{curve}/loss")] == [1, 2, 3, 4, 5]


def test_the_learning_rate_goes_on_where_an_inherited_optimizer_stands(store):
    rates = [rate for _, rate in series(told(read(store)), "train/learning_rate")]
    evolve = make_spec().evolve.optimization
    warm = [
        evolve.learning_rate * step / evolve.warmup_steps for step in (*range(1, 6), *range(6, 11))
    ]
    assert rates[5:] == pytest.approx(warm)


def test_what_an_iteration_found_stands_at_its_number(store):
    points = told(read(store))
    assert [x for x, _ in series(points, "validation/greedy_accuracy")] == [0, 1, 2]
    assert series(points, "validation/pass_at_4")[0] == (0, 1.0)
    assert [x for x, _ in series(points, "rollout/temperature")] == [1, 2]
    assert series(points, "selection/solved_share") == [(1, 1.0), (2, 1.0)]
    assert series(points, "selection/kept_share") == [(1, 0.5), (2, 0.5)]
    assert [x for x, _ in series(points, "test/final/greedy_accuracy")] == [2]
    assert [x for x, _ in series(points, "exploration/T0.50/reward_pass_at_2")] == [0]
    assert series(points, "speed/generate_tokens_per_second") == [(1, 480.0), (2, 480.0)]
    assert series(points, "speed/train_tokens_per_second") == [(1, 90.0), (2, 90.0)]
    assert series(points, "prm/held_out_mse") == [(0, 0.05)]


def test_no_tag_has_two_values_at_one_place(store):
    places = [(tag, x) for tag, x, _ in told(read(store))]
    assert len(places) == len(set(places))


def test_a_run_that_goes_on_only_adds_points(store, tmp_path):
    part = make_store(tmp_path / "part")
    whole = told(read(store))
    make_run(part, tmp_path / "part", make_spec(), until=9)
    some = told(read(part))
    assert some == whole[: len(some)]


def test_looking_again_reads_what_is_new(tmp_path):
    store = make_store(tmp_path)
    make_run(store, tmp_path, make_spec(), until=4)
    story = read(store)
    assert len(story.written) == 4
    make_run(store, tmp_path, make_spec())
    story.look()
    assert told(story) == told(read(store))


def test_losses_of_a_step_at_work_are_those_that_its_commit_will_tell(tmp_path):
    store = make_store(tmp_path)
    whole = make_store(tmp_path / "whole")
    make_run(whole, tmp_path / "whole", make_spec())
    finished = read(whole)
    at = next(n for n, each in enumerate(finished.written) if each.chapter.label.endswith("iter-02-train"))  # fmt: skip
    make_run(store, tmp_path, make_spec(), until=at)
    later = finished.written[at]
    store.put(keys.task(later.manifest.id), whole.get(keys.task(later.manifest.id)))
    story = read(store)
    here = AtWork(index=at, step="iter-02/train", id=later.manifest.id)
    assert story.live(here) is None, "nothing is shown yet"
    losses = finished.losses(later.manifest)
    store.put(keys.live(later.manifest.id), json.dumps(losses[:3]).encode())
    live = story.live(here)
    points = live.curve.points(live.losses, 0, now=5.0)
    told_at_last = later.chapter.points(losses, 0)
    assert live.label == later.chapter.label
    assert [(p.x, p.values) for p in points] == [(p.x, p.values) for p in told_at_last[:3]]
    assert {point.at for point in points} == {5.0}


def test_the_configuration_is_flat_and_says_nothing_that_may_change():
    flat = configuration(make_spec(execution={"threads": 2}))
    assert flat["evolve.rollout.samples"] == 4
    assert not [
        key for key in flat if key.startswith(("execution", "cluster", "tracking", "store"))
    ]
