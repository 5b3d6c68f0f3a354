"""Runs in a cluster from a laptop: how they are followed, cancelled, and gone on with."""

import json
import threading

from mstarctl import cluster as command
from mstarctl import following

from mstar import errors
from mstar.controller.status import Phase, read_status
from mstar.history import load_history
from mstar.storage import keys
from tests import fake_api
from tests.cli.conftest import controlling, install
from tests.cli.seen import job_of, pull_fails, refused
from tests.executors.making import committing_pods, until
from tests.fake_kubelet import Ended, Kubelet, last_word


def test_status_says_why_no_controller_works_yet(mstarctl, spec, cluster, store):
    mstarctl("run", "-f", spec())
    out = mstarctl("status", "small", "-s", store.url)[1]
    assert "run small: waiting" in out
    assert "controller: its pods are being made" in out
    pull_fails(cluster, job_of(store))
    out = mstarctl("status", "small", "-s", store.url)[1]
    assert (
        "controller: image pull: localhost/mstar-controller:9 cannot be had: no such image" in out
    )


def test_status_without_the_cluster_tells_what_the_store_knows(
    mstarctl, spec, cluster, store, monkeypatch, tmp_path
):
    mstarctl("run", "-f", spec())
    cluster.down()
    code, out, _ = mstarctl("status", "small", "-s", store.url)
    assert code == 0
    assert "run small: stopped" in out
    assert "cannot be asked" in out
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    code, out, _ = mstarctl("status", "small", "-s", store.url)
    assert (code, "cannot be asked" in out) == (0, False)


def test_a_controller_that_failed_is_a_failed_run_with_its_code(mstarctl, spec, cluster, store):
    word = last_word("no bucket runs", 17, retriable=False)
    kubelet = Kubelet(cluster, lambda running: Ended(code=17, message=word))
    mstarctl("run", "-f", spec())
    kubelet.join()
    found = json.loads(mstarctl("status", "small", "-s", store.url, "-o", "json")[1])
    assert found["status"]["phase"] == "failed"
    assert "its controller failed: pod" in found["status"]["why"]
    code, _, said = mstarctl("wait", "small", "-s", store.url)
    assert code == errors.StoreRefused.exit_code
    assert "no bucket runs" in said


def test_waiting_ends_as_the_run_ends(mstarctl, spec, kubelet, store):
    word = last_word("query 7: the image is corrupt", 4, retriable=False)
    kubelet.work = controlling(lambda running: Ended(code=4, message=word))
    code, _, said = mstarctl("run", "-f", spec(), "--wait")
    assert code == errors.DataError.exit_code
    assert "query 7: the image is corrupt" in said
    assert mstarctl("wait", "small", "-s", store.url)[0] == errors.DataError.exit_code
    kubelet.work = controlling(committing_pods(store))
    assert mstarctl("resume", "small", "-s", store.url, "--wait")[0] == 0
    assert mstarctl("wait", "small", "-s", store.url)[0] == 0


def test_waiting_bears_with_trouble_that_passes(
    mstarctl, spec, kubelet, cluster, store, monkeypatch
):
    gate = threading.Event()
    kubelet.work = controlling(until(committing_pods(store), gate))
    mstarctl("run", "-f", spec())
    troubles = iter([errors.StorageError("the bucket does not answer")] * 3)
    real = following.explained

    def explained(*arguments):
        for trouble in troubles:
            raise trouble
        gate.set()
        return real(*arguments)

    monkeypatch.setattr(following, "explained", explained)
    assert mstarctl("wait", "small", "-s", store.url)[0] == 0


def test_waiting_for_a_run_that_nobody_works_on_ends(mstarctl, spec, cluster, store, monkeypatch):
    monkeypatch.setattr(following, "STOPPED_SECONDS", 0.1)
    mstarctl("run", "-f", spec())
    cluster.remove(cluster.get("Job", job_of(store)))
    code, _, said = mstarctl("wait", "small", "-s", store.url)
    assert code == errors.WorkerLost.exit_code
    assert "mstarctl resume small" in said


def test_cancelling_leaves_nothing_and_resuming_finishes(mstarctl, spec, kubelet, cluster, store):
    gate = threading.Event()
    kubelet.work = controlling(until(committing_pods(store), gate))
    mstarctl("run", "-f", spec())
    assert cluster.wait(lambda: len(cluster.find("Pod")) == 2)
    code, out, said = mstarctl("cancel", "small", "-s", store.url)
    assert code == 0, said
    assert "it has no Job and no pod left in namespace ml" in out
    assert cluster.find("Job") == cluster.find("Pod") == []
    assert mstarctl("wait", "small", "-s", store.url)[0] == errors.Cancelled.exit_code
    assert "run small: cancelled" in mstarctl("status", "small", "-s", store.url)[1]
    gate.set()
    code, out, said = mstarctl("resume", "small", "-s", store.url, "--wait")
    assert code == 0, said
    assert len(load_history(store, "small")) == 5
    assert cluster.find("Job")
    assert "there is nothing to cancel" in mstarctl("cancel", "small", "-s", store.url)[1]
    assert cluster.find("Job") == cluster.find("Pod") == []


def test_a_run_without_a_living_controller_is_cancelled_by_the_command(
    mstarctl, spec, cluster, store
):
    mstarctl("run", "-f", spec())
    pull_fails(cluster, job_of(store))
    orphan = cluster.find("Pod")[0]
    orphan["metadata"] = {k: v for k, v in orphan["metadata"].items() if k != "ownerReferences"}
    orphan["metadata"]["name"] = "orphan"
    cluster.put(orphan)
    code, _, said = mstarctl("cancel", "small", "-s", store.url)
    assert code == 0, said
    assert cluster.find("Job") == cluster.find("Pod") == []
    status = read_status(store, "small")
    assert status is not None
    assert (status.phase, status.exit_code) == (Phase.CANCELLED, errors.Cancelled.exit_code)


