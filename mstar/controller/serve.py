"""The controller in its pod: it advances one run until the run ends or the pod is told to go.

Step Jobs live on without it. It is started again by its own Job, takes its lease back, finds the Jobs by their labels
and goes on.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from mstar.controller.loop import Controller
from mstar.controller.metrics import Metrics, show
from mstar.controller.place import Settled, settled
from mstar.controller.status import LEASE_SECONDS, Status
from mstar.errors import (
    Cancelled,
    ClusterError,
    ConflictError,
    MstarError,
    NotFound,
    Preempted,
)
from mstar.executors.base import Observation
from mstar.executors.k8s.api import Api, connect
from mstar.executors.k8s.executor import KubernetesExecutor
from mstar.executors.k8s.names import Place
from mstar.executors.k8s.render import METRICS_PORT, Owner
from mstar.history import Entry, Run, load_run
from mstar.logs import last_word
from mstar.recipe import Step
from mstar.storage import keys
from mstar.storage.lease import this_process
from mstar.storage.manifest import Manifest
from mstar.storage.open import open_store
from mstar.storage.store import Store

log = logging.getLogger("mstar.controller")
T = TypeVar("T")

PATIENCE_SECONDS = LEASE_SECONDS + 15
"""Longer than a lease lasts whose holder was killed, so that a run can be resumed at once."""

PAUSE_SECONDS = 3.0
API_PATIENCE_SECONDS = 300.0


class Logged:
    """A reporter that logs what happens and has it counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._why = ""

    def started(self, step: Step, index: int, planned: int, attempt: int, reason: str) -> None:
        extra = {"step": step.name, "index": index, "attempt": attempt}
        log.info("start %s%s", step.name, f", because {reason}" if reason else "", extra=extra)
        self._metrics.started(step, index, planned, attempt, reason)

    def progress(self, step: Step, observation: Observation) -> None:
        self._metrics.progress(step, observation)

    def finished(
        self, step: Step, index: int, planned: int, manifest: Manifest, entry: Entry
    ) -> None:
        extra = {"step": step.name, "index": index, "seconds": entry.seconds, "of": planned}
        log.info("committed %s", step.name, extra=extra)
        self._metrics.finished(step, index, planned, manifest, entry)

    def told(self, status: Status) -> None:
        if status.why and status.why != self._why:
            log.info("%s: %s", status.phase.value, status.why, extra={"step": status.step})
        self._why = status.why
        self._metrics.told(status)


def main(store_url: str, name: str) -> int:
    """Advance the run from within the cluster; the exit code says how that ended, the termination message why."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        _serve(store_url, name, stop)
    except MstarError as error:
        log.error("%s: %s", type(error).__name__, error)  # noqa: TRY400 - a person's mistake needs no traceback
        last_word(str(error), error.exit_code, retriable=error.retriable)
        return error.exit_code
    except KeyboardInterrupt:
        last_word("told to go; the next controller goes on", Preempted.exit_code, retriable=True)
        return Preempted.exit_code
    except Exception as error:
        log.exception("a defect in mstar")
        last_word(f"a defect in mstar: {type(error).__name__}: {error}", 1, retriable=True)
        return 1
    return 0


def _serve(store_url: str, name: str, stop: threading.Event) -> None:
    store = open_store(store_url)
    run, where = patiently(lambda: _load(store, name), stop)
    run = Run(spec=run.spec.model_copy(update={"cluster": where.cluster}), inputs=run.inputs)
    connection, implied = connect()
    namespace = os.environ.get("MSTAR_NAMESPACE", implied)
    api = Api(connection, namespace, patience=API_PATIENCE_SECONDS)
    own = api.get("Job", os.environ.get("MSTAR_CONTROLLER_JOB", where.job))
    if own is None:
        raise ClusterError(
            f"the controller's own Job {where.job} is not in namespace {namespace}; start the run with mstarctl"
        )
    owner = Owner(name=own["metadata"]["name"], uid=own["metadata"]["uid"])
    finished = sum(1 for _ in store.list(f"{keys.run(name)}/history"))
    metrics = Metrics(run, finished=finished)
    server = show(metrics, int(os.environ.get("MSTAR_METRICS_PORT", str(METRICS_PORT))))
    executor = KubernetesExecutor(
        api, store, Place(run=name, store=store.url), where.cluster, owner
    )

    def advance() -> None:
        Controller(
            store,
            executor,
            run,
            Logged(metrics),
            identity=this_process(owner.uid),
            interrupted=stop.is_set,
            started_again=True,
        ).advance()

    try:
        patiently(advance, stop)
    except Cancelled:
        executor.delete_all()
        api.delete("Job", owner.name, how="Background")
        raise
    finally:
        log.info("API calls", extra={"calls": dict(sorted(api.calls.items()))})
        executor.close()
        server.shutdown()
        server.server_close()


def _load(store: Store, name: str) -> tuple[Run, Settled]:
    where = settled(store, name)
    if where is None:
        raise NotFound(
            f"run {name!r} in {store.url} was never started in a cluster: mstarctl run -f"
        )
    return load_run(store, name), where


def patiently(
    do: Callable[[], T],
    stop: threading.Event,
    *,
    clock: Callable[[], float] = time.monotonic,
    seconds: float = PATIENCE_SECONDS,
) -> T:
    """``do()``, again for some seconds after an error that may pass; then the error is raised for the Job to wait.

    That somebody holds the run may pass too: a controller that was killed holds it as long as its lease lasts.
    """
    since = float("inf")
    while True:
        began = clock()
        try:
            return do()
        except MstarError as error:
            now = clock()
            if now - began > seconds:
                since = now  # it worked for a while: the patience is new
            since = min(since, now)
            passes = error.retriable or isinstance(error, ConflictError)
            if not passes or now - since > seconds:
                raise
            log.warning("trying again: %s", error)
            if stop.wait(PAUSE_SECONDS):
                raise KeyboardInterrupt from None
