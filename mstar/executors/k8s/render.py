"""What is created in the cluster, as plain dicts. Pure: the same run, step and attempt give the same objects.

Each pod is fit for Pod Security "restricted": any non-root user, no privilege, a read-only root, and only the volumes
that it writes to. A run's own patch is laid over the pod last.
"""

from dataclasses import dataclass, replace
from typing import Any

from mstar import errors
from mstar.cluster import Cluster, Pod, TrainPod, execution_of
from mstar.errors import SpecError
from mstar.executors.base import Job
from mstar.executors.k8s.names import (
    CONTAINER,
    PRIORITY,
    QUEUE,
    STEP,
    TASK,
    Place,
    controller_name,
    job_name,
    labels,
    step_labels,
)
from mstar.executors.k8s.patch import Object
from mstar.executors.k8s.patched import patched
from mstar.storage import keys
from mstar.tasks import GenerateTask, ScoreTask, Task, task_hash

METRICS_PORT = 9400
GANG_PORT = 29_500
CONTROLLER_RETRIES = 30

LASTING = sorted({2} | {kind.exit_code for kind in errors.leaves() if not kind.retriable})
"""Exit codes that another try would only repeat: a wrong spec, data or model, a refused credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The controller's Job: what it made goes when it goes."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What all steps of a run share. ``owner`` is None where no controller runs yet (rendering for review)."""

    place: Place
    cluster: Cluster
    owner: Owner | None = None


def step_job(scene: Scene, job: Job) -> Object:
    """The Job of one attempt: indexed over shards, or over the nodes of a training gang."""
    stage = job.task.stage
    pod = scene.cluster.pod(stage)
    name = job_name(scene.place, job.index, job.number)
    marks = step_labels(scene.place, stage, job.index, job.number)
    gang = gang_size(scene.cluster, job.task)
    count = gang or shard_count(job)
    spec: Object = {
        "completionMode": "Indexed",
        "completions": count,
        "parallelism": gang or min(count, pod.parallelism or count),
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": scene.cluster.ttl_seconds,
        "podFailurePolicy": {"rules": _failure_rules(gang)},
        "template": _step_pod(scene, job, marks, gang),
    }
    if gang:
        # A lost node leaves the others waiting for it: the whole gang ends, and the next attempt is a new gang.
        spec["backoffLimit"] = 0
    else:
        # Each shard has its own tries; the first that used them up ends the Job.
        spec |= {"backoffLimitPerIndex": job.tries - 1, "maxFailedIndexes": 0}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(scene, name, marks | _queue(scene.cluster), job),
        "spec": spec,
    }


def gang_service(scene: Scene, job: Job, owner: Owner) -> Object:
    """The headless Service through which a gang's nodes find each other; it goes with its Job, ``owner``."""
    name = job_name(scene.place, job.index, job.number)
    marks = step_labels(scene.place, job.task.stage, job.index, job.number)
    metadata = {"name": name, "labels": marks, "ownerReferences": [_owner_reference(owner)]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": marks,
            "ports": [{"name": "gang", "port": GANG_PORT, "protocol": "TCP"}],
        },
    }


def controller_job(scene: Scene) -> Object:
    """The small Job that advances the run. It is tried again until its exit code says that this would not help."""
    cluster = scene.cluster
    name = controller_name(scene.place)
    marks = labels(scene.place, "controller")
    container: Object = {
        "name": CONTAINER,
        "image": cluster.image("controller"),
        "args": ["controller", scene.place.run, "--store", scene.place.store],
        "env": [
            *_environment(),
            {"name": "MSTAR_CONTROLLER_JOB", "value": name},
            {"name": "MSTAR_NAMESPACE", "valueFrom": _field("metadata.namespace")},
        ],
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"},
            "initialDelaySeconds": 30,
            "periodSeconds": 20,
            "failureThreshold": 6,
        },
    }
    spec = _pod_spec(cluster, cluster.controller, container, cluster.controller_service_account)
    spec["automountServiceAccountToken"] = True
    spec["enableServiceLinks"] = False  # a Service called mstar-… would set variables of ours
    template = {"metadata": {"labels": marks}, "spec": spec}
    queue = _queue(cluster) if cluster.queue and cluster.queue.controller else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": marks | queue,
            "annotations": {"mstar.dev/store": scene.place.store},
        },
        "spec": {
            "backoffLimit": CONTROLLER_RETRIES,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": cluster.ttl_seconds,
            "podFailurePolicy": {"rules": [_ignore_disruptions(), _fail_at_once()]},
            "template": patched(template, cluster.controller.patch, "cluster.controller.patch"),
        },
    }


def resolved(job: Job, cluster: Cluster) -> Job:
    """The job with its stage's own execution laid over the run's. ``SpecError`` for a gang without DeepSpeed."""
    execution = execution_of(job.execution, cluster.pod(job.task.stage))
    if gang_size(cluster, job.task) and execution.deepspeed is None:
        raise SpecError(
            "cluster.stages.train.nodes is more than 1, but no DeepSpeed joins the nodes: set execution.deepspeed, "
            "for example {processes: 8, zero_stage: 2}, the number of processes on each node"
        )
    return replace(job, execution=execution)


