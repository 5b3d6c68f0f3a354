"""``mstarctl plan``: on the paper's recipes and the demo's, with a store, and what it says of mistakes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mstarctl.main import app
from typer.testing import CliRunner

from mstar import errors
from mstar.config import load_spec
from mstar.controller.prepare import prepare
from mstar.demo.dataset import write_dataset
from mstar.demo.specs import base_folder
from mstar.estimate.assumptions import DEFAULTS
from mstar.estimate.calibration import parse_calibration, save_calibration
from mstar.recipe import Done, next_step
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Ref
from mstar.tasks import task_hash
from tests.estimate.test_calibration import RAW

ROOT = Path(__file__).resolve().parents[2]
PAPER = sorted((ROOT / "recipes" / "paper").glob("*.yaml"))
COUNTS = {"train": 180_000, "validation": 250, "test": 750}


def run(*arguments: object):
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def counted(path: Path):
    """The options that stand in for data that is not there."""
    extra = {"unlabeled": 180_000} if "unlabeled" in path.stem else {}
    return [f"--queries={name}={count}" for name, count in (COUNTS | extra).items()]


def planned(path: Path, *options: object):
    result = run("-f", path, "--no-store", "-o", "json", *options)
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned") / "data"
    write_dataset(folder, sizes={"train": 16, "validation": 4, "test": 4})
    return folder


@pytest.fixture
def spec(tmp_path, data):
    """A spec of the demo's model and few queries, and its store. The file."""
    file = tmp_path / "spec.yaml"
    body = {
        "name": "small", "store": str(tmp_path / "store"), "data": {"path": str(data)},
        "model": str(base_folder()), "evolve": {"iterations": 2, "rollout": {"max_new_tokens": 72}},
        "warm_up": {"rollout": {"max_new_tokens": 72}}, "prm": {"rollout": {"max_new_tokens": 72}},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(body), encoding="utf-8")
    return file


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_every_recipe_of_the_paper_is_planned(path):
    found = planned(path, *counted(path), "--gpu", "h100", "--price", 2)
    whole = found["stages"][-1]
    assert whole["name"] == "all"
    assert 0 < whole["gpu_hours"]["low"] < whole["gpu_hours"]["high"]
    assert whole["cost"]["high"] == pytest.approx(2 * whole["gpu_hours"]["high"])
    assert len(found["steps"]) == whole["steps"]
    assert found["assumptions"]


def test_the_recipe_of_m_star_comes_near_the_paper_s_ten_thousand_updates():
    found = planned(ROOT / "recipes/paper/m-star.yaml", *counted(Path("m-star")))
    trained = [
        step["rows"]
        for step in found["steps"]
        if step["stage"] == "train" and step["step"].startswith("iter-")
    ]
    low, high = (sum(rows[end] for rows in trained) / 128 for end in ("low", "high"))
    assert low < 10_000
    assert high == pytest.approx(0.95 * 14 * 45_000 * 2 / 128)


def test_every_number_that_was_assumed_is_named_with_its_value_and_how_to_change_it():
    path = ROOT / "recipes/paper/m-star.yaml"
    told = run("-f", path, "--no-store", *counted(path)).stdout
    for name in planned(path, *counted(path))["assumptions"]:
        assert f"{name}=" in told.replace("\n", "")
    for words in ("nobody named one", "--gpu", "--price", "MiniCPM", "180,000"):
        assert words in told


def test_the_memory_of_the_paper_s_training_is_warned_of_with_what_would_fit():
    path = ROOT / "recipes/paper/minicpm-v-2.5.yaml"
    whole = ("--set", "execution.micro_batch=null")
    found = planned(path, *counted(path), "--gpu", "a100-40", *whole)
    warnings = [w for w in found["warnings"] if w.startswith("training with ZeRO 2, 8 ranks")]
    assert warnings
    assert "execution.micro_batch=" in warnings[0]


def test_a_plan_of_what_is_here_counts_it_in_the_files(spec):
    found = planned(spec)
    facts = {fact["what"]: fact for fact in found["facts"]}
    assert facts["queries"]["value"] == "train 16, validation 4, test 4"
    assert "818k parameters" in facts["model"]["value"]
    assert facts["model: tokens an image"]["value"] == "4"


