"""Speed and memory are told as training goes, and measured over the steps alone."""

import logging
import re

import pytest
import torch

from mstar.stages.backends.meter import Meter, peak_host_bytes
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import train

CPU = torch.device("cpu")


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def meter(now):
    return Meter(CPU, 5, seconds=10, clock=lambda: now[0])


def test_tokens_a_second_leave_out_the_time_that_checkpoints_take(meter, now):
    for _ in range(2):
        with meter.paused():
            now[0] += 1000
        now[0] += 4
        meter.step(torch.tensor(1.0), 200)
    usage = meter.usage()
    assert usage["tokens_per_second"] == 50
    assert 0 < usage["peak_host_memory_bytes"] <= peak_host_bytes()
    assert usage["peak_memory_bytes"] == usage["peak_host_memory_bytes"]


def test_the_log_says_how_it_goes_no_more_often_than_asked(meter, now, caplog):
    with caplog.at_level(logging.INFO, logger="mstar"):
        for _ in range(5):
            now[0] += 6
            meter.step(torch.tensor(1.25), 60)
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "optimizer step 2 of 5: loss 1.25",
        "optimizer step 4 of 5: loss 1.25",
    ]
    assert re.search(r"10 tokens/s, peak memory \d+\.\d\d GiB", caplog.text)


def test_nothing_is_said_of_no_steps(meter):
    assert meter.usage() == {}


def test_a_step_s_report_holds_what_it_took(tiny_model, tmp_path):
    usage = train(tiny_model, make_rows(8), tmp_path).usage
    assert usage["tokens_per_second"] > 0
    assert usage["peak_memory_bytes"] > 50e6
