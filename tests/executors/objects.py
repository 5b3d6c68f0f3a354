"""Jobs, pods and events as the API gives them, for the tables of what they mean."""

from typing import Any

Object = dict[str, Any]
NAME = "mstar-math-0a1b2c3d-0007-1"
IMAGE = "registry.example:5000/mstar-generator:0.2.0"
REQUESTS = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "8"}
AT = "2026-11-01T10:00:{:02d}Z"
INDEX = "batch.kubernetes.io/job-completion-index"


def job(
    *conditions: Object,
    suspend: bool = False,
    queue: str = "",
    failed: str = "",
    count: int = 4,
    component: str = "generate",
) -> Object:
    """A Job of ``count`` pods."""
    labels = {"app.kubernetes.io/component": component}
    if queue:
        labels["kueue.x-k8s.io/queue-name"] = queue
    status: Object = {"startTime": AT.format(0), "ready": 0, "active": 0}
    if conditions:
        status["conditions"] = list(conditions)
    if failed:
        status["failedIndexes"] = failed
    return {
        "kind": "Job",
        "metadata": {"name": NAME, "namespace": "ml", "uid": "u", "labels": labels},
        "spec": {"suspend": suspend, "completions": count, "parallelism": count},
        "status": status,
    }


def condition(kind: str, reason: str, message: str = "", status: str = "True") -> Object:
    """A condition of a Job or a pod."""
    stamp = AT.format(59)
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": None,
        "lastTransitionTime": stamp,
    }


def pod(
    index: int = 0,
    phase: str = "Pending",
    state: Object | None = None,
    *conditions: Object,
    suffix: str = "abcde",
    node: str = "node-a",
    **more: Any,
) -> Object:
    """A pod of the Job whose stage's container is in ``state``; ``others`` are its other containers' states."""
    others: dict[str, Object] = more.pop("others", {})
    spec: Object = {
        "containers": [
            {
                "name": "stage",
                "image": IMAGE,
                "resources": {"requests": REQUESTS, "limits": REQUESTS},
            },
            *({"name": name, "image": "proxy:1", "resources": {}} for name in others),
        ],
        **more.pop("spec", {}),
    }
    if node:
        spec["nodeName"] = node
    scheduled = condition("PodScheduled", "", status="True" if node else "False")
    kinds = {each["type"] for each in conditions}
    status: Object = {"phase": phase, **more.pop("status", {})}
    status["conditions"] = [*([scheduled] if "PodScheduled" not in kinds else []), *conditions]
    if state is not None:
        states = {"stage": state, **others}
        status["containerStatuses"] = [
            {
                "name": name,
                "image": IMAGE if name == "stage" else "proxy:1",
                "ready": "running" in each,
                "restartCount": 0,
                "state": each,
                "lastState": {},
            }
            for name, each in states.items()
        ]
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"{NAME}-{index}-{suffix}",
            "namespace": "ml",
            "uid": f"u-{index}-{suffix}",
            "labels": {"batch.kubernetes.io/job-name": NAME, INDEX: str(index)},
            "annotations": {INDEX: str(index)},
            **more.pop("metadata", {}),
        },
        "spec": spec,
        "status": status,
    }


def waiting(reason: str, message: str = "") -> Object:
    """A container that waits."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


RUNNING: Object = {"running": {"startedAt": AT.format(1)}}
STARTING = waiting("ContainerCreating")


def ended(code: int, message: str = "", reason: str = "", at: int = 30) -> Object:
    """A container that ended ``at`` so many seconds."""
    found: Object = {
        "exitCode": code,
        "reason": reason or ("Error" if code else "Completed"),
        "startedAt": AT.format(1),
        "finishedAt": AT.format(at),
        "containerID": "containerd://c",
    }
    return {"terminated": found | ({"message": message} if message else {})}


def told(message: str, code: int, *, retriable: bool, at: int = 30) -> Object:
    """A container that left a last word."""
    import json

    word = {"message": message, "exit_code": code, "retriable": retriable}
    return ended(code, json.dumps(word) + "\n", at=at)


def failed_pod(index: int, state: Object | None, *conditions: Object, **more: Any) -> Object:
    """A pod that failed."""
    return pod(index, "Failed", state, *conditions, **more)


def event(about: str, reason: str, message: str, at: int = 10, **more: Any) -> Object:
    """An event; ``at`` in seconds."""
    return {
        "kind": "Event",
        "metadata": {"name": f"{about}.{at}"},
        "involvedObject": {"name": about},
        "reason": reason,
        "message": message,
        "type": "Normal" if reason in {"Pulling", "Pulled", "SuccessfulCreate"} else "Warning",
        "firstTimestamp": AT.format(at),
        "lastTimestamp": AT.format(at),
        "eventTime": None,
        **more,
    }


def unschedulable(message: str) -> Object:
    """What the scheduler says of a pod that it cannot place."""
    return condition("PodScheduled", "Unschedulable", message, status="False")
