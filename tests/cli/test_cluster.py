"""Runs in a cluster from a laptop: what is checked before anything is made, what is made, and how it is followed."""

import json
import threading

import pytest
import yaml
from mstarctl import cluster as command

from mstar import errors
from mstar.controller.place import settled
from mstar.controller.status import Phase, read_status
from mstar.executors.k8s.names import Place, controller_name
from mstar.history import load_history, run_names
from mstar.storage import keys
from tests import fake_api
from tests.cli.conftest import controlling, install
from tests.executors.making import committing_pods, until
from tests.fake_cluster import LOSE, Refused
from tests.fake_kubelet import Ended, Kubelet, last_word


def refused(result, error, *words):
    """The command ended with the error's code and one message that has these words."""
    code, _, said = result
    assert code == error.exit_code, said
    assert said.startswith("mstarctl: "), said
    for word in words:
        assert word in said


def job_of(store, name="small"):
    return controller_name(Place(run=name, store=store.url))


def pull_fails(cluster, name):
    """The controller's pod cannot have its image."""
    made = cluster.get("Job", name)
    pod = {
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-abcde",
            "labels": made["metadata"]["labels"] | {"batch.kubernetes.io/job-name": name},
            "ownerReferences": [
                {"uid": made["metadata"]["uid"], "blockOwnerDeletion": True, "kind": "Job"}
            ],
        },
        "spec": made["spec"]["template"]["spec"] | {"nodeName": "node-1"},
        "status": {
            "phase": "Pending",
            "containerStatuses": [
                {
                    "name": "stage",
                    "image": "localhost/mstar-controller:9",
                    "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}},
                }
            ],
        },
    }
    cluster.put(pod)


def test_a_run_is_started_followed_to_its_end_and_told_step_by_step(mstarctl, spec, kubelet, store):
    code, out, said = mstarctl("run", "-f", spec(), "--wait")
    assert code == 0, said
    assert f"run small is under way: Job {job_of(store)} in namespace ml" in out
    assert "run small: finished, 5 of 5 steps done" in out
    for name in ("iter-01/generate", "iter-01/score", "iter-01/train", "iter-01/evaluate"):
        assert name in said
    assert len(load_history(store, "small")) == 5
    code, out, _ = mstarctl("status", "small", "-s", store.url, "-o", "json")
    assert json.loads(out)["status"]["phase"] == "finished"


def test_a_finished_run_that_is_started_again_ends_at_once(mstarctl, spec, kubelet, store):
    assert mstarctl("run", "-f", spec(), "--wait")[0] == 0
    pods = len(kubelet.runs)
    code, out, _ = mstarctl("run", "-f", spec(), "--wait", "-o", "json")
    assert code == 0
    assert [json.loads(line)["started"] for line in out.splitlines()[:1]] == [True]
    assert len(kubelet.runs) == pods + 1  # the controller looks, and has nothing to do


def test_starting_twice_starts_once(mstarctl, spec, cluster, store):
    assert mstarctl("run", "-f", spec())[0] == 0
    code, out, _ = mstarctl("run", "-f", spec())
    assert code == 0
    assert "run small is already at work" in out
    assert len(cluster.find("Job")) == 1


def test_an_answer_that_is_lost_while_the_controller_is_made_is_no_error(mstarctl, spec, cluster):
    cluster.fail(
        r"POST /apis/batch/v1/namespaces/ml/jobs\?fieldManager=mstar&fieldValidation=Strict$", LOSE
    )
    code, out, said = mstarctl("run", "-f", spec())
    assert code == 0, said
    assert "under way" in out
    assert len(cluster.find("Job")) == 1


def test_a_controller_that_is_refused_leaves_a_run_that_can_be_started(
    mstarctl, spec, cluster, store
):
    jobs = iter(range(5))  # what the server's dry run asks about passes

    def admit(body):
        if body["kind"] == "Job" and next(jobs, None) is None:
            raise Refused(403, "exceeded quota: jobs, requested: count/jobs.batch=1")

    cluster.admit = admit
    refused(mstarctl("run", "-f", spec()), errors.ClusterError, "exceeded quota: jobs")
    cluster.admit = lambda body: None
    assert mstarctl("resume", "small", "-s", store.url)[0] == 0


