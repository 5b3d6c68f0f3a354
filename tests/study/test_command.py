"""``mstarctl study`` as a person uses it, with stages that make their results up."""

import json

import pytest
from mstarctl import study as command

from mstar.demo.dataset import write_dataset
from mstar.storage.folder import FolderStore
from mstar.study import runner
from tests.study.making import Stages, read_json, write_study
from tests.tiny import write_tensors


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Data, and two folders that look like models."""
    root = tmp_path_factory.mktemp("inputs")
    write_dataset(root / "data", sizes={"train": 40, "validation": 8, "test": 40})
    for model in ("a", "b"):
        (root / model).mkdir()
        for name in ("config.json", "processor_config.json"):
            (root / model / name).write_text(f'{{"model": "{model}"}}')
        write_tensors(root / model / "model.safetensors", {}, of=model)
    return root


@pytest.fixture
def study(tmp_path, inputs):
    """Write a study of two rows, two bases and two seeds; its file."""

    def write(**changes):
        bases = [{"name": name, "model": str(inputs / name)} for name in ("a", "b")]
        fields = {"bases": bases, "set": [f"data.path={inputs / 'data'}"]}
        return write_study(tmp_path, **fields | changes)

    return write


@pytest.fixture
def stages(tmp_path, monkeypatch):
    found = Stages(
        FolderStore(tmp_path / "store"), tmp_path, skill=lambda run: 0.8 if "some" in run else 0.4
    )
    monkeypatch.setattr(command, "LocalExecutor", found.executor)
    return found


def test_a_study_is_run_compared_and_written(mstarctl, study, stages, tmp_path):
    code, out, err = mstarctl("study", "-f", study(), "--local")
    assert code == 0, err
    assert "some" in out
    assert "step-time" in out
    body = read_json(tmp_path / "study.json")
    assert (body["finished"], body["of"]) == (8, 8)
    some = body["rows"][1]
    assert some["accuracy"]["n"] == 4
    assert some["difference"]["low"] > 0
    assert some["questions"] == 40
    assert len(some["by_cell"]) == 4
    assert 0 < body["adoption"]["adopted"] < body["adoption"]["steps"]
    assert "Study st" in (tmp_path / "study.html").read_text()
    assert "8 of 8 cells done, nothing left" in err


def test_the_same_command_again_runs_nothing(mstarctl, study, stages):
    file = study()
    mstarctl("study", "-f", file, "--local")
    before = len(stages.asked)
    assert mstarctl("study", "-f", file, "--local")[0] == 0
    assert len(stages.asked) == before


def test_a_failed_cell_is_named_the_others_finish_and_the_command_fails(
    mstarctl, study, stages, tmp_path
):
    file = study()
    stages.breaking = {"st-some-a-s0"}
    code, _, err = mstarctl("study", "-f", file, "--local")
    assert code == 9
    assert "failed: some on a, seed 0 (run st-some-a-s0), exit code 9: " in err
    assert "blew up" in err
    body = read_json(tmp_path / "study.json")
    assert body["finished"] == 7
    assert [each["run"] for each in body["failed"]] == ["st-some-a-s0"]
    stages.breaking = set()
    assert mstarctl("study", "-f", file, "--local")[0] == 0
    body = read_json(tmp_path / "study.json")
    assert (body["finished"], body["failed"]) == (8, [])


def test_an_interrupted_command_says_how_to_go_on(mstarctl, study, stages, tmp_path, monkeypatch):
    file = study()

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "run_cells", interrupt)
        code, _, err = mstarctl("study", "-f", file, "--local")
    assert code == 130
    assert "the same command goes on" in err
    assert mstarctl("study", "-f", file, "--local")[0] == 0


def test_what_had_ended_when_the_command_was_interrupted_is_in_the_file(
    mstarctl, study, stages, tmp_path, monkeypatch
):
    real = runner.run_cells

    def interrupted(todo, *arguments, told, **options):
        real(todo[:3], *arguments, told=told, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_cells", interrupted)
    assert mstarctl("study", "-f", study(), "--local")[0] == 130
    assert read_json(tmp_path / "study.json")["finished"] == 3


def test_a_damaged_run_is_named_and_the_others_count(mstarctl, study, stages, tmp_path):
    file = study()
    mstarctl("study", "-f", file, "--local")
    (tmp_path / "study.json").unlink()
    next((tmp_path / "store/runs/st-some-a-s0/history").glob("0001*")).write_text("{")
    code, _, err = mstarctl("study", "-f", file, "--report-only")
    assert code == 0
    assert "failed: some on a, seed 0" in err
    assert "0001-warm-up-generate.json is damaged" in " ".join(err.split())
    assert read_json(tmp_path / "study.json")["finished"] == 7


def test_results_go_on_where_the_store_is_not(mstarctl, study, stages, tmp_path):
    """One machine runs the first seed, another the second; the file alone goes between them."""
    assert mstarctl("study", "-f", study(seeds=[0]), "--local")[0] == 0
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    stages.store = FolderStore(tmp_path / "store")
    stages.asked.clear()
    code, _, err = mstarctl("study", "-f", study(), "--local")
    assert code == 0
    assert {run[-2:] for run, _ in stages.asked} == {"s1"}
    assert "4 of 8 cells are done already" in err
    assert read_json(tmp_path / "study.json")["finished"] == 8


def test_the_report_alone_needs_no_store_and_no_data(mstarctl, study, stages, tmp_path):
    file = study()
    mstarctl("study", "-f", file, "--local")
    before = read_json(tmp_path / "study.json")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    gone = study(set=["data.path=nowhere"])
    code, _, _ = mstarctl("study", "-f", gone, "--report-only")
    assert code == 0
    assert read_json(tmp_path / "study.json")["rows"] == before["rows"]


def test_the_report_of_a_study_that_was_never_run_is_empty(mstarctl, study, tmp_path):
    code, out, _ = mstarctl("study", "-f", study(), "--report-only", "--out", tmp_path / "there")
    assert code == 0
    assert "8 cells have no results yet" in out
    assert (tmp_path / "there" / "study.html").is_file()


def test_a_row_that_was_changed_is_set_aside_and_run_under_its_own_name_only(
    mstarctl, study, stages, tmp_path
):
    mstarctl("study", "-f", study(), "--local")
    changed = study(set=["data.path=nowhere", "evolve.iterations=3"])
    code, _, err = mstarctl("study", "-f", changed, "--report-only")
    assert code == 0
    assert "set aside: st-all-a-s0, because its run had another spec" in err
    assert read_json(tmp_path / "study.json")["finished"] == 0
    assert len(read_json(tmp_path / "study.json")["set_aside"]) == 8


def test_programs_are_told_in_json(mstarctl, study, stages):
    code, out, err = mstarctl("study", "-f", study(), "--local", "-o", "json")
    assert code == 0
    assert json.loads(out)["finished"] == 8
    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["state"] for line in lines} == {"finished"}


def test_a_mistake_is_found_before_anything_runs(mstarctl, study, stages):
    code, _, err = mstarctl("study", "-f", study(set=["data.path=nowhere"]), "--local")
    assert code == 4
    assert "run st-all-a-s0: " in err
    assert "nowhere" in err
    assert stages.asked == []


def test_a_cluster_needs_a_store_that_it_can_reach(mstarctl, study):
    code, _, err = mstarctl("study", "-f", study(), "--cluster")
    assert code == 3
    assert "s3://" in err
