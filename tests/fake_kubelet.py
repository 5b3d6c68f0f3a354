"""The Job controller and the nodes of a fake cluster: each Job's pods are made, worked and ended as its spec says.

``work`` is called for every pod that runs and says how it ended. The pods of one Job are there together and work one
after the other, so that a test can tell what happens when.
"""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fake_cluster import Object, Objects

NODE = "node-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a container ended; ``disruption`` is the reason of the pod's DisruptionTarget condition."""

    code: int = 0
    message: str = ""
    reason: str = ""
    disruption: str = ""


@dataclass(slots=True)
class Running:
    """A pod at work: ``stopping`` is set when it is told to end."""

    job: Object
    pod: Object
    index: int
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def args(self) -> list[str]:
        return list(self.pod["spec"]["containers"][0]["args"])

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])


Work = Callable[[Running], Ended]


def last_word(message: str, exit_code: int, *, retriable: bool) -> str:
    """What a stage leaves in its termination message."""
    return json.dumps({"message": message, "exit_code": exit_code, "retriable": retriable}) + "\n"


class Kubelet:
    """Plays every Job that is made in ``cluster``. ``told_to_go`` is how a pod ends that has to go before its turn."""

    def __init__(self, cluster: Objects, work: Work) -> None:
        self.cluster, self.work = cluster, work
        self.told_to_go = Ended(code=143)
        self.runs: list[tuple[str, int]] = []
        self.defects: list[BaseException] = []
        self._live: dict[str, Running] = {}
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        cluster.created = self._created
        cluster.stop_pod = self._stop

    def join(self, seconds: float = 120.0) -> None:
        """Return when no Job is played any more; raises what ``work`` raised, for that is a test's defect."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "a Job is still played"
        if self.defects:
            raise self.defects[0]

    def _created(self, body: Object) -> None:
        if body["kind"] == "Job":
            thread = threading.Thread(target=self._guarded, args=(body,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _stop(self, pod: Object) -> bool:
        at_work = self._live.get(pod["metadata"]["uid"])
        if at_work:
            at_work.stopping.set()
        return at_work is None

    def _guarded(self, job: Object) -> None:
        try:
            self._play(job)
        except BaseException as error:  # noqa: BLE001 - join raises it
            self.defects.append(error)

    def _play(self, job: Object) -> None:
        spec = job["spec"]
        self.cluster.wait(
            lambda: not self._there(job) or not self._now(job)["spec"].get("suspend"), 3600
        )
        count = spec.get("completions", 1)
        todo, waiting = list(range(count)), dict[int, Running]()
        failures: Counter[int] = Counter()
        while self._there(job) and (todo or waiting):
            while todo and len(waiting) < spec.get("parallelism", 1):
                index = todo.pop(0)
                if pod := self._start(job, index):
                    waiting[index] = pod
            if not waiting:
                return
            index = min(waiting)
            ended = self._run(waiting.pop(index))
            if ended is None:
                return
            if ended.code == 0:
                continue
            failure = _failure(spec, ended, index, failures)
            if failure:
                self._conclude(job, "FailureTarget", *failure)
                for each in waiting.values():
                    self._end(each, self.told_to_go)
                self._conclude(job, "Failed", *failure)
                return
            todo.insert(0, index)
        self._conclude(job, "Complete", "CompletionsReached", "Reached expected number of pods")

    def _start(self, job: Object, index: int) -> Running | None:
        meta, spec = job["metadata"], job["spec"]
        template = spec["template"]
        marks = {
            "batch.kubernetes.io/job-name": meta["name"],
            "batch.kubernetes.io/controller-uid": meta["uid"],
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        notes = {"batch.kubernetes.io/job-completion-index": str(index)}
        owner = {
            "kind": "Job",
            "name": meta["name"],
            "uid": meta["uid"],
            "blockOwnerDeletion": True,
        }
        body = {
            "kind": "Pod",
            "metadata": {
                "name": f"{meta['name']}-{index}-{next(self._numbers):05x}",
                "labels": template["metadata"]["labels"] | marks,
                "annotations": template["metadata"].get("annotations", {}) | notes,
                "ownerReferences": [owner | {"apiVersion": "batch/v1", "controller": True}],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        with self.cluster.changed:
            if not self._there(job):
                return None
            pod = self.cluster.put(body, meta["namespace"])
        running = Running(job, pod, index)
        self.cluster.change(
            pod,
            spec=pod["spec"] | {"nodeName": NODE},
            status=_status("Running", pod, {"running": {"startedAt": _now()}}),
        )
        return running

    def _run(self, running: Running) -> Ended | None:
        """How the pod's work ended; None when its Job was deleted meanwhile."""
        uid = running.pod["metadata"]["uid"]
        with self.cluster.changed:
            if not self._there(running.job):
                return None
            self._live[uid] = running
        self.runs.append((running.job["metadata"]["name"], running.index))
        try:
            ended = self.work(running)
        finally:
            del self._live[uid]
        self._end(running, ended)
        pod = self.cluster.get("Pod", running.name, running.pod["metadata"]["namespace"])
        if pod and "deletionTimestamp" in pod["metadata"]:
            self.cluster.remove(pod)
        return ended if self._there(running.job) else None

    def _end(self, running: Running, ended: Ended) -> None:
        reason = ended.reason or ("Error" if ended.code else "Completed")
        state = {"exitCode": ended.code, "reason": reason, "finishedAt": _now()}
        if ended.message:
            state["message"] = ended.message
        phase = "Failed" if ended.code else "Succeeded"
        status = _status(phase, running.pod, {"terminated": state})
        if ended.disruption:
            status["conditions"].append(
                {"type": "DisruptionTarget", "status": "True", "reason": ended.disruption}
            )
        self.cluster.change(running.pod, status=status)

    def _conclude(
        self, job: Object, kind: str, reason: str, message: str, failed: str = ""
    ) -> None:
        now = self._now(job)
        if not now:
            return
        status = now.get("status", {})
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        status["conditions"] = [*status.get("conditions", ()), condition]
        if failed:
            status["failedIndexes"] = failed
        self.cluster.change(now, status=status)

    def _now(self, job: Object) -> Object:
        meta = job["metadata"]
        found = self.cluster.get("Job", meta["name"], meta["namespace"]) or {}
        return found if found.get("metadata", {}).get("uid") == meta["uid"] else {}

    def _there(self, job: Object) -> bool:
        now = self._now(job)
        return bool(now) and "deletionTimestamp" not in now["metadata"]


