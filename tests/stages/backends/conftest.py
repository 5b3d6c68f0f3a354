"""A tiny model, built once."""

from pathlib import Path

import pytest

from mstar.models.family import load_family
from tests.tiny import build_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def family(tiny_model):
    return load_family(tiny_model)
