"""What a tracker lacks is said before any work, and nobody who named none is kept from it."""

import importlib.util

import pytest

from mstar.config import Tracking, parse_spec, spec_differences
from mstar.errors import MissingDependency, SpecError
from mstar.tracking.packages import to_tell
from tests.runs import small_spec

FIND = importlib.util.find_spec


@pytest.fixture
def lacking(monkeypatch):
    """Only these trackers' packages are not installed."""

    def without(*names):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name in names else object()
        )

    return without


def test_tensorboard_is_told_unless_something_else_is_said():
    assert small_spec().tracking.to == ("tensorboard",)
    assert not small_spec().tracking.demanded


def test_without_tensorboard_a_run_that_did_not_name_it_goes_on(lacking):
    lacking("tensorboard")
    assert to_tell(Tracking(), {}).to == ()


@pytest.mark.parametrize(
    ("tracker", "extra"), [("tensorboard", "train"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_named_tracker_without_its_package_is_an_error_that_names_the_extra(
    lacking, tracker, extra
):
    lacking(tracker)
    with pytest.raises(MissingDependency, match=rf"mstar\[{extra}\]"):
        to_tell(Tracking(to=(tracker,)), {"MLFLOW_TRACKING_URI": "x", "WANDB_API_KEY": "x"})


def test_mlflow_without_an_address_would_write_where_nobody_looks(lacking):
    lacking()
    with pytest.raises(SpecError, match="MLFLOW_TRACKING_URI is not set"):
        to_tell(Tracking(to=("mlflow",)), {})


@pytest.mark.parametrize(
    "environment", [{"WANDB_API_KEY": "secret"}, {"WANDB_MODE": "offline"}, {"NETRC": "keys"}]
)
def test_weights_and_biases_needs_a_key_or_no_server(lacking, environment, tmp_path, monkeypatch):
    lacking()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    (tmp_path / "keys").chmod(0o600)
    assert to_tell(Tracking(to=("wandb",)), environment).to == ("wandb",)
    with pytest.raises(SpecError, match="WANDB_API_KEY"):
        to_tell(Tracking(to=("wandb",)), {"NETRC": str(tmp_path / "none")})


def test_trackers_change_no_result():
    told, silent = small_spec(tracking={"to": ["wandb"]}), small_spec(tracking={"to": []})
    assert told.result_hash == silent.result_hash
    assert spec_differences(told, silent) == []


@pytest.mark.parametrize("tracking", [{"to": ["tensorbord"]}, {"to": [], "api_key": "x"}, {"project": ""}])  # fmt: skip
def test_a_slip_in_the_block_is_named(tracking):
    with pytest.raises(SpecError, match="tracking"):
        parse_spec({"name": "a", "data": {"path": "d"}, "model": "m", "tracking": tracking})
