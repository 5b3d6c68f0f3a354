"""Which points of a run a tracker has been told, so that it is told each one once, whoever tells it next.

TensorBoard's event files name their points themselves. For trackers elsewhere a note in the store says what they have
and what they call the run. A note is written after the points were taken: a process that is killed in between repeats
the last of them, at the same place and with the same value.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mstar.errors import IntegrityError, NotFound
from mstar.storage import keys
from mstar.storage.store import Store
from mstar.tracking.points import Point


class Sink(Protocol):
    """A tracker that is open. ``told`` counts by step the points that it has, from before too.

    ``pace``: losses of a step at work are told when so large a share of its time has passed again.
    """

    name: str
    pace: float
    told: dict[str, int]

    def tell(self, label: str, first: int, points: Sequence[Point]) -> None:
        """Take the points of a step from the ``first`` (counted from 0) on, and note that they were taken."""

    def close(self) -> None:
        """Send what is left and let go."""


EVENTS = "events.out.tfevents."
"""How TensorBoard knows an event file; files of one folder are read in the order of their names."""

_NAMED = re.compile(re.escape(EVENTS) + r"(?P<label>.+)\.(?P<first>\d{8})-(?P<last>\d{8})")


def event_file(run: str, label: str, first: int, last: int) -> str:
    """Key of the event file with the points ``first`` to ``last`` (counted from 1) of a run's step."""
    return f"{keys.events(run)}/{EVENTS}{label}.{first:08d}-{last:08d}"


def told_in_files(store: Store, run: str) -> dict[str, int]:
    """How many points of each step the event files of a run hold."""
    told: dict[str, int] = {}
    for key in store.list(keys.events(run)):
        if found := _NAMED.fullmatch(key.rpartition("/")[2]):
            told[found["label"]] = max(told.get(found["label"], 0), int(found["last"]))
    return told


@dataclass(slots=True, kw_only=True)
class Note:
    """What a tracker has been told of a run, by step, and what it calls the run there."""

    store: Store
    key: str
    id: str = ""
    told: dict[str, int] = field(default_factory=dict)

    def write(self) -> None:
        """Keep it."""
        body = {"id": self.id, "told": self.told}
        self.store.put(self.key, (json.dumps(body, indent=1) + "\n").encode())


def read_note(store: Store, run: str, tracker: str, place: str) -> Note:
    """The note about a tracker; ``place`` is its address and project: another one is told from the beginning."""
    where = hashlib.sha256(place.encode()).hexdigest()[:12]
    key = f"{keys.tracking(run)}/{tracker}-{where}.json"
    try:
        body = json.loads(store.get(key))
        told = {str(step): int(count) for step, count in body["told"].items()}
        return Note(store=store, key=key, id=str(body["id"]), told=told)
    except NotFound:
        return Note(store=store, key=key)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{key} in {store.url} does not say what {tracker} has been told ({error}); delete it, or tell all of it "
            f"anew with `mstarctl track {run} --again`"
        ) from None


def forget(store: Store, run: str, tracker: str) -> None:
    """Have a tracker told everything anew: TensorBoard's files go, elsewhere a new tracker run begins."""
    folder = keys.events(run) if tracker == "tensorboard" else keys.tracking(run)
    name = EVENTS if tracker == "tensorboard" else f"{tracker}-"
    for key in list(store.list(folder)):
        if key.rpartition("/")[2].startswith(name):
            store.delete(key)
