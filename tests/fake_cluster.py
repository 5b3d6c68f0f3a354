"""What a cluster knows, in a process: objects, their versions, and what deleting one does to the others.

``fake_api`` speaks HTTP for it, ``fake_kubelet`` plays its controllers and nodes. Faults are ordered by a test.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
DROP, LOSE, CUT = "drop", "lose", "cut"
"""Faults besides a status code: no answer; done, and no answer; a watch that ends inside a line."""
_REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    410: "Expired",
    422: "Invalid",
}


class Refused(Exception):
    """An answer that is no object."""

    def __init__(self, code: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason or _REASONS.get(code, "InternalError")


@dataclass(slots=True)
class Fault:
    """What happens to the next ``times`` requests whose ``METHOD /path?query`` a pattern finds."""

    pattern: str
    how: int | str
    times: int


class Objects:
    """Everything in a cluster, safe for threads.

    ``admit`` may raise ``Refused`` for a new object, ``created`` hears of each that the API made. ``stop_pod`` is asked
    when a pod is to end: True when it may go at once, else ``remove`` follows.
    """

    def __init__(self, *namespaces: str) -> None:
        self.namespaces = set(namespaces or ("ml",))
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.history: list[tuple[int, str, Object]] = []
        self.version, self.oldest = 100, 0
        self.faults: list[Fault] = []
        self.denied: set[tuple[str, str]] = set()
        self.admit: Callable[[Object], None] = lambda body: None
        self.created: Callable[[Object], None] = lambda body: None
        self.stop_pod: Callable[[Object], bool] = lambda pod: True
        self.logs: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self._uids = itertools.count(1)

    # What a test does.

    def fail(self, pattern: str, how: int | str, times: int = 1) -> None:
        """Order a fault: a status code, or ``DROP``, ``LOSE``, ``CUT``."""
        with self.changed:
            self.faults.append(Fault(pattern, how, times))

    def expire(self) -> None:
        """Forget old versions: every watch hears 410 and has to list again."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.history.clear()
            self.changed.notify_all()

    def bookmark(self) -> None:
        """Tell every watch the version, and nothing else."""
        with self.changed:
            self.version += 1
            self.history.append((self.version, "BOOKMARK", {}))
            self.changed.notify_all()

    def put(self, body: Object, namespace: str = "ml") -> Object:
        """Create an object as somebody else would; what became of it."""
        with self.changed:
            return self.create(deepcopy(body), namespace)

    def find(self, kind: str, namespace: str = "ml") -> list[Object]:
        """Copies of all objects of a kind."""
        with self.changed:
            return [deepcopy(v) for k, v in self.objects.items() if k[:2] == (kind, namespace)]

    def get(self, kind: str, name: str, namespace: str = "ml") -> Object | None:
        """A copy of one object."""
        with self.changed:
            return deepcopy(self.objects.get((kind, namespace, name)))

    def change(self, thing: Object, **fields: Any) -> Object | None:
        """Replace fields of an object, unless it is gone or another one by now; what it is then."""
        with self.changed:
            stored = self.objects.get(key_of(thing))
            if stored is None or stored["metadata"]["uid"] != thing["metadata"]["uid"]:
                return None
            stored |= deepcopy(fields)
            self._note("MODIFIED", stored)
            return deepcopy(stored)

    def wait(self, holds: Callable[[], Any], seconds: float = 120.0) -> bool:
        """Whether something comes to hold in time."""
        with self.changed:
            return bool(self.changed.wait_for(holds, timeout=seconds))

    def news(
        self, at: int, seconds: float, ended: Callable[[], bool]
    ) -> list[tuple[int, str, Object]]:
        """What happened since version ``at``, waited for if need be; ``Refused`` when that is forgotten."""
        with self.changed:
            self.changed.wait_for(lambda: self.version > at or ended(), timeout=seconds)
            if at < self.oldest:
                raise Refused(410, f"too old resource version: {at} ({self.oldest})")
            return [entry for entry in self.history if entry[0] > at]

    def event(self, about: Object, reason: str, message: str) -> None:
        """Somebody notes an event about an object."""
        meta, now = about["metadata"], time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{now % 1 * 1e6:06.0f}Z"
        body = {
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{next(self._uids):x}"},
            "involvedObject": {"kind": about["kind"], "name": meta["name"], "uid": meta["uid"]},
            "reason": reason,
            "message": message,
            "type": "Normal" if reason in {"Pulling", "Pulled", "SuccessfulCreate"} else "Warning",
            "lastTimestamp": None,
            "eventTime": stamp,
        }
        self.put(body, meta["namespace"])

    # What the API does.

    def create(self, body: Object, namespace: str, *, dry_run: bool = False) -> Object:
        """Keep a new object, under the lock."""
        meta = body["metadata"]
        if (body["kind"], namespace, meta["name"]) in self.objects:
            raise Refused(409, f'{body["kind"].lower()}s.batch "{meta["name"]}" already exists')
        meta |= {"namespace": namespace, "uid": f"uid-{next(self._uids)}"}
        meta["creationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if not dry_run:
            self.objects[key_of(body)] = body
            self._note("ADDED", body)
        return deepcopy(body)

    def delete(self, thing: Object, how: str = "Background") -> None:
        """What DELETE with a propagation policy does."""
        with self.changed:
            stored = self.objects.get(key_of(thing))
            if stored is None:
                return
            if stored["kind"] == "Pod":
                self._mark(stored)
                if self.stop_pod(deepcopy(stored)):
                    self.remove(stored)
            elif how == "Orphan":
                for child in self._children(stored):
                    del child["metadata"]["ownerReferences"]
                    self._note("MODIFIED", child)
                self.remove(stored)
            elif how == "Foreground":
                stored["metadata"]["finalizers"] = ["foregroundDeletion"]
                self._mark(stored)
                for child in self._children(stored):
                    self.delete(child, "Foreground")
                self._finish(stored)
            else:
                self.remove(stored)

    def remove(self, thing: Object) -> None:
        """Take an object away, and then what it owned."""
        with self.changed:
            if stored := self.objects.pop(key_of(thing), None):
                self._note("DELETED", stored)
                for child in self._children(stored):
                    self.delete(child)
                for parent in list(self.objects.values()):
                    self._finish(parent)

    def _mark(self, stored: Object) -> None:
        if "deletionTimestamp" not in stored["metadata"]:
            stored["metadata"]["deletionTimestamp"] = "2026-11-01T00:00:00Z"
            self._note("MODIFIED", stored)

    def _finish(self, stored: Object) -> None:
        """Remove what waits for its dependents, once those that it has to wait for are gone."""
        if "foregroundDeletion" in stored["metadata"].get("finalizers", ()) and not any(
            _reference(child, stored).get("blockOwnerDeletion") for child in self._children(stored)
        ):
            self.remove(stored)

    def _children(self, owner: Object) -> list[Object]:
        return [thing for thing in self.objects.values() if _reference(thing, owner)]

    def _note(self, what: str, thing: Object) -> None:
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, what, deepcopy(thing)))
        self.changed.notify_all()


def key_of(thing: Object) -> tuple[str, str, str]:
    """Where an object is kept."""
    return (thing["kind"], thing["metadata"]["namespace"], thing["metadata"]["name"])


def chosen(thing: Object, labels: str, fields: str = "") -> bool:
    """Whether selectors of the form ``a=b,c=d`` pick an object."""
    about = thing.get("involvedObject", {}).get("name")
    held = {"involvedObject.name": about, "metadata.name": thing["metadata"]["name"]}
    marks = thing["metadata"].get("labels", {})
    return all(
        known.get(key) == value
        for known, text in ((marks, labels), (held, fields))
        for key, _, value in (each.partition("=") for each in text.split(",") if each)
    )


def _reference(thing: Object, owner: Object) -> Object:
    found = thing["metadata"].get("ownerReferences", ())
    return next((each for each in found if each["uid"] == owner["metadata"]["uid"]), {})