def gang_size(cluster: Cluster, task: Task) -> int:
    """How many nodes train together; 0 when the step is no gang."""
    pod = cluster.pod(task.stage)
    return pod.nodes if isinstance(pod, TrainPod) and pod.nodes > 1 else 0


def shard_count(job: Job) -> int:
    """How many pods share the step: generate and score fan out, the others are one."""
    return job.execution.shards if isinstance(job.task, GenerateTask | ScoreTask) else 1


def request_key(place: Place, job: Job) -> str:
    """Where a pod finds what it is asked to do."""
    return keys.request(place.run, job_name(place, job.index, job.number))


def _step_pod(scene: Scene, job: Job, marks: dict[str, str], gang: int) -> Object:
    cluster = scene.cluster
    stage = job.task.stage
    pod = cluster.pod(stage)
    name = job_name(scene.place, job.index, job.number)
    environment = _environment()
    ports: list[Object] = []
    if gang:
        environment += [
            {"name": "MSTAR_GANG_SIZE", "value": str(gang)},
            {"name": "MSTAR_GANG_ADDRESS", "value": f"{name}-0.{name}"},
            {"name": "MSTAR_GANG_PORT", "value": str(GANG_PORT)},
        ]
        ports = [{"name": "gang", "containerPort": GANG_PORT, "protocol": "TCP"}]
    container: Object = {
        "name": CONTAINER,
        "image": cluster.image(stage, job.execution.engine),
        "args": [
            "pod", "--store", scene.place.store, "--request", request_key(scene.place, job),
        ],
        "env": environment,
    }  # fmt: skip
    if ports:
        container["ports"] = ports
    spec = _pod_spec(cluster, pod, container, cluster.service_account)
    spec["automountServiceAccountToken"] = False
    spec["enableServiceLinks"] = False
    if gang:
        spec["subdomain"] = name
    template = {"metadata": {"labels": marks, "annotations": {STEP: job.step}}, "spec": spec}
    return patched(template, pod.patch, f"cluster.stages.{stage}.patch")


def _pod_spec(cluster: Cluster, pod: Pod, container: Object, account: str) -> Object:
    """A pod with one container, the volumes it may write to, and nothing it does not need."""
    sources: list[Object] = []
    if cluster.env_config:
        sources.append({"configMapRef": {"name": cluster.env_config, "optional": True}})
    if cluster.secret:
        sources.append({"secretRef": {"name": cluster.secret}})
    container |= {
        "imagePullPolicy": cluster.images.pull_policy,
        "envFrom": sources,
        "resources": {
            kind: amounts for kind, amounts in pod.resources.model_dump().items() if amounts
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the pod
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - in the pod
        ],
    }
    spec: Object = {
        "restartPolicy": "Never",
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": cluster.grace_seconds,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": pod.scratch}},
            {"name": "tmp", "emptyDir": {"sizeLimit": pod.scratch}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": pod.shm}},
        ],
    }
    if cluster.images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in cluster.images.pull_secrets]
    if cluster.priority_class:
        spec["priorityClassName"] = cluster.priority_class
    return spec


def _environment() -> list[Object]:
    return [
        {"name": "MSTAR_LOG", "value": "json"},
        {"name": "MSTAR_POD", "valueFrom": _field("metadata.name")},
    ]


def _field(path: str) -> dict[str, Any]:
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}


def _failure_rules(gang: int) -> list[Object]:
    # A disrupted node ends its gang like any lost one; the controller sees that it was a disruption and excuses it.
    return [_fail_at_once()] if gang else [_ignore_disruptions(), _fail_at_once()]


def _ignore_disruptions() -> Object:
    condition = {"type": "DisruptionTarget", "status": "True"}
    return {"action": "Ignore", "onPodConditions": [condition]}


def _fail_at_once() -> Object:
    codes = {"containerName": CONTAINER, "operator": "In", "values": LASTING}
    return {"action": "FailJob", "onExitCodes": codes}


def _queue(cluster: Cluster) -> dict[str, str]:
    if not cluster.queue:
        return {}
    marks = {QUEUE: cluster.queue.name}
    return marks | (
        {PRIORITY: cluster.queue.priority_class} if cluster.queue.priority_class else {}
    )


def _metadata(scene: Scene, name: str, marks: dict[str, str], job: Job) -> Object:
    metadata: Object = {
        "name": name,
        "labels": marks,
        "annotations": {STEP: job.step, TASK: task_hash(job.task)},
    }
    if scene.owner:
        metadata["ownerReferences"] = [_owner_reference(scene.owner)]
    return metadata


def _owner_reference(owner: Owner) -> Object:
    # Not as its controller: Kueue would take the step for a child of the owner and never queue it by itself.
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": owner.name,
        "uid": owner.uid,
        "blockOwnerDeletion": False,
    }
