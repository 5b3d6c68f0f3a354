"""``study.json`` over sittings and machines: what is kept, what counts, and what is set aside."""

import json

import pytest

from mstar.errors import IntegrityError
from mstar.history import load_history
from mstar.storage.reading import resolve
from mstar.study.collect import Found, gather
from mstar.study.grid import described, fingerprint
from mstar.study.results import (
    FORMAT,
    File,
    as_text,
    file_body,
    merge,
    read_results,
)
from tests.study.making import World


@pytest.fixture
def world(tmp_path):
    found = World(tmp_path)
    found.run()
    return found


def current(world):
    return {cell.row: fingerprint(described(world.specs[cell.run])) for cell in world.cells}


def merged(world, here, kept=None, inputs=None, now=None):
    kept = kept or File(format=FORMAT, study="st")
    return merge(here, kept, now or current(world), world.cells, inputs)


def saved(world, found):
    """What is read back of what was written."""
    path = world.file.with_name("study.json")
    path.write_text(as_text(file_body("st", found, {"rows": []})))
    return read_results(path, "st")


def test_a_finished_run_is_a_record_of_its_own(world):
    record = gather(world.store, world.cells[:1]).records[0]
    assert (record.row, record.seed, record.base) == ("all", 0, None)
    assert set(record.tests) == {"base", "warm-up", "final"}
    assert record.final.count == 40
    assert 0.2 < sum(record.final.answers()) / 40 < 0.8
    assert [(p.iteration, p.updates, p.queries) for p in record.points] == [
        (0, 0, 0),
        (1, 4, 20),
        (2, 8, 40),
    ]
    assert (record.updates, record.queries) == (8, 40)
    assert {p.temperature for p in record.points} == {1.0}
    assert [s.temperature for s in record.points[0].sampled] == [0.5, 1.0]


def test_a_run_whose_results_are_damaged_is_named_and_the_others_count(world):
    cell, entry = next(
        (cell, e)
        for cell in world.cells
        for e in load_history(world.store, cell.run)
        if e.name == "final/test"
    )
    manifest = resolve(world.store, entry.ref)
    world.store.put(manifest.part("scored.parquet").key, b"altered")
    found = gather(world.store, world.cells)
    assert [trouble.cell for trouble in found.troubles] == [cell]
    assert found.troubles[0].exit_code == IntegrityError.exit_code
    assert len(found.records) == len(world.cells) - 1


def test_answers_are_those_at_temperature_zero_in_the_tests_order(world):
    first, second = (gather(world.store, world.cells[:1]).records[0] for _ in range(2))
    assert first == second
    tests = [step for run, step in world.stages.asked if step == "final/test"]
    assert len(tests) == len(world.cells)


def test_what_is_written_is_read_again_without_the_store(world):
    found = merged(world, gather(world.store, world.cells))
    again = merged(world, Found(), saved(world, found))
    assert again.records == found.records
    assert again.aside == ()
    assert all(again.has(cell) for cell in world.cells)


def test_cells_of_two_machines_come_together(world):
    everything = gather(world.store, world.cells)
    half = Found(records=everything.records[:2], specs=everything.specs)
    rest = Found(records=everything.records[2:], specs=everything.specs)
    kept = saved(world, merged(world, half))
    assert merged(world, rest, kept).records == tuple(everything.records)


def test_this_stores_cell_replaces_the_files(world):
    here = gather(world.store, world.cells)
    kept = saved(world, merged(world, here))
    newer = [record.model_copy(update={"finished_at": 9e9}) for record in here.records]
    found = merged(world, Found(records=newer, specs=here.specs), kept)
    assert {record.finished_at for record in found.records} == {9e9}
    assert found.aside == ()


def test_a_cell_of_another_spec_is_kept_and_in_no_mean(world):
    kept = saved(world, merged(world, gather(world.store, world.cells)))
    now = current(world) | {"some": "another"}
    found = merged(world, Found(), kept, now=now)
    assert {record.row for record in found.records} == {"all"}
    assert {aside.cell.row for aside in found.aside} == {"some"}
    assert all("another spec" in aside.why for aside in found.aside)
    # Nothing is lost: with the old recipe they count again.
    back = merged(world, Found(), saved(world, found))
    assert len(back.records) == len(world.cells)


def test_a_cell_from_other_data_is_set_aside(world):
    kept = saved(world, merged(world, gather(world.store, world.cells)))
    digests = (kept.cells[0].data, "another model")
    found = merged(world, Found(), kept, inputs={("all", None): digests})
    assert {record.row for record in found.records} == {"some"}
    assert {aside.why for aside in found.aside} == {
        "it was run on other data, or from another base model"
    }


def test_a_cell_that_the_study_has_no_more_is_set_aside(world):
    kept = saved(world, merged(world, gather(world.store, world.cells)))
    world.cells = [cell for cell in world.cells if cell.seed == 0]
    found = merged(world, Found(), kept)
    assert {aside.cell.seed for aside in found.aside} == {1}


def test_a_file_is_one_line_a_cell(world):
    found = merged(world, gather(world.store, world.cells))
    text = as_text(file_body("st", found, {}))
    assert json.loads(text)["study"] == "st"
    assert sum('"run": ' in line for line in text.splitlines()) == len(world.cells)


def test_a_file_names_no_place_of_the_machine(world, tmp_path):
    found = merged(world, gather(world.store, world.cells))
    assert str(tmp_path) not in as_text(file_body("st", found, {}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "does not hold a study's results"),
        ("[]", "does not hold a study's results"),
        ('{"format": 1, "study": "st", "cells": [{}]}', "does not hold a study's results"),
        ('{"format": 99, "study": "st"}', "later version"),
        ('{"format": 1, "study": "other"}', "holds the study 'other'"),
    ],
)
def test_a_file_that_cannot_be_used_is_not_written_over(tmp_path, text, words):
    path = tmp_path / "study.json"
    path.write_text(text)
    with pytest.raises(IntegrityError, match=words) as caught:
        read_results(path, "st")
    assert "move it away" in str(caught.value)
