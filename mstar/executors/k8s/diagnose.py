"""What a Job, its pods and their events mean, in plain words: pure, from plain dicts to an ``Observation``.

The first question of whoever looks at a run that stands still is what it waits for; the second, after a failure, is
which of many dead pods was the first to go wrong, and why.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mstar.errors import ClusterError, OutOfMemory, Preempted, StepFailed, WorkerLost
from mstar.executors.base import Observation, State
from mstar.executors.k8s.names import QUEUE
from mstar.executors.k8s.waits import Waiting, no_pod_waits, pod_waits, suspended

Object = Mapping[str, Any]
KILLED = {137, 143}


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a pod ended. ``told`` is True when the stage itself left word of it; ``disrupted`` when it was evicted."""

    pod: str
    index: str
    message: str
    exit_code: int
    retriable: bool
    told: bool
    disrupted: bool
    at: str


def diagnose(job: Object, pods: Sequence[Object], events: Sequence[Object] = ()) -> Observation:
    """The state of an attempt from its Job, the Job's pods, and the events about both (may be empty)."""
    conditions = _conditions(job)
    deaths = sorted(filter(None, map(death, pods)), key=_blame)
    if "Complete" in conditions:
        return Observation(state=State.SUCCEEDED)
    if "Failed" in conditions:
        return _failed(conditions["Failed"], deaths, events)
    if memory := next((d for d in deaths if d.exit_code == OutOfMemory.exit_code), None):
        # The same work would need the same memory again.
        return _failure(memory, _where(memory) + memory.message, retriable=False)
    waiting = _waiting(job, pods, events)
    noted = ""
    if deaths:
        last = max(deaths, key=lambda each: each.at)
        noted = f"{_where(last)}{last.message}; it is tried again"
    if waiting is None:
        return Observation(state=State.RUNNING, message=noted)
    words = f"{waiting.text} ({noted})" if noted else waiting.text
    return Observation(state=State.RUNNING, message=noted, waiting=words, stuck=waiting.stuck)


def death(pod: Object) -> Death | None:
    """How a pod ended, None when it has not, or ended well."""
    status = pod.get("status", {})
    if status.get("phase") != "Failed":
        return None
    disruption = _conditions(pod).get("DisruptionTarget")
    ended = next((t for t in _terminations(status) if t.get("exitCode") != 0), {})
    code = int(ended.get("exitCode", 1))
    told = _told(ended.get("message", ""))
    if told:
        message, exit_code, retriable = told
    elif ended.get("reason") == "OOMKilled":
        limit = _memory_limit(pod)
        message = (
            f"out of memory: it used more than its limit{f' of {limit}' if limit else ''}; raise "
            "resources.limits.memory of this stage, or lower its micro_batch, sampling_rows or scoring_rows"
        )
        exit_code, retriable = OutOfMemory.exit_code, False
    elif disruption:
        message, exit_code, retriable = _disrupted(disruption), Preempted.exit_code, True
    elif status.get("reason") == "Evicted":
        message = f"evicted: {status.get('message', 'the node had too little left')}"
        exit_code, retriable = WorkerLost.exit_code, True
    else:
        message, exit_code, retriable = _unexplained(ended, code), WorkerLost.exit_code, True
    return Death(
        pod=pod["metadata"]["name"],
        index=pod["metadata"]
        .get("annotations", {})
        .get("batch.kubernetes.io/job-completion-index", ""),
        message=message,
        exit_code=exit_code,
        retriable=retriable,
        told=told is not None,
        disrupted=disruption is not None or exit_code == Preempted.exit_code,
        at=ended.get("finishedAt", "") or "",
    )


def _failed(condition: Object, deaths: Sequence[Death], events: Sequence[Object]) -> Observation:
    if not deaths:
        said = condition.get("message") or condition.get("reason") or "no reason is given"
        return Observation(
            state=State.FAILED,
            message=f"the Job failed: {said}{_last_warning(events)}",
            exit_code=WorkerLost.exit_code,
            retriable=True,
        )
    first = deaths[0]
    text = _where(first) + first.message
    if not first.retriable:
        return _failure(first, text, retriable=False)
    if first.disrupted:
        return _failure(first, text, retriable=True, excused=True)
    if condition.get("reason") in {"FailedIndexes", "MaxFailedIndexesExceeded"}:
        tries = sum(death.index == first.index for death in deaths)
        often = "once" if tries <= 1 else f"{tries} times"
        return Observation(
            state=State.FAILED,
            message=f"it failed {often}, as often as limits.attempts allows; {text}",
            exit_code=StepFailed.exit_code,
        )
    return _failure(first, text, retriable=True)


