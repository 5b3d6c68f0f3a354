"""Attempts as Jobs: what is made, watched, told, asked for and kept of them."""

import json
import threading

import pytest

from mstar.cluster import Cluster
from mstar.errors import WorkerLost
from mstar.executors.base import ABSENT, State
from mstar.executors.k8s import executor as module
from mstar.executors.k8s.names import Place
from mstar.executors.k8s.render import Owner, request_key
from mstar.storage import keys
from tests.executors.following import ended, sees
from tests.executors.making import committing_pods, job, until
from tests.fake_kubelet import Ended, Kubelet, last_word

GANG = Cluster.model_validate({"stages": {"train": {"nodes": 2, "execution": {"deepspeed": {}}}}})


def test_an_attempt_is_a_job_with_its_request_beside_the_run(cluster, store, executors, kubelet):
    ours = executors(owner=Owner(name="controller", uid="c"))
    wanted = job(store, shards=3)
    name = ours.submit(wanted)
    assert ended(ours, name).state is State.SUCCEEDED
    assert sorted(kubelet.runs) == [(name, 0), (name, 1), (name, 2)]
    place = Place(run="small", store=store.url)
    request = json.loads(store.get(request_key(place, wanted)))
    assert request["attempt"] == "1-1"
    assert request["execution"]["shards"] == 3
    assert cluster.find("Job")[0]["metadata"]["ownerReferences"][0]["uid"] == "c"


def test_every_machine_of_a_gang_is_told_all_that_training_is_to_be_done_with(
    cluster, store, executors
):
    how = {
        "deepspeed": {"processes": 8, "zero_stage": 3, "offload": "parameters"},
        "gradient_checkpointing": True,
        "attention": "flash_attention_2",
        "micro_batch": 2,
    }
    block = {"stages": {"train": {"nodes": 2, "execution": how}}}
    wanted = job(store, "warm-up/train")
    executors(settings=Cluster.model_validate(block)).submit(wanted)
    place = Place(run="small", store=store.url)
    request = json.loads(store.get(request_key(place, wanted)))
    assert {name: request["execution"][name] for name in how} == how
    assert request["task"]["stage"] == "train"


def test_a_gang_has_a_service_that_goes_with_its_job(cluster, store, executors, kubelet):
    ours = executors(settings=GANG)
    name = ours.submit(job(store, "warm-up/train"))
    ended(ours, name)
    (service,) = cluster.find("Service")
    assert service["metadata"]["name"] == name
    ours.delete(name)
    assert cluster.find("Service") == []


def test_submitting_a_gang_again_finds_job_and_service(cluster, store, executors):
    ours = executors(settings=GANG)
    assert ours.submit(job(store, "warm-up/train")) == ours.submit(job(store, "warm-up/train"))
    assert len(cluster.find("Job")) == len(cluster.find("Service")) == 1


def test_a_failed_shard_is_tried_again_by_the_job_and_then_fails_the_attempt(
    cluster, store, executors
):
    def work(running):
        if running.index != 1:
            return committing_pods(store)(running)
        return Ended(code=7, message=last_word("the bucket is gone", 7, retriable=True))

    kubelet = Kubelet(cluster, work)
    kubelet.told_to_go = Ended(code=14, message=last_word("asked to stop", 14, retriable=True))
    ours = executors()
    name = ours.submit(job(store, shards=3, tries=2))
    found = ended(ours, name)
    assert found.message.startswith(
        "it failed 2 times, as often as limits.attempts allows; shard 1"
    )
    assert not found.retriable
    assert not found.excused
    assert kubelet.runs.count((name, 1)) == 2


def test_a_job_that_failed_without_a_pod_tells_the_last_warning(cluster, store, executors):
    ours = executors()
    name = ours.submit(job(store))
    made = cluster.get("Job", name)
    cluster.event(made, "FailedCreate", "the webhook says no")
    over = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    cluster.change(made, status={"conditions": [over]})
    assert ended(ours, name).message == "the Job failed: too long (the webhook says no)"


