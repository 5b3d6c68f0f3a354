"""What the tests of the Kubernetes executor make: an API that loses no time, jobs, and stages that commit at once."""

import json
import time
from collections.abc import Callable
from typing import Any

from mstar.cluster import Cluster
from mstar.errors import MstarError
from mstar.execution import Execution
from mstar.executors.base import Job
from mstar.executors.k8s.api import Api, Connection
from mstar.executors.k8s.executor import KubernetesExecutor
from mstar.executors.k8s.names import Place
from mstar.executors.k8s.render import Owner
from mstar.recipe import Step, planned
from mstar.stages.pod import Pod, Stopping, _read_request, serve
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.store import Store
from mstar.tasks import task_hash, task_inputs
from tests.fake_api import FakeCluster
from tests.fake_kubelet import Ended, Running, Work, last_word
from tests.runs import INPUTS, made_up_results, small_spec

STEPS: dict[str, Step] = {step.name: step for step in planned(small_spec(), INPUTS)}
Object = dict[str, Any]


def connection(cluster: FakeCluster) -> Connection:
    """A connection to a fake cluster."""
    from kubernetes.client import Configuration

    configuration = Configuration()
    configuration.host = cluster.url
    return Connection(configuration)


def api(cluster: FakeCluster, *, patience: float = 60.0, namespace: str = "ml") -> Api:
    """An API whose pauses are short."""
    return Api(connection(cluster), namespace, patience=patience, sleep=_pause)


def _pause(seconds: float) -> None:
    time.sleep(min(seconds, 0.02))


def executor(
    cluster: FakeCluster,
    store: Store,
    *,
    run: str = "small",
    owner: Owner | None = None,
    settings: Cluster | None = None,
    **more: Any,
) -> KubernetesExecutor:
    """An executor for a run on a fake cluster."""
    place = Place(run=run, store=store.url)
    return KubernetesExecutor(
        more.pop("api", None) or api(cluster), store, place, settings or Cluster(), owner, **more
    )


def job(store: Store, step: str = "warm-up/generate", *, number: int = 1, **more: Any) -> Job:
    """One attempt at a step of the small run."""
    names = list(STEPS)
    execution = more.pop("execution", None) or Execution(shards=more.pop("shards", 1))
    return Job(
        run=more.pop("run", "small"),
        index=names.index(step),
        step=step,
        number=number,
        store=store.url,
        task=STEPS[step].task,
        execution=execution,
        attempt=f"1-{number}",
        **more,
    )


def committing_pods(store: Store) -> Work:
    """Stages that do no work: the pod of the last shard commits the step."""

    def work(running: Running) -> Ended:
        request = asked_of(store, running)
        if running.index == request.execution.shards - 1 or request.task.stage in {
            "train",
            "evaluate",
        }:
            pod = running.name.rpartition("-")[2]
            with ArtifactWriter(
                store, task_hash(request.task), f"{request.attempt}-{pod}"
            ) as writer:
                writer.add_bytes("part", task_hash(request.task).encode())
                inputs = [ref.digest for ref in task_inputs(request.task)]
                writer.commit(results=made_up_results(request.task), inputs=inputs)
        return Ended()

    return work


def real_pods(store: Store) -> Work:
    """What a stage's pod really does, in this process."""

    def work(running: Running) -> Ended:
        try:
            pod = Pod(index=running.index, name=running.name, gang=None)
            serve(store, asked_of(store, running), pod, running.args[-1], Stopping())
        except MstarError as error:
            text = last_word(str(error), error.exit_code, retriable=error.retriable)
            return Ended(code=error.exit_code, message=text)
        return Ended()

    return work


def asked_of(store: Store, running: Running) -> Any:
    """The request that a pod was given."""
    return _read_request(store, running.args[-1])


def until(work: Callable[[Running], Ended], *gates: Any) -> Work:
    """``work`` once every gate (an event) is open, or the pod is told to go."""

    def gated(running: Running) -> Ended:
        for gate in gates:
            while not gate.wait(0.01):
                if running.stopping.is_set():
                    return Ended(code=143)
        return work(running)

    return gated


def dumped(thing: Any) -> str:
    """JSON, for comparing."""
    return json.dumps(thing, sort_keys=True)
