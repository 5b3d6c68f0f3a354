"""A spec may extend another: what merges, what replaces, where paths lead, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mstar.config import load_spec
from mstar.errors import SpecError


def write(path: Path, **keys: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return path


def base(folder: Path, **more: Any) -> Path:
    usual: dict[str, Any] = {"name": "base", "data": {"path": "data"}, "model": "model"}
    return write(folder / "base.yaml", **usual | more)


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    return str(caught.value)


def test_groups_merge_and_null_lists_and_values_replace(tmp_path: Path):
    base(
        tmp_path,
        evaluation={"pass_at": [1, 2, 4], "samples": 4},
        evolve={"iterations": 3, "rollout": {"samples": 8, "temperature": 0.5}},
    )
    path = write(
        tmp_path / "row.yaml",
        extends="base.yaml",
        name="row",
        evaluation={"pass_at": [1]},
        evolve={"rollout": {"temperature": 0.9}, "exploration": None},
    )
    spec = load_spec(path)
    assert spec.name == "row"
    assert spec.evaluation.pass_at == (1,)
    assert spec.evaluation.samples == 4
    assert (spec.evolve.iterations, spec.evolve.exploration) == (3, None)
    assert (spec.evolve.rollout.samples, spec.evolve.rollout.temperature) == (8, 0.9)


def test_relative_paths_are_relative_to_the_file_that_holds_them(tmp_path: Path):
    base(tmp_path / "one" / "two", store="../store")
    middle = write(tmp_path / "one" / "middle.yaml", extends="two/base.yaml", model="other")
    path = write(tmp_path / "row.yaml", extends=str(middle.relative_to(tmp_path)), name="row")
    spec = load_spec(path)
    assert Path(spec.data.path) == tmp_path / "one" / "two" / "data"
    assert Path(spec.model) == tmp_path / "one" / "other"
    assert Path(spec.store).resolve() == tmp_path / "one" / "store"


def test_an_override_comes_last_and_its_path_is_relative_to_the_spec(tmp_path: Path):
    base(tmp_path / "below", evolve={"iterations": 3})
    path = write(tmp_path / "row.yaml", extends="below/base.yaml")
    spec = load_spec(path, ["evolve.iterations=5", "model=mine"])
    assert spec.evolve.iterations == 5
    assert Path(spec.model) == tmp_path / "mine"


def test_names_of_what_is_built_in_are_no_paths(tmp_path: Path):
    base(tmp_path, model="demo:base?seed=1&size=small")
    path = write(tmp_path / "row.yaml", extends="base.yaml", data={"path": "demo:digits"})
    spec = load_spec(path)
    assert (spec.data.path, spec.model) == ("demo:digits", "demo:base?seed=1&size=small")


def test_a_circle_of_files_is_refused_and_shown(tmp_path: Path):
    write(tmp_path / "a.yaml", extends="b.yaml")
    write(tmp_path / "b.yaml", extends="c.yaml")
    write(tmp_path / "c.yaml", extends="b.yaml")
    message = refused(tmp_path / "a.yaml")
    assert "in a circle" in message
    names = [Path(part).name for part in message.partition(": ")[2].split(" -> ")]
    assert names == ["b.yaml", "c.yaml", "b.yaml"]


@pytest.mark.parametrize("other", [3, ["base.yaml"], None, ""])
def test_extends_must_be_the_path_of_a_file(tmp_path: Path, other: Any):
    message = refused(write(tmp_path / "row.yaml", extends=other))
    assert "extends must be the path of a YAML file" in message


def test_an_extended_file_that_is_not_there_is_named_with_who_extends_it(tmp_path: Path):
    message = refused(write(tmp_path / "row.yaml", extends="none.yaml"))
    assert str(tmp_path / "none.yaml") in message
    assert "row.yaml extends it" in message


def test_a_mistake_in_the_extended_file_is_a_mistake_of_the_spec(tmp_path: Path):
    base(tmp_path, evolve={"iteratons": 3}, data="nowhere")
    message = refused(write(tmp_path / "row.yaml", extends="base.yaml"))
    assert "did you mean iterations?" in message
    assert "data: " in message
