"""DeepSpeed ranks compute what one process computes, and go on from a checkpoint in new processes."""

import json

import pytest

from mstar.errors import ModelError, WorkerLost
from mstar.stages.backends import launch
from mstar.stages.backends.handover import read_rows, write_rows
from mstar.stages.backends.launch import train_in_ranks
from mstar.tasks import DeepSpeed, Execution, Optimization
from tests.stages.backends.rows import make_rows
from tests.stages.backends.test_accelerate_trainer import distance

OPTIMIZATION = Optimization(learning_rate=3e-3, warmup_steps=2, batch_size=7)
RANKS = Execution(device="cpu", threads=1, deepspeed=DeepSpeed(processes=2, zero_stage=1))


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
def test_segments_in_new_processes_equal_one_run_and_one_process(tiny_model, tmp_path):
    pytest.importorskip("deepspeed")
    # Batches of 7, 7 and 1: an uneven share, and a rank without any row.
    rows = make_rows(15)
    told: list[int] = []
    once = train(tiny_model, rows, tmp_path / "once", told=told)
    first = train(tiny_model, rows, tmp_path / "0", stop=1)
    second = train(tmp_path / "0/model", rows, tmp_path / "1", resume=tmp_path / "0")
    assert first.losses + second.losses == pytest.approx(once.losses, abs=1e-6)
    assert second.global_step == once.global_step == 3
    assert distance(tmp_path / "once", tmp_path / "1") < 1e-6
    assert sum(told) == 15
    alone = train(tiny_model, rows, tmp_path / "alone", Execution(device="cpu"))
    assert once.losses == pytest.approx(alone.losses, rel=1e-5)
    assert distance(tmp_path / "once", tmp_path / "alone") < 1e-4
    state = json.loads((tmp_path / "1/trainer/state.json").read_text())
    assert (state["world_size"], state["zero_stage"]) == (2, 1)
    # What a rank refuses reaches the caller as the same error.
    with pytest.raises(ModelError, match="number of processes is 2, this step asks for 1"):
        train(tmp_path / "1/model", rows, tmp_path / "2", Execution(device="cpu"), resume=tmp_path / "1")


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
    read = read_rows(tmp_path)
    for mine, theirs in zip(read, rows, strict=True):
        assert mine.example == theirs.example
        assert (mine.prompt.query_id, mine.prompt.text) == (theirs.prompt.query_id, theirs.prompt.text)
        assert mine.prompt.image.tobytes() == theirs.prompt.image.tobytes()
    assert read[0].prompt.image is read[5].prompt.image
