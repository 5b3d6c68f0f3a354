"""The mirror shows what the cluster has, also after whatever broke between the two."""

import threading
import time

import pytest

from mstar.errors import ClusterError, ClusterUnreachable
from mstar.executors.k8s import watch
from mstar.executors.k8s.watch import Mirror, slim
from tests.executors.making import api
from tests.fake_cluster import CUT, DROP


@pytest.fixture
def mirrors(cluster):
    made = []

    def make(**more):
        found = Mirror(more.pop("api", None) or api(cluster), "run=r")
        made.append(found)
        return found

    yield make
    for each in made:
        each.stop()


def job(name, **more):
    body = {"metadata": {"name": name, "labels": {"run": "r"}}, "spec": {"completions": 1}}
    return {"kind": "Job", **body, **more}


def pod(name, run="r"):
    spec = {"containers": [{"name": "stage", "image": "i", "env": [{"name": "A", "value": "1"}]}]}
    return {"kind": "Pod", "metadata": {"name": name, "labels": {"run": run}}, "spec": spec}


def names(mirror, kind="Job"):
    return sorted(thing["metadata"]["name"] for thing in mirror.all(kind))


def comes_to(mirror, wanted, kind="Job", seconds=120.0):
    """Whether the mirror shows these names in time."""
    with mirror.changed:
        return mirror.changed.wait_for(lambda: names(mirror, kind) == wanted, timeout=seconds)


def synced(mirrors, **more):
    mirror = mirrors(**more)
    mirror.wait_synced(120)
    return mirror


def test_what_was_there_is_listed_and_what_comes_and_goes_is_followed(cluster, mirrors):
    cluster.put(job("before"))
    cluster.put(pod("other", run="another"))
    mirror = synced(mirrors)
    assert names(mirror) == ["before"]
    cluster.put(job("new"))
    cluster.put(pod("p"))
    assert comes_to(mirror, ["before", "new"])
    assert comes_to(mirror, ["p"], "Pod")
    cluster.change(cluster.find("Job")[0], status={"active": 1})
    cluster.remove(cluster.find("Job")[1])
    assert comes_to(mirror, ["before"])
    assert mirror.get("Job", "before")["status"] == {"active": 1}
    assert mirror.get("Job", "new") is None


@pytest.mark.parametrize("trouble", ["410", "a broken line", "an outage", "dropped", "503"])
def test_nothing_is_missed_whatever_breaks_the_watch(cluster, mirrors, trouble):
    mirror = synced(mirrors)
    cluster.put(job("a"))
    assert comes_to(mirror, ["a"])
    if trouble == "410":
        cluster.expire()
    elif trouble == "a broken line":
        cluster.fail("", CUT, times=3)
    elif trouble == "dropped":
        cluster.fail("GET|WATCH", DROP, times=5)
        cluster.expire()
    elif trouble == "503":
        cluster.fail("GET|WATCH", 503, times=5)
        cluster.expire()
    else:
        cluster.down()
    cluster.put(job("b"))
    cluster.remove(cluster.find("Job")[0])
    cluster.put(job("c"))
    cluster.up() if cluster.server is None else None
    assert comes_to(mirror, ["b", "c"])


def test_bookmarks_move_the_version_so_that_a_quiet_watch_is_not_too_old(cluster, mirrors):
    mirror = synced(mirrors, api=api(cluster))
    version = mirror.version
    cluster.bookmark()
    cluster.put({"kind": "Service", "metadata": {"name": "noise"}})
    time.sleep(0.1)
    assert mirror.version == version
    assert cluster.calls["GET jobs"] == 1


def test_a_watch_that_ends_as_it_should_is_taken_up_where_it_ended(cluster, mirrors, monkeypatch):
    monkeypatch.setattr(watch, "WATCH_SECONDS", 1)
    mirror = synced(mirrors)
    assert cluster.wait(lambda: cluster.calls["WATCH jobs"] >= 2)
    cluster.put(job("a"))
    assert comes_to(mirror, ["a"])
    assert cluster.calls["GET jobs"] == 1


def test_a_watch_that_something_ends_at_once_is_not_asked_in_a_hurry(cluster, mirrors, monkeypatch):
    monkeypatch.setattr(watch, "WATCH_SECONDS", 0)
    began = time.monotonic()
    synced(mirrors)
    time.sleep(1.5)
    asked = cluster.calls["WATCH jobs"]
    assert 1 <= asked <= 2 + (time.monotonic() - began)  # once a second


