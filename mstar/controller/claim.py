"""Which run makes a step that several runs need: one makes it, the others wait and adopt what it commits.

A claim names a run, and counts while that run's controller is at work on that very step. So nothing has to be renewed,
and a claim whose run died, was cancelled or went on is taken over. Two at once (a race, clocks that differ) waste work
and harm nothing, because commits are put-if-absent.
"""

import json

from mstar.controller.status import LEASE_SECONDS, Phase, read_status
from mstar.errors import NotFound
from mstar.storage import keys
from mstar.storage.lease import holder, holds
from mstar.storage.store import Store

GRACE_SECONDS = 10.0
"""For so long a new claim counts before its run's status has come to name the step."""


def claim(store: Store, identity: str, run: str, step: str, now: float) -> str | None:
    """Claim the step for ``run``, which calls it ``step``; the run that is at work on it instead, if there is one."""
    key = keys.claim(identity)
    ours = json.dumps({"run": run, "step": step, "at": now}, indent=1).encode()
    if store.create(key, ours):
        return None
    try:
        found = json.loads(store.get(key))
        other, named, since = str(found["run"]), str(found["step"]), float(found["at"])
    except (NotFound, ValueError, KeyError, TypeError):
        other, named, since = (
            run,
            step,
            0.0,
        )  # gone just now, or unreadable: nobody can say it is theirs
    if other != run and _at_work(store, other, named, since, now):
        return other
    store.put(key, ours)
    return None


def claimed_by(store: Store, identity: str) -> str | None:
    """The run that began to make the step and has not recorded it; None when there is none."""
    try:
        return str(json.loads(store.get(keys.claim(identity)))["run"])
    except (NotFound, ValueError, KeyError, TypeError):
        return None


def give_up(store: Store, identity: str) -> None:
    """The step is committed, or its run has ended: nobody has to look at the claim any more."""
    store.delete(keys.claim(identity))


def _at_work(store: Store, run: str, step: str, since: float, now: float) -> bool:
    held = holder(store, run)
    if held is None or not holds(held, now=now, ttl=LEASE_SECONDS):
        return False
    if 0 <= now - since < GRACE_SECONDS:
        return True
    status = read_status(store, run)
    return (
        status is not None
        and status.step == step
        and status.phase in {Phase.RUNNING, Phase.WAITING}
    )