PREFLIGHT = {
    "no namespace": (
        lambda c: c.namespaces.clear(),
        errors.ClusterError,
        ["there is no namespace ml", "helm install"],
    ),
    "may not create": (
        lambda c: c.denied.add(("create", "jobs")),
        errors.ClusterError,
        ["you may not create Jobs in namespace ml", "-n"],
    ),
    "may not list": (
        lambda c: c.denied.add(("list", "jobs")),
        errors.ClusterError,
        ["you may not list Jobs"],
    ),
    "no service account": (
        lambda c: c.remove(c.get("ServiceAccount", "mstar-stage")),
        errors.ClusterError,
        ["no ServiceAccount mstar-stage in namespace ml", "install the chart"],
    ),
    "no controller account": (
        lambda c: c.remove(c.get("ServiceAccount", "mstar-controller")),
        errors.ClusterError,
        ["no ServiceAccount mstar-controller"],
    ),
    "no secret": (
        lambda c: c.remove(c.get("Secret", "mstar-s3")),
        errors.ClusterError,
        ["no Secret mstar-s3", "kubectl create secret generic mstar-s3", "cluster.secret: null"],
    ),
    "an object is refused": (
        lambda c: c.fail("dryRun=All", 422),
        errors.SpecError,
        ["Job mstar-small-", "the cluster finds the object invalid: fault 422"],
    ),
    "a webhook refuses": (
        lambda c: c.fail("dryRun=All", 403),
        errors.ClusterError,
        ["Job mstar-small-", "the cluster refuses: fault 403"],
    ),
    "defaults that do not fit": (
        lambda c: c.put(defaults("stages: {dance: {}}")),
        errors.SpecError,
        ["ConfigMap mstar-defaults of namespace ml does not fit", "cluster.stages.dance"],
    ),
    "defaults that are no YAML": (
        lambda c: c.put(defaults("a: [")),
        errors.SpecError,
        ["ConfigMap mstar-defaults, key cluster.yaml, is not YAML"],
    ),
    "defaults that are a list": (
        lambda c: c.put(defaults("[1, 2]")),
        errors.SpecError,
        ["ConfigMap mstar-defaults, key cluster.yaml: expected the keys of a cluster block"],
    ),
    "an API that is away": (lambda c: c.down(), errors.ClusterUnreachable, ["does not answer"]),
    "an API that fails": (
        lambda c: c.fail(".", 500, times=10**6),
        errors.ClusterUnreachable,
        ["500 fault 500"],
    ),
    "wrong credentials": (lambda c: c.fail(".", 401), errors.ClusterError, ["log in again"]),
}


def defaults(text):
    return {
        "kind": "ConfigMap",
        "metadata": {"name": "mstar-defaults"},
        "data": {"cluster.yaml": text},
    }


@pytest.mark.parametrize(("harm", "error", "words"), PREFLIGHT.values(), ids=PREFLIGHT)
def test_what_would_go_wrong_later_is_said_before_anything_is_made(
    mstarctl, spec, cluster, store, harm, error, words
):
    harm(cluster)
    refused(mstarctl("run", "-f", spec()), error, *words)
    assert cluster.find("Job") == []
    assert run_names(store) == []


def test_who_may_not_look_at_secrets_is_not_stopped_by_that(mstarctl, spec, cluster):
    cluster.denied = {("get", "secrets"), ("get", "serviceaccounts")}
    assert mstarctl("run", "-f", spec())[0] == 0


def test_without_static_keys_no_secret_is_needed(mstarctl, spec, cluster):
    cluster.remove(cluster.get("Secret", "mstar-s3"))
    assert mstarctl("run", "-f", spec(cluster={"secret": None}))[0] == 0


