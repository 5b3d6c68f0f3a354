"""Jobs outlive their controller: they are found again, adopted or refused, and gone when they are to be gone."""

import threading
import time

import pytest

from mstar.cluster import Cluster
from mstar.errors import ClusterError, ClusterUnreachable, ConflictError, StorageError
from mstar.executors.base import ABSENT, Found, State
from mstar.executors.k8s.api import AlreadyThere
from mstar.executors.k8s.names import Place, job_name
from mstar.tasks import task_hash
from tests.executors.following import ended, sees
from tests.executors.making import api, committing_pods, job, until
from tests.fake_cluster import LOSE
from tests.fake_kubelet import Ended, Kubelet

GANG = Cluster.model_validate({"stages": {"train": {"nodes": 2, "execution": {"deepspeed": {}}}}})


def test_a_restarted_controller_finds_the_attempt_and_goes_on_with_it(cluster, store, executors):
    gate = threading.Event()
    Kubelet(cluster, until(committing_pods(store), gate))
    first = executors()
    wanted = job(store, number=2)
    name = first.submit(wanted)
    first.close()
    second = executors()
    identity = task_hash(wanted.task)
    assert second.find(wanted.index, identity) == Found(name=name, number=2)
    assert second.find(wanted.index + 1, identity) is None
    assert second.find(wanted.index, "another task") is None
    assert executors(run="another").find(wanted.index, identity) is None
    assert second.observe(name).state is State.RUNNING
    gate.set()
    assert ended(second, name).state is State.SUCCEEDED


def test_the_newest_attempt_is_found_and_none_that_is_being_deleted(cluster, store, executors):
    first = executors()
    for number in (1, 10, 9):
        first.submit(job(store, number=number))
    wanted = job(store)
    identity = task_hash(wanted.task)
    found = executors().find(wanted.index, identity)
    assert found is not None
    assert found.number == 10
    cluster.stop_pod = lambda pod: False
    doomed = cluster.get("Job", found.name)
    cluster.put(
        {
            "kind": "Pod",
            "metadata": {
                "name": "holds",
                "labels": {},
                "ownerReferences": [{"uid": doomed["metadata"]["uid"], "blockOwnerDeletion": True}],
            },
        }
    )
    cluster.delete(doomed, "Foreground")
    assert executors().find(wanted.index, identity).number == 9


def test_an_answer_that_was_lost_makes_no_second_job(cluster, store, executors, kubelet):
    ours = executors()
    cluster.fail("POST", LOSE)
    assert ended(ours, ours.submit(job(store))).state is State.SUCCEEDED
    assert len(cluster.find("Job")) == 1


def test_a_job_of_somebody_else_is_left_alone_and_named(cluster, store, executors):
    name = job_name(Place(run="small", store=store.url), 1, 1)
    cluster.put({"kind": "Job", "metadata": {"name": name, "labels": {}}, "spec": {}})
    with pytest.raises(
        ConflictError, match=f"a Job {name} is in namespace ml that this run did not"
    ):
        executors().submit(job(store))
    assert len(cluster.find("Job")) == 1


def test_a_live_job_of_ours_for_another_task_is_left_alone(cluster, store, executors):
    ours = executors()
    name = ours.submit(job(store))
    other = cluster.get("Job", name)
    other["metadata"]["annotations"]["mstar.dev/task"] = "another"
    cluster.change(other, metadata=other["metadata"])
    with pytest.raises(ConflictError, match="it does warm-up/generate"):
        executors().submit(job(store))


def test_an_ended_job_of_a_removed_run_makes_room_and_is_not_taken_for_the_new_one(
    cluster, store, executors
):
    gate = threading.Event()
    kubelet = Kubelet(cluster, until(committing_pods(store), gate))
    ours = executors()
    name = ours.submit(job(store))
    old = cluster.get("Job", name)
    old["metadata"]["annotations"]["mstar.dev/task"] = "another"
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    cluster.change(old, metadata=old["metadata"], status=done)
    sees(ours, name, lambda found: found.state is State.SUCCEEDED)
    assert ours.submit(job(store)) == name
    for _ in range(20):
        assert ours.observe(name).state is State.RUNNING
        time.sleep(0.01)
    gate.set()
    assert ended(ours, name).state is State.SUCCEEDED
    assert cluster.get("Job", name)["metadata"]["uid"] != old["metadata"]["uid"]
    kubelet.join()


def test_a_job_that_is_being_deleted_is_waited_for_and_made_again(cluster, store, executors):
    ending = threading.Event()

    def work(running):
        running.stopping.wait(120)
        ending.set()
        time.sleep(0.1)
        return Ended(code=143)

    Kubelet(cluster, work)
    first = executors()
    name = first.submit(job(store))
    sees(first, name, lambda found: not found.waiting)
    uid = cluster.get("Job", name)["metadata"]["uid"]
    deletion = threading.Thread(target=first.delete, args=(name,), daemon=True)
    deletion.start()
    assert ending.wait(120)
    second = executors()
    assert second.submit(job(store)) == name
    assert cluster.get("Job", name)["metadata"]["uid"] != uid
    deletion.join(120)  # what another made of that name meanwhile is not waited for
    assert not deletion.is_alive()


