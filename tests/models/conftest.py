"""Tiny models of each family, built once."""

from pathlib import Path

import pytest

from tests.models.tiny_families import FAMILIES, build
from tests.tiny import build_tiny_model

FALLBACK = "llava"


@pytest.fixture(scope="session", params=[*FAMILIES, FALLBACK])
def folder(request, tmp_path_factory) -> Path:
    """A model of every family with a module of its own, and one that the fallback serves; named as its model_type."""
    place = tmp_path_factory.mktemp("families") / request.param
    if request.param == FALLBACK:
        return build_tiny_model(place, kind=FALLBACK)
    return build(request.param, place)


@pytest.fixture(scope="session", params=FAMILIES)
def known(request, tmp_path_factory) -> Path:
    """A model of every family with a module of its own."""
    return build(request.param, tmp_path_factory.mktemp("known") / request.param)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))