def test_a_mistake_in_the_data_fails_the_job_at_once(cluster, store, executors):
    kubelet = Kubelet(
        cluster, lambda running: Ended(code=4, message=last_word("query 7", 4, retriable=False))
    )
    ours = executors()
    name = ours.submit(job(store, shards=3, tries=3))
    assert (ended(ours, name).exit_code, len(kubelet.runs)) == (4, 1)


def test_a_job_that_is_heard_to_have_failed_before_its_pods_are_is_still_understood(
    cluster, store, executors
):
    word = last_word("query 7", 4, retriable=False)
    kubelet = Kubelet(cluster, lambda running: Ended(code=4, message=word))
    ours = executors()
    ours._mirror._apply = lambda kind, event, real=ours._mirror._apply: (
        real(kind, event) if kind == "Job" else None
    )
    name = ours.submit(job(store))
    kubelet.join()
    assert ended(ours, name).message.endswith("query 7")


def test_a_disrupted_shard_does_not_use_up_its_tries(cluster, store, executors):
    evictions = iter([Ended(code=143, disruption="EvictionByEvictionAPI")] * 5)
    commit = committing_pods(store)
    kubelet = Kubelet(cluster, lambda running: next(evictions, None) or commit(running))
    ours = executors()
    assert ended(ours, ours.submit(job(store, tries=1))).state is State.SUCCEEDED
    assert len(kubelet.runs) == 6


def test_a_gang_whose_rank_crashes_fails_as_a_whole_and_is_not_excused(cluster, store, executors):
    kubelet = Kubelet(cluster, lambda running: Ended(code=139))
    kubelet.told_to_go = Ended(code=14, message=last_word("asked to stop", 14, retriable=True))
    ours = executors(settings=GANG)
    found = ended(ours, ours.submit(job(store, "warm-up/train")))
    assert (found.exit_code, found.retriable, found.excused) == (WorkerLost.exit_code, True, False)


def test_a_suspended_job_waits_for_its_queue_and_then_works(cluster, store, executors):
    def suspended(body):
        body["spec"]["suspend"] = True  # as Kueue's webhook does

    cluster.admit = suspended
    Kubelet(cluster, committing_pods(store))
    ours = executors(settings=Cluster.model_validate({"queue": {"name": "research"}}))
    name = ours.submit(job(store))
    assert "local queue research" in ours.observe(name).waiting
    held = cluster.get("Job", name)
    cluster.change(held, spec=held["spec"] | {"suspend": False})
    assert ended(ours, name).state is State.SUCCEEDED


def test_events_are_asked_for_only_when_something_has_waited_for_a_while_and_not_each_time(
    cluster, store, executors
):
    now = [0.0]
    ours = executors(clock=lambda: now[0])
    name = ours.submit(job(store))
    made = cluster.get("Job", name)
    cluster.event(made, "FailedCreate", "exceeded quota: gpu, requested: 1, used: 1, limited: 1")
    ours.observe(name)
    assert cluster.calls["GET events"] == 0
    now[0] += module.EVENTS_SECONDS
    for _ in range(50):
        assert "quota: gpu" in ours.observe(name).waiting
    assert cluster.calls["GET events"] == 1
    now[0] += module.EVENTS_SECONDS
    ours.observe(name)
    assert cluster.calls["GET events"] == 2
    work = threading.Event()
    kubelet = Kubelet(cluster, until(committing_pods(store), work))
    kubelet._created(made)
    sees(ours, name, lambda found: not found.waiting)
    asked = cluster.calls["GET events"]
    now[0] += 1000
    for _ in range(50):
        ours.observe(name)
    assert cluster.calls["GET events"] == asked
    work.set()
    ended(ours, name)


def test_events_that_cannot_be_had_are_no_error(cluster, store, executors):
    ours = executors()
    name = ours.submit(job(store))
    cluster.denied = {("list", "events")}
    assert ours.observe(name).waiting == "its pods are being made"


