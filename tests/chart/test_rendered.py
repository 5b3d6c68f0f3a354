import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mstar import __version__
from mstar.cluster import STAGES, Cluster, with_defaults
from mstar.executors.k8s.names import Place, labels
from mstar.executors.k8s.render import METRICS_PORT
from tests.chart import pod_security
from tests.chart.rendering import CHART, NAMESPACE, VALUES, VERSIONS, find, helm, pod_specs, render

values = pytest.mark.parametrize("values", VALUES)


@pytest.mark.parametrize("version", VERSIONS)
@values
def test_every_object_fits_its_schema(values: str, version: str):
    objects = [o for o in render(values) if "monitoring.coreos.com" not in o["apiVersion"]]

    assert objects
    for thing in objects:
        kubernetes_validate.validate(thing, version, strict=True)


@values
def test_every_pod_is_fit_for_pod_security_restricted(values: str):
    pods = list(pod_specs(render(values)))

    assert pods
    assert [fault for pod in pods for fault in pod_security.faults(pod)] == []


@values
def test_nothing_reaches_beyond_the_namespace(values: str):
    objects = render(values)

    assert {o["metadata"]["namespace"] for o in objects} == {NAMESPACE}
    assert not {o["kind"] for o in objects if o["kind"].startswith("Cluster")}


@values
def test_helm_3_and_helm_4_render_the_same(values: str):
    rendered = [render(values, program=program) for program in ("helm", "helm3")]
    for objects in rendered:
        for secret in (o for o in objects if o["kind"] == "Secret"):
            assert secret.pop("data").keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}

    by_name = [{(o["kind"], o["metadata"]["name"]): o for o in objects} for objects in rendered]
    assert by_name[0] == by_name[1]


def test_defaults_of_the_chart_are_the_defaults_of_mstarctl():
    assert with_defaults(cluster_block("default"), {}, "the chart") == Cluster()


@values
def test_runs_find_the_accounts_and_environment_that_the_chart_made(values: str):
    objects = render(values)
    block = with_defaults(cluster_block(values), {}, "the chart")

    find(objects, "ConfigMap", str(block.env_config))
    binding = next(o for o in objects if o["kind"] == "RoleBinding")
    assert binding["subjects"][0]["name"] == block.controller_service_account
    [test] = [o for o in objects if o["kind"] == "Pod"]
    assert test["spec"]["serviceAccountName"] == block.service_account
    sources = test["spec"]["containers"][0]["envFrom"]
    secrets = [each["secretRef"]["name"] for each in sources if "secretRef" in each]
    assert secrets == ([block.secret] if block.secret else [])


@pytest.mark.parametrize("component", ["controller", *STAGES])
def test_a_run_s_pods_reach_what_they_need_and_nothing_else(component: str):
    place = Place(run="any", store="s3://bucket/runs")
    policies = [o for o in render() if o["kind"] == "NetworkPolicy"]

    chosen = {
        policy["metadata"]["name"]
        for policy in policies
        if selects(policy["spec"]["podSelector"], labels(place, component))
    }

    own = {"controller": {"mstar-controller"}, "train": {"mstar-gang"}}.get(component, set())
    assert chosen == {"mstar-default-deny", "mstar-store"} | own


def test_controllers_metrics_can_be_read():
    policy = find(render(), "NetworkPolicy", "mstar-controller")

    assert policy["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": METRICS_PORT}]


def test_the_trial_server_s_pod_is_the_one_that_is_selected():
    objects = render("trial")
    pod = find(objects, "Deployment", "mstar-s3")["spec"]["template"]["metadata"]["labels"]

    assert selects({"matchLabels": find(objects, "Service", "mstar-s3")["spec"]["selector"]}, pod)
    chosen = {
        o["metadata"]["name"]
        for o in objects
        if o["kind"] == "NetworkPolicy" and selects(o["spec"]["podSelector"], pod)
    }
    assert chosen == {"mstar-default-deny", "mstar-s3"}


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("colour=red", "colour"),
        ("images.tags=1", "tags"),
        ("defaults.stages.generate.nodes=2", "nodes"),
        ("defaults.stages.train.nodes=0", "nodes"),
        ("defaults.stages.train.resources.limits.memory=lots", "memory"),
        ("defaults.queue.priority_class=high", "name"),
        ("s3.endpoint=http://key:secret@host", "endpoint"),
        ("s3.store=/data", "store"),
        ("trialS3.runAsUser=0", "runAsUser"),
        ("networkPolicy.s3.cidrs={}", "cidrs"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(setting: str, complaint: str):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render("default", setting)

    assert complaint in refused.value.stderr


def test_the_chart_is_of_the_project_s_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == __version__


@pytest.mark.parametrize("program", ["helm", "helm3"])
def test_helm_finds_nothing_to_complain_of(program: str):
    arguments = ["--strict", "--kube-version", "1.36"]

    assert "0 chart(s) failed" in helm("lint", str(CHART), *arguments, program=program)


def cluster_block(values: str) -> dict[str, Any]:
    text = find(render(values), "ConfigMap", "mstar-defaults")["data"]["cluster.yaml"]
    block: dict[str, Any] = yaml.safe_load(text)
    return block


def selects(selector: dict[str, Any], marks: dict[str, str]) -> bool:
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "NotIn"
        if marks.get(rule["key"]) in rule["values"]:
            return False
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= marks.items()
