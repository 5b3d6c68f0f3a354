import pytest

from tests.report.making import make_run, make_spec, make_store
from tests.tiny import build_tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("export") / "model")


@pytest.fixture
def store(tmp_path, model):
    """A store with a finished run called mstar, each checkpoint of which is the same tiny model."""
    found = make_store(tmp_path)
    make_run(found, tmp_path, make_spec(model="/machine/models/tiny"), model=model)
    return found
