"""Steps as Jobs in one namespace: created, watched, deleted; never finished by hand, so that a Job outlives us.

A controller that is restarted finds the Jobs it made by their labels and goes on watching them: live work is not
started again because its watcher died.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mstar.cluster import Cluster
from mstar.errors import ClusterError, ConflictError, MstarError, NotFound
from mstar.executors.base import ABSENT, Found, Job, Observation, State
from mstar.executors.k8s.api import AlreadyThere, Api, Object
from mstar.executors.k8s.diagnose import diagnose
from mstar.executors.k8s.names import (
    ATTEMPT,
    CONTAINER,
    ID,
    INDEX,
    JOB,
    STEP,
    TASK,
    Place,
    selector,
)
from mstar.executors.k8s.render import (
    Owner,
    Scene,
    gang_service,
    gang_size,
    request_key,
    resolved,
    shard_count,
    step_job,
)
from mstar.executors.k8s.watch import Mirror, slim
from mstar.storage import keys
from mstar.storage.store import Store
from mstar.tasks import task_hash

log = logging.getLogger("mstar.cluster")

SYNC_SECONDS = 60.0
DELETE_SECONDS = 180.0
EVENTS_SECONDS = 5.0
PROGRESS_SECONDS = 5.0
LOG_BYTES = 1_000_000
LOGGED_PODS = 64
LOG_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class _Look:
    """What was last fetched besides the mirror: events about a waiting attempt, and how far its pods are."""

    events: list[Object]
    events_at: float
    progress_at: float
    done: dict[int, int]
    total: dict[int, int]
    unit: str = ""


class KubernetesExecutor:
    """Attempts as Jobs. ``owner`` is the controller's own Job; ``store`` carries requests to pods and progress back."""

    overlaps = True

    def __init__(
        self,
        api: Api,
        store: Store,
        place: Place,
        cluster: Cluster,
        owner: Owner | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api, self._store, self._place = api, store, place
        self._scene = Scene(place=place, cluster=cluster, owner=owner)
        self._clock, self._sleep = clock, sleep
        self._mirror = Mirror(api, selector(place))
        try:
            self._mirror.wait_synced(SYNC_SECONDS)
        except BaseException:
            self._mirror.stop()
            raise
        self._seen = self._mirror.version
        self._looks: dict[str, _Look] = {}

    def find(self, index: int, identity: str) -> Found | None:
        numbers = {
            int(job["metadata"]["labels"][ATTEMPT]): job["metadata"]["name"]
            for job in self._mirror.all("Job")
            if job["metadata"]["labels"].get(INDEX) == str(index)
            and job["metadata"].get("annotations", {}).get(TASK) == identity
            and "deletionTimestamp" not in job["metadata"]
        }
        if not numbers:
            return None
        newest = max(numbers)
        return Found(name=numbers[newest], number=newest)

    def submit(self, job: Job) -> str:
        """Create the Job (and a gang's Service). One of that name that does the same task for this run is adopted."""
        job = resolved(job, self._scene.cluster)
        body = step_job(self._scene, job)
        name: str = body["metadata"]["name"]
        request = {
            "store": self._place.store,
            "task": job.task.model_dump(mode="json"),
            "execution": job.execution.model_dump(mode="json"),
            "attempt": job.attempt,
            "asked": {"run": job.run, "index": job.index, "step": job.step},
        }
        self._store.put(request_key(self._place, job), json.dumps(request, indent=1).encode())
        try:
            made = self._api.create(body)
        except AlreadyThere:
            made = self._adopt(name, job)
        if gang_size(self._scene.cluster, job.task):
            owner = Owner(name=name, uid=made["metadata"]["uid"])
            try:
                self._api.create(gang_service(self._scene, job, owner))
            except AlreadyThere:
                log.info("the service %s is there already", name)
        self._mirror.put({"kind": "Job", **made})
        self._look(name).total = dict.fromkeys(range(shard_count(job)), 0)
        return name

    def observe(self, name: str) -> Observation:
        self._seen = self._mirror.version
        # What the mirror lacks may be there all the same: it was made, or the mirror listed anew, just now.
        job = self._mirror.get("Job", name) or self._api.get("Job", name)
        if job is None:
            return ABSENT
        pods = self._pods(name)
        found = diagnose(job, pods)
        if found.state is State.RUNNING and (found.waiting or not pods):
            found = diagnose(job, pods, self._events(name, pods))
        elif found.state is State.RUNNING:
            found = self._progressed(found, name, job)
        elif found.state is State.FAILED:
            # Jobs and pods are told of separately: that the Job failed may be heard before how its pods ended.
            pods = self._pods_now(name)
            found = diagnose(job, pods, [] if pods else self._events(name, pods, now=True))
        return found

    def wait(self, name: str, seconds: float) -> None:
        self._mirror.wait(seconds, since=self._seen)

    def delete(self, name: str) -> None:
        """Delete the Job and its pods, and return when they are gone."""
        doomed = self._mirror.get("Job", name) or self._api.get("Job", name)
        if doomed:
            self._api.delete("Job", name)
            self._wait_gone(lambda: self._is_gone(name, doomed["metadata"]["uid"]), name)
        self.retire(name)

    def delete_all(self) -> None:
        """Delete every step's Job of the run, whoever made it, and return when Jobs and pods are gone."""
        steps = [job for job in self._mirror.all("Job") if INDEX in job["metadata"]["labels"]]
        for job in steps:
            self._api.delete("Job", job["metadata"]["name"])
        names = {job["metadata"]["name"] for job in steps}

        def gone() -> bool:
            alive = {job["metadata"]["name"] for job in self._mirror.all("Job")}
            return not names & alive and not any(self._pods(name) for name in names)

        self._wait_gone(gone, f"{len(names)} Jobs")

    def retire(self, name: str) -> None:
        """The Job stays until its time to live is over; what pods wrote about their progress goes."""
        self._looks.pop(name, None)
        folder = f"{keys.run(self._place.run)}/jobs/{name}"
        for key in list(self._store.list(folder)):
            if "/progress-" in key:
                self._store.delete(key)

    def log(self, name: str) -> str:
        """The logs of all pods of the Job, those of failed ones first."""
        pods = sorted(
            self._pods_now(name), key=lambda pod: pod.get("status", {}).get("phase") != "Failed"
        )
        limit, deadline = LOG_BYTES // max(1, len(pods)), self._clock() + LOG_SECONDS
        texts = []
        for pod in pods[:LOGGED_PODS]:
            if self._clock() > deadline:
                break
            text = self._api.log(pod["metadata"]["name"], CONTAINER, limit=limit)
            texts.append(f"--- pod {pod['metadata']['name']}\n{text}")
        if len(pods) > len(texts):
            texts.append(f"--- {len(pods) - len(texts)} more pods\n")
        return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts)

    def close(self) -> None:
        """Watch no more. Jobs go on: the next controller finds them."""
        self._mirror.stop()

    def _adopt(self, name: str, job: Job) -> Object:
        found = self._api.get("Job", name)
        if found is None:  # it was being deleted, and its end came just now
            return self._make_anew(name, job)
        marks = found["metadata"].get("labels", {})
        notes = found["metadata"].get("annotations", {})
        ours = marks.get(ID) == self._place.id
        if ours and notes.get(TASK) != task_hash(job.task) and _ended(found):
            self._api.delete("Job", name)  # of a run of this name that was removed from the store
            found["metadata"]["deletionTimestamp"] = "now"
        elif not ours or notes.get(TASK) != task_hash(job.task):
            raise ConflictError(
                f"a Job {name} is in namespace {self._api.namespace} that this run did not make for step {job.step} "
                f"(it does {notes.get(STEP, 'something else')}). Delete it, or give the run another name"
            )
        if "deletionTimestamp" in found["metadata"]:
            return self._make_anew(name, job)
        log.info("Job %s of step %s is there already; going on with it", name, job.step)
        return found

    def _make_anew(self, name: str, job: Job) -> Object:
        """The Job, made once the one of its name is gone."""
        # In the mirror, too: else the old one would be taken for the new.
        self._wait_gone(
            lambda: self._mirror.get("Job", name) is None and self._api.get("Job", name) is None,
            name,
        )
        try:
            return self._api.create(step_job(self._scene, job))
        except AlreadyThere:
            raise ClusterError(
                f"Job {name} was there, was gone, and is there again; try again"
            ) from None

    def _is_gone(self, name: str, uid: str) -> bool:
        """Whether that very Job is gone, and its pods: another controller may have made one of its name since."""
        job = self._mirror.get("Job", name)
        return job["metadata"]["uid"] != uid if job else not self._pods(name)

    def _pods(self, name: str) -> list[Object]:
        return [
            pod for pod in self._mirror.all("Pod") if pod["metadata"]["labels"].get(JOB) == name
        ]

    def _pods_now(self, name: str) -> list[Object]:
        """A Job's pods as the API has them at this moment."""
        found = self._api.list("Pod", selector(self._place, {JOB: name})).items
        return [slim({"kind": "Pod", **pod}) for pod in found]

    def _look(self, name: str) -> _Look:
        if name not in self._looks:
            never = float("-inf")
            self._looks[name] = _Look(
                events=[], events_at=self._clock(), progress_at=never, done={}, total={}
            )
        return self._looks[name]

    def _events(self, name: str, pods: list[Object], *, now: bool = False) -> list[Object]:
        """Events about the Job and its pods, asked for every few seconds, while something has waited that long."""
        look = self._look(name)
        if now or self._clock() - look.events_at >= EVENTS_SECONDS:
            look.events_at = self._clock()
            look.events = []
            ended = {"Succeeded", "Failed"}
            alive = [pod for pod in pods if pod.get("status", {}).get("phase") not in ended]
            for subject in [name, *(pod["metadata"]["name"] for pod in alive[:3])]:
                fields = f"involvedObject.name={subject}"
                try:
                    look.events += self._api.list("Event", fields=fields, patience=0.0).items
                except MstarError as error:
                    log.warning("no events of %s: %s", subject, error)
        return look.events

    def _progressed(self, found: Observation, name: str, job: Object) -> Observation:
        """With how far the pods say they are, asked for at most every few seconds."""
        look = self._look(name)
        if self._clock() - look.progress_at >= PROGRESS_SECONDS:
            look.progress_at = self._clock()
            count = int(job.get("spec", {}).get("completions", 1))
            request = keys.request(self._place.run, name)
            for shard in range(count):
                if look.total.get(shard) and look.done.get(shard) == look.total[shard]:
                    continue
                try:
                    told = json.loads(self._store.get(keys.pod_progress(request, shard)))
                    look.done[shard], look.total[shard] = int(told["done"]), int(told["total"])
                    look.unit = str(told["unit"])
                except (NotFound, ValueError, KeyError):
                    continue
        return replace(
            found, done=sum(look.done.values()), total=sum(look.total.values()), unit=look.unit
        )

    def _wait_gone(self, gone: Callable[[], bool], what: str) -> None:
        deadline = self._clock() + DELETE_SECONDS + self._scene.cluster.grace_seconds
        while not gone():
            if self._clock() > deadline:
                # Where the cluster does not answer, the mirror would not know: then that is the error.
                self._api.list("Job", selector(self._place))
                raise ClusterError(
                    f"{what} in namespace {self._api.namespace} is still ending after "
                    f"{DELETE_SECONDS + self._scene.cluster.grace_seconds:.0f} s. Its node may be lost: "
                    "`kubectl get pods -o wide` tells; once it is gone for good, `kubectl delete pod --force` helps"
                )
            version = self._mirror.version
            self._mirror.wait(0.5, since=version)


def _ended(job: Object) -> bool:
    found = job.get("status", {}).get("conditions") or ()
    return any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in found)
