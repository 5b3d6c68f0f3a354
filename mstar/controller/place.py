"""Where in a cluster a run was started: kept in the store, for its controller and for whoever asks about it."""

import json
from dataclasses import dataclass

from mstar.cluster import Cluster
from mstar.errors import IntegrityError, NotFound
from mstar.storage import keys
from mstar.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Where a run was started: the namespace, the controller's Job, and the cluster block with all defaults."""

    namespace: str
    job: str
    cluster: Cluster


def settle(store: Store, run: str, where: Settled) -> None:
    """Note where a run was started, for its controller and for whoever asks about it."""
    body = {
        "where": "cluster",
        "namespace": where.namespace,
        "job": where.job,
        "cluster": where.cluster.model_dump(mode="json"),
    }
    store.put(keys.place(run), (json.dumps(body, indent=1) + "\n").encode())


def settled(store: Store, run: str) -> Settled | None:
    """Where a run was last started in a cluster; None when it never was."""
    key = keys.place(run)
    try:
        body = json.loads(store.get(key))
        return Settled(
            namespace=body["namespace"],
            job=body["job"],
            cluster=Cluster.model_validate(body["cluster"]),
        )
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{key} in {store.url} does not say where the run is: {error}"
        ) from None
