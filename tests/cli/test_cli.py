"""What a person sees: one message, the documented exit code, no traceback, and JSON where it is asked for."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml
from mstarctl import show

from mstar import errors
from mstar.controller.loop import request_cancel
from mstar.demo.dataset import write_dataset
from mstar.demo.specs import base_folder, read_recipe
from mstar.storage import keys
from mstar.storage.folder import FolderStore
from tests.controller.test_controller import advance
from tests.runs import committing, small_spec, stored_run


def mstarctl(*arguments, cwd=None):
    """Run the command as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "mstarctl.main", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"COLUMNS": "200"},
    )


def refused(result, error, *words):
    """The command ended with the error's code and one message that has these words."""
    assert result.returncode == error.exit_code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("mstarctl: ")
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, sizes={"train": 24, "validation": 6, "test": 8})
    return folder


@pytest.fixture
def spec(tmp_path, data):
    raw = read_recipe() | {
        "data": {"path": str(data)},
        "model": str(base_folder()),
        "store": "store",
    }
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path):
    """A folder with a finished run called small."""
    found = FolderStore(tmp_path / "store")
    advance(found, small_spec())
    return found


def test_help_loads_no_heavy_package():
    script = (
        "import sys; sys.argv = ['mstarctl', '--help']\n"
        "import mstarctl.main as m\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'boto3', 'transformers', 'pyarrow', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("evolve.iteratons=3", ["evolve.iteratons", "did you mean iterations?"]),
        ("evolve.select.k=40", ["40", "16"]),
        ("evolve.interval=0%", ["interval"]),
        ("warm_up.rollout.temperature=-1", ["warm_up.rollout.temperature", "-1"]),
        ("seed=many", ["seed", "many"]),
        ("seed", ["key.key=value"]),
    ],
)
def test_a_mistake_in_the_spec_is_named(spec, override, words):
    refused(mstarctl("run", "-f", spec, "--local", "--set", override), errors.SpecError, *words)


def test_an_override_changes_one_place_even_where_the_file_repeats_it_by_an_alias(tmp_path, spec):
    text = "shared: &x {samples: 16, temperature: 1.0, max_new_tokens: 72}\n"
    raw = yaml.safe_load(text + spec.read_text(encoding="utf-8"))
    raw["warm_up"]["rollout"] = raw["evolve"]["rollout"] = raw.pop("shared")
    aliased = tmp_path / "aliased.yaml"
    aliased.write_text(yaml.safe_dump(raw), encoding="utf-8")
    override = "warm_up.rollout.temperature=0.5"
    result = mstarctl("run", "-f", aliased, "--local", "--dry-run", "--set", override, "-o", "json")
    found = json.loads(result.stdout)["spec"]
    assert found["warm_up"]["rollout"]["temperature"] == 0.5
    assert found["evolve"]["rollout"]["temperature"] == 1.0


def test_a_folder_that_is_no_model_is_refused(spec, tmp_path):
    refused(
        mstarctl("run", "-f", spec, "--local", "--set", f"model={tmp_path}"),
        errors.ModelError,
        "config.json",
    )


def test_data_that_is_not_there_is_refused_and_nothing_is_written(spec, tmp_path):
    result = mstarctl("run", "-f", spec, "--local", "--set", "data.path=nowhere")
    refused(result, errors.DataError, "nowhere")
    assert not (tmp_path / "store").exists()


def test_a_dry_run_lists_the_steps_and_writes_nothing(spec, tmp_path):
    result = mstarctl("run", "-f", spec, "--local", "--dry-run", "-o", "json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["steps"][-1] == "final/test"
    assert not (tmp_path / "store").exists()


def test_a_run_of_another_spec_under_the_same_name_is_refused_with_the_keys(spec, tmp_path):
    from mstar.config import load_spec
    from mstar.controller.prepare import prepare

    prepare(FolderStore(tmp_path / "store"), load_spec(spec))
    result = mstarctl(
        "run", "-f", spec, "--local", "--set", "seed=5", "--set", "evolve.iterations=2"
    )
    refused(result, errors.ConflictError, "seed: 0 -> 5", "evolve.iterations: 5 -> 2")


def test_unknown_runs_and_stores_are_named(store, tmp_path):
    refused(mstarctl("status", "other", "-s", store.url), errors.NotFound, "other", "small")
    refused(mstarctl("resume", "other", "-s", store.url), errors.NotFound, "other")
    refused(mstarctl("status", "-s", tmp_path / "none"), errors.StorageError, "none")
    refused(mstarctl("logs", "small", "no/step", "-s", store.url), errors.NotFound, "no/step")


def test_an_altered_manifest_is_refused(store):
    victim = next(key for key in store.list("steps") if key.endswith("manifest.json"))
    store.put(victim, store.get(victim).replace(b'"responses": 4', b'"responses": 5'))
    changed = store.get(victim)
    entry = next(iter(store.list(f"{keys.run('small')}/history")))
    assert entry
    if b'"responses": 5' not in changed:
        store.put(victim, changed[:-20])
    refused(mstarctl("resume", "small", "-s", store.url), errors.IntegrityError)


def test_status_and_logs_speak_to_people_and_to_programs(store):
    text = mstarctl("status", "small", "-s", store.url)
    assert "finished" in text.stdout
    for command in (
        ["status"],
        ["status", "small"],
        ["logs", "small"],
        ["doctor"],
        ["cancel", "small"],
    ):
        result = mstarctl(*command, "-s", store.url, "-o", "json")
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout) is not None


def test_a_run_whose_controller_is_gone_says_how_to_go_on(tmp_path):
    store = FolderStore(tmp_path / "store")
    run = stored_run(store, small_spec())
    assert "no controller" in mstarctl("status", run.name, "-s", store.url).stdout


def test_a_cancel_before_a_step_stops_it_there(tmp_path):
    store = FolderStore(tmp_path / "store")
    spec = small_spec()
    commit = committing(store)

    def run(job):
        commit(job)
        request_cancel(store, spec.name, time.time())

    with pytest.raises(errors.Cancelled):
        advance(store, spec, run)
    assert "cancelled" in mstarctl("status", spec.name, "-s", store.url).stdout


def test_a_stage_refuses_a_task_of_another_stage_and_a_file_that_is_none(store, tmp_path):
    task = next(key for key in store.list("steps") if key.endswith("task.json"))
    file = tmp_path / "task.json"
    file.write_text(json.dumps({"store": store.url, "task": json.loads(store.get(task))}))
    stage = json.loads(store.get(task))["stage"]
    other = "train" if stage != "train" else "score"
    refused(mstarctl("stage", other, "--task", file), errors.SpecError, f"mstarctl stage {stage}")
    done = mstarctl("stage", stage, "--task", file)
    assert done.returncode == 0, done.stderr
    assert "committed" in done.stdout
    file.write_text("{store: here}")
    refused(mstarctl("stage", stage, "--task", file), errors.SpecError, "task")


def test_long_work_says_where_it_is_every_half_minute_when_there_is_no_terminal():
    said: list[str] = []
    now = [0.0]
    tell = show.lines("pre-training", said.append, lambda: now[0])
    for second in range(0, 100, 10):
        now[0] = float(second)
        tell(second, 600, "vision steps")
    tell(0, 0, "rows")
    assert said == [f"pre-training: {n} of 600 vision steps" for n in (30, 60, 90)]
