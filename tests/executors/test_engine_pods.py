"""Pods of an engine that is split over GPUs hold them, or the contradiction is named before anything is made."""

import pytest

from mstar.cluster import Cluster
from mstar.controller.metrics import gpus_held
from mstar.errors import SpecError
from mstar.execution import Execution
from tests.executors.rendered import made

SPLIT = {"engine": "vllm", "vllm": {"tensor_parallel": 2}}


def container(step, limits=None, **execution):
    stage = step.rpartition("/")[2]
    block = {"stages": {stage: {"resources": {"limits": limits or {}}}}}
    (job,) = made(step, block, **execution)
    return job["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("step", ["iter-01/generate", "iter-01/evaluate"])
def test_gpus_follow_from_the_engine_where_none_are_named(step):
    assert container(step, **SPLIT)["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    three = {"engine": "vllm", "vllm": {"tensor_parallel": 2, "processes": 3}}
    assert container(step, {"memory": "64Gi"}, **three)["resources"]["limits"] == {
        "memory": "64Gi",
        "nvidia.com/gpu": "6",
    }


@pytest.mark.parametrize("limit", [{"nvidia.com/gpu": 2}, {"amd.com/gpu": 8}])
def test_gpus_that_are_named_stay_where_engines_can_share_them_out(limit):
    found = container("iter-01/generate", limit, **SPLIT)["resources"]["limits"]
    assert found == {name: str(count) for name, count in limit.items()}


@pytest.mark.parametrize(
    ("gpus", "vllm", "message"),
    [
        (
            1,
            {"tensor_parallel": 2},
            "a pod 1 GPUs, but execution.vllm.tensor_parallel is 2; give it 2",
        ),
        (6, {"tensor_parallel": 4}, "a pod 6 GPUs, .* is 4; give it 8"),
        (4, {"tensor_parallel": 2, "processes": 3}, "is 2 and processes 3; give it 6"),
    ],
)
def test_gpus_that_cannot_be_shared_out_are_refused(gpus, vllm, message):
    with pytest.raises(
        SpecError, match=rf"cluster\.stages\.generate\.resources\.limits.*{message}"
    ):
        container("iter-01/generate", {"nvidia.com/gpu": gpus}, engine="vllm", vllm=vllm)


@pytest.mark.parametrize(
    ("step", "execution"),
    [
        ("iter-01/score", SPLIT),
        ("iter-01/generate", SPLIT | {"engine": "transformers"}),
        ("iter-01/generate", SPLIT | {"device": "cpu"}),
        ("iter-01/generate", {"engine": "vllm"}),
    ],
)
def test_what_splits_no_model_over_gpus_is_given_none(step, execution):
    assert "limits" not in container(step, **execution)["resources"]


def test_an_evaluation_by_vllm_runs_in_the_image_that_has_it():
    assert "/mstar-evaluator:" in container("iter-01/evaluate")["image"]
    assert "/mstar-generator:" in container("iter-01/evaluate", engine="vllm")["image"]


def test_gpus_that_follow_are_counted():
    execution = Execution.model_validate(SPLIT | {"shards": 3})
    assert gpus_held(Cluster(), execution, "generate") == 6
    assert gpus_held(Cluster(), execution, "evaluate") == 2
    assert gpus_held(Cluster(), execution, "score") == 0


def test_a_pod_with_fewer_gpus_than_ranks_is_refused():
    ranks = {"deepspeed": {"processes": 8}}
    with pytest.raises(SpecError, match=r"a pod 4 GPUs, but execution.deepspeed.processes is 8"):
        container("iter-01/train", {"nvidia.com/gpu": 4}, **ranks)
    assert container("iter-01/train", {"nvidia.com/gpu": 8}, **ranks)
    assert container("iter-01/train", {"nvidia.com/gpu": 4}, device="cpu", **ranks)
