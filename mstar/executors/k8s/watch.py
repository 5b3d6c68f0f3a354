"""A run's Jobs and pods as the cluster last told of them: listed once, then watched, listed again when that breaks.

Two requests at the start and two every few minutes, whatever happens in between: how often the controller looks costs
the API server nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from mstar.errors import ClusterUnreachable, MstarError
from mstar.executors.k8s.api import Api, Object

log = logging.getLogger("mstar.cluster")

KINDS = ("Job", "Pod")
WATCH_SECONDS = 240
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
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

    def __init__(
        self, api: Api, selector: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api, self._selector, self._clock = api, selector, clock
        self._objects: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self._synced: set[str] = set()
        self._failure: Exception | None = None
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
                raise ClusterUnreachable(
                    f"the cluster at {self._api.server} did not list its Jobs and pods within {seconds:g} s"
                )

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
        name, uid = thing["metadata"]["name"], thing["metadata"]["uid"]
        with self.changed:
            known = self._objects[thing["kind"]].get(name)
            if known is None or known["metadata"]["uid"] != uid:
                self._objects[thing["kind"]][name] = slim(thing)
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
        pause = _FIRST_PAUSE
        while not self._stopped.is_set():
            began = self._clock()
            try:
                self._list_and_watch(kind)
            except Exception as error:  # noqa: BLE001 - a mirror that nobody keeps any more would lie for ever
                log.warning("watching %ss: %s: %s", kind, type(error).__name__, error)
                with self.changed:
                    hopeless = isinstance(error, MstarError) and not error.retriable
                    if hopeless and kind not in self._synced:
                        self._failure = error
                    self._tell()
                if self._clock() - began > _LONGEST_PAUSE:
                    pause = _FIRST_PAUSE  # it went well for a while
                self._stopped.wait(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)

    def _list_and_watch(self, kind: str) -> None:
        """Follow until something breaks; a watch that ends as it should is only taken up again."""
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
            began = self._clock()
            for event in self._api.watch(kind, self._selector, version, WATCH_SECONDS):
                version = event["object"]["metadata"]["resourceVersion"]
                self._apply(kind, event)
                if self._stopped.is_set():
                    return
            if (
                self._clock() - began < 1.0
            ):  # something between us and the server ends what it should carry
                self._stopped.wait(1.0)

    def _apply(self, kind: str, event: Mapping[str, Any]) -> None:
        if event["type"] == "BOOKMARK":
            return
        thing = slim(event["object"])
        name = thing["metadata"]["name"]
        with self.changed:
            known = self._objects[kind].get(name)
            if event["type"] == "DELETED":
                # Word of an older object's end may come when a new one of its name is here already.
                if known and known["metadata"]["uid"] == thing["metadata"]["uid"]:
                    del self._objects[kind][name]
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
