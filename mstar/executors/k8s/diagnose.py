"""What a Job, its pods and their events mean, in plain words: pure, from plain dicts to an ``Observation``.

The first question of whoever looks at a run that stands still is what it waits for; the second, after a failure, is
which of many dead pods was the first to go wrong, and why.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mstar.errors import (
    ClusterError,
    OutOfMemory,
    Preempted,
    StepFailed,
    WorkerLost,
    leaves,
)
from mstar.executors.base import Observation, State
from mstar.executors.k8s.names import CONTAINER, QUEUE
from mstar.executors.k8s.waits import Waiting, no_pod_waits, pod_waits, suspended

Object = Mapping[str, Any]
KILLED = {137, 143}
_USAGE = 2
_OURS = {kind.exit_code: kind for kind in leaves()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a pod ended.

    ``told`` is True when the stage itself left word of it, ``disrupted`` when the pod had to leave its node, ``asked``
    when it only did as it was asked: to go.
    """

    pod: str
    index: str
    message: str
    exit_code: int
    retriable: bool
    told: bool
    disrupted: bool
    at: str

    @property
    def asked(self) -> bool:
        return self.exit_code == Preempted.exit_code


def diagnose(job: Object, pods: Sequence[Object], events: Sequence[Object] = ()) -> Observation:
    """The state of an attempt from its Job, the Job's pods, and the events about both (may be empty)."""
    conditions = _conditions(job)
    deaths = sorted(filter(None, map(death, pods)), key=_blame)
    if "Complete" in conditions:
        return Observation(state=State.SUCCEEDED)
    if "Failed" in conditions:
        return _failed(job, conditions["Failed"], deaths, events)
    if memory := next((d for d in deaths if d.exit_code == OutOfMemory.exit_code), None):
        # The same work would need the same memory again.
        return _failure(memory, _where(memory) + memory.message, retriable=False)
    waiting = _waiting(job, pods, events)
    noted = ""
    if deaths and "FailureTarget" in conditions:
        noted = f"{_where(deaths[0])}{deaths[0].message}; the attempt is ending"
    elif deaths:
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
    container, ended = _termination(status)
    code = int(ended.get("exitCode", 1))
    told = _told(ended.get("message", ""))
    own = _OURS.get(code) if container == CONTAINER else None
    if told:
        message, exit_code, retriable = told
    elif ended.get("reason") == "OOMKilled":
        limit = _memory_limit(pod, container)
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
    elif own:
        # There was no place for a last word, or too little: the code itself says what it was.
        message, exit_code, retriable = _unexplained(ended, code), code, own.retriable
    elif code == _USAGE and container == CONTAINER:
        message = f"its image does not know what it is asked: {_unexplained(ended, code)}"
        exit_code, retriable = ClusterError.exit_code, False
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
        disrupted=disruption is not None,
        at=ended.get("finishedAt", "") or "",
    )


def _failed(
    job: Object, condition: Object, deaths: Sequence[Death], events: Sequence[Object]
) -> Observation:
    if not deaths:
        said = condition.get("message") or condition.get("reason") or "no reason is given"
        return Observation(
            state=State.FAILED,
            message=f"the Job failed: {said}{_last_warning(events)}",
            exit_code=WorkerLost.exit_code,
            retriable=True,
        )
    if not deaths[0].retriable:
        return _failure(deaths[0], _where(deaths[0]) + deaths[0].message, retriable=False)
    by_index = condition.get("reason") in {"FailedIndexes", "MaxFailedIndexesExceeded"}
    if by_index:
        # Who had to leave a node was ignored; who was told to go once the Job had failed is no cause of that.
        failed = _indexes(job.get("status", {}).get("failedIndexes", ""))
        counted = [each for each in deaths if not each.disrupted]
        deaths = [each for each in counted if each.index in failed] or counted or deaths
    first = deaths[0]
    text = _where(first) + first.message
    if first.disrupted or first.asked:
        return _failure(first, text, retriable=True, excused=True)
    if by_index:
        tries = sum(each.index == first.index for each in deaths)
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


