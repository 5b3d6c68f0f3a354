"""Runs in a cluster: submit, look, cancel. The laptop only talks to the store and to the API; both outlive it."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mstar.cluster import Cluster, with_defaults
from mstar.config import RunSpec, read_yaml
from mstar.controller.loop import request_cancel, withdraw_cancel
from mstar.controller.place import Settled, settle, settled
from mstar.controller.prepare import check_inputs, prepare
from mstar.controller.status import (
    ENDED,
    Phase,
    Status,
    mark_cancelled,
    overview,
    read_status,
    write_status,
)
from mstar.errors import (
    ClusterError,
    ClusterUnreachable,
    MstarError,
    SpecError,
)
from mstar.executors.base import State
from mstar.executors.k8s.api import AlreadyThere, Api, connect
from mstar.executors.k8s.diagnose import diagnose
from mstar.executors.k8s.names import CONTAINER, INDEX, JOB, STEP, Place, controller_name, selector
from mstar.executors.k8s.render import Scene, controller_job
from mstar.history import Run, load_run
from mstar.storage.open import open_store
from mstar.storage.store import Store
from mstarctl import objects, show
from mstarctl.following import follow
from mstarctl.inputs import read_spec

DEFAULTS = "mstar-defaults"
GONE_SECONDS = 300.0
LEAVING_SECONDS = 60.0
"""How long a controller that has written its run's end may take until its pod is gone."""

POLL_SECONDS = 1.0
LOG_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which cluster: a context of the kubeconfig and a namespace, both with its own defaults."""

    context: str | None = None
    namespace: str | None = None

    def open(self, wanted: str | None = None) -> Api:
        """The API of the namespace: the option's, else the spec's, else the context's own."""
        connection, implied = connect(self.context)
        return Api(connection, self.namespace or wanted or implied)


def submit(
    file: Path,
    overrides: list[str],
    target: Target,
    *,
    dry_run: bool,
    server_dry_run: bool,
    wait: bool,
    fresh: bool,
    as_json: bool,
) -> None:
    """Check everything that can be checked, store the run, start its controller, and follow it if asked to."""
    spec = read_spec(file, overrides, fresh=fresh, as_json=as_json)
    objects.check_store(spec.store)
    queries = check_inputs(spec)
    if dry_run and not server_dry_run:
        cluster = with_defaults({}, own_block(spec), "the spec's cluster block")
        objects.show_plan(spec, queries, cluster, where="nothing was asked", as_json=as_json)
        return
    api = target.open(spec.cluster.namespace)
    cluster = resolve(api, spec)
    preflight(api, spec, cluster, queries)
    if server_dry_run:
        said = f"the cluster at {api.server} accepts each of them in namespace {api.namespace}"
        objects.show_plan(spec, queries, cluster, where=said, as_json=as_json)
        return
    store = open_store(spec.store)
    with show.working(f"storing {spec.name}", as_json=as_json):
        run = prepare(store, spec)
    start(api, store, run, cluster, as_json=as_json)
    if wait:
        follow(store, run.name, api, as_json=as_json)


def resume(store: Store, name: str, target: Target, *, wait: bool, as_json: bool) -> None:
    """Start a stored run's controller again, in this cluster."""
    objects.check_store(store.url)
    run = load_run(store, name)
    before = settled(store, name)
    api = target.open(run.spec.cluster.namespace or (before.namespace if before else None))
    cluster = resolve(api, run.spec)
    preflight(api, run.spec, cluster, run.inputs.queries)
    start(api, store, run, cluster, as_json=as_json)
    if wait:
        follow(store, name, api, as_json=as_json)


def start(api: Api, store: Store, run: Run, cluster: Cluster, *, as_json: bool) -> None:
    """Create the controller's Job, unless one is at work already, and say so."""
    job, started = begin(api, store, run, cluster)
    text = (
        f"run {run.name} is under way: Job {job} in namespace {api.namespace}. Look with: "
        f"mstarctl status {run.name} --store {store.url}"
        if started
        else f"run {run.name} is already at work (Job {job} in namespace {api.namespace})"
    )
    show.message(text, {"run": run.name, "job": job, "started": started}, as_json=as_json)


