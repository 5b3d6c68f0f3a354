"""``mstarctl gc`` on the stores of real controllers: what any run needs stays, whatever state it is in."""

import json
import time
from dataclasses import replace

import pytest
from mstarctl.keep import Needs, seconds
from mstarctl.main import app
from typer.testing import CliRunner

from mstar import errors
from mstar.controller.loop import request_cancel
from mstar.errors import Cancelled
from mstar.history import Run, load_history, load_run, run_bytes
from mstar.recipe import next_step
from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter, commit_dataset
from mstar.storage.folder import FolderStore
from mstar.storage.lease import acquire, this_process
from mstar.storage.manifest import Ref
from mstar.storage.reading import materialise, resolve
from mstar.storage.sweep import survey
from mstar.tasks import task_hash
from tests.cli.test_cli import mstarctl, refused
from tests.controller.test_controller import advance
from tests.runs import INPUTS, committing, made_up_results, small_spec


@pytest.fixture
def store(tmp_path):
    """A finished run called small, and one called other that stopped after some steps they share."""
    found = FolderStore(tmp_path / "store")
    advance(found, small_spec())
    other = small_spec(name="other", evolve={"iterations": 3})
    commits = committing(found)
    done = []

    def cancel_soon(job):
        commits(job)
        done.append(job)
        if len(done) == 2:
            request_cancel(found, "other", 0.0)

    with pytest.raises(Cancelled):
        advance(found, other, cancel_soon)
    return found


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("mstar.storage.sweep.BREATH_SECONDS", 0.0)


def gc(store, *options, age="0s"):
    return CliRunner().invoke(app, ["gc", "--store", store.url, "--older-than", age, *options])


def everything(store):
    return set(store.list(""))


def resolved(store, run):
    """Every step in the run's history, with all its parts."""
    for entry in load_history(store, run):
        manifest = resolve(store, entry.ref)
        assert all(store.size(part.key) == part.size for part in manifest.parts)


def test_of_finished_and_unfinished_runs_nothing_goes(store):
    before = everything(store)
    result = gc(store, "--yes")
    assert (result.exit_code, result.stdout) == (0, "nothing to delete\n"), result.stderr
    assert everything(store) == before


@pytest.mark.parametrize("referred", [True, False])
@pytest.mark.parametrize("teaches", [True, False])
def test_what_only_some_runs_start_from_stays_as_long_as_the_run(tmp_path, teaches, referred):
    store = FolderStore(tmp_path / "store")
    file = tmp_path / "unlabeled.parquet"
    file.write_bytes(b"rows")
    data = Ref.of(commit_dataset(store, {file.name: file}))
    started = replace(INPUTS, teacher=data) if teaches else replace(INPUTS, unlabeled=data)
    inputs = started if referred else INPUTS
    store.create(keys.spec("small"), run_bytes(Run(spec=small_spec(), inputs=inputs)))
    assert gc(store, "--yes").exit_code == 0
    assert bool(list(store.list(keys.artifact("dataset", data.id)))) is referred


def test_what_dead_attempts_left_goes_and_both_runs_go_on(store):
    before = everything(store)
    entry = load_history(store, "small")[1]
    dead = f"steps/{entry.ref.id}/attempt-9-9.dead/model/weights"
    abandoned = keys.task("0" * 64)
    store.put(dead, b"half" * 1000)
    store.put(abandoned, b"{}")
    store.put(f"steps/{'0' * 64}/progress/00000001-1.json", b"{}")
    result = gc(store, "--dry-run")
    assert result.exit_code == 0
    assert "1 artifacts that no run refers to" in result.stdout
    assert f"steps/{'0' * 64}" in result.stdout
    assert "attempts that nobody committed: 1 keys, 3.9 KiB" in result.stdout
    assert {dead, abandoned} < everything(store)
    assert gc(store, "--yes", age="1d").stdout == "nothing to delete\n"
    result = gc(store, "--yes", "-o", "json")
    told = json.loads(result.stdout)
    assert told["deleted"]
    assert [each["folder"] for each in told["artifacts"]] == [f"steps/{'0' * 64}"]
    assert [each["key"] for each in told["litter"]] == [dead]
    assert everything(store) == before
    resolved(store, "small")
    store.delete(keys.cancel("other"))
    advance(store, small_spec(name="other", evolve={"iterations": 3}))
    resolved(store, "other")


def test_a_step_that_was_committed_and_not_yet_written_into_the_history_stays(store):
    """Its controller was killed in between; so did another run's that is ahead of ours."""
    run = load_run(store, "other")
    needs = Needs()
    to_come = needs._to_come(store, run, load_history(store, "other"))
    step = next_step(
        run.spec, run.inputs, [needs._done(store, each) for each in load_history(store, "other")]
    )
    assert step
    assert to_come[0] == f"steps/{task_hash(step.task)}"
    with ArtifactWriter(store, task_hash(step.task), "1") as writer:
        writer.add_bytes("part", b"")
        writer.commit(results=made_up_results(step.task))
    before = everything(store)
    assert gc(store, "--yes").stdout == "nothing to delete\n"
    assert everything(store) == before


