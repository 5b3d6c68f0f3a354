"""One controller at a time: a run's lease is a sequence of epochs, and the highest number holds.

An epoch is a key that only one can create. Its number is a fencing token: whoever sees a higher one has lost the run.
Commits are put-if-absent besides, so two controllers at once (clocks that differ, a machine that slept) waste work
and harm nothing.
"""

import json
import os
import socket
import subprocess
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from mstar.errors import ConflictError, IntegrityError, NotFound, StorageError
from mstar.storage import keys
from mstar.storage.store import Store

_KEPT = 3  # epochs; the newest alone decides, the others are for whoever wonders what happened
_BEAT_SECONDS = 1.0
_LOOKS = 5  # at a lease that changes hands just then
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A process: which one, and where its number means something (``pid_space``), so that its end can be seen."""

    id: str
    host: str
    pid: int
    started: str
    pid_space: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds or held a run, and when it was last heard of (seconds since 1970)."""

    epoch: int
    identity: Identity
    acquired_at: float
    renewed_at: float
    released: bool = False


T = TypeVar("T")
_HOLDER = TypeAdapter(Holder)
Alive = Callable[[Identity], bool | None]
"""Whether a process lives; None when that cannot be told from here."""


def this_process(identity: str | None = None) -> Identity:
    """The identity of the calling process, named at random unless ``identity`` is given."""
    return Identity(
        id=identity or uuid.uuid4().hex[:12],
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_started(os.getpid()) or "unknown",
        pid_space=_pid_space(),
    )


def process_alive(identity: Identity) -> bool | None:
    """Whether that very process lives (its number may belong to another one by now)."""
    if identity.pid_space != _pid_space():
        return None
    return _started(identity.pid) == identity.started


def holder(store: Store, run: str) -> Holder | None:
    """Who holds the run, or held it last; None when nobody ever did."""
    for _ in range(_LOOKS):
        epoch = _newest(store, run)
        if epoch is None:
            return None
        key = keys.lease(run, epoch)
        try:
            return _HOLDER.validate_python(json.loads(store.get(key)))
        except NotFound:  # cleaned up since, so there is a newer one
            continue
        except (ValueError, ValidationError) as error:
            raise IntegrityError(
                f"{key} in {store.url} does not say who holds run {run!r}. If no controller runs, delete it"
            ) from error
    raise StorageError(
        f"{store.url} lists {key} and does not have it. See that the store is well, then try again"
    )


def holds(found: Holder, *, now: float, ttl: float, alive: Alive = process_alive) -> bool:
    """Whether that holder still has the run: neither released, nor silent for ``ttl`` seconds, nor known dead."""
    return (
        not found.released and now - found.renewed_at < ttl and alive(found.identity) is not False
    )


def acquire(
    store: Store,
    run: str,
    *,
    clock: Callable[[], float],
    identity: Identity,
    ttl: float,
    alive: Alive = process_alive,
) -> "Lease":
    """Hold the run from now on; ConflictError, which says who has it, if somebody else does."""
    last = holder(store, run)
    now = clock()
    if last and holds(last, now=now, ttl=ttl, alive=alive):
        raise _held(run, last, now, ttl)
    epoch = last.epoch + 1 if last else 1
    ours = Holder(epoch=epoch, identity=identity, acquired_at=now, renewed_at=now)
    won = store.create(keys.lease(run, epoch), _stored(ours))
    newest = holder(store, run)
    if newest is None or newest.epoch != epoch or not won:
        if won:  # we were so slow that later epochs have come, and ours had been cleaned up before we made it
            store.delete(keys.lease(run, epoch))
        raise _held(run, newest or ours, now, ttl)
    for old in _epochs(store, run):
        if old <= epoch - _KEPT:
            store.delete(keys.lease(run, old))
    return Lease(store, run, ours, clock=clock, ttl=ttl)


class Lease:
    """The right to work on a run, while it is renewed. ``epoch`` is its fencing token."""

    def __init__(
        self, store: Store, run: str, ours: Holder, *, clock: Callable[[], float], ttl: float
    ) -> None:
        self._store, self._run, self._ours = store, run, ours
        self._clock, self._ttl = clock, ttl

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def epoch(self) -> int:
        return self._ours.epoch

    def renew(self) -> None:
        """Say that we are alive; ConflictError if somebody else has taken the run over."""
        if self._ours.released:
            raise RuntimeError(f"the lease of run {self._run!r} was released")
        now = self._clock()
        newest = holder(self._store, self._run)
        if newest and newest.epoch > self.epoch:
            raise _held(self._run, newest, now, self._ttl)
        self._put(replace(self._ours, renewed_at=now))

    def keep(self) -> None:
        """Renew if a third of the time has passed: cheap enough to call in every turn of a loop."""
        if self._clock() - self._ours.renewed_at >= self._ttl / 3:
            self.renew()

    def kept(self, do: Callable[[], T]) -> T:
        """``do()``, which may take longer than a lease lasts; ConflictError after it if the run was lost meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(do)
            while not wait((doing,), timeout=_BEAT_SECONDS).done:
                self.keep()
            return doing.result()

    def release(self) -> None:
        """Let the next controller begin at once; doing it twice, or after the run was taken over, is no error."""
        if self._ours.released:
            return
        newest = _newest(self._store, self._run)
        if newest == self.epoch:
            self._put(replace(self._ours, released=True))
        self._ours = replace(self._ours, released=True)

    def _put(self, ours: Holder) -> None:
        self._store.put(keys.lease(self._run, self.epoch), _stored(ours))
        self._ours = ours


def _epochs(store: Store, run: str) -> list[int]:
    found = []
    for key in store.list(f"{keys.run(run)}/lease"):
        with suppress(ValueError):
            found.append(int(key.rpartition("/")[2].removesuffix(".json")))
    return found


def _newest(store: Store, run: str) -> int | None:
    return max(_epochs(store, run), default=None)


def _stored(record: Holder) -> bytes:
    return json.dumps(asdict(record), indent=1).encode()


def _held(run: str, by: Holder, now: float, ttl: float) -> ConflictError:
    who, since = by.identity, datetime.fromtimestamp(by.acquired_at, UTC)
    return ConflictError(
        f"run {run!r} is held by controller {who.id}, process {who.pid} on {who.host}, since "
        f"{since:%Y-%m-%d %H:%M:%S} UTC, heard of {max(0, now - by.renewed_at):.0f} s ago. Wait for it, or stop it "
        f"with `mstarctl cancel {run}`; if it is dead, try again in {max(1, by.renewed_at + ttl - now):.0f} s"
    )


@cache
def _pid_space() -> str:
    """Where process numbers mean the same: this boot of this machine, and on Linux this container."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()}/{uuid.getnode():x}"


def _started(pid: int) -> str | None:
    """When the process started, in the system's own words; None when there is no such process, or it has ended."""
    if (_PROC / "self/stat").exists():
        try:
            stat = (_PROC / f"{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
        return None if fields[0] in "ZX" else fields[19]
    found = subprocess.run(  # noqa: S603 - a number is all that is passed
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)],
        env={"LC_ALL": "C", "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    return found.stdout.strip() or None
