"""The Kubernetes API in plain dicts: a few verbs over a few kinds, in one namespace.

The official client finds the cluster, its certificates and its tokens (kubeconfig with plug-ins, or the pod's own
account) and refreshes them; its generated classes, which change between releases, are not used.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from yaml import YAMLError

from mstar.errors import ClusterError, ClusterUnreachable, MstarError, SpecError

Object = dict[str, Any]
Propagation = Literal["Foreground", "Background", "Orphan"]

_PATHS = {
    "Job": "apis/batch/v1",
    "Pod": "api/v1",
    "Service": "api/v1",
    "Event": "api/v1",
    "ConfigMap": "api/v1",
    "Secret": "api/v1",
    "ServiceAccount": "api/v1",
    "ResourceQuota": "api/v1",
}
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PASSING = {408, 429, 500, 502, 503, 504}
_TIMEOUT = 15.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0


class AlreadyThere(ClusterError):
    """An object of that name exists; the caller decides whose it is."""


class Gone(ClusterUnreachable):
    """What a watch was to go on from is no longer kept; list again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Objects, and the version from which a watch goes on."""

    items: list[Object]
    version: str


class Api:
    """One namespace of one cluster. ``patience``: for how many seconds an unreachable API is asked again.

    ``calls`` counts requests by verb and kind. Threads may share it.
    """

    def __init__(
        self,
        connection: "Connection",
        namespace: str,
        *,
        patience: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.namespace = namespace
        self.calls: dict[str, int] = {}
        self._connection = connection
        self._patience, self._sleep, self._clock = patience, sleep, clock

    @property
    def server(self) -> str:
        """The API server's address, for messages."""
        return self._connection.host

    def create(self, body: Object, *, dry_run: bool = False) -> Object:
        """Create an object; ``AlreadyThere`` when one of that name exists."""
        query = {"fieldManager": "mstar", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return self._json("POST", self._path(body["kind"]), query, body)

    def get(self, kind: str, name: str) -> Object | None:
        """An object, None when there is none."""
        try:
            return self._json("GET", self._path(kind, name))
        except _Missing:
            return None

    def list(
        self, kind: str, selector: str = "", *, fields: str = "", patience: float | None = None
    ) -> Listing:
        """All objects that match a label selector and a field selector; ``patience`` as for the whole API if None."""
        query = {"labelSelector": selector, "fieldSelector": fields}
        wanted = {key: value for key, value in query.items() if value}
        found = self._json("GET", self._path(kind), wanted, patience=patience)
        return Listing(items=found["items"], version=found["metadata"]["resourceVersion"])

    def watch(self, kind: str, selector: str, version: str, seconds: int) -> Iterator[Object]:
        """Changes since ``version`` (``type``, ``object``) until ``seconds`` pass; ``Gone`` when it is too old."""
        query = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        response = self._send("GET", self._path(kind), query, None, read=seconds + _TIMEOUT)
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    if status.get("code") == 410:
                        raise Gone(status.get("message", "expired"))
                    raise ClusterUnreachable(f"the watch of {kind} broke: {status.get('message')}")
                yield event
        finally:
            response.close()
            response.release_conn()

    def delete(self, kind: str, name: str, *, how: Propagation = "Foreground") -> bool:
        """Ask for an object's end; False when there is none. What it owns goes before it, after it, or stays."""
        try:
            self._json("DELETE", self._path(kind, name), {"propagationPolicy": how})
        except _Missing:
            return False
        return True

    def log(self, pod: str, container: str, *, limit: int) -> str:
        """What a container printed, its last ``limit`` bytes; empty when its pod is gone, lost or never started."""
        path = f"{self._path('Pod', pod)}/log"
        query = {"container": container, "tailLines": "20000", "limitBytes": str(limit)}
        try:
            # Not for long: the log of a pod whose node is lost is answered with an error as long as it is lost.
            response = self._send("GET", path, query, None, patience=1.0)
        except MstarError:
            return ""
        return bytes(response.data).decode(errors="replace")

    def allowed(self, verb: str, resource: str, group: str = "", subresource: str = "") -> bool:
        """Whether we may do this in the namespace."""
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self._json("POST", path, {}, body)
        return bool(answer["status"].get("allowed"))

    def namespace_exists(self) -> bool:
        """Whether the namespace is there; True also when we may not look."""
        try:
            self._json("GET", f"api/v1/namespaces/{self.namespace}")
        except _Missing:
            return False
        except ClusterError:
            return True
        return True

    def _path(self, kind: str, name: str = "") -> str:
        tail = f"/{name}" if name else ""
        return f"{_PATHS[kind]}/namespaces/{self.namespace}/{kind.lower()}s{tail}"

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        patience: float | None = None,
    ) -> Object:
        response = self._send(method, path, query or {}, body, patience=patience)
        try:
            found = json.loads(response.data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ClusterError(f"what answers at {self.server} is no Kubernetes API server")
        return found

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        *,
        read: float = _TIMEOUT,
        patience: float | None = None,
    ) -> Any:
        """Send, again and again for ``patience`` seconds where the trouble may pass; errors become ours."""
        began, pause = self._clock(), _FIRST_PAUSE
        verb = "WATCH" if "watch" in query else method
        label = f"{verb} {path.rpartition('namespaces/')[2].partition('/')[2] or path}"
        while True:
            self.calls[label] = self.calls.get(label, 0) + 1
            try:
                response = self._connection.send(method, path, query, body, read=read)
            except OSError as error:
                problem = str(error)
            else:
                if response.status < 300:
                    return response
                problem = _raise_for(response.status, bytes(response.data), f"{method} {path}")
            if self._clock() - began >= (self._patience if patience is None else patience):
                raise ClusterUnreachable(
                    f"the cluster at {self.server} does not answer ({problem}); see that it is up and can be reached"
                )
            self._sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)


