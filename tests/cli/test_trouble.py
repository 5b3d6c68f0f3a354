"""The command on a machine that is not well, and what it says to programs."""

import errno
import json
import os
from pathlib import Path

import pytest
import yaml

from mstar import errors
from mstar.controller.status import Phase, Status, write_status
from mstar.history import load_history
from mstar.report.document import write_whole
from mstar.report.scale import duration
from mstar.storage import keys
from mstar.storage.folder import FolderStore
from tests.controller.test_controller import advance
from tests.runs import committing, small_spec, stored_run


@pytest.fixture
def store(tmp_path):
    """A folder with a finished run called small."""
    found = FolderStore(tmp_path / "store")
    advance(found, small_spec())
    return found


def broken(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only")]
)
def test_a_store_that_takes_nothing_ends_the_command_in_one_message(
    mstarctl, tmp_path, monkeypatch, number, words
):
    store = FolderStore(tmp_path / "store")
    stored_run(store, small_spec())
    monkeypatch.setattr(Path, "write_bytes", broken(number))
    code, out, said = mstarctl("resume", "small", "-s", store.url)
    assert (code, out) == (errors.StorageError.exit_code, "")
    assert words in said
    assert len(said.splitlines()) == 1
    monkeypatch.undo()
    advance(store, small_spec())


def test_a_file_where_the_store_should_be_is_named(mstarctl, tmp_path):
    (tmp_path / "store").write_text("a file")
    for command in (["status"], ["resume", "small"], ["doctor"]):
        code, out, said = mstarctl(*command, "-s", tmp_path / "store")
        assert code == errors.StorageError.exit_code, command
        assert str(tmp_path / "store") in out + said


def test_a_report_that_cannot_be_written_is_one_message(mstarctl, tmp_path):
    store = FolderStore(tmp_path / "store")
    stored_run(store, small_spec())
    code, _, said = mstarctl("report", "small", "-s", store.url, "--out", tmp_path)
    assert code == errors.StorageError.exit_code, said
    assert str(tmp_path) in said


def test_a_scratch_folder_that_cannot_be_made_is_one_message(mstarctl, store, monkeypatch):
    identity = load_history(store, "small")[0].ref.id
    task = json.loads(store.get(keys.task(identity)))
    store.delete(keys.manifest("step", identity))
    file = Path(store.url) / "task.json"
    file.write_text(json.dumps({"store": store.url, "task": task}))
    monkeypatch.setattr("tempfile.mkdtemp", broken(errno.ENOSPC))
    code, _, said = mstarctl("stage", task["stage"], "--task", file)
    assert code == errors.StorageError.exit_code
    assert "TMPDIR" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no task file"),
        ("a: [", "cannot read the task file"),
        ("a: 2020-99-99", "cannot read the task file"),
        ("[]", "is no task file"),
        ("{store: s, task: {stage: generate}}", "task.generate.model"),
        ("{store: s, task: {stage: dance}}", "dance"),
    ],
)
def test_a_task_file_that_is_none_is_a_mistake_in_the_spec(mstarctl, tmp_path, content, words):
    file = tmp_path / "task.json"
    if content is not None:
        file.write_text(content)
    code, _, said = mstarctl("stage", "generate", "--task", file)
    assert code == errors.SpecError.exit_code
    assert words in said


def test_a_spec_that_is_not_there_or_no_yaml_is_named(mstarctl, tmp_path):
    code, _, said = mstarctl("run", "--local", "-f", tmp_path / "none.yaml")
    assert code == errors.SpecError.exit_code
    assert "none.yaml" in said
    code, _, said = mstarctl("run", "--local", "-f", tmp_path)
    assert code == errors.SpecError.exit_code
    assert "is a folder" in said


def test_a_dry_run_refuses_an_address_that_is_no_store(mstarctl, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(small_spec().model_dump(mode="json")))
    for address in ("http://host/runs", "s3://"):
        code, _, said = mstarctl(
            "run", "--local", "--dry-run", "-f", spec, "--set", f"store={address}"
        )
        assert code == errors.SpecError.exit_code
        assert "s3://bucket/prefix" in said


def test_a_model_for_the_judge_without_its_address_is_a_mistake(mstarctl, store):
    code, _, said = mstarctl("analyse", "prm", "small", "-s", store.url, "--judge-model", "m")
    assert code == errors.SpecError.exit_code
    assert "--judge URL" in said


def test_a_page_where_a_folder_stands_is_refused_by_name(tmp_path):
    with pytest.raises(errors.StorageError, match="is a folder; name a file"):
        write_whole(tmp_path, b"page")


def test_a_usage_mistake_is_code_two(mstarctl):
    for arguments in (["dance"], ["run"], ["status", "--colour"], ["demo", "--seed", "-1"]):
        assert mstarctl(*arguments)[0] == 2


