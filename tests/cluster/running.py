"""A cluster that runs already: how to find it, and what tests ask of it."""

import configparser
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HARNESS = Path(__file__).parent / "harness"
HOW_TO_START = "start one with `make cluster`, or name one in MSTAR_TEST_KUBECONFIG"


class NoCluster(Exception):
    """No cluster to test against; the message says why and what to do."""


def state_folder() -> Path:
    """Where `make cluster` keeps what it knows."""
    return Path(os.environ.get("MSTAR_CLUSTER_DIR") or Path(tempfile.gettempdir(), "mstar-cluster"))


def settings() -> dict[str, str]:
    """`MSTAR_*` of a running `make cluster`, under what the environment says.

    Where the environment names another cluster, what is known of ours does not count.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith("MSTAR_TEST_")}
    env = state_folder() / "env"
    if not env.exists():
        return given
    lines = shlex.split(env.read_text(), comments=True)
    known = dict(word.split("=", 1) for word in lines if word != "export")
    if (
        given.get("MSTAR_TEST_KUBECONFIG", known["MSTAR_TEST_KUBECONFIG"])
        != known["MSTAR_TEST_KUBECONFIG"]
    ):
        return given
    return known | given


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One Kubernetes with an S3 server beside it. Commands raise CalledProcessError with what they printed."""

    kubeconfig: Path
    s3_endpoint: str  # from the test's process
    s3_pod_endpoint: str  # from pods
    access_key: str
    secret_key: str = field(repr=False)
    images: tuple[str, ...]
    settings: Mapping[str, str]

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """What kubectl prints."""
        return self._run(self._tool("KUBECTL", "kubectl"), arguments, stdin, timeout)

    def helm(self, *arguments: str, version: int = 4, timeout: float = 300) -> str:
        """What helm (3 or 4) prints."""
        tool = self._tool("HELM3", "helm3") if version == 3 else self._tool("HELM", "helm")
        return self._run(tool, arguments, None, timeout)

    def get(self, *arguments: str) -> Any:
        """The object or list that `kubectl get` finds."""
        return json.loads(self.kubectl("get", "--output=json", *arguments))

    def apply(self, namespace: str, objects: Iterable[Mapping[str, Any]]) -> None:
        """Create or change objects in a namespace."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(listed))

    def wait(self, namespace: str, what: str, until: str, seconds: int = 300) -> None:
        """Return once `what` (`pod/name`) is `until` (`jsonpath=...`, `condition=...`, `delete`)."""
        self.kubectl(
            "wait", f"--namespace={namespace}", what, f"--for={until}", f"--timeout={seconds}s",
            timeout=seconds + 30,
        )  # fmt: skip

    def s3(self) -> Any:
        """A boto3 client that gives up soon."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.s3_endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 2}),
        )

    @property
    def owns_s3(self) -> bool:
        """Whether the S3 server is one that a test may stop."""
        return "MSTAR_CLUSTER_DIR" in self.settings

    def stop_s3(self) -> None:
        """End the S3 server as a crash would; what it stores stays."""
        self._script("s3-stop.sh")

    def start_s3(self) -> None:
        """Start it again; returns when it answers."""
        self._script("s3-start.sh")

    def _tool(self, name: str, default: str) -> str:
        tool = self.settings.get(f"MSTAR_TEST_{name}") or shutil.which(default)
        if tool is None:
            raise NoCluster(
                f"there is no {default}: put it in PATH or name it in MSTAR_TEST_{name}"
            )
        return tool

    def _script(self, name: str) -> None:
        if not self.owns_s3:
            raise NoCluster(f"this S3 server cannot be stopped from here; {HOW_TO_START}")
        self._run(str(HARNESS / name), (), None, 60)

    def _run(self, tool: str, arguments: tuple[str, ...], stdin: str | None, timeout: float) -> str:
        environment = dict(os.environ) | dict(self.settings) | {"KUBECONFIG": str(self.kubeconfig)}
        try:
            done = subprocess.run(
                [tool, *arguments], env=environment, input=stdin, timeout=timeout,
                check=True, text=True, capture_output=True,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            error.add_note(f"{error.stdout}\n{error.stderr}")
            raise
        return done.stdout


def find() -> Cluster:
    """The cluster to test against, seen to answer.

    Raises NoCluster where there is none, and CalledProcessError where one is named that does not answer.
    """
    known = settings()
    if "MSTAR_TEST_KUBECONFIG" not in known:
        raise NoCluster(f"no Kubernetes cluster: {HOW_TO_START}")
    keys = configparser.ConfigParser()
    keys.read(known.get("MSTAR_TEST_S3_CREDENTIALS", os.devnull))
    endpoint = known.get("MSTAR_TEST_S3_ENDPOINT", "")
    cluster = Cluster(
        kubeconfig=Path(known["MSTAR_TEST_KUBECONFIG"]),
        s3_endpoint=endpoint,
        s3_pod_endpoint=known.get("MSTAR_TEST_S3_POD_ENDPOINT", endpoint),
        access_key=keys.get("default", "aws_access_key_id", fallback=""),
        secret_key=keys.get("default", "aws_secret_access_key", fallback=""),
        images=tuple(known.get("MSTAR_TEST_IMAGES", "").split()),
        settings=known,
    )
    try:
        cluster.kubectl("get", "--raw=/readyz", "--request-timeout=20s")
    except (subprocess.SubprocessError, OSError) as error:
        if "MSTAR_TEST_KUBECONFIG" in os.environ:
            raise
        raise NoCluster(
            f"the cluster in {state_folder()} does not answer: {HOW_TO_START}"
        ) from error
    return cluster