def test_the_steps_of_a_run_that_was_deleted_go_unless_another_run_shares_them(store):
    shared = {entry.ref.id for entry in load_history(store, "other")}
    alone = {entry.ref.id for entry in load_history(store, "small")} - shared
    assert shared
    assert alone
    for key in store.list(keys.run("small")):
        store.delete(key)
    assert gc(store, "--yes").exit_code == 0
    left = {key.split("/")[1] for key in store.list("steps")}
    assert shared <= left
    # The run that stopped goes on with whatever it shares with the deleted one, as far as that is committed.
    assert left & alone == set(_next_ids(store)) & alone
    resolved(store, "other")


def _next_ids(store):
    run = load_run(store, "other")
    return [
        folder.partition("/")[2]
        for folder in Needs()._to_come(store, run, load_history(store, "other"))
    ]


def test_nothing_is_touched_in_the_step_of_a_controller_that_is_at_work(store):
    next_id = _next_ids(store)[-1]
    dead = f"steps/{next_id}/attempt-9-9.dead/model/weights"
    store.put(dead, b"half")
    with acquire(store, "other", clock=time.time, identity=this_process(), ttl=30.0):
        assert Needs()(store).live
        assert gc(store, "--yes").stdout == "nothing to delete\n"
    assert gc(store, "--yes").exit_code == 0
    assert store.size(dead) is None


def test_a_run_that_cannot_be_understood_is_named_and_nothing_goes(store):
    store.put("steps/" + "0" * 64 + "/attempt-1.dead/part", b"")
    key = next(iter(store.list(f"{keys.run('other')}/history")))
    store.put(key, b"{")
    before = everything(store)
    result = mstarctl("gc", "--store", store.url, "--older-than", "0s", "--yes")
    refused(result, errors.IntegrityError, "cannot tell what run 'other' needs", "runs/other/")
    assert everything(store) == before


def test_without_a_person_to_ask_nothing_goes(store):
    store.put("steps/" + "0" * 64 + "/attempt-1.dead/part", b"")
    before = everything(store)
    result = gc(store)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert gc(store, "--yes", age="soon").exit_code == 2
    assert everything(store) == before
    refused(
        mstarctl("gc", "--store", f"{store.url}/absent", "--yes"), errors.StorageError, "no store"
    )


def test_ages():
    assert [seconds(age) for age in ("0s", "90m", "1.5h", "7d", "2w")] == [
        0,
        5400,
        5400,
        604800,
        1209600,
    ]


def training(store):
    """A stage that leaves weights and optimizer state."""

    def run(job):
        with ArtifactWriter(store, task_hash(job.task), job.attempt) as writer:
            if job.task.stage == "train":
                writer.add_bytes("model/weights", b"w" * 10)
                writer.add_bytes("trainer/optimizer", b"o" * 1000)
            writer.commit(results=made_up_results(job.task))

    return run


def test_optimizer_state_goes_only_when_asked_and_only_from_iterations_that_are_over(tmp_path):
    store = FolderStore(tmp_path / "store")
    advance(store, small_spec(evolve={"iterations": 3}), training(store))
    before = everything(store)
    assert gc(store, "--yes").stdout == "nothing to delete\n"
    result = gc(store, "--yes", "--drop-trainer-state")
    assert "optimizer state that a later step has taken over: 2 keys, 2.0 KiB" in result.stdout
    gone = before - everything(store)
    history = {entry.name: entry for entry in load_history(store, "small")}
    assert {key.split("/")[1] for key in gone} == {
        history[name].ref.id for name in ("iter-01/train", "iter-02/train")
    }
    assert all("/trainer/" in key for key in gone)
    # Weights can still be used, and what is missing is told as what it is.
    first = resolve(store, history["iter-01/train"].ref)
    assert (materialise(store, first, "model/", tmp_path / "scratch") / "weights").exists()
    with pytest.raises(errors.IntegrityError, match="gc --drop-trainer-state"):
        materialise(store, first, "", tmp_path / "scratch")
    # A longer run goes on from the last iteration.
    advance(store, small_spec(name="longer", evolve={"iterations": 4}), training(store))
    longer = load_history(store, "longer")
    assert [entry.adopted for entry in longer if entry.name == "iter-03/train"] == [True]
    last = resolve(store, history["iter-03/train"].ref)
    materialise(store, last, "", tmp_path / "scratch")


def test_optimizer_state_that_an_unfinished_run_has_in_its_history_stays(tmp_path):
    store = FolderStore(tmp_path / "store")
    advance(store, small_spec(evolve={"iterations": 3}), training(store))
    trains = training(store)

    def cancel_after_two(job):
        trains(job)
        if job.step == "iter-04/generate":
            request_cancel(store, "longer", 0.0)

    with pytest.raises(Cancelled):
        advance(store, small_spec(name="longer", evolve={"iterations": 4}), cancel_after_two)
    found = survey(store, Needs(drop_trainer_state=True), before=float("inf"))
    assert found.plan.litter == ()
