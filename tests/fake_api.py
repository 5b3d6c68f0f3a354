"""The API server of a fake cluster: HTTP on this machine, as far as this project asks anything of the real one."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fake_cluster import CUT, DROP, LOSE, Object, Objects, Refused, chosen
from tests.ports import Port

KINDS = {
    "jobs": "Job",
    "pods": "Pod",
    "services": "Service",
    "events": "Event",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "serviceaccounts": "ServiceAccount",
    "resourcequotas": "ResourceQuota",
}
_PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1)/namespaces/([^/]*)(?:/([a-z]+))?(?:/([^/]+))?(?:/(log))?"
)


class FakeCluster(Objects):
    """A cluster that answers at ``url``. ``calls`` counts requests by verb and resource."""

    def __init__(self, *namespaces: str) -> None:
        super().__init__(*namespaces)
        self.connections: set[socket.socket] = set()
        self.server: _Server | None = None
        self._port = Port()
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port.number}"

    def up(self) -> None:
        """Listen, again on the same port."""
        self.server = _Server(("127.0.0.1", self._port.number), _Handler)
        self.server.cluster = self
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and break those there are."""
        server, self.server = self.server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        with self.changed:
            self.changed.notify_all()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Down for good: the port is anybody's again."""
        self.down()
        self._port.close()

    def kubeconfig(self, folder: Path, namespace: str = "ml") -> Path:
        """A file that ``KUBECONFIG`` may name."""
        file = folder / "kubeconfig"
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "t0ken"}}],
            "contexts": [
                {
                    "name": "fake",
                    "context": {"cluster": "fake", "user": "fake", "namespace": namespace},
                }
            ],
        }
        file.write_text(json.dumps(body))
        return file


@contextmanager
def running(*namespaces: str) -> Iterator[FakeCluster]:
    """A cluster for as long as the block runs."""
    cluster = FakeCluster(*namespaces)
    try:
        yield cluster
    finally:
        cluster.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    cluster: FakeCluster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.cluster = self.server.cluster
        self.cluster.connections.add(self.connection)

    def finish(self) -> None:
        self.cluster.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Tests count calls; nobody reads them."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        found = _PATH.fullmatch(url.path)
        resource = (found[2] if found else None) or url.path.rpartition("/")[2]
        verb = "WATCH" if "watch" in query else self.command
        fault = self._fault(f"{verb} {self.path}")
        with self.cluster.changed:
            self.cluster.calls[f"{verb} {resource}"] += 1
            self.cluster.changed.notify_all()
        if fault == DROP:
            self.close_connection = True
            return
        try:
            self._heed(fault, verb, resource, named=bool(found and found[3]))
            if verb == "WATCH" and found:
                self._watch(KINDS[resource], found[1], query)
                return
            code, answer = 200 + (verb == "POST"), self._answer(found, resource, query, body)
        except Refused as refusal:
            code, answer = refusal.code, _status(refusal)
        if fault == LOSE:
            self.close_connection = True
            return
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _fault(self, request: str) -> int | str | None:
        with self.cluster.changed:
            for fault in self.cluster.faults:
                if fault.times and fault.how != CUT and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault.how
        return None

    def _heed(self, fault: int | str | None, verb: str, resource: str, *, named: bool) -> None:
        if isinstance(fault, int):
            raise Refused(fault, f"fault {fault}", "Fault")
        does = {"POST": "create", "DELETE": "delete", "WATCH": "watch"}.get(verb)
        does = does or ("get" if named else "list")
        if (does, resource) in self.cluster.denied:
            raise Refused(403, f'{resource} is forbidden: User "u" cannot {does} resource')

    def _answer(
        self, found: re.Match[str] | None, resource: str, query: dict[str, str], body: Object
    ) -> Object | str:
        cluster = self.cluster
        if resource == "selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            allowed = (asked["verb"], asked["resource"]) not in cluster.denied
            return body | {"status": {"allowed": allowed}}
        if not found or not found[1]:
            raise Refused(404, "the server could not find the requested resource")
        namespace, name = found[1], found[3]
        if not found[2] or self.command == "POST":
            if namespace not in cluster.namespaces:
                raise Refused(404, f'namespaces "{namespace}" not found')
            if not found[2]:
                return {"kind": "Namespace", "metadata": {"name": namespace}}
            return self._create(namespace, query, body)
        with cluster.changed:
            if not name:
                return self._list(KINDS[resource], namespace, query)
            thing = cluster.objects.get((KINDS[resource], namespace, name))
            if thing is None:
                raise Refused(404, f'{resource} "{name}" not found')
            if found[4]:
                return self._log(thing, query)
            if self.command == "DELETE":
                cluster.delete(thing, query.get("propagationPolicy", "Background"))
            return deepcopy(thing)

    def _create(self, namespace: str, query: dict[str, str], body: Object) -> Object:
        dry_run = query.get("dryRun") == "All"
        self.cluster.admit(body)
        with self.cluster.changed:
            made = self.cluster.create(body, namespace, dry_run=dry_run)
        if not dry_run:
            self.cluster.created(deepcopy(made))
        return made

    def _list(self, kind: str, namespace: str, query: dict[str, str]) -> Object:
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        found = [
            {key: value for key, value in thing.items() if key != "kind"}  # as the real one does
            for (its, where, _), thing in sorted(self.cluster.objects.items())
            if (its, where) == (kind, namespace) and chosen(thing, labels, fields)
        ]
        meta = {"resourceVersion": str(self.cluster.version)}
        return {"kind": f"{kind}List", "metadata": meta, "items": deepcopy(found)}

    def _log(self, pod: Object, query: dict[str, str]) -> str:
        name, held = pod["metadata"]["name"], [each["name"] for each in pod["spec"]["containers"]]
        if len(held) > 1 and "container" not in query:
            raise Refused(400, f"a container name must be specified for pod {name}, one of: {held}")
        return self.cluster.logs.get(name, "")[-int(query["limitBytes"]) :]

    def _watch(self, kind: str, namespace: str, query: dict[str, str]) -> None:
        cluster, server, at = self.cluster, self.server, int(query["resourceVersion"])
        labels = query.get("labelSelector", "")
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        deadline = time.monotonic() + float(query["timeoutSeconds"])
        while (left := deadline - time.monotonic()) > 0:
            try:
                news = cluster.news(at, left, lambda: cluster.server is not server)
            except Refused as gone:
                self._line({"type": "ERROR", "object": _status(gone)})
                break
            if cluster.server is not server:
                self.close_connection = True
                return
            for at, what, told in news:
                mark = {"kind": kind, "metadata": {"resourceVersion": str(at)}}
                thing = told or mark
                if told and not _in_sight(told, kind, namespace, labels):
                    continue
                if not self._line({"type": what, "object": thing}):
                    self.close_connection = True
                    return
        self.wfile.write(b"0\r\n\r\n")

    def _line(self, event: Object) -> bool:
        """Send one event; False when a fault broke it in the middle."""
        data = json.dumps(event).encode() + b"\n"
        with self.cluster.changed:
            cuts = [each for each in self.cluster.faults if each.times and each.how == CUT]
            if cuts:
                cuts[0].times -= 1
                data = data[: len(data) // 2]
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        return not cuts


def _in_sight(thing: Object, kind: str, namespace: str, labels: str) -> bool:
    return (thing["kind"], thing["metadata"]["namespace"]) == (kind, namespace) and chosen(
        thing, labels
    )


def _status(refusal: Refused) -> Object:
    return {
        "kind": "Status",
        "status": "Failure",
        "message": str(refusal),
        "reason": refusal.reason,
        "code": refusal.code,
    }