def test_a_job_that_is_gone_just_when_it_is_adopted_is_made_again(
    cluster, store, executors, monkeypatch
):
    ours = executors()
    name = ours.submit(job(store))
    old, real = cluster.get("Job", name), ours._api.get

    def ended_just_now(*asked):
        if cluster.get("Job", name) == old:
            cluster.remove(old)
        return real(*asked)

    monkeypatch.setattr(ours._api, "get", ended_just_now)
    assert ours.submit(job(store)) == name
    assert cluster.get("Job", name)["metadata"]["uid"] != old["metadata"]["uid"]
    assert ours.observe(name).state is State.RUNNING


def test_a_job_that_comes_and_goes_is_an_error_that_says_so(cluster, store, executors, monkeypatch):
    def there(*_, **__):
        raise AlreadyThere("exists")

    ours = executors()
    monkeypatch.setattr(ours._api, "create", there)
    with pytest.raises(ClusterError, match="is there again; try again"):
        ours.submit(job(store))


def test_a_job_that_somebody_deletes_is_absent(cluster, store, executors):
    ours = executors()
    name = ours.submit(job(store))
    assert ours.observe(name).state is State.RUNNING
    cluster.remove(cluster.get("Job", name))
    sees(ours, name, lambda found: found == ABSENT)


def test_what_the_mirror_does_not_know_yet_is_not_taken_for_gone(cluster, store, executors):
    ours = executors()
    name = ours.submit(job(store))
    with ours._mirror.changed:
        ours._mirror._objects["Job"].clear()  # listed anew, from before it was made
    assert ours.observe(name).state is State.RUNNING


def test_delete_returns_when_the_pods_are_gone(cluster, store, executors):
    gone = []

    def work(running):
        running.stopping.wait(120)
        time.sleep(0.2)  # it leaves a checkpoint
        gone.append(running.index)
        return Ended(code=14)

    kubelet = Kubelet(cluster, work)
    ours = executors()
    name = ours.submit(job(store, shards=1))
    sees(ours, name, lambda found: not found.waiting)
    ours.delete(name)
    assert gone == [0]
    assert cluster.find("Pod") == cluster.find("Job") == []
    assert ours.observe(name) == ABSENT
    kubelet.join()


def test_pods_that_do_not_end_are_named_with_what_helps(cluster, store, executors):
    now = [0.0]
    ours = executors(clock=lambda: now[0])
    stuck = threading.Event()
    Kubelet(cluster, until(committing_pods(store), stuck)).cluster.stop_pod = lambda pod: False
    name = ours.submit(job(store))
    sees(ours, name, lambda found: not found.waiting)
    ours._mirror.wait = lambda *_, **__: now.__setitem__(0, now[0] + 100)
    with pytest.raises(
        ClusterError, match=rf"{name} in namespace ml is still ending after 300 s.*--force"
    ):
        ours.delete(name)
    cluster.down()
    ours._api._patience = 0.0
    with pytest.raises(ClusterUnreachable):
        ours._wait_gone(lambda: False, name)
    stuck.set()


def test_delete_all_takes_every_step_of_the_run_and_nothing_else(cluster, store, executors):
    ours = executors()
    for step, number in (("warm-up/generate", 1), ("warm-up/score", 1), ("warm-up/score", 2)):
        ours.submit(job(store, step, number=number))
    other = executors(run="other").submit(job(store, run="other"))
    ours.delete_all()
    assert [each["metadata"]["name"] for each in cluster.find("Job")] == [other]
    ours.delete_all()


def test_an_executor_that_cannot_begin_leaves_nothing_that_asks(cluster, executors):
    cluster.denied = {("list", "jobs")}
    with pytest.raises(ClusterError, match="cannot list"):
        executors()
    time.sleep(0.2)
    calls = cluster.calls.total()
    time.sleep(0.3)
    assert cluster.calls.total() <= calls + 1


def test_an_api_that_goes_away_for_a_while_costs_no_attempt(cluster, store, executors):
    gate = threading.Event()
    Kubelet(cluster, until(committing_pods(store), gate))
    ours = executors(api=api(cluster, patience=120))
    name = ours.submit(job(store))
    sees(ours, name, lambda found: not found.waiting)
    cluster.down()
    for _ in range(5):
        assert ours.observe(name).state is State.RUNNING
    gate.set()
    cluster.up()
    assert ended(ours, name).state is State.SUCCEEDED


def test_a_request_that_cannot_be_stored_makes_no_job(cluster, store, executors, monkeypatch):
    def full(*_):
        raise StorageError("the bucket is full")

    ours = executors()
    monkeypatch.setattr(store, "put", full)
    with pytest.raises(StorageError):
        ours.submit(job(store))
    assert cluster.find("Job") == []
