"""The chart as Helm renders it, and the plain manifests as kustomize builds them, as dicts."""

import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "helm" / "mstar"
PLAIN = ROOT / "k8s"
NAMESPACE = "mstar"
VERSIONS = ("1.33", "1.34", "1.35", "1.36", "1.37")
"""Of Kubernetes."""

VALUES = {"default": None, "small": PLAIN / "small-values.yaml"} | {
    path.name.removesuffix("-values.yaml"): path for path in sorted(CHART.glob("ci/*-values.yaml"))
}
"""Sets of values by name."""

Object = dict[str, Any]


def tool(name: str) -> str:
    """A program that the environment names, `make cluster` built, or PATH has; skips the test where there is none."""
    variable = "MSTAR_TEST_" + name.upper().replace("-", "_")
    folder = os.environ.get("MSTAR_CLUSTER_DIR") or Path(tempfile.gettempdir(), "mstar-cluster")
    env = Path(folder, "env")
    built = shlex.split(env.read_text(), comments=True) if env.exists() else []
    known = dict(word.split("=", 1) for word in built if "=" in word) | dict(os.environ)
    found = shutil.which(known.get(variable, name)) or shutil.which(name)
    if found is None:
        pytest.skip(
            f"no {name}: put it in PATH, name one in {variable}, or `make cluster` (not helm-docs)"
        )
    return found


def helm(*arguments: str, program: str = "helm") -> str:
    """What Helm prints; ``CalledProcessError`` has what it complains of."""
    settings = {"HELM_CACHE_HOME": "cache", "HELM_CONFIG_HOME": "config", "HELM_DATA_HOME": "data"}
    with tempfile.TemporaryDirectory(prefix="mstar-helm-") as home:
        own = {name: f"{home}/{folder}" for name, folder in settings.items()}
        done = subprocess.run(
            [tool(program), *arguments],
            env=dict(os.environ) | own, check=True, capture_output=True, text=True,
        )  # fmt: skip
    return done.stdout


@functools.cache
def _rendered(values: str, program: str, settings: tuple[str, ...]) -> str:
    arguments = ["template", "any", str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.36"]
    arguments += ["--api-versions", "monitoring.coreos.com/v1/PodMonitor"]
    if path := VALUES[values]:
        arguments += ["--values", str(path)]
    for setting in settings:
        arguments += ["--set", setting]
    return helm(*arguments, program=program)


def render(values: str = "default", *settings: str, program: str = "helm") -> list[Object]:
    """The chart's objects with a set of values, and ``key=value`` settings over it."""
    text = _rendered(values, program, settings)
    return [each for each in yaml.safe_load_all(text) if each]


def build(folder: Path) -> list[Object]:
    """What `kubectl kustomize` builds, as far as our kustomizations go: resources, a namespace, labels."""
    recipe = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = recipe.keys() - {"apiVersion", "kind", "namespace", "labels", "resources"}
    assert not unknown, f"{folder}: this test does not know what kustomize makes of {unknown}"
    found = list(_resources(folder, recipe["resources"]))
    for thing in found:
        metadata = thing["metadata"]
        if thing["kind"] != "Namespace":
            metadata["namespace"] = recipe["namespace"]
        for subject in thing.get("subjects", []):
            subject["namespace"] = recipe["namespace"]
        for labels in recipe["labels"]:
            metadata.setdefault("labels", {}).update(labels["pairs"])
    return found


def _resources(folder: Path, names: list[str]) -> Iterator[Object]:
    for name in names:
        path = folder / name
        if path.is_dir():
            yield from build(path)
        else:
            yield from yaml.safe_load_all(path.read_text())


def pod_specs(objects: list[Object]) -> Iterator[Object]:
    """The pods among the objects, and those that they would make."""
    for thing in objects:
        if thing["kind"] == "Pod":
            yield thing["spec"]
        elif thing["kind"] in {"Deployment", "Job"}:
            yield thing["spec"]["template"]["spec"]


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    [thing] = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return thing