@pytest.mark.parametrize("looks", [1, 200])
def test_calls_for_a_step_are_the_same_however_often_it_is_looked_at(
    cluster, store, executors, looks
):
    gate = threading.Event()
    kubelet = Kubelet(cluster, until(committing_pods(store), gate))
    ours = executors()
    assert cluster.wait(lambda: cluster.calls["WATCH jobs"] and cluster.calls["WATCH pods"])
    before = dict(cluster.calls)
    name = ours.submit(job(store, shards=4))
    assert cluster.wait(lambda: len(cluster.find("Pod")) == 4 and kubelet.runs)
    sees(ours, name, lambda found: not found.waiting)
    for _ in range(looks):
        ours.observe(name)
    gate.set()
    ended(ours, name)
    ours.retire(name)
    made = {key: n - before.get(key, 0) for key, n in cluster.calls.items()}
    made.pop("GET events", None)  # asked until the first pod runs
    assert {key: count for key, count in made.items() if count} == {"POST jobs": 1}


def test_progress_is_the_sum_over_the_shards_and_asked_for_now_and_then(cluster, store, executors):
    now, gate = [0.0], threading.Event()
    Kubelet(cluster, until(committing_pods(store), gate))
    ours = executors(clock=lambda: now[0])
    wanted = job(store, shards=2)
    name = ours.submit(wanted)
    sees(ours, name, lambda found: not found.waiting)
    request = request_key(Place(run="small", store=store.url), wanted)
    for shard, done in ((0, 3), (1, 5)):
        body = json.dumps({"done": done, "total": 8, "unit": "queries"}).encode()
        store.put(keys.pod_progress(request, shard), body)
    now[0] += module.PROGRESS_SECONDS
    found = ours.observe(name)
    assert (found.done, found.total, found.unit) == (8, 16, "queries")
    store.put(keys.pod_progress(request, 0), b"half a wor")
    now[0] += module.PROGRESS_SECONDS
    assert ours.observe(name).done == 8
    gate.set()
    ended(ours, name)
    ours.retire(name)
    left = list(store.list(f"{keys.run('small')}/jobs/{name}"))
    assert left == [request]


def test_logs_are_those_of_all_pods_with_the_failed_ones_first(cluster, store, executors):
    def work(running):
        cluster.logs[running.name] = f"shard {running.index} speaks\n"
        return Ended(code=1 if running.index == 1 else 0)

    Kubelet(cluster, work)
    sidecar = {
        "patch": {"spec": {"containers": [{"name": "stage"}, {"name": "proxy", "image": "p"}]}}
    }
    ours = executors(settings=Cluster.model_validate({"stages": {"generate": sidecar}}))
    name = ours.submit(job(store, shards=2))
    ended(ours, name)
    text = ours.log(name)
    assert text.index("shard 1 speaks") < text.index("shard 0 speaks")
    assert ours.log("nobody") == ""


def test_many_logs_are_cut_to_what_a_person_reads(cluster, store, executors, monkeypatch):
    monkeypatch.setattr(module, "LOGGED_PODS", 2)
    Kubelet(cluster, committing_pods(store))
    ours = executors()
    name = ours.submit(job(store, shards=5))
    ended(ours, name)
    text = ours.log(name)
    assert text.count("--- pod") == 2
    assert "--- 3 more pods" in text


def test_nothing_is_kept_of_steps_that_are_over(cluster, store, executors, kubelet):
    ours = executors()
    for number in range(1, 31):
        name = ours.submit(job(store, number=number))
        ended(ours, name)
        ours.retire(name)
        cluster.remove(cluster.get("Job", name))  # its time to live is over
    assert cluster.wait(lambda: not cluster.find("Pod"))
    mirror = ours._mirror
    with mirror.changed:  # it hears of Jobs and of pods from two watches
        assert mirror.changed.wait_for(lambda: not (mirror.all("Job") or mirror.all("Pod")), 120)
    assert ours.observe(name) == ABSENT
    assert ours._looks == {}
