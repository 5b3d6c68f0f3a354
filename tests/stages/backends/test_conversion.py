"""An optimizer goes on in another number of processes or another ZeRO stage as if it had always been trained so."""

import json
import logging

import pytest

from mstar.errors import ModelError
from mstar.execution import DeepSpeed, Execution
from mstar.optimization import Optimization
from mstar.stages.backends.launch import train_in_ranks
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import distance

OPTIMIZATION = Optimization(learning_rate=3e-3, warmup_steps=4, batch_size=7, weight_decay=0.01)
ALONE = Execution(device="cpu", threads=1)


def sharded(stage, processes):
    deepspeed = DeepSpeed(zero_stage=stage, processes=processes)
    return ALONE.model_copy(update={"deepspeed": deepspeed})


def train(model, save_to, execution, *, rows=35, resume=None, stop=None):
    return train_in_ranks(
        "policy",
        model,
        execution,
        make_rows(rows),
        OPTIMIZATION,
        seed=3,
        resume_from=resume,
        save_to=save_to,
        progress=lambda count: None,
        stop_after=stop,
    )


@pytest.mark.slow
@pytest.mark.deepspeed
def test_a_pass_that_changes_its_ranks_and_stages_equals_one_that_does_not(
    tiny_model, tmp_path, caplog
):
    """The moments, their step, the schedule and the weights: the reference is one process without DeepSpeed."""
    pytest.importorskip("deepspeed")
    once = train(tiny_model, tmp_path / "once", ALONE)
    layouts = [ALONE, sharded(1, 2), sharded(2, 1), sharded(3, 2), ALONE]
    losses: tuple[float, ...] = ()
    model, before = tiny_model, None
    with caplog.at_level(logging.INFO, "mstar"):
        for number, execution in enumerate(layouts):
            here = tmp_path / str(number)
            report = train(model, here, execution, resume=before, stop=1)
            losses += report.losses
            assert losses == pytest.approx(once.losses[: number + 1], rel=1e-5)
            model, before = here / "model", here
    assert report.learning_rate == once.learning_rate
    assert distance(tmp_path / "once", tmp_path / "4") < 1e-5
    assert "by one process without DeepSpeed, for training by 2 processes under ZeRO" in caplog.text
    assert "under ZeRO stage 3, for training by one process without DeepSpeed" in caplog.text
    state = json.loads((tmp_path / "3/trainer/state.json").read_text())
    assert (state["world_size"], state["zero_stage"]) == (2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zero_stage": 0, "world_size": 4}, r"4 processes under ZeRO stage 0.*zero_stage to 0"),
        ({"zero_stage": 2, "world_size": 4}, r"4 processes under ZeRO stage 2 and cannot be"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_both_layouts(
    tiny_model, tmp_path, change, message
):
    """Stage 0 by rule; a stage 2 whose shards are not there when DeepSpeed's tool looks for them."""
    if change["zero_stage"]:
        pytest.importorskip("deepspeed")
    train(tiny_model, tmp_path / "0", ALONE, rows=7)
    trainer = tmp_path / "0/trainer"
    (trainer / "pytorch_model").mkdir()
    path = trainer / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=message) as refused:
        train(tmp_path / "0/model", tmp_path / "1", ALONE, rows=7, resume=tmp_path / "0")
    assert "one process without DeepSpeed" in str(refused.value)
