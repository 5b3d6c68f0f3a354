"""What Prometheus and the kubelet are told of a controller."""

import socket
import urllib.error
import urllib.request

import pytest

from mstar.cluster import Cluster
from mstar.controller import metrics as module
from mstar.controller.metrics import Metrics, gpus_held, show
from mstar.controller.status import Phase, Status
from mstar.execution import Execution
from mstar.executors.base import Observation, State
from mstar.history import Entry, Run
from mstar.recipe import planned_steps
from mstar.storage.manifest import Manifest
from tests.executors.making import STEPS
from tests.runs import INPUTS, made_up, small_spec

GPUS = {"limits": {"nvidia.com/gpu": "2"}}
SPEC = small_spec(
    execution={"shards": 4},
    cluster={
        "stages": {
            "generate": {"resources": GPUS, "parallelism": 3},
            "score": {"resources": GPUS, "execution": {"shards": 2}},
            "train": {"resources": GPUS, "nodes": 4},
            "evaluate": {"resources": GPUS},
        }
    },
)
RUN = Run(spec=SPEC, inputs=INPUTS)
GENERATE, TRAIN = STEPS["warm-up/generate"], STEPS["warm-up/train"]
WORKING = Observation(state=State.RUNNING)


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, {"run": "small", **labels})


def status(step, attempt=1, worked=0.0, phase=Phase.RUNNING):
    return Status(phase=phase, step=step.name, attempt=attempt, worked=worked)


def entry(step, index, seconds=1.0):
    ref = made_up("step", step.name)
    return Entry(
        index=index, name=step.name, ref=ref, adopted=False, seconds=seconds, finished_at=0
    )


def finish(metrics, step, index, seconds=1.0):
    manifest = Manifest(kind="step", id="0" * 64, parts=())
    metrics.finished(step, index, 22, manifest, entry(step, index, seconds))


def test_the_step_at_hand_and_the_phase_are_shown():
    metrics = Metrics(RUN)
    metrics.started(GENERATE, 1, 22, 1, "")
    metrics.told(status(GENERATE, phase=Phase.WAITING))
    labels = {"step": "warm-up/generate", "stage": "generate", "index": "1"}
    assert value(metrics, "mstar_step_info", **labels) == 1
    assert value(metrics, "mstar_run_phase", phase="waiting") == 1
    assert value(metrics, "mstar_run_phase", phase="running") == 0
    assert value(metrics, "mstar_steps_planned") == planned_steps(SPEC)
    metrics.started(TRAIN, 3, 22, 1, "")
    assert value(metrics, "mstar_step_info", **labels) is None


def test_finished_steps_are_counted_by_stage_and_go_on_from_those_before():
    metrics = Metrics(RUN, finished=1)
    assert value(metrics, "mstar_steps_finished") == 1
    metrics.started(GENERATE, 1, 22, 1, "")
    finish(metrics, GENERATE, 1, seconds=12.5)
    assert value(metrics, "mstar_steps_finished") == 2
    assert value(metrics, "mstar_steps_total", stage="generate") == 1
    assert value(metrics, "mstar_step_seconds_total", stage="generate") == 12.5


def test_only_further_attempts_are_restarts():
    metrics = Metrics(RUN)
    metrics.started(TRAIN, 3, 22, 1, "")
    assert value(metrics, "mstar_restarts_total", stage="train") is None
    metrics.started(TRAIN, 3, 22, 2, "lost")
    assert value(metrics, "mstar_restarts_total", stage="train") == 1


def test_gpu_seconds_are_those_that_an_attempt_works_times_what_its_pods_hold():
    metrics = Metrics(RUN)
    metrics.started(GENERATE, 1, 22, 1, "")
    for worked in (0.0, 10.0, 10.0, 15.0):
        metrics.told(status(GENERATE, worked=worked))
    assert value(metrics, "mstar_gpu_seconds_total", stage="generate") == 15 * 6
    metrics.started(GENERATE, 1, 22, 2, "lost")
    metrics.told(status(GENERATE, attempt=2, worked=1.0))
    assert value(metrics, "mstar_gpu_seconds_total", stage="generate") == 16 * 6
    metrics.started(TRAIN, 2, 22, 1, "")
    metrics.told(status(TRAIN, worked=2.0))
    assert value(metrics, "mstar_gpu_seconds_total", stage="train") == 2 * 8


def test_an_attempt_that_was_taken_over_is_shown_and_counted_from_now_on():
    metrics = Metrics(RUN, finished=3)
    metrics.progress(TRAIN, WORKING)
    labels = {"step": "warm-up/train", "stage": "train", "index": "3"}
    assert value(metrics, "mstar_step_info", **labels) == 1
    metrics.told(status(TRAIN, worked=1000.0))
    assert value(metrics, "mstar_gpu_seconds_total", stage="train") is None
    metrics.told(status(TRAIN, worked=1004.0))
    assert value(metrics, "mstar_gpu_seconds_total", stage="train") == 4 * 8


@pytest.mark.parametrize(
    ("stage", "gpus"), [("generate", 6), ("score", 4), ("train", 8), ("evaluate", 2)]
)
def test_what_a_stage_holds_is_that_of_all_its_pods(stage, gpus):
    assert gpus_held(SPEC.cluster, SPEC.execution, stage) == gpus


@pytest.mark.parametrize(("amount", "gpus"), [("1", 1), (1.0, 1), ("2.0", 2), (8, 8), ("500m", 0)])
def test_any_amount_that_a_spec_may_hold_is_understood(amount, gpus):
    block = {"stages": {"train": {"resources": {"limits": {"amd.com/gpu": amount}}}}}
    assert gpus_held(Cluster.model_validate(block), Execution(), "train") == gpus


@pytest.fixture
def server():
    now = [0.0]
    metrics = Metrics(RUN, clock=lambda: now[0])
    found = show(metrics, 0)
    yield metrics, f"http://127.0.0.1:{found.server_address[1]}", now
    found.shutdown()
    found.server_close()


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - this machine
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_served_as_text(server):
    metrics, url, _ = server
    metrics.started(GENERATE, 1, 22, 1, "")
    code, text = get(f"{url}/metrics?x=y")
    assert code == 200
    assert (
        'mstar_step_info{index="1",run="small",stage="generate",step="warm-up/generate"} 1.0'
        in text
    )
    assert get(f"{url}/other")[0] == 404


def test_a_controller_that_looks_is_healthy_and_one_that_is_stuck_is_not(server):
    metrics, url, now = server
    assert get(f"{url}/healthz") == (200, "ok\n")
    now[0] += module.SILENT_SECONDS + 1
    assert get(f"{url}/healthz") == (503, "stuck\n")
    metrics.progress(GENERATE, WORKING)
    assert get(f"{url}/healthz")[0] == 200


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine speaks IPv4 alone")
def test_it_answers_by_both_kinds_of_address(server):
    port = server[1].rpartition(":")[2]
    assert get(f"http://[::1]:{port}/healthz")[0] == 200
