"""DeepSpeed ranks compute what one process computes, and go on from a checkpoint in new processes."""

import json
import os
import signal

import pytest

from mstar.errors import Preempted, WorkerLost
from mstar.execution import DeepSpeed, Execution
from mstar.optimization import Optimization
from mstar.stages.backends import launch
from mstar.stages.backends.handover import HandedRows, write_rows
from mstar.stages.backends.launch import train_in_ranks
from mstar.storage.folder import FolderStore
from tests.stages.backends import rank
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import distance
from tests.stages.steps import attempt, digests, losses, make_policy_task, progress, rank_processes

OPTIMIZATION = Optimization(learning_rate=3e-3, warmup_steps=2, batch_size=7)
RANKS = Execution(device="cpu", threads=1, deepspeed=DeepSpeed(processes=2, zero_stage=1))
RANKS_EACH = RANKS.model_copy(update={"checkpoint_seconds": 1e-9})
RANKS_UNKEPT = RANKS.model_copy(update={"checkpoint_seconds": None})


def train(model, rows, save_to, execution=RANKS, *, resume=None, stop=None, told=None):
    return train_in_ranks(
        "policy",
        model,
        execution,
        rows,
        OPTIMIZATION,
        seed=3,
        resume_from=resume,
        save_to=save_to,
        progress=(told if told is not None else []).append,
        stop_after=stop,
    )


@pytest.mark.slow
@pytest.mark.deepspeed
def test_segments_on_two_ranks_in_new_processes_equal_one_uninterrupted_run(tiny_model, tmp_path):
    """The reference is one process without DeepSpeed, so this also says that ranks change nothing but rounding."""
    pytest.importorskip("deepspeed")
    # Batches of 7, 7 and 1: an uneven share, and a rank without any row.
    rows = make_rows(15)
    told: list[int] = []
    once = train(tiny_model, rows, tmp_path / "once", Execution(device="cpu"))
    first = train(tiny_model, rows, tmp_path / "0", stop=1, told=told)
    second = train(tmp_path / "0/model", rows, tmp_path / "1", resume=tmp_path / "0", told=told)
    assert first.losses + second.losses == pytest.approx(once.losses, rel=1e-5)
    assert second.global_step == once.global_step == 3
    assert distance(tmp_path / "once", tmp_path / "1") < 1e-5
    assert sum(told) == 15
    state = json.loads((tmp_path / "1/trainer/state.json").read_text())
    assert (state["world_size"], state["zero_stage"]) == (2, 1)


@pytest.mark.slow
@pytest.mark.deepspeed
def test_a_lost_rank_ends_the_others_and_the_next_attempt_goes_on_to_the_same_bytes(
    tiny_model, tmp_path, monkeypatch
):
    """One attempt loses a rank, one is asked to stop, the third ends as one that nothing happened to."""
    pytest.importorskip("deepspeed")
    store = FolderStore(tmp_path / "store")
    task = make_policy_task(store, tiny_model, tmp_path / "data", rows=120)
    whole = FolderStore(tmp_path / "whole")
    make_policy_task(whole, tiny_model, tmp_path / "data", rows=120)
    expected = attempt(whole, task, tmp_path / "0", execution=RANKS_UNKEPT)

    def paced(**where):
        monkeypatch.setattr(launch, "RANK_MODULE", rank.NAME)
        for name, value in rank.stands(**where).items():
            monkeypatch.setenv(name, value)

    def kill_one(*_):
        kept = max(progress(store, task), default=0)
        if kept >= 3 and (found := rank_processes(tmp_path / "1")):
            os.kill(found[-1], signal.SIGKILL)

    scratch = tmp_path / "1"
    paced(kept=6)
    with pytest.raises(WorkerLost, match="training processes ended"):
        attempt(store, task, scratch, name="1", execution=RANKS_EACH, tell=kill_one)
    assert rank_processes(scratch) == []
    assert 3 <= max(progress(store, task)) < 15
    begun: list[int] = []
    paced(calls=4)
    with pytest.raises(Preempted, match="a checkpoint after optimizer step"):
        attempt(
            store,
            task,
            scratch,
            name="2",
            execution=RANKS_UNKEPT,
            tell=lambda examples, *_: begun.append(examples),
            stopping=lambda: len(begun) > 1,
        )
    last = max(progress(store, task))
    assert last < 15
    monkeypatch.undo()
    found = attempt(store, task, scratch, name="3", execution=RANKS_EACH)
    assert digests(found) == digests(expected)
    assert losses(store, found) == losses(whole, expected)
    assert progress(store, task) == []


@pytest.mark.deepspeed
def test_ranks_asked_to_stop_before_training_are_ended_at_once(tiny_model, tmp_path):
    pytest.importorskip("deepspeed")
    store = FolderStore(tmp_path / "store")
    task = make_policy_task(store, tiny_model, tmp_path / "data", rows=8)
    with pytest.raises(Preempted, match="before training began"):
        attempt(store, task, tmp_path / "1", execution=RANKS_EACH, stopping=lambda: True)
    assert rank_processes(tmp_path / "1") == []


@pytest.mark.deepspeed
def test_ranks_that_die_are_reported_with_their_last_words(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("deepspeed")
    monkeypatch.setattr(launch, "RANK_MODULE", "mstar.stages.backends.no_such_module")
    with pytest.raises(WorkerLost, match="no_such_module"):
        train(tiny_model, make_rows(2), tmp_path)


def test_rows_are_handed_over_unchanged(tmp_path):
    rows = make_rows(5, steps=True)
    rows.append(rows[0])
    write_rows(tmp_path, rows)
    read = HandedRows(tmp_path)
    for mine, theirs in zip(read, rows, strict=True):
        assert mine.example == theirs.example
        assert (mine.prompt.query_id, mine.prompt.text) == (
            theirs.prompt.query_id,
            theirs.prompt.text,
        )
        assert mine.prompt.image.tobytes() == theirs.prompt.image.tobytes()
    assert len(list((tmp_path / "images").iterdir())) == 5
    assert [row.example for row in read[1:3]] == [row.example for row in rows[1:3]]
