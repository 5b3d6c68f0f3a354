"""Runs in a cluster from a laptop: what is checked before anything is made, and what is made."""

import json
import threading

import pytest
import yaml

from mstar import errors
from mstar.controller.place import settled
from mstar.history import load_history, run_names
from tests.cli.seen import job_of, refused
from tests.fake_cluster import LOSE, Refused


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


def test_a_run_that_has_ended_is_started_again_once_its_controller_has_left(
    mstarctl, spec, kubelet
):
    working, leave = kubelet.work, threading.Event()

    def lingering(running):
        ended = working(running)
        if running.args[0] == "controller":
            leave.wait(30)
        return ended

    kubelet.work = lingering
    assert mstarctl("run", "-f", spec(), "--wait")[0] == 0
    later = threading.Timer(0.5, leave.set)
    later.start()
    code, out, _ = mstarctl("run", "-f", spec(), "--wait", "-o", "json")
    later.join()
    assert (code, json.loads(out.splitlines()[0])["started"]) == (0, True)


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
    [
        ("runs", "which no pod can read"),
        ("s3://key:secret@runs/x", "credentials never go there"),
        ("s3:///x", "with a bucket's name"),
        ("https://key:secret@host/x", "https:///x is none that is known"),
    ],
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


@pytest.mark.parametrize("word", ["1e3", "402094e2", "y", "0x1f", "1_000", "007", "null", "yes"])
def test_rendered_text_is_text_for_every_yaml_parser(mstarctl, spec, word):
    """kubectl's takes 1e3 for a number and y for true, where Python's does not."""
    selector = {"generate": {"patch": {"spec": {"nodeSelector": {"pool": word}}}}}
    out = mstarctl("render", "-f", spec(cluster={"stages": selector}))[1]
    (line,) = {line.strip() for line in out.splitlines() if "pool:" in line}
    assert line in {f'pool: "{word}"', f"pool: '{word}'"}


@pytest.mark.parametrize("arguments", [["run", "--dry-run"], ["run"], ["render"], ["upload"]])
def test_a_patch_after_which_the_run_could_not_work_stops_it_before_anything_is_stored(
    mstarctl, spec, cluster, store, arguments
):
    gone = {"spec": {"containers": [{"name": "stage", "$patch": "delete"}]}}
    file = spec(cluster={"stages": {"train": {"patch": gone}}})
    code, _, said = mstarctl(*arguments, "-f", file)
    assert code == errors.SpecError.exit_code
    assert "cluster.stages.train.patch: it takes away the container stage" in said
    assert not cluster.find("Job")
    assert run_names(store) == []


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
