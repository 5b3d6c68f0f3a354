"""``mstarctl recipes``: what it lists, for people and for programs, and what it says when there is nothing."""

import json
from pathlib import Path

import pytest
from mstarctl.main import app
from typer.testing import CliRunner

from mstar import errors

SPEC = "name: {name}\ndata: {{path: data}}\nmodel: model\n{more}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "rows"
    found.mkdir()
    rows = {
        "control": "paper: {row: a control}",
        "top": "paper: {table: 2, row: Top-2, in_domain: 45.3, mathvista: 59.2}",
        "small": "paper: {table: 4, row: small, mathvista: 54.5}",
        "base": "",
    }
    for name, more in rows.items():
        (found / f"{name}.yaml").write_text(SPEC.format(name=name, more=more), encoding="utf-8")
    return found


def run(*arguments: object):
    return CliRunner().invoke(app, ["recipes", *map(str, arguments)])


def test_recipes_come_by_table_with_the_paper_s_numbers_and_bases_do_not(folder):
    rows = json.loads(run(folder, "-o", "json").stdout)
    assert [row["file"] for row in rows] == ["top.yaml", "small.yaml", "control.yaml"]
    assert rows[0] == {
        "file": "top.yaml",
        "what": "continuous, PRM Top-2, temperature chosen every 2 iterations",
        "table": 2,
        "row": "Top-2",
        "in_domain": 45.3,
        "mathvista": 59.2,
    }


def test_the_table_for_people_holds_every_number(folder):
    told = run(folder).stdout
    for word in ("top.yaml", "45.3 / 59.2", "– / 54.5", "a control"):
        assert word in told


def test_without_a_folder_the_project_s_own_are_listed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    files = [row["file"] for row in json.loads(run("-o", "json").stdout)]
    assert {"sft.yaml", "prm-top-2.yaml", "m-star.yaml"} <= set(files)


def test_a_folder_without_recipes_and_no_folder_are_refused(tmp_path):
    assert isinstance(run(tmp_path).exception, errors.NotFound)
    assert isinstance(run(tmp_path / "none").exception, errors.NotFound)


def test_a_file_that_is_no_spec_is_named(folder):
    (folder / "broken.yaml").write_text("name: [", encoding="utf-8")
    error = run(folder).exception
    assert isinstance(error, errors.SpecError)
    assert "broken.yaml" in str(error)
