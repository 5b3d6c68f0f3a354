"""The controller's pod: it finds its run, its cluster and its own Job, and its exit code says how the run ended."""

import json
import signal
import threading
import time

import pytest

from mstar import logs
from mstar.cluster import Cluster
from mstar.controller import serve
from mstar.controller.loop import request_cancel
from mstar.controller.place import Settled, settle, settled
from mstar.controller.serve import patiently
from mstar.controller.status import LEASE_SECONDS, Phase, overview
from mstar.errors import (
    Cancelled,
    ClusterError,
    ConflictError,
    DataError,
    IntegrityError,
    NotFound,
    Preempted,
    StorageError,
)
from mstar.executors.k8s import watch
from mstar.executors.k8s.names import Place, controller_name
from mstar.executors.k8s.render import Scene, controller_job
from mstar.storage.folder import FolderStore
from mstar.storage.lease import acquire, this_process
from tests import fake_api
from tests.controller.lives import SHORT
from tests.controller.test_controller import history
from tests.executors.making import committing_pods, until
from tests.fake_kubelet import Ended, Kubelet, last_word
from tests.runs import small_spec, stored_run

NOW = threading.Event()
NOW.set()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(serve, "PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("MSTAR_METRICS_PORT", "0")
    with fake_api.running() as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig(tmp_path)))
        yield found


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


@pytest.fixture
def started(cluster, store):
    """A run as ``mstarctl run`` leaves it: stored, settled, its controller's Job there. The Job."""
    spec = small_spec(**SHORT)
    stored_run(store, spec)
    place = Place(run=spec.name, store=store.url)
    where = Settled(namespace="ml", job=controller_name(place), cluster=spec.cluster)
    settle(store, spec.name, where)
    return cluster.put(controller_job(Scene(place=place, cluster=spec.cluster)))


@pytest.fixture
def word(tmp_path, monkeypatch):
    """What a pod that runs ``main`` leaves behind."""
    file = tmp_path / "termination-log"
    file.touch()
    monkeypatch.setattr(logs, "LAST_WORD", file)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda: json.loads(file.read_text())
    signal.signal(signal.SIGTERM, before)


def test_a_run_is_advanced_to_its_end_by_jobs_that_belong_to_the_controller_s(
    cluster, store, started, word
):
    kubelet = Kubelet(cluster, committing_pods(store))
    assert serve.main(store.url, "small") == 0
    kubelet.join()
    assert len(history(store, "small")) == 5
    assert overview(store, "small", now=time.time()).status.phase is Phase.FINISHED
    steps = [
        job for job in cluster.find("Job") if job["metadata"]["name"] != started["metadata"]["name"]
    ]
    owners = {job["metadata"]["ownerReferences"][0]["uid"] for job in steps}
    assert owners == {started["metadata"]["uid"]}


def test_how_the_run_ended_is_the_exit_code_and_the_last_word(cluster, store, started, word):
    Kubelet(
        cluster, lambda running: Ended(code=4, message=last_word("query 7", 4, retriable=False))
    )
    assert serve.main(store.url, "small") == DataError.exit_code
    assert word()["exit_code"] == DataError.exit_code
    assert "query 7" in word()["message"]
    assert not word()["retriable"]


def test_a_cancelled_run_takes_its_jobs_and_its_own_with_it(cluster, store, started, word):
    Kubelet(cluster, until(committing_pods(store), threading.Event()))
    threading.Thread(target=cancel_when_at_work, args=(cluster, store), daemon=True).start()
    assert serve.main(store.url, "small") == Cancelled.exit_code
    assert cluster.wait(lambda: not cluster.find("Job") and not cluster.find("Pod"))
    assert overview(store, "small", now=time.time()).status.phase is Phase.CANCELLED


def cancel_when_at_work(cluster, store):
    cluster.wait(lambda: cluster.find("Pod"))
    request_cancel(store, "small", 0.0)


def test_told_to_go_it_goes_at_once_and_leaves_its_jobs(cluster, store, started, word):
    Kubelet(cluster, until(committing_pods(store), threading.Event()))

    def go():
        if cluster.wait(lambda: cluster.find("Pod")):  # else nobody there heeds the signal
            signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=go, daemon=True).start()
    assert serve.main(store.url, "small") == Preempted.exit_code
    assert word()["retriable"]
    assert len(cluster.find("Job")) == 2


def test_a_defect_keeps_its_traceback_and_is_told(
    cluster, store, started, word, monkeypatch, caplog
):
    def broken(*_):
        raise ZeroDivisionError("never")

    monkeypatch.setattr(serve, "KubernetesExecutor", broken)
    assert serve.main(store.url, "small") == 1
    assert word()["message"] == "a defect in mstar: ZeroDivisionError: never"
    assert "Traceback" in caplog.text


