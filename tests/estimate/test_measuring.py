"""The measuring itself, really done: a tiny model, few queries, the stages' own backends."""

import json
import time

import pytest

from mstar import errors
from mstar.demo.dataset import write_dataset
from mstar.estimate import measuring
from mstar.estimate.calibration import check_fits, parse_calibration
from mstar.estimate.folders import read_model
from mstar.stages import calibrate as program
from mstar.stages.calibrate import Trial, measure
from tests.runs import small_spec
from tests.tiny import build_tiny_model


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("measured")
    write_dataset(root / "data", sizes={"train": 12, "validation": 4, "test": 4})
    build_tiny_model(root / "model")
    return root


def asked(place, model="model"):
    return small_spec(
        data={"path": str(place / "data")},
        model=str(place / model),
        evolve={
            "rollout": {"samples": 4, "max_new_tokens": 12},
            "optimization": {"batch_size": 4, "learning_rate": 1e-3},
        },
        execution={"sampling_rows": 16, "scoring_rows": 8, "threads": 1, "device": "cpu"},
        prompts={"query": "{question}"},
    )


def measured(place, folder, model="model"):
    spec = asked(place, model)
    trial = Trial.model_validate(measuring.trial(spec, 8.0))
    return spec, parse_calibration(measure(trial, folder, time.perf_counter), "now")


def test_sampling_scoring_and_training_are_measured_on_the_user_s_model(place, tmp_path):
    spec, found = measured(place, tmp_path)
    assert found.device.kind == "cpu"
    assert found.device.memory > 1e8
    assert found.generate is not None
    assert found.generate.token_seconds > 0
    assert 0 < found.generate.response_tokens <= 12
    assert found.generate.rows == 16
    assert found.score is not None
    assert found.train is not None
    assert found.train.examples >= 4
    assert found.prompt_tokens > found.image_tokens > 0
    assert not found.random
    assert found.left_out == {}
    model = read_model(spec.model, "model")
    assert found.parameters == model.parameters
    check_fits(found, spec, model, "now")


def test_a_folder_without_weights_is_measured_with_made_up_ones(place, tmp_path):
    bare = place / "bare"
    bare.mkdir(exist_ok=True)
    for file in (place / "model").iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    _, found = measured(place, tmp_path, "bare")
    assert found.random
    assert found.generate is not None
    assert not list(bare.glob("*.safetensors"))


@pytest.mark.parametrize(
    "shortage", [errors.OutOfMemory("no room"), RuntimeError("CUDA out of memory")]
)
def test_what_finds_no_memory_is_left_out_and_said_so(place, tmp_path, monkeypatch, shortage):
    def starved(*arguments):
        raise shortage

    monkeypatch.setattr(program, "_train", starved)
    _, found = measured(place, tmp_path)
    assert found.train is None
    assert found.left_out == {"train": "out of memory"}
    assert found.score is not None


def fake(monkeypatch, tmp_path, code):
    """A program in place of the measuring one."""
    (tmp_path / "fake_trial.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(measuring, "PROGRAM", "fake_trial")


def test_what_the_measuring_says_is_wrong_is_raised_here(place, monkeypatch, tmp_path):
    said = json.dumps({"error": "too many pixels", "exit_code": errors.ModelError.exit_code})
    fake(monkeypatch, tmp_path, f"import sys; open(sys.argv[2], 'w').write({said!r})")
    with pytest.raises(errors.ModelError, match="calibrating: too many pixels"):
        measuring.calibrate(asked(place))


def test_a_process_that_ends_without_a_word_gives_its_last_one(place, monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path, "import sys; sys.exit('the driver is too old')")
    with pytest.raises(
        errors.WorkerLost, match="exit code 1; the last it said: the driver is too old"
    ):
        measuring.calibrate(asked(place))


def test_a_measuring_that_does_not_end_is_stopped(place, monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path, "import time; time.sleep(60)")
    monkeypatch.setattr(measuring, "DEADLINE_SECONDS", 0.5)
    with pytest.raises(errors.WorkerLost, match="did not end"):
        measuring.calibrate(asked(place))


def test_without_torch_it_says_what_to_install(place, monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path, "import a_package_that_is_not_there")
    with pytest.raises(errors.MissingDependency, match=r"mstar\[train\]"):
        measuring.calibrate(asked(place))
