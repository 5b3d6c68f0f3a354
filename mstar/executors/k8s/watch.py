"""A run's Jobs and pods as the cluster last told of them: listed once, then watched, listed again when that breaks.

Two requests at the start and two every few minutes, whatever happens in between: how often the controller looks costs
the API server nothing.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from mstar.errors import MstarError
from mstar.executors.k8s.api import Api, Object

log = logging.getLogger("mstar.cluster")

KINDS = ("Job", "Pod")
WATCH_SECONDS = 240
_KEPT_STATUS = (
    "phase",
    "reason",
    "message",
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
)


class Mirror:
    """What matters of every Job and pod that matches ``selector``. ``changed`` is notified at each change."""

    def __init__(self, api: Api, selector: str) -> None:
        self._api, self._selector = api, selector
        self._objects: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self._synced: set[str] = set()
        self._failure: MstarError | None = None
        self._stopped = threading.Event()
        self.changed = threading.Condition()
        self.version = 0
        for kind in KINDS:
            threading.Thread(target=self._follow, args=(kind,), daemon=True).start()

    def wait_synced(self, seconds: float) -> None:
        """Return once everything was listed; raises what kept it from being."""
        with self.changed:
            ready = self.changed.wait_for(
                lambda: len(self._synced) == len(KINDS) or self._failure, timeout=seconds
            )
            if self._failure:
                raise self._failure
            if not ready:
                raise TimeoutError("the cluster did not list its Jobs and pods in time")

    def all(self, kind: str) -> list[Object]:
        """Every object of a kind."""
        with self.changed:
            return list(self._objects[kind].values())

    def get(self, kind: str, name: str) -> Object | None:
        """One object."""
        with self.changed:
            return self._objects[kind].get(name)

    def put(self, thing: Object) -> None:
        """Take over an object that was just created, before the watch tells of it."""
        with self.changed:
            self._objects[thing["kind"]].setdefault(thing["metadata"]["name"], slim(thing))
            self._tell()

    def wait(self, seconds: float, *, since: int) -> None:
        """Return when something changed after version ``since``, or after ``seconds``."""
        with self.changed:
            self.changed.wait_for(lambda: self.version != since, timeout=seconds)

    def stop(self) -> None:
        """Follow no more."""
        self._stopped.set()

    def _tell(self) -> None:
        self.version += 1
        self.changed.notify_all()

    def _follow(self, kind: str) -> None:
        pause = 0.5
        while not self._stopped.is_set():
            try:
                self._list_and_watch(kind)
                pause = 0.5
            except MstarError as error:
                log.warning("watching %ss: %s", kind, error)
                with self.changed:
                    if kind not in self._synced and not error.retriable:
                        self._failure = error
                    self._tell()
                self._stopped.wait(pause)
                pause = min(30.0, pause * 2)

    def _list_and_watch(self, kind: str) -> None:
        listing = self._api.list(kind, self._selector)
        with self.changed:
            self._objects[kind] = {
                item["metadata"]["name"]: slim({"kind": kind, **item}) for item in listing.items
            }
            self._synced.add(kind)
            self._failure = None
            self._tell()
        version = listing.version
        while not self._stopped.is_set():
            for event in self._api.watch(kind, self._selector, version, WATCH_SECONDS):
                version = event["object"]["metadata"]["resourceVersion"]
                self._apply(kind, event)
                if self._stopped.is_set():
                    return

    def _apply(self, kind: str, event: Mapping[str, Any]) -> None:
        if event["type"] == "BOOKMARK":
            return
        thing = slim(event["object"])
        name = thing["metadata"]["name"]
        with self.changed:
            if event["type"] == "DELETED":
                self._objects[kind].pop(name, None)
            else:
                self._objects[kind][name] = thing
            self._tell()


def slim(thing: Mapping[str, Any]) -> Object:
    """An object without what nobody here asks about: hundreds of pods fit in a small controller."""
    metadata = thing["metadata"]
    kept: Object = {
        "kind": thing.get("kind"),
        "metadata": {
            key: metadata[key]
            for key in ("name", "uid", "labels", "annotations", "deletionTimestamp")
            if key in metadata
        },
    }
    if thing.get("kind") == "Job":
        kept["spec"] = {
            key: thing["spec"][key] for key in ("suspend", "completions") if key in thing["spec"]
        }
        kept["status"] = thing.get("status", {})
        return kept
    spec, status = thing.get("spec", {}), thing.get("status", {})
    kept["spec"] = {key: spec[key] for key in ("nodeName", "nodeSelector") if key in spec}
    with suppress(KeyError):
        kept["spec"]["containers"] = [
            {"name": each["name"], "image": each["image"], "resources": each.get("resources", {})}
            for each in spec["containers"]
        ]
    kept["status"] = {key: status[key] for key in _KEPT_STATUS if key in status}
    return kept


Mirroring = Callable[[Api, str], Mirror]