def test_a_run_s_record_that_is_damaged_is_an_integrity_error(mstarctl, store):
    store.put(keys.spec("small"), b'{"spec": ')
    for command in (["status"], ["status", "small"], ["resume", "small"], ["cancel", "small"]):
        code, _, said = mstarctl(*command, "-s", store.url)
        assert code == errors.IntegrityError.exit_code
        assert "runs/small/spec.json" in said


def test_a_finished_run_resumed_says_so_in_json(mstarctl, store):
    code, out, _ = mstarctl("resume", "small", "-s", store.url, "-o", "json")
    found = json.loads(out)
    assert code == 0
    assert found["status"]["phase"] == "finished"
    assert found["finished_steps"] == found["planned_steps"]


def test_status_lists_each_finished_step_for_programs(mstarctl, store):
    _, out, _ = mstarctl("status", "small", "-s", store.url, "-o", "json")
    steps = json.loads(out)["steps"]
    assert [step["index"] for step in steps] == list(range(len(steps)))
    assert {"name", "id", "digest", "adopted", "seconds", "finished"} <= steps[0].keys()


def test_status_says_what_was_adopted_and_what_that_saved(mstarctl, store):
    assert "adopted" not in mstarctl("status", "small", "-s", store.url)[1]
    advance(store, small_spec(name="again"))
    steps = len(load_history(store, "again"))
    said = f"{steps} steps were adopted from other runs, which saved {duration(2 * steps)}"
    assert said in mstarctl("status", "again", "-s", store.url)[1]


def test_the_store_may_come_from_the_environment(mstarctl, store, monkeypatch):
    monkeypatch.setenv("MSTAR_STORE", store.url)
    code, out, _ = mstarctl("status")
    assert code == 0
    assert "small" in out


@pytest.mark.parametrize(
    ("package", "key"),
    [
        ("vllm", "execution.engine=vllm"),
        ("deepspeed", "execution.deepspeed={}"),
        ("math-verify", "answers.math_verify=true"),
    ],
)
def test_a_package_that_is_not_installed_is_told_before_anything_runs(
    mstarctl, tmp_path, monkeypatch, package, key
):
    monkeypatch.setattr("mstarctl.work.importlib.util.find_spec", lambda name: None)
    path = tmp_path / "spec.yaml"
    path.write_text("{name: a, data: {path: data}, model: base}")
    code, _, err = mstarctl("run", "-f", path, "--local", "--dry-run", "--set", key)
    assert code == 12
    assert package in err


def test_an_empty_store_has_no_runs(mstarctl, tmp_path):
    assert mstarctl("status", "-s", tmp_path)[1].startswith("no runs in this store")
    assert json.loads(mstarctl("status", "-s", tmp_path, "-o", "json")[1]) == []


def test_the_log_of_one_step_is_printed_alone(mstarctl, store):
    code, out, _ = mstarctl("logs", "small", "warm-up/train", "-s", store.url)
    assert code == 0
    assert out.startswith("fake log of small-0003-")
    found = json.loads(mstarctl("logs", "small", "iter-01/train", "-s", store.url, "-o", "json")[1])
    assert [entry["log"] for entry in found] == ["0015-iter-01-train.1-1"]


def test_a_cancel_of_a_waiting_run_holds_until_it_is_resumed(mstarctl, tmp_path):
    store = FolderStore(tmp_path / "store")
    stored_run(store, small_spec())
    code, out, _ = mstarctl("cancel", "small", "-s", store.url)
    assert code == 0
    assert "resume small" in out
    with pytest.raises(errors.Cancelled):
        advance(store, small_spec(), committing(store))


def test_every_kind_of_error_has_its_own_documented_code():
    kinds = errors.MstarError.__subclasses__()
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 2, 130} & set(codes)
    documented = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()
    for code in codes:
        assert f"| {code} |" in documented


def test_the_shell_can_be_taught_to_complete(mstarctl):
    code, out, _ = mstarctl("--help")
    assert code == 0
    assert "--install-completion" in out


def test_a_run_that_nobody_works_on_is_cancelled_at_once_and_a_failed_one_stays_failed(
    mstarctl, store
):
    stored_run(store, small_spec(name="new"))
    assert "nobody was working on it" in mstarctl("cancel", "new", "-s", store.root)[1]
    assert "run new: cancelled" in mstarctl("status", "new", "-s", store.root)[1]
    write_status(store, "new", Status(phase=Phase.FAILED, why="no space", exit_code=7))
    mstarctl("cancel", "new", "-s", store.root)
    assert "no space" in mstarctl("status", "new", "-s", store.root)[1]


def test_a_step_that_a_run_does_not_have_is_named_with_the_nearest(mstarctl, store):
    code, _, said = mstarctl("logs", "small", "iter-01/genrate", "-s", store.root)
    assert code == errors.NotFound.exit_code
    assert "has no step iter-01/genrate; did you mean iter-01/generate?" in said


def test_a_folder_that_cannot_be_made_is_a_fault_of_the_storage():
    with pytest.raises(errors.StorageError, match="Choose another folder"):
        FolderStore("/proc/nowhere").put("a", b"x")
