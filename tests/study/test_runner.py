"""Cells at work: all of them, some that fail, some that were interrupted."""

from dataclasses import replace

import pytest

from mstar.controller.status import Phase, read_status
from mstar.storage.folder import FolderStore
from mstar.study.board import State
from mstar.study.collect import gather
from mstar.study.runner import inputs_of
from tests.runs import INPUTS, small_spec
from tests.study.making import Stages, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def states(world):
    return {state.cell.run: state.state for state in world.board.snapshot()}


def test_every_cell_is_run_to_its_end_whatever_the_number_at_once(tmp_path):
    world = World(tmp_path)
    assert world.run(parallel=3) == []
    assert set(states(world).values()) == {State.FINISHED}
    assert sorted(world.told) == sorted(cell.run for cell in world.cells)
    assert len(gather(world.store, world.cells).records) == len(world.cells)


def test_rows_of_one_seed_adopt_what_they_share(world):
    world.run()
    made = [step for run, step in world.stages.asked if step.startswith("warm-up")]
    assert sorted(made) == sorted(
        [f"warm-up/{s}" for s in ("generate", "score", "train", "test")] * 2
    )
    records = {record.run: record for record in gather(world.store, world.cells).records}
    assert records["st-all-s0"].cost.adopted == 0
    # base/test, warm-up's four, iter-00/evaluate and iter-01/generate: they differ from the scoring on.
    assert records["st-some-s0"].cost.adopted == 7


def test_what_adoption_saved_is_what_the_making_took(world):
    world.run()
    (adopting,) = [cell for cell in world.cells if cell.run == "st-some-s0"]
    # Where the run that made the steps is not looked at, their own phases say it: two seconds each.
    (record,) = gather(world.store, [adopting]).records
    assert record.cost.saved == 7 * 2.0


def test_a_failed_cell_is_named_with_its_error_and_the_others_finish(tmp_path, world):
    world.stages.breaking = {"st-some-s0"}
    (trouble,) = world.run(parallel=2)
    assert (trouble.cell.run, trouble.exit_code) == ("st-some-s0", 9)
    assert "the training of st-some-s0 blew up" in trouble.error
    found = states(world)
    assert found.pop("st-some-s0") is State.FAILED
    assert set(found.values()) == {State.FINISHED}
    stored = gather(world.store, world.cells)
    assert [each.cell.run for each in stored.troubles] == ["st-some-s0"]


def test_a_failed_cell_is_resumed_from_its_last_commit(world):
    world.stages.breaking = {"st-some-s0"}
    world.run()
    asked = len(world.stages.asked)
    world.stages.breaking = set()
    failed = [cell for cell in world.cells if cell.run == "st-some-s0"]
    assert world.run(failed) == []
    again = world.stages.asked[asked:]
    assert again[0] == ("st-some-s0", "iter-01/train")
    status = read_status(world.store, "st-some-s0")
    assert status is not None
    assert status.phase is Phase.FINISHED


def test_a_defect_fails_its_cell_alone_and_keeps_its_traceback(world):
    def defect(job):
        if job.run == "st-all-s1":
            raise ZeroDivisionError("oops")
        Stages.__call__(world.stages, job)

    world.stages.executor = lambda: type(world.stages).executor(defect)
    (trouble,) = world.run()
    assert trouble.cell.run == "st-all-s1"
    assert "Traceback" in trouble.error
    assert "oops" in trouble.error


def test_an_interrupted_study_goes_on_where_it_was(world):
    world.stages.stop_after = 20
    world.run()
    assert State.STOPPED in states(world).values()
    made = list(world.stages.asked)
    world.stages.stop_after = None
    assert world.run() == []
    assert set(states(world).values()) == {State.FINISHED}
    assert len(set(world.stages.asked)) == len(world.stages.asked)
    assert world.stages.asked[: len(made)] == made
    assert {record.run for record in gather(world.store, world.cells).records} == {
        cell.run for cell in world.cells
    }


def test_ctrl_c_stops_the_runs_at_work_and_is_raised_again(world):
    def told(cell):
        raise KeyboardInterrupt

    world.told = type("Interrupting", (), {"append": staticmethod(told)})()
    with pytest.raises(KeyboardInterrupt):
        world.run(parallel=2)
    assert State.WAITING not in {
        state for run, state in states(world).items() if run == "st-all-s0"
    }
    finished = [run for run, state in states(world).items() if state is State.FINISHED]
    assert len(finished) < len(world.cells)


def test_a_run_of_that_name_with_another_spec_is_a_conflict_and_not_mixed_in(tmp_path, world):
    world.run()
    other = World(tmp_path, set=["evolve.iterations=3"])
    troubles = other.run()
    assert {trouble.exit_code for trouble in troubles} == {8}
    assert "evolve.iterations: 2 -> 3" in troubles[0].error


def test_runs_share_inputs_only_where_they_start_from_the_same(monkeypatch, tmp_path):
    stored = []

    def store_inputs(store, spec):
        stored.append(spec.name)
        return replace(INPUTS)

    monkeypatch.setattr("mstar.study.runner.store_inputs", store_inputs)
    specs = {
        "plain": small_spec(name="plain"),
        "again": small_spec(name="again", evolve={"iterations": 3}),
        "taught": small_spec(name="taught", teacher="large"),
        "mixed": small_spec(name="mixed", evolve={"unlabeled": {"labels": "oracle"}}),
        "tested": small_spec(name="tested", data={"test": None}),
    }
    found = inputs_of(FolderStore(tmp_path), specs)
    assert stored == ["plain", "taught", "mixed", "tested"]
    assert found["plain"] is found["again"]
