"""What is written down for people is what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mstar.config import load_spec
from mstar.recipe import planned_names, planned_steps
from tests.runs import INPUTS

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_the_page_about_the_spec_is_up_to_date():
    subprocess.run([sys.executable, "tools/spec_docs.py", "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_valid_spec_named_after_its_file(recipe):
    spec = load_spec(recipe)
    assert spec.name == recipe.stem
    assert len(planned_names(spec, INPUTS)) == planned_steps(spec)
    assert spec.evolve.optimization.learning_rate == 1e-6


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))],
)
def test_every_link_to_a_file_of_the_project_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