def test_what_is_said_replaces_what_is_assumed(spec, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("right: [0.2, 0.3]\nsolved: 0.5\nprice: 4\ngpu: l4\n", encoding="utf-8")
    found = planned(spec, "--assume", file, "--assume", "solved=0.75")
    said = found["assumptions"]
    assert said["right"]["value"] == {"low": 0.2, "high": 0.3}
    assert said["right"]["source"] == str(file)
    assert said["solved"]["value"] == {"low": 0.75, "high": 0.75}
    assert said["solved"]["source"] == "--assume"
    whole = found["stages"][-1]
    assert whole["cost"]["low"] == pytest.approx(4 * whole["gpu_hours"]["low"])
    assert any("l4" in fact["value"] for fact in found["facts"])


def commit(store, spec_file, count):
    """Commit a run's first steps, as its controller would."""
    asked = load_spec(spec_file)
    run_ = prepare(store, asked)
    history: list[Done] = []
    for _ in range(count):
        step = next_step(run_.spec, run_.inputs, history)
        assert step is not None
        with ArtifactWriter(store, task_hash(step.task), "1") as writer:
            writer.add_bytes("part", b"x")
            results = {"responses": 256, "tokens": 2560, "selected": 50}
            commit = writer.commit(results=results)
        history.append(
            Done(name=step.name, ref=Ref.of(commit.manifest), results=commit.manifest.results)
        )
    return [done.name for done in history]


@pytest.mark.parametrize("name", ["small", "another"])
def test_steps_that_the_store_has_count_as_nothing_also_those_of_another_run(spec, tmp_path, name):
    store = FolderStore(tmp_path / "store")
    names = commit(store, spec, 3)
    result = run("-f", spec, "--set", f"name={name}", "-o", "json")
    found = json.loads(result.stdout)
    adopted = [step["step"] for step in found["steps"] if step["adopted"]]
    assert adopted == names
    assert found["stages"][-1]["adopted"] == 3
    trained = next(step for step in found["steps"] if step["step"] == "warm-up/train")
    assert trained["rows"] == {"low": 50, "high": 50}
    told = run("-f", spec, "--set", f"name={name}").stdout
    assert "1 there" in told


def test_a_store_that_cannot_be_read_is_an_error_when_it_is_named_and_a_warning_when_it_is_the_spec_s(
    spec, tmp_path
):
    missing = run("-f", spec, "--store", tmp_path / "nowhere")
    assert isinstance(missing.exception, errors.StorageError)
    store = tmp_path / "store"
    commit(FolderStore(store), spec, 1)
    (store / "runs/small/spec.json").write_text("{")
    found = json.loads(run("-f", spec, "-o", "json").stdout)
    assert any("cannot be read" in warning for warning in found["warnings"])
    assert isinstance(run("-f", spec, "--store", store).exception, errors.IntegrityError)


def test_a_saved_measurement_is_used_and_shown(spec, tmp_path):
    cal = tmp_path / "cal.yaml"
    save_calibration(parse_calibration(RAW | {"parameters": 818_240}, "cal"), cal)
    found = planned(spec, "--assume", cal, "--local")
    facts = {fact["what"]: fact for fact in found["facts"]}
    assert facts["device"]["source"] == str(cal)
    assert "measured_spread" in found["assumptions"]
    assert found["where"] == "local"


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (["--gpu", "h10"], errors.SpecError, "did you mean h100"),
        (["--assume", "rihgt=0.5"], errors.SpecError, "did you mean right"),
        (["--assume", "right=much"], errors.SpecError, "expected a number"),
        (
            ["--assume", "right=2"],
            errors.SpecError,
            "right is 2; expected a number above 0 and at most 1,",
        ),
        (["--assume", "memory_reserve=5"], errors.SpecError, "above 0 and at most 0.9,"),
        (["--assume", "steps=1e300"], errors.SpecError, "at most 1,000,000,000,000,"),
        (["--price", "inf"], errors.SpecError, "--price is inf; expected a number from 0 to"),
        (["--price", "1e400"], errors.SpecError, "--price is inf"),
        (["--price", "nan"], errors.SpecError, "--price is nan"),
        (["--price", "-1"], errors.SpecError, "--price is -1.0"),
        (["--assume", "nowhere.yaml"], errors.SpecError, "cannot be read"),
        (["--quota", "much"], errors.SpecError, "500GB"),
        (["--parameters", "many"], errors.SpecError, "8.5e9"),
        (["--parameters", "9e9"], errors.SpecError, "leave it out"),
        (["--teacher-parameters", "9e9"], errors.SpecError, "names no teacher"),
        (["--queries", "train"], errors.SpecError, "SPLIT=N"),
        (["--queries", "train=9"], errors.SpecError, "has 16 queries there"),
        (["--set", "evolve.iterations=0"], errors.SpecError, "evolve.iterations"),
    ],
)
def test_a_mistake_is_one_message(spec, options, kind, said):
    result = run("-f", spec, "--no-store", *options)
    assert isinstance(result.exception, kind)
    assert said in str(result.exception)