class Connection:
    """Authenticated requests to one API server."""

    def __init__(self, configuration: Any) -> None:
        from kubernetes.client import ApiClient

        self.host = str(configuration.host).rstrip("/")
        self._configuration = configuration
        self._pool = ApiClient(configuration).rest_client.pool_manager

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        *,
        read: float,
    ) -> Any:
        """The response, its body unread for a watch; OSError when there is none."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", "User-Agent": "mstar"}
        for setting in self._configuration.auth_settings().values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        url = f"{self.host}/{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            return self._pool.request(
                method,
                url,
                body=data,
                headers=headers,
                timeout=Timeout(connect=5.0, read=read),
                retries=False,
                preload_content="watch" not in query,
            )
        except HTTPError as error:
            raise OSError(str(error)) from error


def connect(context: str | None = None) -> tuple[Connection, str]:
    """The cluster this process belongs to (in a pod) or that the kubeconfig names, and the namespace it implies."""
    from kubernetes import config
    from kubernetes.client import Configuration
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

    configuration = Configuration()
    # Read here: the client reads the variable when it is imported, not when it is asked.
    file = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    advice = "Point KUBECONFIG at a kubeconfig file, or run here with --local"
    try:
        if context is None and (_ACCOUNT / "token").is_file():
            config.load_incluster_config(client_configuration=configuration)
            return Connection(configuration), (_ACCOUNT / "namespace").read_text().strip()
        found = KubeConfigMerger(file)
        if not found.config:
            raise ClusterError(f"no cluster to talk to: there is no kubeconfig at {file}. {advice}")
        loader = KubeConfigLoader(
            found.config, active_context=context, config_persister=found.save_changes
        )
        loader.load_and_set(configuration)
        namespace: str = loader.current_context["context"].get("namespace") or "default"
    except config.ConfigException as error:
        raise ClusterError(f"no cluster to talk to: {error}. {advice}") from None
    except (OSError, YAMLError) as error:
        raise ClusterError(f"{file} cannot be read as a kubeconfig: {error}. {advice}") from None
    except (ValueError, TypeError, AttributeError, KeyError):
        raise ClusterError(
            f"{file} is no kubeconfig: clusters, users and contexts are not there in the form that kubectl writes. "
            f"{advice}"
        ) from None
    return Connection(configuration), namespace


class _Missing(ClusterError):
    """404."""


def _raise_for(status: int, body: bytes, doing: str) -> str:
    """Raise what an answer means for the caller; return the problem when asking again may help."""
    message, reason = body.decode(errors="replace")[:300], ""
    with suppress(ValueError, AttributeError):  # what answers need not be an API server
        parsed = json.loads(body)
        message, reason = str(parsed.get("message") or message), str(parsed.get("reason", ""))
    if status in _PASSING and not (status == 500 and "quota" in message):
        return f"{status} {message}"
    if status == 404:
        raise _Missing(message)
    if status == 409 and reason == "AlreadyExists":
        raise AlreadyThere(message)
    if status == 410:
        raise Gone(message)
    if status in {400, 422}:
        raise SpecError(f"the cluster finds the object invalid: {message}")
    if status == 401:
        raise ClusterError(f"the cluster does not accept the credentials ({doing}): log in again")
    if status == 403:
        raise ClusterError(f"the cluster refuses: {message}")
    if status == 409:
        return f"{status} {message}"
    raise ClusterError(f"the cluster answered {status} to {doing}: {message}")


def _lines(response: Any) -> Iterator[bytes]:
    """Whole lines of a streamed answer; half a line at a broken end is dropped."""
    from urllib3.exceptions import HTTPError

    buffer = b""
    try:
        for chunk in response.stream(65_536, decode_content=False):
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            yield from filter(None, lines)
    except HTTPError as error:
        raise ClusterUnreachable(f"the watch broke: {error}") from None
