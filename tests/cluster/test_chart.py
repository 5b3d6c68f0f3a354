"""The chart in a real cluster, in namespaces that enforce Pod Security "restricted"."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.rights import CONTROLLER, PEOPLE, STAGE, Rights

CHART = str(Path(__file__).resolve().parent.parent.parent / "helm" / "mstar")
KINDS = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,persistentvolumeclaims"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
TRIAL = ("--set=trialS3.enabled=true", "--set=trialS3.persistence.enabled=false")


@pytest.mark.parametrize("version", [3, 4])
def test_keys_outlive_an_upgrade_and_nothing_outlives_an_uninstall(
    cluster: Any, namespace: str, version: int
):
    def helm(*arguments: str) -> None:
        cluster.helm(*arguments, f"--namespace={namespace}", version=version)

    def keys() -> Any:
        return cluster.get("secret", "mstar-s3", f"--namespace={namespace}")["data"]

    helm("install", "any", CHART, *TRIAL)
    made = keys()
    cluster.wait(namespace, "deployment/mstar-s3", "jsonpath={.status.replicas}=1")
    helm("upgrade", "any", CHART, *TRIAL, "--set=defaults.ttl_seconds=60")

    assert keys() == made
    deployment = cluster.get("deployment", "mstar-s3", f"--namespace={namespace}")
    failing = [c for c in deployment["status"]["conditions"] if c["type"] == "ReplicaFailure"]
    assert failing == []  # Pod Security would be one

    helm("uninstall", "any", "--wait", "--cascade=foreground")
    left = cluster.get(
        KINDS, f"--namespace={namespace}", "--selector=app.kubernetes.io/part-of=mstar"
    )
    assert [each["metadata"]["name"] for each in left["items"]] == []


@pytest.mark.parametrize(
    ("who", "may"),
    [
        ("system:serviceaccount:{}:mstar-controller", CONTROLLER),
        ("system:serviceaccount:{}:mstar-stage", STAGE),
        ("ann", PEOPLE),
    ],
)
def test_everybody_may_do_what_the_table_says_and_the_rest_is_refused(
    cluster: Any, installed: str, who: str, may: Rights
):
    asked = list(questions(cluster, who.format(installed), installed))
    listed = {"apiVersion": "v1", "kind": "List", "items": asked}
    form = '--output=jsonpath={.status.allowed} {.spec.resourceAttributes}{"\\n"}'
    answers = cluster.kubectl("create", "--filename=-", form, stdin=json.dumps(listed)).splitlines()

    assert len(answers) == len(asked)
    allowed: Rights = {}
    for answer in answers:
        if answer.startswith("true "):
            where, key, verb = question(json.loads(answer.removeprefix("true ")))
            assert where == installed
            allowed.setdefault(key, set()).add(verb)
    assert allowed == may


def test_a_controller_cannot_read_a_secret(cluster: Any, installed: str):
    account = f"--as=system:serviceaccount:{installed}:mstar-controller"

    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.kubectl("get", "secret", "mstar-s3", f"--namespace={installed}", account)

    assert "forbidden" in refused.value.stderr


@pytest.mark.parametrize("version", [3, 4])
def test_helm_test_runs_one_tiny_stage_and_writes_only_to_its_bucket(
    evaluator: str, cluster: Any, namespace: str, bucket: str, s3: Any, version: int
):
    cluster.apply(namespace, [keys_secret(cluster)])
    settings = {
        "images.pullPolicy": "Never",
        "s3.endpoint": cluster.s3_pod_endpoint,
        "s3.region": "us-east-1",
        "s3.store": f"s3://{bucket}/runs",
        "test.image": evaluator,
    }
    arguments = [f"--set={key}={value}" for key, value in settings.items()]

    cluster.helm("install", "any", CHART, f"--namespace={namespace}", *arguments, version=version)
    cluster.helm("test", "any", f"--namespace={namespace}", version=version)

    assert pods(cluster, namespace) == []
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert any(key.endswith("manifest.json") for key in listed)
    assert all(key.startswith("runs/helm-test/") for key in listed)


def pods(cluster: Any, namespace: str) -> list[str]:
    found = cluster.get("pods", f"--namespace={namespace}")["items"]
    return [pod["metadata"]["name"] for pod in found]


def keys_secret(cluster: Any) -> dict[str, Any]:
    keys = {
        "AWS_ACCESS_KEY_ID": cluster.access_key,
        "AWS_SECRET_ACCESS_KEY": cluster.secret_key,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mstar-s3"},
        "stringData": keys,
    }


def question(attributes: dict[str, str]) -> tuple[str, tuple[str, ...], str]:
    """Namespace, key of the tables, and verb."""
    path = "/".join(filter(None, (attributes["resource"], attributes.get("subresource"))))
    name = [attributes["name"]] if "name" in attributes else []
    return (
        attributes["namespace"],
        (attributes.get("group", ""), path, *name),
        attributes["verb"],
    )


def questions(cluster: Any, user: str, namespace: str) -> Iterator[dict[str, Any]]:
    """Whether a user may do each verb to each resource that the cluster has, here and in another namespace."""
    resources = [("", "pods", "log"), ("", "pods", "exec"), ("", "serviceaccounts", "token")]
    for line in cluster.kubectl("api-resources", "--no-headers", "--output=name").split():
        resource, _, group = line.partition(".")
        if not resource.startswith("selfsubject"):  # everybody may ask what they may
            resources.append((group, resource, ""))
    asked = [(verb, *each, "", namespace) for verb in VERBS for each in resources]
    asked += [("get", "", "configmaps", "", "mstar-defaults", namespace)]
    asked += [(verb, "batch", "jobs", "", "", "default") for verb in VERBS]
    for verb, group, resource, subresource, name, where in asked:
        attributes = {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name,
            "namespace": where,
        }  # fmt: skip
        yield {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {
                "user": user,
                "groups": ["system:authenticated"],
                "resourceAttributes": {key: value for key, value in attributes.items() if value},
            },
        }


@pytest.fixture(scope="session")
def evaluator(cluster: Any) -> str:
    """The evaluator's image, as it is called in the cluster."""
    for image in cluster.images:
        if "mstar-evaluator" in image:
            return str(image)
    pytest.skip("the evaluator's image is not in the cluster: `make cluster` loads it")


@pytest.fixture(scope="module")
def installed(cluster: Any, module_namespace: str) -> str:
    """A namespace with the chart in it, where ann has the Role for people."""
    subjects = '--set-json=users.subjects=[{"kind":"User","name":"ann"}]'
    cluster.helm("install", "any", CHART, f"--namespace={module_namespace}", subjects)
    return module_namespace