def begin(api: Api, store: Store, run: Run, cluster: Cluster) -> tuple[str, bool]:
    """The name of the controller's Job, and whether it was made now: not when one is at work already."""
    place = Place(run=run.name, store=store.url)
    name = controller_name(place)
    found = _controller(api, store, run.name, name)
    if found and _at_work(found):
        return name, False
    withdraw_cancel(store, run.name)
    if found:
        _remove_ended(api, name)
    settle(store, run.name, Settled(namespace=api.namespace, job=name, cluster=cluster))
    why = "its controller is being started"
    write_status(store, run.name, Status(phase=Phase.WAITING, why=why, at=time.time()))
    # One of that name was made just now, by somebody who started this very run, or by us and the answer was lost.
    with suppress(AlreadyThere):
        api.create(controller_job(Scene(place=place, cluster=cluster)))
    return name, True


def resolve(api: Api, spec: RunSpec) -> Cluster:
    """The spec's cluster block over the defaults that the chart left in the namespace."""
    found = api.get("ConfigMap", DEFAULTS)
    text = (found or {}).get("data", {}).get("cluster.yaml", "")
    try:
        defaults = read_yaml(text) or {}
    except yaml.YAMLError as error:
        raise SpecError(f"ConfigMap {DEFAULTS}, key cluster.yaml, is not YAML: {error}") from None
    if not isinstance(defaults, Mapping):
        raise SpecError(
            f"ConfigMap {DEFAULTS}, key cluster.yaml: expected the keys of a cluster block"
        )
    source = f"the spec's cluster block over ConfigMap {DEFAULTS} of namespace {api.namespace}"
    return with_defaults(defaults, own_block(spec), source)


def own_block(spec: RunSpec) -> dict[str, Any]:
    """What the spec itself says of the cluster."""
    return spec.cluster.model_dump(mode="json", exclude_unset=True)


def preflight(api: Api, spec: RunSpec, cluster: Cluster, queries: Mapping[str, int]) -> None:
    """What would go wrong later and can be seen now: namespace, permissions, accounts, secrets, each kind of object."""
    if not api.namespace_exists():
        raise ClusterError(
            f"there is no namespace {api.namespace} in the cluster at {api.server}: create it and install the chart "
            f"(helm install mstar helm/mstar -n {api.namespace} --create-namespace)"
        )
    for verb in ("create", "get", "list"):
        if not api.allowed(verb, "jobs", "batch"):
            raise ClusterError(
                f"you may not {verb} Jobs in namespace {api.namespace}: ask for the Role mstar-user, or use another "
                "namespace (-n)"
            )
    needed = [
        ("ServiceAccount", cluster.service_account),
        ("ServiceAccount", cluster.controller_service_account),
        *([("Secret", cluster.secret)] if cluster.secret else []),
    ]
    for kind, name in needed:
        if api.allowed("get", f"{kind.lower()}s") and api.get(kind, name) is None:
            hint = (
                "install the chart (helm install mstar helm/mstar)"
                if kind == "ServiceAccount"
                else f"kubectl create secret generic {name} --from-literal=AWS_ACCESS_KEY_ID=… "
                "--from-literal=AWS_SECRET_ACCESS_KEY=…, or set cluster.secret: null where the service account may use "
                "the bucket"
            )
            raise ClusterError(f"there is no {kind} {name} in namespace {api.namespace}: {hint}")
    for body in objects.one_of_each(spec, cluster, queries):
        try:
            api.create(body, dry_run=True)
        except AlreadyThere:
            continue
        except MstarError as error:
            raise type(error)(f"{body['kind']} {body['metadata']['name']}: {error}") from None


def offline(spec: RunSpec, defaults: Mapping[str, Any]) -> Cluster:
    """The spec's cluster block over ``defaults``; ``SpecError`` where an object of the run could not be made of it."""
    cluster = with_defaults(defaults, own_block(spec), "the spec's cluster block")
    objects.one_of_each(spec, cluster, check_inputs(spec))
    return cluster


def note_offline(store: Store, spec: RunSpec, cluster: Cluster) -> None:
    """Note where a run will be started by other means (``kubectl apply``), and with what settings."""
    before = settled(store, spec.name)
    namespace = cluster.namespace or (before.namespace if before else "")
    job = controller_name(Place(run=spec.name, store=store.url))
    settle(store, spec.name, Settled(namespace=namespace, job=job, cluster=cluster))


def reachable(store: Store, name: str, target: Target) -> Api | None:
    """The cluster that a run was started in, None for a local run or where no cluster can be asked."""
    where = settled(store, name)
    if where is None:
        return None
    try:
        connection, implied = connect(target.context)
    except MstarError:
        return None
    return Api(connection, target.namespace or where.namespace or implied, patience=2.0)


