"""Looking at a run until it ends, from a laptop that the run does not need."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import typer

from mstar.controller.place import settled
from mstar.controller.status import ENDED, Overview, Phase, overview
from mstar.errors import MstarError, WorkerLost
from mstar.executors.base import Observation, State
from mstar.executors.k8s.api import Api
from mstar.executors.k8s.diagnose import diagnose
from mstar.executors.k8s.names import JOB
from mstar.history import Entry, load_history
from mstar.storage.store import Store
from mstarctl import show

POLL_SECONDS = 1.0
BLIND_SECONDS = 300.0
"""How long who follows a run bears with a store or a cluster that does not answer."""

STOPPED_SECONDS = 60.0
"""How long a run may be seen with nobody working on it before who follows it gives up: longer than a lease lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of a run at one moment."""

    found: Overview
    entries: Sequence[Entry]


def follow(store: Store, name: str, api: Api | None, *, as_json: bool) -> None:
    """Print each finished step, and what the run waits for, until it ends; raise what it ended with."""
    steps = show.Followed(as_json=as_json)
    for look in looks(store, name, api):
        if look is None:
            continue
        steps.update(look.found, look.entries)
        last = look.found
    if last.status.phase is not Phase.FINISHED:
        raise typer.Exit(steps.failed(last.status))
    show.overview(last, as_json=as_json)


def looks(store: Store, name: str, api: Api | None) -> Iterator[Look | None]:
    """What is seen of a run each second, None where nothing can be seen for a while, until it has ended.

    The last look has the phase and exit code that the run ended with; a run that nobody has worked on for too long has
    ended as one whose worker is lost. Raises what cannot pass, and what does not pass in time.
    """
    answered = worked = time.monotonic()
    entries: list[Entry] = []
    while True:
        now = time.monotonic()
        try:
            found = explained(store, name, api, entries)
            entries = load_history(store, name, entries)
        except MstarError as error:
            # The run does not need us: what we cannot see for a while may go on all the same.
            if not error.retriable or now - answered > BLIND_SECONDS:
                raise
            yield None
            time.sleep(POLL_SECONDS)
            continue
        answered = now
        status = found.status
        if status.phase is not Phase.STOPPED:
            worked = now
        lost = now - worked > STOPPED_SECONDS
        if lost:
            status = replace(status, exit_code=WorkerLost.exit_code)
            found = replace(found, status=status)
        yield Look(found=found, entries=entries)
        if lost or status.phase in ENDED:
            return
        time.sleep(POLL_SECONDS)


def explained(store: Store, name: str, api: Api | None, known: Sequence[Entry] = ()) -> Overview:
    """A run's overview; where no controller works on it, with what its Job in the cluster says of that."""
    found = overview(store, name, time.time(), known)
    where = settled(store, name)
    if found.controller != "none" or api is None or where is None:
        return found
    if found.status.phase in ENDED:
        return found
    try:
        seen = look_at(api, where.job)
    except MstarError as error:
        why = f"{found.status.why} (what the cluster knows of it cannot be asked: {error})"
        return replace(found, status=replace(found.status, why=why))
    if seen is None:
        return found
    if seen.state is State.FAILED:
        status = replace(
            found.status,
            phase=Phase.FAILED,
            why=f"its controller failed: {seen.message}",
            exit_code=seen.exit_code,
        )
    elif seen.state is State.SUCCEEDED:
        return found
    else:
        why = seen.waiting or seen.message or "it is starting"
        status = replace(found.status, phase=Phase.WAITING, why=f"controller: {why}")
    return replace(found, status=status)


def look_at(api: Api, job: str) -> Observation | None:
    """What the cluster says of a Job; None when it has none."""
    found = api.get("Job", job)
    if found is None:
        return None
    pods = api.list("Pod", f"{JOB}={job}").items
    events: list[dict[str, Any]] = []
    for subject in [job, *(pod["metadata"]["name"] for pod in pods)]:
        if api.allowed("list", "events"):
            events += api.list("Event", fields=f"involvedObject.name={subject}").items
    return diagnose(found, pods, events)
