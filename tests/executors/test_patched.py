"""A run's own patch may change a pod in any way but those after which the run could not work."""

import pytest

from mstar.errors import SpecError
from tests.executors.rendered import controller, made


def stage(**fields):
    return {"spec": {"containers": [{"name": "stage", **fields}]}}


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"spec": "all"}, "metadata and spec of a pod are groups of keys"),
        ({"metadata": None}, "metadata and spec of a pod are groups of keys"),
        ({"spec": {"containers": {"name": "stage"}}}, r"spec\.containers is a list"),
        ({"spec": {"containers": [{"image": "x"}]}}, "each element needs name"),
        ({"spec": {"containers": None}}, r"spec\.containers is a list"),
        (
            {"spec": {"containers": [{"name": "stage", "$patch": "delete"}]}},
            "takes away the contain",
        ),
        ({"spec": {"restartPolicy": "OnFailure"}}, r"spec\.restartPolicy must stay 'Never'"),
        (stage(args=["sleep", "1000"]), r"spec\.containers\[stage\]\.args must stay \['pod'"),
        (stage(env=[{"name": "MSTAR_POD", "value": "x"}]), "must keep MSTAR_POD as it is"),
        (stage(env="MSTAR_POD=x"), r"env is a list of groups of keys"),
        (
            stage(volumeMounts=[{"mountPath": "/scratch", "$patch": "delete"}]),
            "must keep /scratch as it is",
        ),
        (
            {"metadata": {"labels": {"app.kubernetes.io/component": "mine"}}},
            r"metadata\.labels\.app\.kubernetes\.io/component must stay 'generate'",
        ),
        (
            {"metadata": {"annotations": {"mstar.dev/step": None}}},
            r"metadata\.annotations\.mstar\.dev/step must stay",
        ),
    ],
)
def test_a_patch_after_which_the_run_could_not_work_is_named(patch, said):
    with pytest.raises(SpecError, match=said) as caught:
        made("iter-01/generate", {"stages": {"generate": {"patch": patch}}})
    assert str(caught.value).startswith("cluster.stages.generate.patch: ")


def test_each_mistake_of_a_patch_is_named_at_once():
    patch = {"spec": {"restartPolicy": "Always", "containers": [{"name": "stage", "args": []}]}}
    with pytest.raises(SpecError) as caught:
        controller({"controller": {"patch": patch}})
    lines = str(caught.value).splitlines()
    assert [line.split(" must stay")[0] for line in lines] == [
        "cluster.controller.patch: spec.restartPolicy",
        "cluster.controller.patch: spec.containers[stage].args",
    ]


def test_a_gang_s_own_name_stays_and_what_is_nobody_s_business_may_change():
    gang = {"nodes": 2, "execution": {"deepspeed": {}}}
    with pytest.raises(SpecError, match=r"spec\.subdomain must stay"):
        made("iter-01/train", {"stages": {"train": gang | {"patch": {"spec": {"subdomain": "x"}}}}})
    own = {"name": "MSTAR_LOG", "value": "text"}
    cache = {"name": "scratch", "mountPath": "/scratch", "subPath": "mine"}
    patch = stage(command=["wrap", "mstarctl"], env=[own], volumeMounts=[cache])
    (body,) = made("iter-01/generate", {"stages": {"generate": {"patch": patch}}})
    container = body["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["wrap", "mstarctl"]
    assert own in container["env"]
    assert cache in container["volumeMounts"]


def test_nodes_that_nothing_joins_are_refused_before_anything_is_made():
    with pytest.raises(SpecError, match=r"nodes is more than 1, but no DeepSpeed joins"):
        made("iter-01/train", {"stages": {"train": {"nodes": 2}}})
