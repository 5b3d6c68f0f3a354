"""Why a pod, or a Job without pods, does not work yet: in the words of whoever has to do something about it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mstar.executors.k8s.names import CONTAINER

Object = Mapping[str, Any]

_IMAGE = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
}
_CONFIGURATION = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
    "PreStartHookError",
}
_TROUBLES = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}
_QUOTA = re.compile(r"exceeded quota: ([^,]+), (.*)")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is waited for; ``stuck`` when it does not pass by itself."""

    text: str
    stuck: bool = False


def pod_waits(pod: Object, events: Sequence[Object] = ()) -> Waiting | None:
    """What a pod that has not ended waits for; None when its container runs."""
    status = pod.get("status", {})
    if _unheard_of(status):
        name, node = pod["metadata"]["name"], pod.get("spec", {}).get("nodeName")
        return Waiting(
            f"pod {name} is not heard of any more: its node {node} may be lost. If it is gone for good, "
            f"`kubectl delete pod --force {name}` lets another take its place"
        )
    states = _waiting_states(status)
    if status.get("phase") == "Running" and (not states or _stage_runs(status)):
        return None
    for image, state in states:
        if found := _container_waits(pod, events, image, state):
            return found
    placed = _condition(status, "PodScheduled")
    if placed and placed.get("status") == "False":
        if placed.get("reason") == "SchedulingGated":
            return Waiting(f"pod {pod['metadata']['name']} is held back by a scheduling gate")
        return Waiting(_unschedulable(pod, placed.get("message", "")))
    return _starting(pod, events)


def _container_waits(
    pod: Object, events: Sequence[Object], image: str, state: Object
) -> Waiting | None:
    reason, message = state.get("reason", ""), state.get("message", "")
    if reason in _IMAGE:
        why = _short(_image_message(pod, events, image) or message) or reason
        return Waiting(f"image pull: {image} cannot be had: {why}", stuck=True)
    if reason in _CONFIGURATION:
        why = _short(message) or reason
        return Waiting(f"configuration: the container cannot be made: {why}", stuck=True)
    return None


def _starting(pod: Object, events: Sequence[Object]) -> Waiting:
    """What happens between the scheduler's decision and the container's first breath."""
    name, node = pod["metadata"]["name"], pod.get("spec", {}).get("nodeName")
    newest = _newest(events, name, _TROUBLES | {"Pulling", "Pulled", "Created"})
    reason, message = newest.get("reason", ""), _short(newest.get("message", ""))
    if reason in _TROUBLES:
        return Waiting(f"pod {name} cannot start: {message}", stuck=True)
    if not node:
        return Waiting(f"pod {name} waits for the scheduler")
    if reason == "Pulling":
        return Waiting(f"{message} on {node}")
    return Waiting(f"pod {name} is starting on {node}")


def no_pod_waits(job: Object, events: Sequence[Object] = ()) -> Waiting:
    """What a Job waits for that has too few pods."""
    newest = _newest(events, job["metadata"]["name"], {"FailedCreate", "SuccessfulCreate"})
    refused = str(newest.get("message", ""))
    if newest.get("reason") != "FailedCreate":
        return Waiting("its pods are being made")
    if found := _QUOTA.search(refused):
        return Waiting(f"quota: {found[1]} is used up ({_short(found[2])})")
    if "violates PodSecurity" in refused:
        return Waiting(
            f"configuration: the namespace's Pod Security refuses the pod: "
            f"{_short(refused.partition('violates PodSecurity')[2])}",
            stuck=True,
        )
    return Waiting(f"configuration: the pod is refused: {_short(refused)}", stuck=True)


def suspended(queue: str | None) -> Waiting:
    """What a suspended Job waits for."""
    if queue:
        return Waiting(f"queue: Kueue has not admitted it yet (local queue {queue})")
    return Waiting("the Job is suspended, and names no queue: somebody has to set suspend to false")


def _unschedulable(pod: Object, message: str) -> str:
    """Which resource or selector no node satisfies, with what the pod asks for."""
    asked = []
    for resource in dict.fromkeys(re.findall(r"Insufficient ([\w./-]*\w)", message)):
        amount = _request(pod, resource)
        asked.append(f"{resource}{f' (asks for {amount})' if amount else ''}")
    spec = pod.get("spec", {})
    if "node affinity/selector" in message and spec.get("nodeSelector"):
        chosen = ", ".join(f"{key}={value}" for key, value in sorted(spec["nodeSelector"].items()))
        asked.append(f"a node with {chosen}")
    elif "node affinity/selector" in message:
        asked.append("a node that fits its affinity")
    taints = re.findall(r"untolerated taint\(?s?\)? ?(\{[^}]*\})", message)
    if taints:
        asked.append(f"a toleration for {', '.join(dict.fromkeys(taints))}")
    wanted = f" of {'; '.join(asked)}" if asked else ""
    said = message.partition("preemption:")[0].strip().rstrip(".")
    return f"unschedulable for want{wanted}: {said}" if wanted else f"unschedulable: {said}"


def _request(pod: Object, resource: str) -> str:
    for container in pod.get("spec", {}).get("containers") or ():
        amounts = container.get("resources") or {}
        for kind in ("requests", "limits"):
            if value := (amounts.get(kind) or {}).get(resource):
                return str(value)
    return ""


def _waiting_states(status: Object) -> list[tuple[str, Object]]:
    found = []
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            state = (container.get("state") or {}).get("waiting")
            if state:
                found.append((container.get("image", ""), state))
    return found


def _condition(status: Object, kind: str) -> Object | None:
    return next((each for each in status.get("conditions") or () if each["type"] == kind), None)


def _image_message(pod: Object, events: Sequence[Object], image: str) -> str:
    """The event of a failed pull says more than the back-off that follows it."""
    failed = [
        event.get("message", "")
        for event in events
        if event.get("involvedObject", {}).get("name") == pod["metadata"]["name"]
        and event.get("reason") == "Failed"
        and image.rpartition("/")[2].partition(":")[0] in event.get("message", "")
    ]
    return failed[-1] if failed else ""


def _newest(events: Sequence[Object], name: str, reasons: set[str]) -> Object:
    """The newest event of these reasons about ``name``; empty when there is none."""
    found = [
        event
        for event in events
        if event.get("reason") in reasons and event.get("involvedObject", {}).get("name") == name
    ]
    return max(found, key=_when, default={})


def _when(event: Object) -> str:
    """When an event was last seen: events that repeat, old ones and new ones say it in three places."""
    series = event.get("series") or {}
    stamps = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    # Seconds with and without a fraction compare as they should once neither ends in a letter.
    return max(str(stamp or "").rstrip("Z") for stamp in stamps)


def _unheard_of(status: Object) -> bool:
    """Whether a node's controller found that the node of a running pod does not report: the pod alone is not ready."""
    ready = _condition(status, "Ready")
    own = status.get("containerStatuses") or ()
    running = status.get("phase") == "Running" and any(each.get("ready") for each in own)
    return bool(
        running and ready and ready.get("status") != "True" and all(c.get("ready") for c in own)
    )


def _stage_runs(status: Object) -> bool:
    own = status.get("containerStatuses") or ()
    return any(
        each.get("name") == CONTAINER and "running" in (each.get("state") or {}) for each in own
    )


def _short(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().strip(":").strip()[:300]