def test_the_installation_s_defaults_lie_under_the_spec_s_own_block(mstarctl, spec, cluster, store):
    cluster.put(defaults("images: {registry: registry.example/ml, tag: '7'}\nttl_seconds: 60\n"))
    assert mstarctl("run", "-f", spec(cluster={"images": {"tag": "8"}}))[0] == 0
    (job,) = cluster.find("Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/ml/mstar-controller:8"
    assert job["spec"]["ttlSecondsAfterFinished"] == 60
    where = settled(store, "small")
    assert where is not None
    assert where.cluster.ttl_seconds == 60


def test_the_namespace_is_the_option_s_else_the_spec_s_else_the_context_s(mstarctl, spec, cluster):
    for name in ("mine", "theirs"):
        cluster.namespaces.add(name)
        for kind, account in (
            ("ServiceAccount", "mstar-stage"),
            ("ServiceAccount", "mstar-controller"),
            ("Secret", "mstar-s3"),
        ):
            cluster.put({"kind": kind, "metadata": {"name": account}}, name)
    file = spec(cluster={"namespace": "mine"})
    assert "in namespace mine" in mstarctl("run", "-f", file)[1]
    assert "in namespace theirs" in mstarctl("run", "-f", file, "-n", "theirs")[1]


@pytest.mark.parametrize(
    ("store", "words"),
    [("runs", "which no pod can read"), ("s3://key:secret@runs/x", "credentials never go there")],
)
@pytest.mark.parametrize("arguments", [["run"], ["run", "--dry-run"], ["render"]])
def test_a_store_that_pods_cannot_use_is_a_mistake_and_no_password_is_repeated(
    mstarctl, spec, cluster, arguments, store, words
):
    result = mstarctl(*arguments, "-f", spec(store=store))
    refused(result, errors.SpecError, words)
    assert "secret" not in result[1] + result[2]


def test_a_dry_run_needs_no_cluster_and_makes_nothing(mstarctl, spec, store, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    code, out, said = mstarctl("run", "-f", spec(), "--dry-run")
    assert code == 0, said
    assert "nothing was made" in out
    assert "6 objects" in out
    assert "iter-01/train" in out
    found = json.loads(mstarctl("run", "-f", spec(), "--dry-run", "-o", "json")[1])
    assert [body["kind"] for body in found["objects"]] == ["Job"] * 6
    assert run_names(store) == []
    refused(mstarctl("run", "-f", spec()), errors.ClusterError, "there is no kubeconfig at")


def test_a_server_s_dry_run_asks_about_each_kind_and_makes_nothing(mstarctl, spec, cluster, store):
    code, out, _ = mstarctl("run", "-f", spec(), "--server-dry-run")
    assert code == 0
    assert f"the cluster at {cluster.url} accepts each of them in namespace ml" in out
    assert cluster.calls["POST jobs"] == 5  # the controller's, and one of each stage
    assert cluster.find("Job") == []
    assert run_names(store) == []


def test_the_plan_shows_the_stage_s_image_whatever_stands_before_it(mstarctl, spec):
    sidecar = {"spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]}}
    file = spec(cluster={"stages": {"generate": {"patch": sidecar}}})
    assert "proxy:1" not in mstarctl("run", "-f", file, "--dry-run")[1]


def test_rendered_objects_are_yaml_that_says_who_makes_them(mstarctl, spec):
    code, out, _ = mstarctl("render", "-f", spec())
    assert code == 0
    bodies = list(yaml.safe_load_all(out))
    assert [body["kind"] for body in bodies] == ["Job"] * 6
    assert out.count("# Apply this one") == 1
    (only,) = yaml.safe_load_all(mstarctl("render", "-f", spec(), "--only", "controller")[1])
    assert only == bodies[0]
    steps = list(yaml.safe_load_all(mstarctl("render", "-f", spec(), "--only", "steps")[1]))
    assert steps == bodies[1:]


@pytest.mark.parametrize(
    "text",
    [
        "images: {tag: '7'}",
        yaml.safe_dump({"kind": "ConfigMap", "data": {"cluster.yaml": "images: {tag: '7'}"}}),
    ],
)
def test_rendering_takes_defaults_from_a_file(mstarctl, spec, tmp_path, text):
    file = tmp_path / "defaults.yaml"
    file.write_text(text)
    out = mstarctl("render", "-f", spec(), "--defaults", file, "--only", "controller")[1]
    assert "localhost/mstar-controller:7" in out


@pytest.mark.parametrize(
    "text",
    [
        None,
        "a: [",
        "[1]",
        "stages: 3",
        "kind: ConfigMap\ndata: {cluster.yaml: 'a: ['}",
        "kind: ConfigMap\ndata: null\nx: 1",
        "kind: ConfigMap\ndata: {cluster.yaml: [1]}",
        "\x00",
    ],
)
@pytest.mark.parametrize("verb", ["render", "upload"])
def test_defaults_that_are_none_are_a_mistake(mstarctl, spec, tmp_path, text, verb):
    file = tmp_path / "defaults.yaml"
    if text is not None:
        file.write_text(text)
    code, _, said = mstarctl(verb, "-f", spec(), "--defaults", file)
    if text is not None and "null" in text:
        assert code == 0
    else:
        assert code == errors.SpecError.exit_code
        assert said.startswith("mstarctl: ")


def test_a_run_is_uploaded_reviewed_and_applied_by_other_means(
    mstarctl, spec, kubelet, cluster, store, tmp_path
):
    file = tmp_path / "defaults.yaml"
    file.write_text("ttl_seconds: 77")
    code, out, _ = mstarctl("upload", "-f", spec(), "--defaults", file)
    assert code == 0
    assert "nothing was started" in out
    assert cluster.find("Job") == []
    code, out, _ = mstarctl("status", "small", "-s", store.url)
    assert "no controller has worked on it yet" in out
    rendered = mstarctl("render", "-f", spec(), "--defaults", file, "--only", "controller")[1]
    kubelet._created(cluster.put(yaml.safe_load(rendered)))
    assert mstarctl("wait", "small", "-s", store.url)[0] == 0
    steps = [job for job in cluster.find("Job") if job["metadata"]["name"] != job_of(store)]
    assert {job["spec"]["ttlSecondsAfterFinished"] for job in steps} == {77}


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
    real = command.explained

    def explained(*arguments):
        for trouble in troubles:
            raise trouble
        gate.set()
        return real(*arguments)

    monkeypatch.setattr(command, "explained", explained)
    assert mstarctl("wait", "small", "-s", store.url)[0] == 0


def test_waiting_for_a_run_that_nobody_works_on_ends(mstarctl, spec, cluster, store, monkeypatch):
    monkeypatch.setattr(command, "STOPPED_SECONDS", 0.1)
    mstarctl("run", "-f", spec())
    cluster.remove(cluster.get("Job", job_of(store)))
    code, _, said = mstarctl("wait", "small", "-s", store.url)
    assert code == errors.WorkerLost.exit_code
    assert "mstarctl resume small" in said


def test_cancelling_leaves_nothing_and_resuming_finishes(mstarctl, spec, kubelet, cluster, store):
    gate = threading.Event()
    kubelet.work = controlling(until(committing_pods(store), gate))
    mstarctl("run", "-f", spec())
    assert cluster.wait(lambda: len(cluster.find("Pod")) == 2, 20)
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
    assert "there is nothing to cancel" in mstarctl("cancel", "small", "-s", store.url)[1]


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
        lambda: any("-0003-" in pod["metadata"]["name"] for pod in cluster.find("Pod")), 20
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
    assert cluster.wait(lambda: len(cluster.find("Job")) == 2, 20)
    assert cluster.wait(lambda: len(kubelet.runs) == 2, 20)
    job = cluster.get("Job", job_of(store))
    (step,) = [each for each in cluster.find("Job") if each["metadata"]["name"] != job_of(store)]
    stages, word = kubelet.work, last_word("no bucket", 17, retriable=False)
    kubelet.work = lambda running: Ended(code=17, message=word)  # its next controller
    (pod,) = [each for each in cluster.find("Pod") if "controller" in each["metadata"]["name"]]
    kubelet._live[pod["metadata"]["uid"]].stopping.set()
    assert cluster.wait(lambda: ended(cluster.get("Job", job_of(store))), 20)
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
    assert cluster.wait(lambda: cluster.logs, 20)
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
        refused(mstarctl(verb, "nobody", "-s", bucket), errors.NotFound, "no run 'nobody'")
