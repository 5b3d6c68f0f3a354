"""The cluster that the other tests stand on does what they take for granted."""

import http.client
import os
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.running import HARNESS, Cluster

RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
KERNEL_SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
ENDED = "jsonpath={.status.containerStatuses[0].state.terminated}"


def pod_spec(image: str, *arguments: str, **container: Any) -> dict[str, Any]:
    """What runs under Pod Security "restricted", as a user that no image knows."""
    return {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 12345,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "kit",
                "image": image,
                "args": list(arguments),
                "securityContext": RESTRICTED,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the pod's own
                **container,
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Mi"}}],
    }


def run_pod(cluster: Cluster, namespace: str, spec: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """How a pod ended, and what it printed."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kit"}, "spec": spec}
    cluster.apply(namespace, [pod])
    cluster.wait(namespace, "pod/kit", ENDED)
    status = cluster.get("pod", "kit", f"--namespace={namespace}")["status"]
    return (
        status["containerStatuses"][0]["state"]["terminated"],
        cluster.kubectl("logs", "kit", f"--namespace={namespace}"),
    )


def refused(endpoint: str) -> bool:
    """Whether nothing answers at an address."""
    try:
        urllib.request.urlopen(endpoint, timeout=10).close()  # noqa: S310 - our own server
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (OSError, http.client.HTTPException):
        return True
    return False


def test_the_node_is_ready_and_has_room(cluster: Cluster):
    (node,) = cluster.get("nodes")["items"]
    ready = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
    assert ready["Ready"] == "True"
    assert {"cpu", "memory", "pods", "ephemeral-storage"} <= node["status"]["allocatable"].keys()


def test_a_restricted_pod_runs_as_any_user_on_a_read_only_root(
    cluster: Cluster, namespace: str, kit: str
):
    ended, log = run_pod(cluster, namespace, pod_spec(kit, "show"))
    assert ended["exitCode"] == 0
    shown = dict(line.split("=", 1) for line in log.splitlines())
    assert (shown["uid"], shown["writable /"], shown["writable /tmp"]) == ("12345", "false", "true")
    # Filtered system calls, no way up, no capability.
    assert (shown["Seccomp"], shown["NoNewPrivs"], int(shown["CapEff"], 16)) == ("2", "1", 0)


def test_pod_security_refuses_what_is_not_restricted(cluster: Cluster, namespace: str, kit: str):
    spec = pod_spec(kit, "show", securityContext={"privileged": True})
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        run_pod(cluster, namespace, spec)
    assert "violates PodSecurity" in refusal.value.stderr


def test_a_pod_that_takes_too_much_memory_is_reported_as_such(
    cluster: Cluster, namespace: str, kit: str
):
    spec = pod_spec(kit, "eat", "200", resources={"limits": {"memory": "48Mi"}})
    ended, _ = run_pod(cluster, namespace, spec)
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_pods_of_an_indexed_job_find_the_first_by_name(cluster: Cluster, namespace: str, kit: str):
    # Pod 0 stays until both have looked, as rank 0 of a gang does.
    spec = pod_spec(kit, "lookup", "gang-0.gang") | {"subdomain": "gang"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "gang"},
        "spec": {
            "completionMode": "Indexed",
            "completions": 2,
            "parallelism": 2,
            "backoffLimit": 0,
            "template": {"metadata": {"labels": {"gang": "yes"}}, "spec": spec},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gang"},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"gang": "yes"},
        },
    }
    cluster.apply(namespace, [service, job])
    cluster.wait(namespace, "job/gang", "condition=Complete")
    pods = cluster.get("pods", "--selector=gang", f"--namespace={namespace}")["items"]
    logs = [
        cluster.kubectl("logs", pod["metadata"]["name"], f"--namespace={namespace}") for pod in pods
    ]
    first = next(pod for pod in pods if pod["spec"]["hostname"] == "gang-0")
    assert [log.strip() for log in logs] == [first["status"]["podIP"]] * 2


@pytest.mark.parametrize(
    ("server", "answer"),
    [("s3", "403"), ("https://kubernetes.default/livez", "certificate")],
    ids=["s3", "api"],
)
def test_pods_reach_s3_and_the_api_server(
    cluster: Cluster, namespace: str, kit: str, server: str, answer: str
):
    url = cluster.s3_pod_endpoint if server == "s3" else server
    _, log = run_pod(cluster, namespace, pod_spec(kit, "fetch", url))
    assert answer in log


def test_pods_reach_a_service_that_pods_serve(cluster: Cluster, namespace: str, kit: str):
    server = pod_spec(kit, "serve", "8080")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "server", "labels": {"app": "server"}},
        "spec": server,
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    cluster.apply(namespace, [service, pod])
    cluster.wait(namespace, "pod/server", "condition=Ready")
    _, log = run_pod(cluster, namespace, pod_spec(kit, "fetch", "http://server/"))
    assert log.strip() == "200"


def test_s3_stops_and_starts_and_keeps_what_it_stores(
    cluster: Cluster, s3: Any, bucket: str, s3_running: None
):
    s3.put_object(Bucket=bucket, Key="kept", Body=b"bytes")
    cluster.stop_s3()
    assert refused(cluster.s3_endpoint)
    cluster.start_s3()
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"bytes"


def test_a_key_is_created_once(s3: Any, bucket: str):
    s3.put_object(Bucket=bucket, Key="manifest", Body=b"first", IfNoneMatch="*")
    with pytest.raises(s3.exceptions.ClientError) as lost:
        s3.put_object(Bucket=bucket, Key="manifest", Body=b"second", IfNoneMatch="*")
    assert lost.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412


def traces(folder: Path) -> list[str]:
    """Processes, mounts and cgroups that name a state folder or come from it, and the folder."""
    found = [str(path) for path in folder.parent.glob(folder.name + "*")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            works_in, command = (process / "cwd").readlink(), (process / "cmdline").read_text()
        except OSError:
            continue  # it has just ended
        if works_in.is_relative_to(folder) or str(folder) in command:
            found.append(f"process {process.name}: {command}")
    return found


@pytest.mark.slow
def test_a_second_cluster_comes_up_beside_the_first_and_leaves_no_trace(cluster: Cluster):
    if not cluster.owns_s3:
        pytest.skip("the harness has not been used here")
    folder = Path(tempfile.mkdtemp(prefix="mstar-second-"), "second")
    environment = dict(os.environ) | {
        "MSTAR_CLUSTER_DIR": str(folder),
        "MSTAR_CLUSTER_API_PORT": "16443",
        "MSTAR_CLUSTER_S3_PORT": "17070",
        "MSTAR_CLUSTER_IMAGES": "no",
    }

    def script(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HARNESS / name], env=environment, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip

    def shared() -> tuple[list[str], list[str], set[Path]]:
        return (
            sorted(path.name for path in Path("/sys/class/net").iterdir()),
            [(Path("/proc/sys") / name).read_text() for name in KERNEL_SETTINGS],
            set(Path("/sys/fs/cgroup").glob("**/mstar-[0-9]*")),
        )

    before = shared()
    try:
        up = script("up.sh")
        assert up.returncode == 0, up.stderr
        assert len(traces(folder)) > 10
    finally:
        down = [script("down.sh") for _ in range(2)]
    assert [result.returncode for result in down] == [0, 0], down[0].stderr
    assert traces(folder) == []
    assert shared() == before
    folder.parent.rmdir()