def test_a_run_that_was_never_started_in_a_cluster_says_how_to(cluster, store, word):
    stored_run(store, small_spec())
    assert serve.main(store.url, "small") == NotFound.exit_code
    assert "mstarctl run -f" in word()["message"]


def test_a_controller_without_its_job_says_so(cluster, store, started, word):
    cluster.remove(started)
    assert serve.main(store.url, "small") == ClusterError.exit_code
    assert "is not in namespace ml" in word()["message"]


def test_the_pod_s_environment_says_which_job_and_namespace(
    cluster, store, started, word, monkeypatch
):
    cluster.namespaces.add("other")
    moved = cluster.put(started | {"metadata": {"name": "renamed"}}, "other")
    monkeypatch.setenv("MSTAR_NAMESPACE", "other")
    monkeypatch.setenv("MSTAR_CONTROLLER_JOB", "renamed")
    Kubelet(cluster, committing_pods(store))
    assert serve.main(store.url, "small") == 0
    steps = [job for job in cluster.find("Job", "other") if job["metadata"]["name"] != "renamed"]
    assert len(steps) == 5
    assert steps[0]["metadata"]["ownerReferences"][0]["uid"] == moved["metadata"]["uid"]


def test_a_store_that_fails_for_a_while_is_tried_again(cluster, store, started, word, monkeypatch):
    Kubelet(cluster, committing_pods(store))
    real, failures = FolderStore.put, iter(range(6))

    def put(self, key, data):
        if "/status" in key and next(failures, None) is not None:
            raise StorageError("the bucket does not answer")
        real(self, key, data)

    monkeypatch.setattr(FolderStore, "put", put)
    assert serve.main(store.url, "small") == 0
    assert len(history(store, "small")) == 5


def test_an_api_that_fails_for_a_while_is_tried_again(cluster, store, started, word):
    Kubelet(cluster, committing_pods(store))
    cluster.fail("GET|POST|DELETE", 503, times=4)
    cluster.fail("POST", 500, times=2)
    assert serve.main(store.url, "small") == 0


def test_a_lease_of_a_controller_that_was_killed_is_waited_for(
    cluster, store, started, word, monkeypatch
):
    Kubelet(cluster, committing_pods(store))
    killed = this_process("killed with its node")
    vanished = killed.__class__(
        id=killed.id, host="other", pid=1, started="then", pid_space="of another machine"
    )
    late = time.time() - LEASE_SECONDS + 1.0
    acquire(store, "small", clock=lambda: late, identity=vanished, ttl=LEASE_SECONDS)
    assert serve.main(store.url, "small") == 0


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("error", [StorageError("gone"), ConflictError("held")])
def test_an_error_that_may_pass_is_waited_out_and_then_raised(error, monkeypatch):
    monkeypatch.setattr(serve, "PAUSE_SECONDS", 0.0)
    clock, tries = Clock(), []

    def do():
        tries.append(clock.now)
        clock.now += 4.0
        raise error

    with pytest.raises(type(error)):
        patiently(do, threading.Event(), clock=clock, seconds=10)
    assert tries == [0, 4, 8, 12]


def test_patience_is_new_after_it_worked_for_a_while(monkeypatch):
    monkeypatch.setattr(serve, "PAUSE_SECONDS", 0.0)
    clock, lasting = Clock(), iter([100.0, 1.0, 500.0, 1.0])

    def do():
        for seconds in lasting:
            clock.now += seconds
            raise StorageError("gone")
        return "done"

    assert patiently(do, threading.Event(), clock=clock, seconds=10) == "done"


def test_an_error_that_stays_is_raised_at_once():
    def do():
        raise DataError("wrong")

    with pytest.raises(DataError):
        patiently(do, threading.Event())


def test_told_to_go_nothing_is_tried_again():
    def do():
        raise StorageError("gone")

    with pytest.raises(KeyboardInterrupt):
        patiently(do, NOW)


def test_where_a_run_was_started_is_read_back(store):
    assert settled(store, "small") is None
    block = Cluster.model_validate({"images": {"tag": "9"}, "queue": {"name": "research"}})
    where = Settled(namespace="ml", job="job", cluster=block)
    settle(store, "small", where)
    assert settled(store, "small") == where


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"namespace": "a", "job": "b", "cluster": {"x": 1}}']
)
def test_a_damaged_note_of_where_a_run_was_started_is_named(store, text):
    store.put("runs/small/place.json", text)
    with pytest.raises(IntegrityError, match=r"runs/small/place\.json"):
        settled(store, "small")
