"""The study file and its cells: what is asked for, and what a mistake says."""

import pytest
import yaml

from mstar.errors import SpecError
from mstar.study.grid import cells, described, fingerprint, spec_of
from mstar.study.spec import load_study
from tests.study.making import RECIPE, write_recipe, write_study


def load(folder, **changes):
    return load_study(write_study(folder, **changes))


def refused(folder, *words, **changes):
    with pytest.raises(SpecError) as caught:
        cells(load(folder, **changes))
    for word in words:
        assert word in str(caught.value)


def test_the_grid_is_every_row_with_every_base_and_seed_seeds_outermost(tmp_path):
    bases = [{"name": "a", "model": "models/a"}, {"name": "b", "model": "models/b"}]
    found = cells(load(tmp_path, bases=bases))
    assert len(found) == 2 * 2 * 2
    assert [cell.run for cell in found[:5]] == [
        "st-all-a-s0",
        "st-some-a-s0",
        "st-all-b-s0",
        "st-some-b-s0",
        "st-all-a-s1",
    ]


def test_without_bases_each_recipe_names_its_own_model(tmp_path):
    study = load(tmp_path)
    (cell, *_) = cells(study)
    assert cell.run == "st-all-s0"
    assert spec_of(study, cell).model == str(tmp_path / "recipes" / "model")


def test_a_cell_decides_name_seed_store_and_base(tmp_path):
    study = load(tmp_path, bases=[{"name": "a", "model": "models/a"}])
    spec = spec_of(study, cells(study)[-1])
    assert (spec.name, spec.seed) == ("st-some-a-s1", 1)
    assert spec.store == str(tmp_path / "store")
    assert spec.model == str(tmp_path / "models" / "a")


def test_a_recipe_need_not_name_the_model_that_a_base_replaces(tmp_path):
    name = write_recipe(tmp_path, "bare")
    raw = yaml.safe_load((tmp_path / name).read_text())
    del raw["model"]
    (tmp_path / name).write_text(yaml.safe_dump(raw))
    study = load(
        tmp_path, rows=[name], baseline="bare", bases=[{"name": "a", "model": "s3://models/a"}]
    )
    assert spec_of(study, cells(study)[0]).model == "s3://models/a"


def test_overrides_of_the_study_come_first_and_those_of_the_row_over_them(tmp_path):
    row = {
        "recipe": write_recipe(tmp_path, "all"),
        "name": "longer",
        "set": ["evolve.iterations=5"],
    }
    study = load(
        tmp_path,
        rows=["recipes/all.yaml", row],
        set=["evolve.iterations=3", "data.path=other", "evolve.interval=25%"],
    )
    first, second = (spec_of(study, cell) for cell in cells(study)[:2])
    assert (first.evolve.iterations, second.evolve.iterations) == (3, 5)
    assert first.evolve.interval == 0.25
    assert first.data.path == str(tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": [1]}, ("sedes", "did you mean seeds?")),
        ({"rows": []}, ("rows",)),
        ({"rows": [{"recipe": "a.yaml", "nmae": "x"}]}, ("rows.0.nmae", "did you mean name?")),
        ({"rows": ["a.yaml", "b/a.yaml"]}, ("two rows are called a", "another name")),
        ({"rows": ["Big.yaml"]}, ("Big", "lower-case", "give the row a name")),
        ({"seeds": [1, 1]}, ("seeds", "different")),
        ({"seeds": []}, ("seeds",)),
        ({"seeds": "three"}, ("seeds", "three")),
        ({"baseline": "al"}, ("baseline", "did you mean all?")),
        ({"parallel": 0}, ("parallel", "found 0")),
        ({"name": "UPPER"}, ("name", "lower-case")),
        ({"set": ["seed=3"]}, ("seed is the study's own",)),
        ({"set": ["model=x"], "bases": [{"name": "a", "model": "m"}]}, ("decided by bases",)),
        ({"bases": [{"name": "a", "model": "m"}, {"name": "a", "model": "n"}]}, ("same name",)),
        ({"name": "long" * 15}, ("63", "shorter names")),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(tmp_path, changes, words):
    refused(tmp_path, *words, **changes)


def test_two_cells_that_would_be_one_run_are_refused(tmp_path):
    rows = [
        {"recipe": "recipes/all.yaml", "name": "a"},
        {"recipe": "recipes/all.yaml", "name": "a-b"},
    ]
    bases = [{"name": "b-c", "model": "m"}, {"name": "c", "model": "n"}]
    refused(tmp_path, "both be the run", rows=rows, bases=bases, baseline="a")


@pytest.mark.parametrize(("text", "word"), [("- a\n", "keys and values"), ("a: [", "not YAML")])
def test_what_is_no_study_at_all_says_so(tmp_path, text, word):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=word):
        load_study(path)


def test_a_study_that_is_not_there_says_so(tmp_path):
    with pytest.raises(SpecError, match="no study at"):
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    ("override", "word"),
    [("evolve.iteratoins=3", "did you mean iterations"), ("data.test=null", "data.test is null")],
)
def test_a_row_whose_recipe_cannot_be_run_is_named(tmp_path, override, word):
    study = load(tmp_path, set=[override])
    with pytest.raises(SpecError, match=f"row all: .*{word}|row all: (.|\n)*{word}"):
        spec_of(study, cells(study)[0])


def test_a_row_without_its_recipe_is_named(tmp_path):
    study = load(tmp_path, rows=["recipes/none.yaml"], baseline="none")
    with pytest.raises(SpecError, match="row none: no spec at"):
        spec_of(study, cells(study)[0])


def test_a_rows_fingerprint_is_of_what_decides_its_results(tmp_path):
    study = load(tmp_path, bases=[{"name": "a", "model": "x"}, {"name": "b", "model": "y"}])
    hashes: dict[str, set[str | None]] = {cell.row: set() for cell in cells(study)}
    for cell in cells(study):
        hashes[cell.row].add(fingerprint(described(spec_of(study, cell))))
    assert {len(found) for found in hashes.values()} == {1}
    assert hashes["all"] != hashes["some"]


def test_a_fingerprint_is_the_same_where_a_later_version_has_new_keys(tmp_path):
    study = load(tmp_path)
    description = described(spec_of(study, cells(study)[0]))
    older = {key: value for key, value in description.items() if key != "answers"}
    assert fingerprint(older) == fingerprint(description)
    assert fingerprint(
        description | {"evolve": RECIPE["evolve"] | {"iterations": 9}}
    ) != fingerprint(description)
    assert fingerprint(description | {"gone": 1}) is None


def test_a_teacher_s_place_decides_nothing_and_whether_there_is_one_does(tmp_path):
    def of(**changes):
        recipe = write_recipe(tmp_path, "one", warm_up={}, **changes)
        study = load(tmp_path, rows=[recipe], baseline="one")
        return spec_of(study, cells(study)[0])

    one, other, none = of(teacher="here"), of(teacher="there"), of()
    assert one.teacher == str(tmp_path / "recipes" / "here")
    assert described(one) == described(other) != described(none)
    assert fingerprint(described(one)) != fingerprint(described(none))
    before = {key: value for key, value in described(none).items() if key != "teacher"}
    assert fingerprint(before) == fingerprint(described(none))


def test_a_teacher_in_a_study_s_overrides_is_relative_to_the_study(tmp_path):
    study = load(tmp_path, set=["teacher=models/large"])
    assert spec_of(study, cells(study)[0]).teacher == str(tmp_path / "models" / "large")
