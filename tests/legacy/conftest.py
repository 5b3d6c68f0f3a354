"""Model folders with code of their own, built once; what they leave in Hugging Face's module cache is a test's."""

import warnings

import pytest

from mstar.models.family import load_family
from tests.legacy.building import KINDS, build_standin


@pytest.fixture(scope="session", autouse=True)
def modules_of_ours(tmp_path_factory):
    """transformers copies the code of a folder into a cache and imports it from there."""
    from transformers import dynamic_module_utils

    patch = pytest.MonkeyPatch()
    patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
    yield
    patch.undo()


@pytest.fixture(scope="session", params=KINDS)
def standin(request, tmp_path_factory):
    return build_standin(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="session")
def family(standin):
    return load_family(standin, remote_code=True)


@pytest.fixture(autouse=True)
def older_libraries_warn():
    """transformers 4.48 is older than the torch and Python it runs on; its warnings are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
