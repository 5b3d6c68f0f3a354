"""Whatever DeepSpeed shares out, moves to the host or computes again, two ranks learn what one process learns."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from mstar.optimization import Lora, Optimization
from tests.stages.backends.ranked import ROWS, Asked, train_all
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import distance, train, weights

# One worker: all of it is trained at once, for all of the tests.
pytestmark = [pytest.mark.slow, pytest.mark.deepspeed, pytest.mark.xdist_group("deepspeed")]

FULL = Optimization(learning_rate=3e-3, warmup_steps=2, batch_size=7, betas=(0.9, 0.95))
HALF = FULL.model_copy(update={"dtype": "bfloat16"})
ADAPTED = FULL.model_copy(update={"lora": Lora(rank=4, alpha=8)})
HALF_ADAPTED = HALF.model_copy(update={"lora": Lora(rank=4, alpha=8)})

IN_FULL = {
    "zero-0": {"zero_stage": 0},
    "zero-1": {"zero_stage": 1},
    "zero-2": {"zero_stage": 2},
    "zero-3": {"zero_stage": 3},
    "zero-1-offload": {"zero_stage": 1, "offload": "optimizer"},
    "zero-2-offload": {"zero_stage": 2, "offload": "optimizer"},
    "zero-3-offload": {"zero_stage": 3, "offload": "optimizer"},
    "zero-3-offload-parameters": {"zero_stage": 3, "offload": "parameters"},
}
CUT = {"micro_batch": 2}
AGAIN = {"gradient_checkpointing": True}
CUT_FULL = {
    "zero-0-cut": ({"zero_stage": 0}, CUT),
    "zero-2-cut-again": ({"zero_stage": 2}, CUT | AGAIN),
    "zero-2-offload-cut": ({"zero_stage": 2, "offload": "optimizer"}, CUT),
    "zero-3-cut-again": ({"zero_stage": 3}, CUT | AGAIN),
    "zero-3-offload-cut": ({"zero_stage": 3, "offload": "parameters"}, CUT),
}
IN_HALF = {
    "half-1": ({"zero_stage": 1}, CUT),
    "half-2": ({"zero_stage": 2}, CUT),
    "half-3": ({"zero_stage": 3}, CUT | AGAIN),
}
WITH_LORA = {
    "lora-1": ({"zero_stage": 1}, {}),
    "lora-2-offload": ({"zero_stage": 2, "offload": "optimizer"}, CUT),
    "lora-3": ({"zero_stage": 3}, AGAIN),
}
PRMS = {"prm-3": FULL, "prm-3-half": HALF, "prm-3-half-lora": HALF_ADAPTED}


@pytest.fixture(scope="module")
def done(tiny_model, tmp_path_factory):
    """All of it, by the same two processes."""
    pytest.importorskip("deepspeed")

    def asked(deepspeed, execution=None, optimization=FULL, objective="policy"):
        return Asked(
            model=tiny_model,
            objective=objective,
            optimization=optimization,
            deepspeed=deepspeed,
            execution=execution or {},
        )

    everything = {name: asked(deepspeed) for name, deepspeed in IN_FULL.items()}
    everything |= {name: asked(*how) for name, how in CUT_FULL.items()}
    everything |= {name: asked(*how, HALF) for name, how in IN_HALF.items()}
    everything |= {name: asked(*how, ADAPTED) for name, how in WITH_LORA.items()}
    everything["half-lora-3"] = asked({"zero_stage": 3}, AGAIN, HALF_ADAPTED)
    everything |= {name: asked({"zero_stage": 3}, CUT, how, "prm") for name, how in PRMS.items()}
    return train_all(tmp_path_factory.mktemp("ranks"), everything)


def alone(tiny_model, folder, optimization, objective="policy"):
    """What one process without DeepSpeed learns of the same rows."""
    return train(
        tiny_model,
        make_rows(ROWS, steps=True),
        folder,
        optimization=optimization,
        objective=objective,
        seed=3,
    )


def found(done, name):
    assert done[name].error == ""
    return done[name]


@pytest.mark.parametrize("name", [*IN_FULL, *CUT_FULL])
def test_every_stage_learns_what_one_process_learns_in_one_piece_and_in_two(
    done, tiny_model, tmp_path, name
):
    expected = alone(tiny_model, tmp_path, FULL)
    learned = found(done, name)
    assert learned.once == pytest.approx(expected.losses, rel=1e-5)
    assert learned.parts == pytest.approx(expected.losses, rel=1e-5)
    assert distance(tmp_path, learned.folder / "once") < 2e-5
    assert distance(tmp_path, learned.folder / "1") < 2e-5


@pytest.mark.parametrize("name", WITH_LORA)
def test_adapters_learn_at_every_stage_what_they_learn_in_one_process(
    done, tiny_model, tmp_path, name
):
    expected = alone(tiny_model, tmp_path, ADAPTED)
    learned = found(done, name)
    assert learned.once == pytest.approx(expected.losses, rel=1e-5)
    assert learned.parts == pytest.approx(expected.losses, rel=1e-5)
    assert distance(tmp_path, learned.folder / "1") < 2e-5


@pytest.mark.parametrize("name", [*IN_HALF, "half-lora-3"])
def test_in_bfloat16_two_pieces_equal_one_to_the_bit_and_weights_are_saved_in_it(
    done, tiny_model, tmp_path, name
):
    """The float32 weights that are stepped are in the checkpoint, so the pieces lose nothing to rounding."""
    learned = found(done, name)
    assert learned.parts == learned.once
    assert distance(learned.folder / "once", learned.folder / "1") == 0
    assert {tensor.dtype for tensor in weights(learned.folder / "1").values()} == {torch.bfloat16}
    optimization = ADAPTED if "lora" in name else FULL
    expected = alone(tiny_model, tmp_path, optimization)
    assert learned.once == pytest.approx(expected.losses, rel=0.03)


def test_shared_out_weights_see_the_same_positions_in_bfloat16(done):
    """DeepSpeed makes a model of stage 3 in bfloat16 throughout, which rotary frequencies do not survive."""
    assert found(done, "half-3").once[0] == pytest.approx(found(done, "half-2").once[0], rel=1e-6)


@pytest.mark.parametrize("name", PRMS)
def test_a_prm_is_trained_with_its_weights_shared_out(done, tiny_model, tmp_path, name):
    learned = found(done, name)
    expected = alone(tiny_model, tmp_path, PRMS[name], "prm")
    assert learned.once == pytest.approx(expected.losses, rel=1e-5 if name == "prm-3" else 0.05)
    assert learned.parts == pytest.approx(learned.once, rel=1e-5)
    head = load_file(learned.folder / "1/model/prm_head.safetensors")["weight"]
    base = AutoModelForImageTextToText.from_pretrained(tiny_model).get_input_embeddings().weight
    assert not torch.allclose(head[0], base.mean(dim=0), atol=1e-3)


def test_ranks_say_what_the_most_of_them_took(done):
    usage = found(done, "zero-3").usage
    assert usage["tokens_per_second"] > 0
    assert usage["peak_memory_bytes"] > 50e6