def _failure(
    spec: Object, ended: Ended, index: int, failures: "Counter[int]"
) -> tuple[str, ...] | None:
    """Reason, message and failed indexes when this failure is the Job's; None when the pod is made again."""
    action = _action(spec, ended)
    if action == "Ignore":
        return None
    if action == "FailJob":
        text = (
            f"Container stage failed with exit code {ended.code} matching FailJob rule at index 1"
        )
        return "PodFailurePolicy", text
    failures[index] += 1
    limit = spec.get("backoffLimitPerIndex")
    if limit is None:
        over = sum(failures.values()) > spec["backoffLimit"]
        text = "Job has reached the specified backoff limit"
        return ("BackoffLimitExceeded", text) if over else None
    if failures[index] <= limit:
        return None
    text = "Job has exceeded the specified maximal number of failed indexes"
    return "MaxFailedIndexesExceeded", text, str(index)


def _action(spec: Object, ended: Ended) -> str:
    for rule in spec.get("podFailurePolicy", {}).get("rules", ()):
        codes: Any = rule.get("onExitCodes", {}).get("values", ())
        if ended.code in codes or ("onPodConditions" in rule and ended.disruption):
            return str(rule["action"])
    return "Count"


def _status(phase: str, pod: Object, state: Object) -> Object:
    at_work = phase == "Running"
    container = pod["spec"]["containers"][0]
    ready = {"type": "Ready", "status": str(at_work)}
    return {
        "phase": phase,
        "conditions": [{"type": "PodScheduled", "status": "True"}, ready],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "ready": at_work,
                "state": state,
                "lastState": {},
            }
        ],
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