@pytest.mark.parametrize(
    "options", [("--gpu", "h10"), ("--quota", "much"), ("--assume", "right=2"), ("--price", "inf")]
)
def test_a_mistake_in_what_is_said_is_told_before_model_and_data_are_looked_for(spec, options):
    lost = run("-f", spec, "--no-store", "--set", "model=/nowhere/m", *options)
    assert isinstance(lost.exception, errors.SpecError)


@pytest.mark.parametrize("value", ["0.9", "1e-11"])
def test_the_least_and_the_most_that_may_be_said_make_a_plan(spec, value):
    for name, known in DEFAULTS.items():
        planned(spec, "--assume", f"{name}={value}")
        if known.most > 1:
            planned(spec, "--assume", f"{name}=1e12")


def test_a_model_or_data_that_is_nowhere_says_what_to_give(spec):
    lost = run("-f", spec, "--no-store", "--set", "model=/nowhere/m")
    assert isinstance(lost.exception, errors.ModelError)
    assert "--parameters" in str(lost.exception)
    lost = run("-f", spec, "--no-store", "--set", "data.path=/nowhere/d")
    assert isinstance(lost.exception, errors.DataError)
    assert "--queries train=N" in str(lost.exception)


def test_measurements_that_contradict_what_else_is_said_are_refused(spec, tmp_path):
    cal = tmp_path / "cal.yaml"
    save_calibration(parse_calibration(RAW, "cal"), cal)
    other = run("-f", spec, "--no-store", "--assume", cal)
    assert isinstance(other.exception, errors.SpecError)
    assert "1,000,000,000 parameters" in str(other.exception)
    twice = run("-f", spec, "--no-store", "--assume", cal, "--assume", cal)
    assert "both calibrations" in str(twice.exception)
    both = run("-f", spec, "--no-store", "--assume", cal, "--calibrate")
    assert "contradict" in str(both.exception)
    gpu = run("-f", spec, "--no-store", "--assume", cal, "--gpu", "l4")
    assert "contradicts --gpu l4" in str(gpu.exception)


@pytest.mark.parametrize("options", [["--save", "x"], ["--no-store", "--store", "x"]])
def test_options_that_make_no_sense_together_are_a_usage_error(spec, options):
    assert run("-f", spec, *options).exit_code == 2


def test_measuring_needs_the_spec_s_own_model_and_data(spec):
    lost = run("-f", spec, "--no-store", "--calibrate", "--set", "model=/nowhere/InternVL2-2B")
    assert isinstance(lost.exception, errors.ModelError)
    assert "--calibrate measures" in str(lost.exception)


def test_planning_imports_neither_torch_nor_a_cloud_s_client(spec):
    code = (
        "import sys; from typer.testing import CliRunner; from mstarctl.main import app; "
        f"found = CliRunner().invoke(app, ['plan', '-f', {str(spec)!r}, '--no-store']); "
        "assert found.exit_code == 0, found.exception; "
        "print([n for n in ('torch', 'transformers', 'boto3', 'kubernetes') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