def test_a_cancel_that_cannot_be_seen_through_is_noted_all_the_same(mstarctl, spec, cluster, store):
    mstarctl("run", "-f", spec())
    cluster.down()
    refused(
        mstarctl("cancel", "small", "-s", store.url),
        errors.ClusterUnreachable,
        "run small is asked to stop, but whether it has cannot be seen",
    )
    assert store.size(keys.cancel("small")) is not None


def test_what_does_not_go_away_is_named(mstarctl, spec, cluster, store, monkeypatch):
    monkeypatch.setattr(command, "GONE_SECONDS", 0.1)
    mstarctl("run", "-f", spec())
    pull_fails(cluster, job_of(store))
    cluster.stop_pod = lambda pod: False
    refused(
        mstarctl("cancel", "small", "-s", store.url), errors.ClusterError, "still there", "-abcde"
    )


def test_a_run_goes_on_in_another_cluster(
    mstarctl, spec, kubelet, cluster, store, monkeypatch, tmp_path
):
    gate = threading.Event()
    commit = committing_pods(store)

    def stages(running):
        return until(commit, gate)(running) if "-0003-" in running.name else commit(running)

    kubelet.work = controlling(stages)
    mstarctl("run", "-f", spec())
    assert cluster.wait(
        lambda: any("-0003-" in pod["metadata"]["name"] for pod in cluster.find("Pod"))
    )
    before = load_history(store, "small")
    cluster.delete(cluster.get("Job", job_of(store)), "Background")  # the first cluster is given up
    kubelet.join()
    folder = tmp_path / "second"
    folder.mkdir()
    with fake_api.running() as second:
        install(second)
        monkeypatch.setenv("KUBECONFIG", str(second.kubeconfig(folder)))
        other = Kubelet(second, controlling(commit))
        code, _, said = mstarctl("resume", "small", "-s", store.url, "--wait")
        assert code == 0, said
        other.join()
        assert len(second.find("Job")) == 1 + 5 - len(before)
    assert load_history(store, "small")[: len(before)] == before
    assert len(load_history(store, "small")) == 5


def test_a_controller_that_ended_makes_room_and_its_live_steps_are_gone_on_with(
    mstarctl, spec, kubelet, cluster, store
):
    gate = threading.Event()
    kubelet.work = controlling(until(committing_pods(store), gate))
    mstarctl("run", "-f", spec())
    assert cluster.wait(lambda: len(cluster.find("Job")) == 2)
    assert cluster.wait(lambda: len(kubelet.runs) == 2)
    job = cluster.get("Job", job_of(store))
    (step,) = [each for each in cluster.find("Job") if each["metadata"]["name"] != job_of(store)]
    stages, word = kubelet.work, last_word("no bucket", 17, retriable=False)
    kubelet.work = lambda running: Ended(code=17, message=word)  # its next controller
    (pod,) = [each for each in cluster.find("Pod") if "controller" in each["metadata"]["name"]]
    kubelet._live[pod["metadata"]["uid"]].stopping.set()
    assert cluster.wait(lambda: ended(cluster.get("Job", job_of(store))))
    kubelet.work = stages
    assert mstarctl("resume", "small", "-s", store.url)[0] == 0
    assert cluster.get("Job", job_of(store))["metadata"]["uid"] != job["metadata"]["uid"]
    gate.set()
    assert mstarctl("wait", "small", "-s", store.url)[0] == 0
    assert (
        cluster.get("Job", step["metadata"]["name"])["metadata"]["uid"] == step["metadata"]["uid"]
    )
    assert kubelet.runs.count((step["metadata"]["name"], 0)) == 1


def ended(job):
    return any(each["type"] == "Failed" for each in job.get("status", {}).get("conditions", ()))


def test_logs_are_shown_while_pods_work_and_when_they_are_gone(
    mstarctl, spec, kubelet, cluster, store
):
    gate = threading.Event()
    commit = committing_pods(store)

    def stages(running):
        cluster.logs[running.name] = f"{running.name} speaks\n"
        return until(commit, gate)(running)

    kubelet.work = controlling(stages)
    mstarctl("run", "-f", spec())
    assert cluster.wait(lambda: cluster.logs)
    code, out, _ = mstarctl("logs", "small", "iter-00/evaluate", "-s", store.url)
    assert code == 0
    assert "speaks" in out
    refused(mstarctl("logs", "small", "iter-09/train", "-s", store.url), errors.NotFound)
    gate.set()
    mstarctl("wait", "small", "-s", store.url)
    for job in cluster.find("Job"):
        cluster.remove(job)
    cluster.down()
    code, out, _ = mstarctl("logs", "small", "iter-00/evaluate", "-s", store.url)
    assert code == 0
    assert "speaks" in out
    found = json.loads(mstarctl("logs", "small", "-s", store.url, "-o", "json")[1])
    assert len(found) == 5


def test_a_run_in_a_folder_cannot_go_on_in_a_cluster(mstarctl, spec, cluster, tmp_path):
    file = spec(store=str(tmp_path / "here"))
    assert mstarctl("upload", "-f", file)[0] == 0
    result = mstarctl("resume", "small", "-s", tmp_path / "here", "--cluster")
    refused(result, errors.SpecError, "which no pod can read")


def test_a_run_that_is_not_there_is_not_found(mstarctl, cluster, store, bucket):
    for verb in ("status", "wait", "cancel", "resume", "logs"):
        for name in ("nobody", "../nobody"):
            refused(mstarctl(verb, name, "-s", bucket), errors.NotFound, f"no run '{name}'")
