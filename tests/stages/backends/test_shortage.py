"""Out of memory is one message that names the settings to lower, the most effective first."""

import pytest
import torch

from mstar.errors import ModelError, OutOfMemory, by_code
from mstar.execution import DeepSpeed, Execution
from mstar.models.prm import save_head
from mstar.optimization import Optimization
from mstar.stages.backends.objectives import PolicyLoss
from mstar.stages.backends.shortage import named_shortage, to_sample, to_score, to_train
from mstar.stages.backends.transformers_sampler import TransformersSampler
from mstar.stages.backends.transformers_scorer import TransformersScorer
from mstar.tasks import Sampling
from tests.stages.backends.rows import make_prompts, make_rows
from tests.stages.backends.test_transformers_scorer import make_pairs
from tests.stages.backends.training import quiet, train
from tests.tiny import build_tiny_model

CPU = Execution(device="cpu")
SHORTAGES = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`"),
    "python": MemoryError(),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
}


def raising(error):
    def forward(*given, **named):
        raise error

    return forward


@pytest.mark.parametrize("kind", SHORTAGES)
def test_every_kind_of_shortage_is_told_alike(kind):
    said = r"out of memory while training .*: lower this; a device"
    with pytest.raises(OutOfMemory, match=said), named_shortage("training", ["lower this"]):
        raise SHORTAGES[kind]


def test_a_shortage_that_another_error_tells_of_is_one():
    with (
        pytest.raises(OutOfMemory, match=r"CUDA out of memory\. Tried"),
        named_shortage("loading", []),
    ):
        raise ModelError("the weights cannot be loaded") from SHORTAGES["cuda"]


def test_other_errors_are_left_as_they_are():
    with pytest.raises(ModelError, match="no such"), named_shortage("training", []):
        raise ModelError("no such model")
    with pytest.raises(RuntimeError, match="shapes"), named_shortage("training", []):
        raise RuntimeError("shapes do not fit")


def test_training_that_runs_out_names_what_helps_in_order(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(PolicyLoss, "forward", raising(SHORTAGES["cuda"]))
    with pytest.raises(OutOfMemory) as found:
        train(tiny_model, make_rows(4), tmp_path / "out", micro_batch=4)
    told = str(found.value)
    places = [
        told.index(name)
        for name in (
            "execution.micro_batch: 2 (now 4 rows at once)",
            "execution.gradient_checkpointing",
            "execution.deepspeed",
            "max_pixels",
        )
    ]
    assert places == sorted(places)
    assert not (tmp_path / "out").exists()
    assert by_code(15, told).exit_code == found.value.exit_code
    assert not found.value.retriable


def test_scoring_and_sampling_that_run_out_name_their_rows(tiny_model, tmp_path, monkeypatch):
    folder = build_tiny_model(tmp_path / "prm")
    save_head({"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}, folder)
    scorer = TransformersScorer(folder, Execution(device="cpu", scoring_rows=64))
    monkeypatch.setattr(scorer.model, "forward", raising(MemoryError()))
    prompts, responses = zip(*make_pairs(2), strict=True)
    with pytest.raises(
        OutOfMemory, match=r"while scoring .*execution\.scoring_rows: 32 \(now 64\)"
    ):
        scorer.score(prompts, responses, quiet)
    sampler = TransformersSampler(tiny_model, Execution(device="cpu", sampling_rows=512))
    monkeypatch.setattr(sampler.decoder.model, "forward", raising(SHORTAGES["cpu"]))
    with pytest.raises(OutOfMemory, match=r"while sampling .*execution\.sampling_rows: 256"):
        sampler.sample(make_prompts(1), Sampling(n=3, max_new_tokens=4), "p", quiet)


def test_what_cannot_be_lowered_further_is_not_named():
    optimization = Optimization(batch_size=8)
    assert "micro_batch: 4 (now 8" in to_train(CPU, optimization)[0]
    two = CPU.model_copy(
        update={"deepspeed": DeepSpeed(zero_stage=3, processes=2), "micro_batch": 1}
    )
    told = " ".join(to_train(two, optimization))
    assert "micro_batch" not in told
    assert "zero_stage" not in told
    assert "execution.deepspeed.offload: optimizer" in told
    one = Execution(scoring_rows=1, sampling_rows=1)
    assert "scoring_rows" not in " ".join(to_score(one))
    assert "sampling_rows" not in " ".join(to_sample(one))
