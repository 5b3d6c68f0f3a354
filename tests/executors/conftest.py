"""A fake cluster and what closes with it."""

import pytest

from mstar.executors.k8s import watch
from mstar.storage.memory import MemoryStore
from tests import fake_api
from tests.executors import making
from tests.fake_kubelet import Kubelet


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A broken watch is taken up again at once."""
    monkeypatch.setattr(watch, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watch, "_LONGEST_PAUSE", 0.05)


@pytest.fixture
def cluster():
    with fake_api.running() as found:
        yield found


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def executors(cluster, store):
    """Make executors that are closed after the test."""
    made = []

    def make(**more):
        found = making.executor(cluster, more.pop("store", store), **more)
        made.append(found)
        return found

    yield make
    for each in made:
        each.close()


@pytest.fixture
def kubelet(cluster, store):
    """Plays every Job; stages commit at once."""
    return Kubelet(cluster, making.committing_pods(store))