def cancel(store: Store, name: str, api: Api, *, as_json: bool) -> None:
    """Note the wish, and see that no Job and no pod is left."""
    request_cancel(store, name, time.time())
    try:
        with show.working(f"stopping {name}", as_json=as_json):
            _until_nothing_is_left(store, name, api)
    except ClusterUnreachable as error:
        raise ClusterUnreachable(
            f"run {name} is asked to stop, but whether it has cannot be seen: {error}; then cancel it again"
        ) from None
    before = overview(store, name, time.time()).status
    if before.phase is not Phase.CANCELLED:
        mark_cancelled(store, name, before.step)
    text = (
        f"run {name} is cancelled; it has no Job and no pod left in namespace {api.namespace}. "
        f"Go on with: mstarctl resume {name}"
    )
    show.message(text, {"run": name, "cancelled": True}, as_json=as_json)


def clear(store: Store, name: str, api: Api, *, as_json: bool) -> None:
    """Delete what a run that has ended left: its Jobs, which else stay until their time to live is over, and pods."""
    with show.working(f"clearing {name}", as_json=as_json):
        _until_nothing_is_left(store, name, api)


def _until_nothing_is_left(store: Store, name: str, api: Api) -> None:
    chosen = selector(Place(run=name, store=store.url))
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        jobs, pods = api.list("Job", chosen).items, api.list("Pod", chosen).items
        if not jobs and not pods:
            return
        # A controller that works does it itself, and is not to be stopped while it does.
        if overview(store, name, time.time()).controller == "none":
            _delete_all(api, jobs, pods)
        if time.monotonic() > deadline:
            left = ", ".join(each["metadata"]["name"] for each in [*jobs, *pods])
            raise ClusterError(f"still there after {GONE_SECONDS:.0f} s: {left}")
        time.sleep(POLL_SECONDS)


def _delete_all(api: Api, jobs: list[dict[str, Any]], pods: list[dict[str, Any]]) -> None:
    # The controller first: nobody is to start what we stop.
    for job in sorted(jobs, key=lambda each: INDEX in each["metadata"]["labels"]):
        if "deletionTimestamp" not in job["metadata"]:
            api.delete("Job", job["metadata"]["name"])
    for pod in pods:
        owned = pod["metadata"].get("ownerReferences")
        if not owned and "deletionTimestamp" not in pod["metadata"]:
            api.delete("Pod", pod["metadata"]["name"])


def live_logs(store: Store, name: str, step: str, api: Api) -> list[tuple[str, str]]:
    """What the pods of a step that is at work have printed so far, with each pod's name."""
    chosen = selector(Place(run=name, store=store.url))
    found: list[tuple[str, str]] = []
    try:
        pods = api.list("Pod", chosen).items
    except MstarError:
        return found  # what is stored is there all the same
    for pod in pods:
        meta = pod["metadata"]
        if meta.get("annotations", {}).get(STEP) == step:
            found.append((meta["name"], api.log(meta["name"], CONTAINER, limit=LOG_BYTES)))
    return found


def _controller(api: Api, store: Store, run: str, name: str) -> dict[str, Any] | None:
    """The Job of a run's controller. One that has written how the run ended is on its way out, and waited for."""
    deadline = time.monotonic() + LEAVING_SECONDS
    while True:
        found = api.get("Job", name)
        if not found or not _at_work(found) or time.monotonic() > deadline:
            return found
        status = read_status(store, run)
        if status is None or status.phase not in ENDED:
            return found
        time.sleep(POLL_SECONDS)


def _at_work(job: dict[str, Any]) -> bool:
    return diagnose(job, []).state is State.RUNNING and "deletionTimestamp" not in job["metadata"]


def _remove_ended(api: Api, name: str) -> None:
    """Remove a controller's Job that ended, and not the step Jobs that it made: one may still be at work."""
    pods = api.list("Pod", f"{JOB}={name}").items
    api.delete("Job", name, how="Orphan")
    for pod in pods:
        if api.allowed("delete", "pods"):
            api.delete("Pod", pod["metadata"]["name"])
    deadline = time.monotonic() + 60
    while api.get("Job", name):
        if time.monotonic() > deadline:
            raise ClusterError(f"the ended Job {name} does not go away; delete it, then resume")
        time.sleep(0.2)
