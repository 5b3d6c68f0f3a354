"""What a controller counts for Prometheus, and the small server that shows it."""

import http.server
import socket
import threading
import time
from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    generate_latest,
)

from mstar.cluster import Cluster, TrainPod, execution_of, resources_of
from mstar.controller.status import Phase, Status
from mstar.execution import Execution
from mstar.executors.base import Observation
from mstar.history import Entry, Run
from mstar.recipe import Step, planned_steps
from mstar.storage.manifest import Manifest

SILENT_SECONDS = 600.0
"""A controller that has not looked at its run for so long is stuck, and is to be started again."""


class Metrics:
    """A reporter that counts. ``registry`` holds what ``/metrics`` shows; every series carries the run's name.

    ``finished`` steps were committed before; what this controller did not see happen it does not count.
    """

    def __init__(
        self, run: Run, *, finished: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run, self._clock = run, clock
        self.registry = CollectorRegistry()
        name = run.name
        self._beat = clock()
        self._stage = self._name = ""
        self._next = finished
        self._worked: tuple[str, float] | None = None

        def gauge(metric: str, text: str, *labels: str) -> Gauge:
            return Gauge(metric, text, ["run", *labels], registry=self.registry)

        def counter(metric: str, text: str) -> Counter:
            return Counter(metric, text, ["run", "stage"], registry=self.registry)

        self._step = gauge("mstar_step_info", "The step at hand.", "step", "stage", "index")
        self._phase = gauge("mstar_run_phase", "1 for the phase that the run is in.", "phase")
        self._seconds = counter("mstar_step_seconds", "Wall seconds of finished steps.")
        self._done = counter("mstar_steps", "Steps finished by this controller.")
        self._restarts = counter(
            "mstar_restarts", "Attempts that were not the first at their step."
        )
        self._gpu = counter(
            "mstar_gpu_seconds", "Seconds that attempts worked, times the GPUs they held."
        )
        self._finished = gauge(
            "mstar_steps_finished", "Steps of the run that are committed."
        ).labels(name)
        self._finished.set(finished)
        planned = gauge("mstar_steps_planned", "Steps that the run has in all.").labels(name)
        planned.set(planned_steps(run.spec))

    def started(self, step: Step, index: int, planned: int, attempt: int, reason: str) -> None:
        self._at(step, index)
        self._worked = (f"{step.name}#{attempt}", 0.0)
        if attempt > 1:
            self._restarts.labels(self._run.name, step.task.stage).inc()

    def progress(self, step: Step, observation: Observation) -> None:
        self._beat = self._clock()
        if step.name != self._name:  # an attempt that an earlier controller started
            self._at(step, self._next)

    def finished(
        self, step: Step, index: int, planned: int, manifest: Manifest, entry: Entry
    ) -> None:
        self._beat = self._clock()
        stage = step.task.stage
        self._seconds.labels(self._run.name, stage).inc(entry.seconds)
        self._done.labels(self._run.name, stage).inc()
        self._finished.set(index + 1)
        self._next = index + 1

    def told(self, status: Status) -> None:
        self._beat = self._clock()
        for phase in Phase:
            self._phase.labels(self._run.name, phase.value).set(phase is status.phase)
        attempt, worked = f"{status.step}#{status.attempt}", status.worked
        known = self._worked
        self._worked = (attempt, worked)
        if known and known[0] == attempt and self._stage and worked > known[1]:
            held = gpus_held(self._run.spec.cluster, self._run.spec.execution, self._stage)
            self._gpu.labels(self._run.name, self._stage).inc((worked - known[1]) * held)

    @property
    def alive(self) -> bool:
        """Whether the controller has looked at its run lately."""
        return self._clock() - self._beat < SILENT_SECONDS

    def _at(self, step: Step, index: int) -> None:
        self._beat = self._clock()
        self._stage, self._name = step.task.stage, step.name
        self._step.clear()
        self._step.labels(self._run.name, step.name, self._stage, str(index)).set(1)


def gpus_held(cluster: Cluster, execution: Execution, stage: str) -> int:
    """GPUs that all pods of a stage hold together."""
    pod = getattr(cluster.stages, stage)
    if isinstance(pod, TrainPod):
        return int(pod.resources.gpus * pod.nodes)
    execution = execution_of(execution, pod)
    shards = execution.shards if stage in {"generate", "score"} else 1
    gpus = resources_of(stage, pod, execution).gpus
    return int(gpus * min(shards, pod.parallelism or shards))


class _Server(http.server.ThreadingHTTPServer):
    """Answers by whatever address a pod has: some clusters speak IPv6 alone."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def show(metrics: Metrics, port: int) -> http.server.ThreadingHTTPServer:
    """Serve ``/metrics`` and ``/healthz`` on ``port`` (0: any free one) from a thread of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif self.path == "/healthz":
                code, text = (200, b"ok\n") if metrics.alive else (503, b"stuck\n")
                self._answer(code, text, "text/plain")
            else:
                self._answer(404, b"/metrics or /healthz\n", "text/plain")

        def log_message(self, *_: object) -> None:
            """Probes every few seconds are no news."""

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = _Server(("::" if _Server.address_family == socket.AF_INET6 else "", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
