"""Public benchmarks in a run's report."""

from pathlib import Path

from mstar.report.page import write_report
from tests.report.making import NOW, make_run, make_store, plain_spec

ASKED = {"path": "files", "names": ["mathvista", "mmstar-r"]}


def page(folder: Path, *, until: int | None = None, asked: object = None) -> str:
    store = make_store(folder)
    spec = plain_spec()
    evaluation = spec.evaluation.model_dump() | {"benchmarks": asked}
    spec = type(spec).model_validate(spec.model_dump() | {"evaluation": evaluation})
    make_run(store, folder, spec, until=until)
    path = folder / "report.html"
    write_report(store, [spec.name], path, now=NOW)
    return path.read_text(encoding="utf-8")


def test_scores_of_base_and_last_policy_stand_beside_each_other_with_their_parts(
    tmp_path: Path,
) -> None:
    text = page(tmp_path, asked=ASKED)
    assert "Public benchmarks" in text
    assert "The &lt;mathvista&gt;" in text
    assert "<mmstar-r>" not in text
    assert "50.0" in text
    assert "(35.2" in text  # the lower end of 20 of 40
    assert "12 of 160 responses" in text
    assert "40 of 1,000" in text, "fewer questions than are published"
    assert "task: geometry" in text


def test_a_run_that_is_not_so_far_says_what_is_missing(tmp_path: Path) -> None:
    text = page(tmp_path, asked=ASKED, until=2)
    assert "has no scores yet" in text


def test_a_run_that_asks_for_none_has_no_such_section(tmp_path: Path) -> None:
    assert "Public benchmarks" not in page(tmp_path)
