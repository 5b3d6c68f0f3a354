"""An engine that fails says what to change, or has its work tried elsewhere: the fake fails as the real one does."""

from contextlib import closing
from pathlib import Path

import pytest

from mstar.errors import ModelError, OutOfMemory, WorkerLost
from mstar.execution import Execution
from mstar.stages.backends.vllm_engine import Fault, one_line
from mstar.stages.backends.vllm_faults import cause, explain
from mstar.stages.engines import open_sampler
from mstar.tasks import Sampling
from tests.fake_vllm import World, installed
from tests.stages.backends.rows import make_prompts

SAMPLING = Sampling(n=3, temperature=0.8, top_p=0.9, max_new_tokens=24)


def opened(folder, **execution):
    return closing(open_sampler(folder, Execution(engine="vllm", **execution)))


def sample(folder, prompts, **execution):
    with opened(folder, **execution) as sampler:
        return sampler.sample(prompts, SAMPLING, "p", lambda count: None)


def test_an_engine_that_breaks_is_tried_elsewhere_and_says_why(tiny_model):
    world = World(breaks=RuntimeError("CUDA error: an illegal memory access was encountered"))
    with installed(world), opened(tiny_model) as sampler:
        with pytest.raises(WorkerLost, match=r"failed while it ran .*: CUDA error: an illegal"):
            sampler.sample(make_prompts(9), SAMPLING, "p", lambda count: None)
        assert world.stopped == 1
        world.breaks = None
        assert sampler.sample(make_prompts(1), SAMPLING, "p", lambda count: None)


def test_all_engines_stop_when_the_stage_is_interrupted(tiny_model):
    def interrupt(count):
        raise KeyboardInterrupt

    world = World()
    with installed(world), opened(tiny_model, vllm={"processes": 2}) as sampler:
        with pytest.raises(KeyboardInterrupt):
            sampler.sample(make_prompts(9), SAMPLING, "p", interrupt)
        assert world.stopped == len(world.started) == 2


@pytest.mark.parametrize(
    ("code", "says", "message"),
    [
        (1, ("INFO ready", "ValueError: a shape", "EngineDeadError: see above"), "a shape$"),
        (3, ("INFO ready", "Segmentation fault"), "ended with code 3; .* Segmentation fault$"),
        (-9, (), r"killed by SIGKILL .*memory ran out\); the last it said: nothing$"),
    ],
)
def test_an_engine_s_process_that_is_gone_is_tried_elsewhere_with_its_last_words(
    tiny_model, code, says, message
):
    with (
        installed(World(dies=code, says=says)),
        pytest.raises(WorkerLost, match=message) as caught,
    ):
        sample(tiny_model, make_prompts(9))
    assert caught.value.retriable
    assert caught.value.exit_code == 13


LITTLE = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
FULL = (
    "To serve at least one request with the model's max seq len (2048), (4.0 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (1.0 GiB)"
)


@pytest.mark.parametrize(
    "trouble",
    [
        World(refuses=ValueError(FULL)),
        World(breaks=RuntimeError(LITTLE)),
        World(dies=1, says=("INFO ready", f"(EngineCore pid=7) ERROR {LITTLE}")),
    ],
    ids=["starting", "running", "gone"],
)
def test_out_of_memory_names_the_settings_to_change(tiny_model, trouble):
    with installed(trouble), pytest.raises(OutOfMemory) as caught:
        sample(tiny_model, make_prompts(9), sampling_rows=77, vllm={"gpu_share": 0.8})
    message = str(caught.value)
    for part in ("sampling_rows (77)", "max_new_tokens", "gpu_share (0.8)", "tensor_parallel (1)"):
        assert part in message
    assert "up to 256 tokens" in message
    assert "GiB" in message
    assert not caught.value.retriable


def test_a_cuda_library_that_gets_no_memory_is_a_shortage_too(tiny_model):
    world = World(breaks=RuntimeError(CUBLAS))
    with installed(world), pytest.raises(OutOfMemory, match=r"_ALLOC_FAILED.*sampling_rows"):
        sample(tiny_model, make_prompts(9))


def test_the_cause_is_the_first_error_that_is_not_about_another_process():
    said = [
        "INFO 1 loading",
        "(Worker_TP1 pid=9) ERROR NCCL: RuntimeError: unhandled system error",
        "(EngineCore pid=8) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    assert cause(said) == "RuntimeError: unhandled system error"
    assert cause(said[:1]) == ""
    fault = Fault("start", "Engine core initialization failed. See root cause above")
    error = explain(fault, said, Path("model"), 256, Execution())
    assert isinstance(error, ModelError)
    assert "unhandled system error" in str(error)


def test_a_row_that_vllm_gave_up_is_no_response(tiny_model):
    with (
        installed(World(finish_reason="abort")),
        pytest.raises(WorkerLost, match="a sample ended with 'abort'"),
    ):
        sample(tiny_model, make_prompts(1))


def test_a_model_that_vllm_refuses_is_a_model_error_with_its_reason_in_one_line(tiny_model):
    reason = (
        "1 validation error for ModelConfig\n  Value error, no such architecture. [type=x]\n  For"
    )
    world = World(refuses=ValueError(reason))
    with installed(world), pytest.raises(ModelError) as caught:
        sample(tiny_model, make_prompts(1))
    assert str(caught.value).startswith(f"vLLM does not run the model in {tiny_model}: no such")
    assert "\n" not in str(caught.value)


def test_a_reason_is_the_first_line_that_says_something():
    assert one_line(ValueError("plain")) == "plain"
    assert one_line(ValueError("\n first.\nsecond")) == "first"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("word " * 200))) <= 300
