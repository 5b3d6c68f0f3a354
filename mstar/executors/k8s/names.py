"""What objects in the cluster are called: the same every time for the same run, step and attempt.

At most 63 characters for any run name, with room for what Kubernetes adds to a pod's host name.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "mstar.dev"
RUN = f"{PREFIX}/run"
ID = f"{PREFIX}/id"
INDEX = f"{PREFIX}/step-index"
ATTEMPT = f"{PREFIX}/attempt"
CONTAINER = "stage"
"""The container of each pod that does the work."""

STEP = f"{PREFIX}/step"
TASK = f"{PREFIX}/task"
QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
JOB = "batch.kubernetes.io/job-name"

_SLUG = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A run and the store it lives in: two runs of one name in two stores never meet."""

    run: str
    store: str

    @property
    def id(self) -> str:
        """Eight hex digits that only this run in this store has."""
        return hashlib.sha256(f"{self.store}\n{self.run}".encode()).hexdigest()[:8]


def base_name(place: Place) -> str:
    """What every object of a run is called first: ``mstar-<slug>-<8 hex digits>``, at most 35 characters."""
    slug = re.sub(r"[^a-z0-9]+", "-", place.run)[:_SLUG].strip("-")
    return f"mstar-{slug}-{place.id}"


def controller_name(place: Place) -> str:
    """The controller's Job."""
    return f"{base_name(place)}-controller"


def job_name(place: Place, index: int, attempt: int) -> str:
    """The Job of one attempt at step ``index`` (from 0)."""
    return f"{base_name(place)}-{index:04d}-{attempt}"


def labels(place: Place, component: str) -> dict[str, str]:
    """What every object of a run carries."""
    return {
        "app.kubernetes.io/name": "mstar",
        "app.kubernetes.io/part-of": "mstar",
        "app.kubernetes.io/managed-by": "mstarctl",
        "app.kubernetes.io/component": component,
        RUN: place.run,
        ID: place.id,
    }


def step_labels(place: Place, component: str, index: int, attempt: int) -> dict[str, str]:
    """What the Job of one attempt carries, and its pods."""
    return labels(place, component) | {INDEX: str(index), ATTEMPT: str(attempt)}


def selector(place: Place, more: Mapping[str, str] | None = None) -> str:
    """A label selector for a run's objects."""
    wanted = {ID: place.id} | dict(more or {})
    return ",".join(f"{key}={value}" for key, value in wanted.items())
