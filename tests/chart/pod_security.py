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
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", []):
        if not volume.keys() - {"name"} <= VOLUMES:
            yield f"volume {volume}"
    if spec.get("automountServiceAccountToken") is not False:
        yield "holds a token"
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{container['name']} may gain privileges"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']} keeps capabilities"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} may write to its root"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{container['name']} takes a port of the node"
        if not {"requests", "limits"} <= container.get("resources", {}).keys():
            yield f"{container['name']} says not what it needs"
