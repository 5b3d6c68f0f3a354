"""What goes with the templates: schema, README, dashboard, and the templates' own unit tests."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mstar.controller.metrics import Metrics
from mstar.history import Run
from tests.chart.rendering import CHART, ROOT, tool
from tests.runs import INPUTS, small_spec

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def test_the_schema_knows_every_value_and_nothing_else():
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert sorted(unknown(values, SCHEMA)) == []


def test_the_schema_describes_every_key_and_closes_every_group():
    assert sorted(undescribed(SCHEMA, "")) == []
    for name, definition in SCHEMA["definitions"].items():
        assert definition["description"], name


def test_the_readme_is_what_helm_docs_writes(tmp_path: Path):
    program = tool("helm-docs")
    copy = shutil.copytree(CHART, tmp_path / "mstar")

    subprocess.run([program, "--chart-search-root", copy], check=True, capture_output=True)

    assert (copy / "README.md").read_text() == (CHART / "README.md").read_text()


def test_the_readme_has_every_comment_of_the_values():
    readme = " ".join((CHART / "README.md").read_text().split())
    comments = re.findall(r"# -- (.*(?:\n *# (?!@).*)*)", (CHART / "values.yaml").read_text())

    assert len(comments) > 40
    for comment in comments:
        plain = re.sub(r"^\(\w+\) ", "", re.sub(r"\s*\n *# ", " ", comment))
        assert plain in readme


def test_the_readme_s_example_is_one_that_is_tested():
    example = re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL)[0]
    shown, tested = (
        yaml.safe_load(text)
        for text in (example, (CHART / "ci" / "identity-values.yaml").read_text())
    )

    assert shown["images"]["registry"] == tested["images"]["registry"]
    assert shown["serviceAccounts"] == tested["serviceAccounts"]
    for text in re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL):
        assert sorted(unknown(yaml.safe_load(text), SCHEMA)) == []


def test_the_dashboard_asks_for_what_controllers_show():
    shown = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in Metrics(Run(spec=small_spec(), inputs=INPUTS)).registry.collect()
    }
    dashboard = json.loads((CHART / "dashboards" / "mstar.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]

    assert {name for expr in asked for name in re.findall(r"\bmstar_\w+", expr)} <= shown


def test_the_templates_pass_their_own_tests():
    done = subprocess.run(
        [tool("helm-unittest"), CHART], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", ["k8s", "k8s/kind", "k8s/minikube", "helm/mstar"])
def test_a_page_names_files_that_exist(page: str):
    text = (ROOT / page / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = re.findall(r"(?<![\w/.])((?:k8s|helm|docs|mstar)/[\w./-]+\.(?:yaml|md))", text)

    for link in links:
        assert (ROOT / page / link).exists(), link
    for path in paths:
        assert (ROOT / path).exists(), path


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its reference followed."""
    if "$ref" not in schema:
        return schema
    definition: dict[str, Any] = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    return definition


def unknown(values: Any, schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """Keys of values that the schema does not name, though it is closed."""
    schema = resolved(schema)
    if "anyOf" in schema:
        schema = schema["anyOf"][-1]
    if not isinstance(values, dict) or "properties" not in schema:
        return
    for key, value in values.items():
        if key in schema["properties"]:
            yield from unknown(value, schema["properties"][key], f"{at}.{key}")
        else:
            yield f"{at}.{key}"


def undescribed(schema: dict[str, Any], at: str) -> Iterator[str]:
    """Keys without a description, and groups that take any key."""
    if "properties" in schema and schema.get("additionalProperties") is not False:
        yield f"{at} takes any key"
    for key, part in schema.get("properties", {}).items():
        if not part.get("description") and not resolved(part).get("description"):
            yield f"{at}.{key}"
        yield from undescribed(resolved(part), f"{at}.{key}")
