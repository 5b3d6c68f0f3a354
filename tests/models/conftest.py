"""Tiny models of each family, built once."""

from pathlib import Path

import pytest

from tests.tiny import build_tiny_model


@pytest.fixture(scope="session", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava"])
def any_model(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return build_tiny_model(folder, kind=request.param)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))