def test_what_a_watch_should_never_send_ends_nothing(cluster, mirrors, monkeypatch):
    ours = api(cluster)
    real, odd = ours.watch, iter([ValueError("no JSON"), KeyError("metadata")])

    def strange(*arguments):
        for error in odd:
            raise error
        yield from real(*arguments)

    monkeypatch.setattr(ours, "watch", strange)
    mirror = synced(mirrors, api=ours)
    cluster.put(job("a"))
    assert comes_to(mirror, ["a"])


def test_one_who_may_not_list_hears_it_at_once(cluster, mirrors):
    cluster.denied = {("list", "pods")}
    with pytest.raises(ClusterError, match="cannot list"):
        mirrors().wait_synced(120)


def test_a_cluster_that_lists_nothing_in_time_does_not_answer(cluster, mirrors):
    cluster.fail("GET", 503, times=10**6)
    with pytest.raises(ClusterUnreachable, match="did not list its Jobs and pods within"):
        mirrors(api=api(cluster, patience=60)).wait_synced(0.2)


def test_an_object_that_was_just_made_is_there_before_the_watch_tells(cluster, mirrors):
    mirror = synced(mirrors)
    made = cluster.put(job("a"))
    mirror.put(made)
    assert "a" in names(mirror)


def test_what_was_put_is_not_older_than_what_the_watch_told(cluster, mirrors):
    mirror = synced(mirrors)
    made = cluster.put(job("a"))
    cluster.change(made, status={"active": 1})
    with mirror.changed:
        assert mirror.changed.wait_for(lambda: (mirror.get("Job", "a") or {}).get("status"), 120)
    mirror.put(made)
    assert mirror.get("Job", "a")["status"] == {"active": 1}


def test_late_word_of_an_older_object_s_end_leaves_the_new_one(mirrors):
    mirror = synced(mirrors)
    old = job("a") | {"metadata": {"name": "a", "uid": "old", "labels": {}}}
    new = job("a") | {"metadata": {"name": "a", "uid": "new", "labels": {}}}
    mirror.put(old)
    mirror.put(new)
    assert mirror.get("Job", "a")["metadata"]["uid"] == "new"
    mirror._apply("Job", {"type": "DELETED", "object": old})
    assert mirror.get("Job", "a")["metadata"]["uid"] == "new"
    mirror._apply("Job", {"type": "DELETED", "object": new})
    assert mirror.get("Job", "a") is None


def test_waiting_ends_at_a_change_since_the_version_that_was_seen(mirrors, cluster):
    mirror = synced(mirrors)
    seen = mirror.version
    cluster.put(job("a"))
    assert comes_to(mirror, ["a"])
    began = time.monotonic()
    mirror.wait(240, since=seen)
    assert time.monotonic() - began < 120


def test_it_keeps_only_what_exists_and_of_that_only_what_is_asked_about(cluster, mirrors):
    mirror = synced(mirrors)
    for index in range(50):
        made = cluster.put(pod(f"p-{index}"))
        cluster.remove(made)
    cluster.put(pod("last"))
    assert comes_to(mirror, ["last"], "Pod")
    (kept,) = mirror.all("Pod")
    assert kept["spec"]["containers"] == [{"name": "stage", "image": "i", "resources": {}}]
    assert mirror.all("Job") == []


def test_slim_keeps_what_diagnosis_asks_about():
    thing = job("a", status={"conditions": [], "failedIndexes": "1"})
    thing["spec"] |= {"suspend": True, "template": {"spec": {}}}
    thing["metadata"] |= {"uid": "u", "annotations": {"x": "y"}, "managedFields": [{}]}
    kept = slim(thing)
    assert kept["spec"] == {"suspend": True, "completions": 1}
    assert kept["status"] == {"conditions": [], "failedIndexes": "1"}
    assert "managedFields" not in kept["metadata"]


def test_a_stopped_mirror_leaves_no_thread_that_asks(cluster, mirrors):
    others = set(threading.enumerate())
    mirror = synced(mirrors)
    ours = [each for each in threading.enumerate() if each not in others and "_follow" in each.name]
    assert len(ours) == 2
    mirror.stop()
    cluster.put(job("a"))
    cluster.put(pod("p"))  # each watch sees that it is of no more use
    for each in ours:
        each.join(120)
    assert not any(each.is_alive() for each in ours)
