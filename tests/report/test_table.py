from pathlib import Path

import pytest

from mstar.errors import NotFound
from mstar.report.collect import collect, elapsed_seconds, work_seconds
from mstar.report.table import results_table, summarise
from mstar.storage.store import Store
from tests.report.making import SECONDS, make_run, make_spec, make_store

NAMES = {"continuous": "continuous", "mstar": "mstar"}


def test_results_hold_each_row_with_exactly_the_promised_keys(both: Store):
    results = summarise(both, NAMES)
    for row, correct in (("base", 2), ("warm_up", 4), ("continuous", 6), ("mstar", 6)):
        # Four samples were drawn here; with sixteen the last key is pass_at_16.
        assert list(results[row]) == ["accuracy", "low", "high", "n", "pass_at_4"]
        assert results[row]["accuracy"] == correct / 8
        assert results[row]["low"] < results[row]["accuracy"] < results[row]["high"]
        assert results[row]["n"] == 8
        assert results[row]["pass_at_4"] == 1


def test_sixteen_samples_give_pass_at_16(tmp_path: Path):
    store = make_store(tmp_path)
    evaluation = {"samples": 16, "pass_at": [1, 2, 4, 8, 16]}
    make_run(store, tmp_path, make_spec(evaluation=evaluation), until=1)
    assert summarise(store, {"mstar": "mstar"})["base"]["pass_at_16"] == 1


def test_a_test_that_is_not_done_is_none(tmp_path: Path):
    store = make_store(tmp_path)
    make_run(store, tmp_path, make_spec(), until=3)
    results = summarise(store, {"mstar": "mstar"})
    assert results["base"]
    assert results["warm_up"] is None
    assert results["mstar"] is None
    assert set(results["minutes_by_row"]) == {"base"}


def test_an_adopted_step_costs_what_its_making_took_and_is_counted_once(both: Store):
    runs = {run.name: run for run in collect(both, list(NAMES))}
    adopted = [step for step in runs["continuous"].steps if step.adopted]
    assert [step.name for step in adopted][:2] == ["base/test", "warm-up/generate"]
    assert all(step.seconds == SECONDS for step in adopted)
    distinct = {step.ref.id for run in runs.values() for step in run.steps}
    assert work_seconds(runs.values()) == SECONDS * len(distinct)
    assert summarise(both, NAMES)["work_minutes"] == round(SECONDS * len(distinct) / 60, 3)


def test_an_adopted_step_of_a_run_that_is_not_shown_costs_its_phases(both: Store):
    [run] = collect(both, ["continuous"])
    assert run.step("base/test").seconds == 1.5  # type: ignore[union-attr]


def test_steps_side_by_side_count_once_as_elapsed_time(both: Store):
    runs = collect(both, list(NAMES))
    alone = elapsed_seconds([run for run in runs if run.name == "mstar"])
    assert alone == SECONDS * len(next(run for run in runs if run.name == "mstar").steps)
    assert elapsed_seconds(runs) == alone  # the other run's steps end at the same seconds


def test_shared_rows_stand_once_and_runs_follow_in_order(both: Store):
    rows = results_table(collect(both, ["mstar", "continuous"]))
    assert [row.label for row in rows] == ["base", "warm-up", "mstar", "continuous"]


def test_runs_that_begin_differently_have_rows_of_their_own(tmp_path: Path):
    store = make_store(tmp_path)
    make_run(store, tmp_path, make_spec("one"), until=1)
    make_run(store, tmp_path, make_spec("two", seed=1), until=1)
    rows = results_table(collect(store, ["one", "two"]))
    assert [row.label for row in rows] == ["base", "base (two)"]


def test_an_unknown_run_is_named(both: Store):
    with pytest.raises(NotFound, match="no run 'other'"):
        summarise(both, {"mstar": "other"})


def test_temperatures_are_those_sampled_at(both: Store):
    temperatures = summarise(both, NAMES)["temperatures"]
    # The formula gives the highest temperature the highest Reward-Pass@2.
    assert temperatures == {"continuous": [1.0, 1.0], "mstar": [1.0, 1.0]}


def test_the_prm_is_summarised(both: Store):
    results = summarise(both, NAMES)
    assert results["prm_held_out"] == {"steps": 7, "mse": 0.05, "mse_of_mean": 0.1, "auc": None}
    assert list(results["verification"]) == ["1", "2", "4"]
