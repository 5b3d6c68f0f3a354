"""Objects to look at: each kind that is made in a cluster, for settings that people use."""

from typing import Any

from mstar.cluster import Cluster
from mstar.execution import Execution
from mstar.executors.base import Job
from mstar.executors.k8s.names import Place
from mstar.executors.k8s.render import (
    Owner,
    Scene,
    controller_job,
    gang_service,
    resolved,
    step_job,
)
from tests.executors.making import STEPS

Object = dict[str, Any]
PLACE = Place(run="math-7b.try_2", store="s3://runs/team")
IMAGES = {"registry": "registry.example:5000/ml", "tag": "1.2.3"}
OWNER = Owner(name="mstar-math-7b-try-2-controller", uid="2f0e1b7c")
GPUS = {"requests": {"cpu": 8, "memory": "64Gi"}, "limits": {"memory": "64Gi", "nvidia.com/gpu": 1}}


def made(step: str, block: Object | None = None, **execution: Any) -> list[Object]:
    """What the controller makes for a step: its Job and, for a gang, its Service."""
    cluster = Cluster.model_validate({"images": IMAGES} | (block or {}))
    scene = Scene(place=PLACE, cluster=cluster, owner=OWNER)
    wanted = Job(
        run=PLACE.run,
        index=list(STEPS).index(step),
        step=step,
        number=2,
        store=PLACE.store,
        task=STEPS[step].task,
        execution=Execution(**execution),
        attempt="1-2",
        tries=3,
    )
    job = resolved(wanted, cluster)
    bodies = [step_job(scene, job)]
    pod = cluster.pod(job.task.stage)
    if getattr(pod, "nodes", 1) > 1:
        owner = Owner(name=bodies[0]["metadata"]["name"], uid="9c4d")
        bodies.append(gang_service(scene, job, owner))
    return bodies


def controller(block: Object | None = None) -> Object:
    """The controller's Job."""
    cluster = Cluster.model_validate({"images": IMAGES} | (block or {}))
    return controller_job(Scene(place=PLACE, cluster=cluster))


PATCHED = {
    "metadata": {"annotations": {"team": "vision"}, "labels": {"cost-centre": "42"}},
    "spec": {
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "runtimeClassName": "nvidia",
        "schedulerName": "volcano",
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "images"}}],
        "containers": [
            {"name": "stage"},
            {"name": "proxy", "image": "registry.example/proxy:1", "restartPolicy": None},
        ],
    },
}
PATCHED["spec"]["containers"][0] |= {  # type: ignore[index]
    "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
}
QUEUE = {"name": "research", "priority_class": "batch"}

GOLDEN: dict[str, list[Object]] = {
    "controller": [controller()],
    "controller-queued": [controller({"queue": QUEUE | {"controller": True}, "secret": None})],
    "generate-8-shards-gpus": made(
        "iter-01/generate",
        {"stages": {"generate": {"resources": GPUS, "shm": "8Gi", "scratch": "100Gi"}}},
        shards=8,
    ),
    "generate-few-at-once": made(
        "iter-01/generate", {"stages": {"generate": {"parallelism": 2}}}, shards=8
    ),
    "score": made("iter-01/score", {"env_config": None, "priority_class": "low"}, shards=2),
    "train-alone": made("iter-01/train"),
    "train-gang": made(
        "iter-01/train",
        {
            "stages": {
                "train": {
                    "nodes": 4,
                    "resources": {"limits": {"nvidia.com/gpu": 8}},
                    "execution": {"deepspeed": {"processes": 8, "zero_stage": 2}},
                }
            }
        },
    ),
    "evaluate-queued": made("iter-01/evaluate", {"queue": QUEUE}),
    "generate-patched": made(
        "iter-01/generate",
        {
            "images": IMAGES | {"pull_secrets": ["registry"], "pull_policy": "Always"},
            "stages": {"generate": {"patch": PATCHED, "image": "registry.example/mine:7"}},
        },
    ),
}
