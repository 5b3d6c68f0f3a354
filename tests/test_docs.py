"""What is written down for people is what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_about_the_spec_is_up_to_date():
    subprocess.run([sys.executable, "tools/spec_docs.py", "--check"], cwd=ROOT, check=True)


def test_every_number_of_the_reproduction_s_tables_is_a_study_s():
    subprocess.run([sys.executable, "tools/reproduction.py", "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "recipes/README.md",
        *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
    ],
)
def test_every_link_to_a_file_of_the_project_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
