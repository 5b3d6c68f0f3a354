"""What cannot be trained, or not be gone on with, is refused in one sentence and saves nothing."""

import json
from dataclasses import replace

import pytest

from mstar.core.records import Finish
from mstar.errors import DataError, ModelError
from mstar.execution import DeepSpeed
from mstar.optimization import Lora
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import OPTIMIZATION, train
from tests.tiny import encode_text

CHANGES = {
    "learning_rate": 1e-4,
    "warmup_steps": 9,
    "betas": (0.9, 0.95),
    "weight_decay": 0.5,
    "freeze": ("vision",),
    "dtype": "bfloat16",
    "lora": Lora(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_inherited_optimizer_with_other_settings_is_refused(tiny_model, tmp_path, name):
    rows = make_rows(8)
    train(tiny_model, rows, tmp_path / "0")
    changed = OPTIMIZATION.model_copy(update={name: CHANGES[name]})
    with pytest.raises(ModelError, match=name):
        train(
            tmp_path / "0/model", rows, tmp_path / "1", resume=tmp_path / "0", optimization=changed
        )


def test_a_checkpoint_of_another_objective_is_refused(tiny_model, tmp_path):
    rows = make_rows(8)
    train(tiny_model, rows, tmp_path / "0")
    path = tmp_path / "0/trainer/state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"objective": "prm"}))
    with pytest.raises(ModelError, match="objective"):
        train(tmp_path / "0/model", rows, tmp_path / "1", resume=tmp_path / "0")


@pytest.mark.parametrize(
    "name", ["state.json", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"]
)
def test_a_checkpoint_with_a_missing_file_is_refused(tiny_model, tmp_path, name):
    rows = make_rows(8)
    train(tiny_model, rows, tmp_path / "0")
    (tmp_path / "0/trainer" / name).unlink()
    with pytest.raises(ModelError, match=name):
        train(tmp_path / "0/model", rows, tmp_path / "1", resume=tmp_path / "0")


def test_a_pass_is_not_taken_up_again_with_other_rows(tiny_model, tmp_path):
    train(tiny_model, make_rows(24), tmp_path / "0", stop=1)
    with pytest.raises(ModelError, match="1 batches into a pass over other rows"):
        train(tmp_path / "0/model", make_rows(25), tmp_path / "1", resume=tmp_path / "0")


def test_stage_0_in_bfloat16_is_refused(tiny_model, tmp_path):
    half = OPTIMIZATION.model_copy(update={"dtype": "bfloat16"})
    how = {"optimization": half, "deepspeed": DeepSpeed(zero_stage=0)}
    with pytest.raises(ModelError, match="set zero_stage to 1 or higher"):
        train(tiny_model, make_rows(8), tmp_path, **how)


def test_labels_that_do_not_fit_the_steps_are_refused(tiny_model, tmp_path):
    (row,) = make_rows(1, steps=True)
    broken = replace(row, example=replace(row.example, labels=(0.5,)))
    with pytest.raises(DataError, match="2 step ends, 1 labels"):
        train(tiny_model, [broken], tmp_path, objective="prm")


def test_no_rows_and_rows_without_responses_are_refused(tiny_model, tmp_path):
    with pytest.raises(DataError, match="nothing to train on"):
        train(tiny_model, [], tmp_path)
    (row,) = make_rows(1)
    empty = replace(row, example=replace(row.example, tokens=(), finish=Finish.LENGTH))
    with pytest.raises(DataError, match="nothing to train on"):
        train(tiny_model, [empty], tmp_path)


def test_a_row_beyond_the_context_is_refused_and_not_cut(tiny_model, tmp_path):
    (row,) = make_rows(1)
    long = replace(row, example=replace(row.example, tokens=encode_text("x" * 520)))
    with pytest.raises(ModelError, match="context of 512"):
        train(tiny_model, [*make_rows(3), long], tmp_path)
