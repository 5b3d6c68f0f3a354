"""What a controller costs: from a step's commit to the next Job, its memory, and its requests; as JSON.

A whole controller process works on an API server of this machine (``tests.fake_api``) whose pods commit at once, so
the figures hold nothing but the controller's own work. Two lengths of run show what grows with it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mstar.cluster import Cluster
from mstar.controller.place import Settled, settle
from mstar.executors.k8s.names import Place, controller_name
from mstar.storage.folder import FolderStore
from mstar.storage.store import Store
from tests.executors.making import committing_pods
from tests.fake_api import FakeCluster
from tests.fake_kubelet import Ended, Kubelet, Running
from tests.runs import small_spec, stored_run

LENGTHS = (10, 250)
"""Iterations of the short run and of the long one; an iteration has four steps."""


def lead(iterations: int, folder: Path) -> dict[str, Any]:
    """One run from its first step to its last by one controller process."""
    spec = small_spec(evolve={"iterations": iterations})
    store = FolderStore(folder / "store")
    stored_run(store, spec)
    job = controller_name(Place(run=spec.name, store=store.url))
    settle(store, spec.name, Settled(namespace="ml", job=job, cluster=Cluster()))
    cluster = FakeCluster()
    cluster.put({"kind": "Job", "metadata": {"name": job, "labels": {}, "annotations": {}}})
    commits, made = play(cluster, store)
    try:
        command = [sys.executable, "-W", "ignore", "-m", "mstarctl.main", "controller", spec.name]
        process = subprocess.Popen(
            [*command, "--store", store.url],
            env=os.environ
            | {
                "KUBECONFIG": str(cluster.kubeconfig(folder)),
                "MSTAR_NAMESPACE": "ml",
                "MSTAR_CONTROLLER_JOB": job,
                "MSTAR_METRICS_PORT": "0",
            },
            stderr=subprocess.DEVNULL,
        )
        peak = watched(process)
        if process.returncode:
            raise SystemExit(f"the controller ended with exit code {process.returncode}")
    finally:
        cluster.close()
    gaps = [after - before for before, after in zip(commits, made[1:], strict=False)]
    return {
        "steps": len(made),
        "gap": statistics.median(gaps),
        "gap_worst": max(gaps),
        "memory_mib": peak / 1024,
        "calls_a_step": sum(cluster.calls.values()) / len(made),
        "calls": {what: round(count / len(made), 3) for what, count in cluster.calls.items()},
    }


def play(cluster: FakeCluster, store: Store) -> tuple[list[float], list[float]]:
    """Have the cluster's Jobs worked; the moments at which steps were committed and Jobs were made, as they come."""
    commits: list[float] = []
    made: list[float] = []
    work = committing_pods(store)

    def committed(running: Running) -> Ended:
        ended = work(running)
        commits.append(time.monotonic())
        return ended

    Kubelet(cluster, committed)
    played = cluster.created

    def created(body: dict[str, Any]) -> None:
        if body["kind"] == "Job":
            made.append(time.monotonic())
        played(body)

    cluster.created = created
    return commits, made


def watched(process: "subprocess.Popen[bytes]") -> int:
    """The most memory that the process was seen to hold, in KiB, once it has ended."""
    peak = 0
    while process.poll() is None:
        peak = max([peak, *high_water(process.pid)])
        time.sleep(0.05)
    return peak


def high_water(pid: int) -> Iterator[int]:
    """What Linux says was the most; nothing when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    yield from (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    found = []
    for length in LENGTHS:
        with tempfile.TemporaryDirectory() as name:
            found.append(lead(length, Path(name)))
    print(json.dumps({"short": found[0], "long": found[1]}))
