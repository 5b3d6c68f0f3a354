"""Nothing outside the engines that the legacy image lacks needs a later transformers to be imported."""

from importlib import import_module
from pkgutil import walk_packages

import transformers

import mstar.models
import mstar.stages

LATER = {"mstar.stages.backends.roomy"}
"""Imported only where a cache has layers, which those of transformers 4.48 have not."""

BY_VLLM = {"mstar.stages.backends.vllm_bans"}
"""Imported by vLLM's own processes."""


def test_models_stages_and_backends_can_be_imported():
    packages = (mstar.models, mstar.stages)
    names = {
        module.name
        for package in packages
        for module in walk_packages(package.__path__, f"{package.__name__}.")
    }
    assert names > LATER | BY_VLLM
    names -= BY_VLLM
    if transformers.__version__.startswith("4."):
        names -= LATER
    for name in sorted(names):
        import_module(name)
