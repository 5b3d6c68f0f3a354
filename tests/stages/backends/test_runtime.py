"""Which device a step takes, and which it refuses to do without."""

import pytest
import torch

from mstar.errors import ModelError, SpecError
from mstar.execution import Execution
from mstar.stages.backends import runtime

AUTO = Execution(device="auto")


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A machine with NVIDIA's driver, whose GPU torch cannot use."""
    path = tmp_path / "nvidiactl"
    path.touch()
    monkeypatch.setattr(runtime, "DRIVER", path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return path


def test_a_gpu_that_torch_cannot_use_is_no_reason_to_be_slow_without_a_word(driver):
    with pytest.raises(ModelError, match=r"cannot use it: its driver is too old .* 580"):
        runtime.choose_device(AUTO)
    assert runtime.choose_device(Execution(device="cpu")).type == "cpu"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_was_hidden_on_purpose_is_not_missed(driver, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert runtime.choose_device(AUTO).type != "cuda"


def test_a_machine_without_a_driver_computes_on_what_it_has(driver):
    driver.unlink()
    assert runtime.choose_device(AUTO).type != "cuda"


def test_ranks_do_not_share_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    runtime.check_ranks(AUTO, 4)
    with pytest.raises(SpecError, match="processes is 8, and 4 GPUs are here"):
        runtime.check_ranks(AUTO, 8)
    runtime.check_ranks(Execution(device="cpu"), 8)