def _failure(cause: Death, text: str, *, retriable: bool, excused: bool = False) -> Observation:
    return Observation(
        state=State.FAILED,
        message=text,
        exit_code=cause.exit_code,
        retriable=retriable,
        excused=excused,
    )


def _blame(each: Death) -> tuple[bool, bool, bool, str]:
    """The order of suspicion: what cannot pass, then who left word, then who was not just killed, then the first."""
    killed = not each.told and each.exit_code == WorkerLost.exit_code
    return (each.retriable, not each.told, killed, each.at)


def _where(each: Death) -> str:
    shard = f"shard {each.index}, " if each.index not in {"", "0"} else ""
    return f"{shard}pod {each.pod}: "


def _waiting(job: Object, pods: Sequence[Object], events: Sequence[Object]) -> Waiting | None:
    """What the attempt as a whole waits for; None as soon as one pod works."""
    if job.get("spec", {}).get("suspend"):
        return suspended(job.get("metadata", {}).get("labels", {}).get(QUEUE))
    active = [
        pod for pod in pods if pod.get("status", {}).get("phase") in {"Pending", "Running", None}
    ]
    found = [pod_waits(pod, events) for pod in active]
    if any(wait is None for wait in found):
        return None
    if waits := [wait for wait in found if wait]:
        worst = max(waits, key=lambda wait: wait.stuck)
        others = f" ({len(waits)} pods wait)" if len(waits) > 1 else ""
        return Waiting(worst.text + others, stuck=worst.stuck)
    return no_pod_waits(job, events)


def _conditions(thing: Object) -> dict[str, Object]:
    found = thing.get("status", {}).get("conditions") or ()
    return {each["type"]: each for each in found if each.get("status") == "True"}


def _terminations(status: Object) -> Iterable[Object]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            for state in ("state", "lastState"):
                if ended := (container.get(state) or {}).get("terminated"):
                    yield ended


def _told(message: str) -> tuple[str, int, bool] | None:
    """What a stage left in its termination message."""
    line = message.strip().rpartition("\n")[2]
    try:
        body = json.loads(line)
        return str(body["message"]), int(body["exit_code"]), bool(body["retriable"])
    except (ValueError, KeyError, TypeError):
        return None


def _disrupted(condition: Object) -> str:
    reasons = {
        "PreemptionByScheduler": "preempted: the scheduler gave its place to a pod of higher priority",
        "DeletionByTaintManager": "its node got a taint it does not tolerate (lost, or taken out of service)",
        "EvictionByEvictionAPI": "evicted: its node is being emptied",
        "DeletionByPodGC": "its node is gone",
        "TerminationByKubelet": "its node ran short of resources or shut down",
    }
    reason = condition.get("reason", "")
    return reasons.get(reason, f"disrupted: {condition.get('message') or reason}")


def _unexplained(ended: Object, code: int) -> str:
    if not ended:
        return "it vanished without a word (its node may be lost)"
    if code in KILLED:
        return f"killed (exit code {code})"
    tail = re.sub(r"\s+", " ", str(ended.get("message", "")))[-300:].strip()
    reason = ended.get("reason", "Error")
    if reason in {"StartError", "ContainerCannotRun"}:
        return f"the container cannot start: {tail or reason}"
    return f"ended with exit code {code}{f': …{tail}' if tail else ''}"


def _memory_limit(pod: Object) -> str:
    for container in pod.get("spec", {}).get("containers") or ():
        if limit := ((container.get("resources") or {}).get("limits") or {}).get("memory"):
            return str(limit)
    return ""


def _last_warning(events: Sequence[Object]) -> str:
    warnings = [event for event in events if event.get("type") == "Warning"]
    return f" ({warnings[-1].get('message', '')})" if warnings else ""


PLACE_CODE = ClusterError.exit_code
"""The exit code of a run that gave up waiting for a place, a quota or an image."""
