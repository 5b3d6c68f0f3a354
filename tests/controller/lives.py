"""Controllers on a fake cluster, one life after the other, and what kills them."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from mstar.controller.loop import Controller
from mstar.executors.k8s.api import Api
from mstar.executors.k8s.executor import KubernetesExecutor
from mstar.executors.k8s.names import Place
from mstar.executors.k8s.render import Owner
from mstar.storage.lease import this_process
from mstar.storage.memory import MemoryStore
from tests.controller.test_controller import Killed, Silent
from tests.executors.making import connection
from tests.fake_api import FakeCluster
from tests.runs import small_spec, stored_run

T = TypeVar("T")
OWNER = Owner(name="mstar-small-controller", uid="uid-of-the-controller-s-job")
SHORT: dict[str, Any] = {
    "data": {"path": "data", "test": None},
    "warm_up": None,
    "prm": None,
    "evolve": {"iterations": 1, "select": {"rule": "all"}, "exploration": None},
    "execution": {"shards": 2},
}
"""Five steps: one of each stage, and the first measurement."""


class Life:
    """A process that dies at its ``left``-th effect, before or after that took place, and does nothing more then."""

    def __init__(self, left: int | None = None, *, after: bool = False) -> None:
        self.left, self.after = left, after

    def effect(self, act: Callable[[], T]) -> T:
        if self.left is None or "_follow" in threading.current_thread().name:  # the mirror's
            return act()
        self.left -= 1
        if self.left < 0:
            raise Killed
        result = act()
        if self.left == 0 and self.after:
            self.left = -1
            raise Killed
        return result


class LivingStore(MemoryStore):
    """A controller's hold of a store that pods write to as well: only its own writes are effects."""

    def __init__(self, shared: MemoryStore, life: Life) -> None:
        vars(self).update(vars(shared))
        self.life = life

    def put(self, key, data):
        self.life.effect(lambda: MemoryStore.put(self, key, data))

    def create(self, key, data):
        return self.life.effect(lambda: MemoryStore.create(self, key, data))

    def delete(self, key):
        self.life.effect(lambda: MemoryStore.delete(self, key))


class LivingConnection:
    """A connection whose requests are effects."""

    def __init__(self, cluster: FakeCluster, life: Life) -> None:
        self._real, self._life = connection(cluster), life
        self.host = self._real.host

    def send(self, *arguments: Any, **more: Any) -> Any:
        return self._life.effect(lambda: self._real.send(*arguments, **more))


def live(
    cluster: FakeCluster,
    store: MemoryStore,
    life: Life | None = None,
    *,
    owner: Owner = OWNER,
    spec: Any = None,
    interrupted: Callable[[], bool] = lambda: False,
    reporter: Any = None,
) -> Api:
    """One controller's life, as ``serve`` leads it; the API that it used."""
    life, spec = life or Life(), spec or small_spec(**SHORT)
    run = stored_run(store, spec)
    store = LivingStore(store, life)
    api = Api(LivingConnection(cluster, life), "ml", patience=60.0)  # type: ignore[arg-type]
    place = Place(run=spec.name, store=store.url)
    executor = KubernetesExecutor(api, store, place, spec.cluster, owner)
    try:
        Controller(
            store,
            executor,
            run,
            reporter or Silent(),
            identity=this_process(owner.uid),
            interrupted=interrupted,
            started_again=True,
        ).advance()
    finally:
        executor.close()
    return api
