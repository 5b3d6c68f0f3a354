import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.chart import pod_security
from tests.chart.rendering import PLAIN, VERSIONS, Object, build, pod_specs, render, tool

FOLDERS = {"s3": "default", "trial-s3": "trial"}
"""Folders of plain manifests, and the chart's values that make the same."""
STAGE = PLAIN / "stage" / "job.yaml"

folders = pytest.mark.parametrize("folder", FOLDERS)


@folders
def test_plain_manifests_are_what_the_chart_makes(folder: str):
    settings = ["trialS3.persistence.enabled=true", "trialS3.persistence.size=10Gi"]
    chart = render(FOLDERS[folder], *(settings if folder == "trial-s3" else ()))

    # The namespace is the chart's user's; keys are made by hand here; a test needs Helm.
    expected = by_name([o for o in chart if o["kind"] not in {"Secret", "Pod"}])
    found = by_name([o for o in build(PLAIN / folder) if o["kind"] != "Namespace"])
    assert found == expected


@folders
def test_kustomize_builds_what_these_tests_look_at(folder: str):
    done = subprocess.run(
        [tool("kubectl"), "kustomize", PLAIN / folder], check=True, capture_output=True, text=True
    )

    assert by_name(list(yaml.safe_load_all(done.stdout))) == by_name(build(PLAIN / folder))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", [*FOLDERS, "stage"])
def test_every_object_fits_its_schema(folder: str, version: str):
    for thing in objects(folder):
        kubernetes_validate.validate(thing, version, strict=True)


def test_the_namespace_enforces_pod_security_restricted():
    [namespace] = [o for o in build(PLAIN / "s3") if o["kind"] == "Namespace"]

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("folder", ["trial-s3", "stage"])
def test_every_pod_is_fit_for_pod_security_restricted(folder: str):
    pods = list(pod_specs(objects(folder)))

    assert pods
    assert [fault for pod in pods for fault in pod_security.faults(pod)] == []


def test_every_file_belongs_to_something():
    reached = {STAGE, PLAIN / "small-values.yaml", PLAIN / "kind" / "cluster.yaml"}
    for folder in ("base", *FOLDERS):
        recipe = PLAIN / folder / "kustomization.yaml"
        listed = yaml.safe_load(recipe.read_text())["resources"]
        reached |= {recipe, *(PLAIN / folder / name for name in listed)}

    assert set(PLAIN.rglob("*.yaml")) <= reached


def objects(folder: str) -> list[Object]:
    if folder == "stage":
        return list(yaml.safe_load_all(STAGE.read_text()))
    return build(PLAIN / Path(folder))


def by_name(things: list[Object]) -> dict[tuple[str, str], Object]:
    """Objects by kind and name, as far as they do something: without labels of their own, defaults as values."""
    found = {}
    for thing in things:
        metadata = {k: v for k, v in thing["metadata"].items() if k != "labels"}
        body = dict(thing) | {"metadata": metadata}
        if "cluster.yaml" in body.get("data", {}):
            body["data"] = {"cluster.yaml": yaml.safe_load(body["data"]["cluster.yaml"])}
        found[thing["kind"], metadata["name"]] = body
    return found
