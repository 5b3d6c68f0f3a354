"""Where stages run, and what a spec asks of training."""

import pytest

from mstar.estimate.layout import Setup, layouts, setup_of
from mstar.execution import DeepSpeed, Execution
from mstar.optimization import Optimization
from tests.runs import small_spec

GPUS = {"limits": {"nvidia.com/gpu": 4}}


def test_shards_run_side_by_side_as_far_as_parallelism_allows():
    stages = {"generate": {"parallelism": 3}}
    found = layouts(small_spec(execution={"shards": 8}, cluster={"stages": stages}), local=False)
    assert (found["generate"].pods, found["generate"].parallel, found["generate"].waves) == (
        8,
        3,
        3,
    )
    assert (found["score"].pods, found["score"].parallel, found["score"].waves) == (8, 8, 1)
    assert (found["evaluate"].pods, found["evaluate"].waves) == (1, 1)


def test_a_gang_trains_on_every_rank_of_every_node():
    spec = small_spec(
        execution={"deepspeed": {"processes": 4}}, cluster={"stages": {"train": {"nodes": 2}}}
    )
    found = layouts(spec, local=False)["train"]
    assert (found.pods, found.working, found.together) == (2, 8, 8)
    assert setup_of(found.execution, Optimization(), found.parallel) == Setup(ranks=8, zero=1)


@pytest.mark.parametrize(("engine", "used"), [("vllm", 4), ("transformers", 1)])
def test_vllm_takes_every_gpu_of_its_pod_and_transformers_one(engine, used):
    stages = {"generate": {"resources": GPUS}, "score": {"resources": GPUS}}
    found = layouts(
        small_spec(execution={"engine": engine}, cluster={"stages": stages}), local=False
    )
    assert (found["generate"].devices, found["generate"].used) == (4, used)
    assert (found["score"].devices, found["score"].used) == (4, 1)


def test_a_stage_s_own_execution_comes_before_the_run_s():
    stages = {"generate": {"execution": {"sampling_rows": 7}}}
    found = layouts(small_spec(cluster={"stages": stages}), local=False)
    assert found["generate"].execution.sampling_rows == 7
    assert found["evaluate"].execution.sampling_rows == 512
    assert layouts(small_spec(cluster={"stages": stages}), local=True)["generate"].pods == 0


def test_the_rows_of_a_rank_are_its_share_of_the_batch_or_fewer():
    assert Setup(ranks=8).rows(128) == 16
    assert Setup(ranks=8, micro_batch=4).rows(128) == 4
    assert Setup(ranks=64).rows(32) == 1


def test_what_else_an_execution_asks_of_training_is_taken_over():
    deepspeed = DeepSpeed(zero_stage=1, offload="optimizer")
    found = setup_of(Execution(gradient_checkpointing=True, deepspeed=deepspeed), Optimization())
    assert found == Setup(zero=1, recomputed=True, offload="optimizer")
    assert setup_of(Execution(), Optimization()) == Setup()
