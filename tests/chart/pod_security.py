"""Pod Security "restricted", as far as it asks something of a pod: what the API server would refuse."""

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def faults(spec: dict[str, Any]) -> Iterator[str]:
    """What "restricted" refuses in a pod, a line each; ours also have a read-only root and no token."""
    pod = spec.get("securityContext", {})
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if pod.get("runAsNonRoot") is not True or pod.get("runAsUser") == 0:
        yield "may run as root"
    if spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}:
        yield "is the node's"
    for volume in spec.get("volumes", []):
        if not volume.keys() - {"name"} <= VOLUMES:
            yield f"volume {volume}"
    if spec.get("automountServiceAccountToken") is not False:
        yield "holds a token"
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        yield from (f"{container['name']} {fault}" for fault in _container_faults(container))


def _container_faults(container: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "may gain privileges"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "takes a port of the node"
    if not {"requests", "limits"} <= container.get("resources", {}).keys():
        yield "does not say what it needs"
