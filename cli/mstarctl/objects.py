"""The objects of a run in a cluster, for people to look at before anything is made."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from mstar.cluster import Cluster, with_defaults
from mstar.config import RunSpec, read_yaml
from mstar.controller.prepare import check_inputs
from mstar.errors import SpecError
from mstar.executors.base import Job
from mstar.executors.k8s.names import CONTAINER, Place
from mstar.executors.k8s.render import (
    Owner,
    Scene,
    controller_job,
    gang_service,
    gang_size,
    resolved,
    step_job,
)
from mstar.recipe import Inputs, planned
from mstar.storage.open import open_store
from mstarctl.inputs import read_spec

Object = dict[str, Any]


def render(file: Path, overrides: list[str], *, defaults: Path | None, only: str) -> None:
    """Print every object as YAML: the controller's Job, and each step's as the controller will make it."""
    spec = read_spec(file, overrides)
    check_store(spec.store)
    block = spec.cluster.model_dump(mode="json", exclude_unset=True)
    cluster = with_defaults(read_defaults(defaults), block, "the spec's cluster block")
    queries = check_inputs(spec)
    for body, note in noted(spec, cluster, queries):
        if only in {"all", "controller" if note == APPLY else "steps"}:
            sys.stdout.write(f"---\n# {note}\n")
            yaml.dump(body, sys.stdout, Dumper=_Dumper, sort_keys=False, width=120)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes what kubectl's YAML would take for a number or for yes or no, though Python's would not (1e3, y)."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = '"' if re.match(r"[-+.0-9]|[yYnN]$", value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def check_store(url: str) -> None:
    """A cluster's pods cannot read a laptop's folder, and an address is no place for a password."""
    if not url.startswith("s3://"):
        open_store(url)  # refuses what is no store at all
        raise SpecError(
            f"store is {url}, a folder of this machine, which no pod can read: set store: s3://bucket/prefix, "
            "or run here with --local"
        )
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/[^@?]*)?", url):
        raise SpecError(
            "the store is not of the form s3://bucket/prefix, with a bucket's name of lower-case letters, digits, "
            "'.' and '-' (credentials never go there)"
        )


APPLY = "Apply this one, after `mstarctl upload` has stored the run; it makes the others."
MADE = "Made by the controller when its turn comes; inputs and owner are known only then."


def noted(
    spec: RunSpec, cluster: Cluster, queries: Mapping[str, int]
) -> Iterator[tuple[Object, str]]:
    """Every object, and who makes it."""
    scene = Scene(place=Place(run=spec.name, store=spec.store.rstrip("/")), cluster=cluster)
    yield controller_job(scene), APPLY
    for index, step in enumerate(planned(spec, Inputs.unknown(queries))):
        job = resolved(
            Job(
                run=spec.name,
                index=index,
                step=step.name,
                number=1,
                store=scene.place.store,
                task=step.task,
                execution=spec.execution,
                attempt="1-1",
                tries=spec.limits.attempts,
            ),
            cluster,
        )
        body = step_job(scene, job)
        yield body, MADE
        if gang_size(cluster, step.task):
            yield gang_service(scene, job, Owner(name=body["metadata"]["name"], uid="")), MADE


def one_of_each(spec: RunSpec, cluster: Cluster, queries: Mapping[str, int]) -> list[Object]:
    """The controller's Job and the first Job of every stage: what a server's dry run is asked about."""
    seen: dict[str, Object] = {}
    for body, _ in noted(spec, cluster, queries):
        if body["kind"] == "Job":
            seen.setdefault(body["metadata"]["labels"]["app.kubernetes.io/component"], body)
    return list(seen.values())


def show_plan(
    spec: RunSpec,
    queries: Mapping[str, int],
    cluster: Cluster,
    *,
    where: str,
    as_json: bool,
) -> None:
    """What would be made: a line for each object."""
    bodies = [body for body, _ in noted(spec, cluster, queries)]
    if as_json:
        plan = {
            "spec": spec.model_dump(mode="json"),
            "cluster": cluster.model_dump(mode="json"),
            "queries": dict(queries),
            "objects": bodies,
        }
        typer.echo(json.dumps(plan, indent=1))
        return
    counted = ", ".join(f"{count} {split}" for split, count in queries.items())
    typer.echo(f"run {spec.name}: spec, data ({counted}) and model are fine; nothing was made.")
    typer.echo(f"{len(bodies)} objects, results into {spec.store}; {where}:")
    for body in bodies:
        typer.echo(f"  {_line(body)}")


def _line(body: Object) -> str:
    name = f"{body['kind']:<8}{body['metadata']['name']:<48}"
    if body["kind"] != "Job":
        return name
    template = body["spec"]["template"]
    containers = template["spec"]["containers"]
    container = next((each for each in containers if each["name"] == CONTAINER), containers[0])
    step = body["metadata"]["annotations"].get("mstar.dev/step", "controller")
    pods = body["spec"].get("completions", 1)
    asked = container["resources"].get("limits") or container["resources"].get("requests") or {}
    amounts = ", ".join(f"{key} {value}" for key, value in asked.items())
    each = f"{pods} pod{'s' if pods > 1 else ''}"
    return f"{name}{step:<20}{each:<8} {container['image']} {amounts}".rstrip()


def read_defaults(file: Path | None) -> Mapping[str, Any]:
    """The defaults under a spec's cluster block, from YAML or from the chart's ConfigMap; none without a file."""
    if file is None:
        return {}
    try:
        found = read_yaml(file.read_text(encoding="utf-8")) or {}
        if isinstance(found, Mapping) and found.get("kind") == "ConfigMap":
            found = read_yaml((found.get("data") or {}).get("cluster.yaml", "")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise SpecError(f"cannot read the defaults {file}: {error}") from None
    if not isinstance(found, Mapping):
        raise SpecError(f"{file}: expected the keys of a cluster block")
    return found