def _blame(each: Death) -> tuple[bool, bool, bool, bool, bool, str]:
    """The order of suspicion.

    What cannot pass; then who had to leave its node (its peers die of that); then who did not just go as it was asked;
    then who left word; then who was not just killed; then the first.
    """
    killed = not each.told and each.exit_code == WorkerLost.exit_code
    return (
        each.retriable,
        not each.disrupted,
        each.asked and not each.disrupted,
        not each.told,
        killed,
        each.at,
    )


def _where(each: Death) -> str:
    shard = f"shard {each.index}, " if each.index not in {"", "0"} else ""
    return f"{shard}pod {each.pod}: "


def _waiting(job: Object, pods: Sequence[Object], events: Sequence[Object]) -> Waiting | None:
    """What the attempt as a whole waits for; None as soon as one pod works, in a gang when all do."""
    if job.get("spec", {}).get("suspend"):
        return suspended(job.get("metadata", {}).get("labels", {}).get(QUEUE))
    active = [
        pod for pod in pods if pod.get("status", {}).get("phase") in {"Pending", "Running", None}
    ]
    found = [pod_waits(pod, events) for pod in active]
    waits = [wait for wait in found if wait]
    count = job.get("spec", {}).get("completions") or 1
    marks = job.get("metadata", {}).get("labels", {})
    gang = count > 1 and marks.get("app.kubernetes.io/component") == "train"
    if len(found) > len(waits) and not gang:
        return None
    if waits:
        worst = max(waits, key=lambda wait: wait.stuck)
        others = f" ({len(waits)} pods wait)" if len(waits) > 1 else ""
        return Waiting(worst.text + others, stuck=worst.stuck)
    if gang and len(pods) >= count and active:
        return None
    return no_pod_waits(job, events)


def _conditions(thing: Object) -> dict[str, Object]:
    found = thing.get("status", {}).get("conditions") or ()
    return {each["type"]: each for each in found if each.get("status") == "True"}


def _termination(status: Object) -> tuple[str, Object]:
    """Which container failed, and how: the stage's own before others, which may have been ended because of it."""
    failed = []
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            for state in ("state", "lastState"):
                ended = (container.get(state) or {}).get("terminated")
                if ended and ended.get("exitCode") != 0:
                    failed.append((container.get("name", ""), ended))
    own = [each for each in failed if each[0] == CONTAINER]
    return next(iter(own or failed), ("", {}))


def _indexes(text: str) -> set[str]:
    """``1,3-5`` as Kubernetes writes the indexes of a Job."""
    found: set[str] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= {str(index) for index in range(int(first), int(last or first) + 1)}
    return found


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
    tail = _tail(str(ended.get("message", "")))
    reason = ended.get("reason", "Error")
    if reason in {"StartError", "ContainerCannotRun"}:
        return f"the container cannot start: {tail or reason}"
    return f"ended with exit code {code}{f': …{tail}' if tail else ''}"


def _tail(printed: str) -> str:
    """The end of what a container printed: of JSON lines, what the last one says."""
    with suppress(ValueError, KeyError, TypeError):
        printed = str(json.loads(printed.strip().rpartition("\n")[2])["message"])
    return re.sub(r"\s+", " ", printed)[-300:].strip()


def _memory_limit(pod: Object, container: str) -> str:
    for each in pod.get("spec", {}).get("containers") or ():
        limits = (each.get("resources") or {}).get("limits") or {}
        if each.get("name") == container and "memory" in limits:
            return str(limits["memory"])
    return ""


def _last_warning(events: Sequence[Object]) -> str:
    warnings = [event for event in events if event.get("type") == "Warning"]
    return f" ({warnings[-1].get('message', '')})" if warnings else ""
