"""The process that tells trackers: ``python -m mstar.stages.teller STORE``, one JSON line on standard input a look.

It looks when it is told to, every few seconds while a train step is at work, and once more when its input ends. One
process at a time tells the trackers of a run; another waits for it. What goes wrong with a tracker is said once on
standard output, and that tracker is left alone from then on.
"""

import contextlib
import json
import logging
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mstar.config import Tracking
from mstar.errors import ConflictError, MstarError
from mstar.stages.engines import missing
from mstar.storage.lease import Lease, acquire, this_process
from mstar.storage.open import open_store
from mstar.storage.store import Store
from mstar.tracking.points import Point
from mstar.tracking.reading import AtWork, Story
from mstar.tracking.told import Sink, forget

log = logging.getLogger(__name__)

LIVE_SECONDS = 5.0
LONGEST_SECONDS = 600.0
"""The longest that the losses of a step at work are kept back."""

LEASE_SECONDS = 60.0
BATCH = 1000
"""Points that are told before it is noted that they were."""

Open = Callable[[str, Store, Story, Tracking, Path], Sink]
Say = Callable[[Mapping[str, Any]], None]


class Teller:
    """Tells the trackers of one run what they have not been told; ``open_sink`` opens one when it is first needed."""

    def __init__(
        self,
        store: Store,
        run: str,
        tracking: Tracking,
        say: Say,
        *,
        open_sink: Open,
        scratch: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._tracking, self._say = store, tracking, say
        self._open, self._scratch, self._clock = open_sink, scratch, clock
        self._story = Story(store, run)
        self._sinks: dict[str, Sink] = {}
        self._given_up: set[str] = set()
        self._lease: Lease | None = None
        self._live: dict[tuple[str, str], tuple[float, float]] = {}
        self.told: dict[str, int] = dict.fromkeys(tracking.to, 0)

    def look(self, at: AtWork | None = None, *, again: bool = False, last: bool = False) -> bool:
        """Tell what is new. False when another process is telling this run's trackers just now.

        ``at`` is the step at work, whose losses are told as they come; the ``last`` look tells all there are.
        """
        try:
            self._hold()
            for tracker in self._tracking.to if again else ():
                forget(self._store, self._story.run.name, tracker)
            self._story.look(at)
            for tracker in self._tracking.to:
                if tracker not in self._given_up:
                    self._trying(tracker, partial(self._tell, tracker, at, last=last))
        except ConflictError:
            self.close()  # whoever is at it now notes what it tells: what we knew is old
            return False
        return True

    def stay(self) -> None:
        """Keep the right to tell while there is nothing to tell."""
        with contextlib.suppress(MstarError):  # a look finds out
            if self._lease:
                self._lease.keep()

    def close(self) -> None:
        """Have the trackers take the last of it."""
        for tracker, sink in self._sinks.items():
            self._trying(tracker, sink.close)
        self._sinks = {}
        if self._lease:
            with contextlib.suppress(MstarError):
                self._lease.release()
            self._lease = None

    def _hold(self) -> None:
        if self._lease:
            self._lease.keep()
            return
        place = f"{self._story.run.name}/tracking"
        self._lease = acquire(
            self._store, place, clock=self._clock, identity=this_process(), ttl=LEASE_SECONDS
        )

    def _trying(self, tracker: str, do: Callable[[], None]) -> None:
        """Whatever a tracker does, the others are told, and nobody is told twice that it failed."""
        try:
            do()
        except ConflictError:
            raise
        except (Exception, SystemExit) as error:
            log.warning("tracker %s failed", tracker, exc_info=True)
            self._given_up.add(tracker)
            text = str(error) if isinstance(error, MstarError) else f"{type(error).__name__}: {error}"  # fmt: skip
            self._say({"tracker": tracker, "failed": " ".join(text.split())[:500]})

    def _tell(self, tracker: str, at: AtWork | None, *, last: bool) -> None:
        if tracker not in self._sinks:
            self._sinks[tracker] = self._open(
                tracker, self._store, self._story, self._tracking, self._scratch
            )
        sink = self._sinks[tracker]
        for written in self._story.written:
            chapter, have = written.chapter, sink.told.get(written.chapter.label, 0)
            if have < chapter.size:
                losses = self._story.losses(written.manifest) if chapter.losses > have else ()
                self._pass_on(sink, chapter.label, have, chapter.points(losses, have))
        live = self._story.live(at)
        if live and self._due(sink, live.label, last=last):
            have = sink.told.get(live.label, 0)
            points = live.curve.points(live.losses, have, self._clock())
            self._pass_on(sink, live.label, have, points)

    def _due(self, sink: Sink, label: str, *, last: bool) -> bool:
        """Whether it is time for another share of a step that goes on: few files, even of long steps."""
        now = self._clock()
        began, told = self._live.get((sink.name, label), (now, now - LIVE_SECONDS))
        due = last or now - told >= min(LONGEST_SECONDS, sink.pace * (now - began))
        self._live[sink.name, label] = (began, now if due else told)
        return due

    def _pass_on(self, sink: Sink, label: str, have: int, points: list[Point]) -> None:
        for start in range(0, len(points), BATCH):
            some = points[start : start + BATCH]
            sink.tell(label, have + start, some)
            sink.told[label] = have + start + len(some)
            self.told[sink.name] += len(some)
            if self._lease:
                self._lease.keep()


def main(url: str) -> int:
    """Serve looks until the input ends; then look once more, and let the trackers finish."""
    with contextlib.suppress(OSError):
        os.nice(5)  # training comes first
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("WANDB_SILENT", "true")
    # Whatever a tracker prints must not be taken for an event.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(event: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            events.write(json.dumps(event) + "\n")

    looks: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_listen, args=(looks,), daemon=True).start()
    first = looks.get()
    if first is None:
        return 0
    try:
        from mstar.stages.backends.trackers import open_sink
    except ModuleNotFoundError as error:
        say({"tracker": "all", "failed": str(missing(error))})
        return 0
    message = json.loads(first)
    tracking = Tracking.model_validate(message["tracking"])
    with tempfile.TemporaryDirectory(prefix="mstar-teller-") as scratch:
        try:
            teller = Teller(
                open_store(url),
                message["run"],
                tracking,
                say,
                open_sink=open_sink,
                scratch=Path(scratch),
            )
            serve(teller, _messages(message, looks), time.sleep)
            teller.close()
        except MstarError as error:
            say({"tracker": "all", "failed": str(error)})
            return 0
    say({"told": teller.told})
    return 0


def serve(
    teller: Teller, messages: Iterator[Mapping[str, Any] | None], sleep: Callable[[float], None]
) -> None:
    """Look at each message, and at a step at work also when none comes (None); at the end, until it is our turn."""
    at: AtWork | None = None
    again, turn = False, True
    for message in messages:
        if message is not None:
            at = AtWork.model_validate(message["at"]) if message["at"] else None
            again = again or bool(message["again"])
        elif turn and at is None:
            teller.stay()
            continue
        turn = teller.look(at, again=again)
        again = again and not turn
    ends = time.monotonic() + 2 * LEASE_SECONDS
    while not teller.look(at, again=again, last=True):
        if time.monotonic() > ends:
            raise ConflictError("another process has been telling this run's trackers all the time")
        sleep(1.0)


def _messages(
    first: Mapping[str, Any], looks: "queue.Queue[str | None]"
) -> Iterator[Mapping[str, Any] | None]:
    """What we are told, None where nothing came for a while; ends with the input."""
    yield first
    while True:
        try:
            line = looks.get(timeout=LIVE_SECONDS)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield json.loads(line)


def _listen(looks: "queue.Queue[str | None]") -> None:
    for line in sys.stdin:
        looks.put(line)
    looks.put(None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
