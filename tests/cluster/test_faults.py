"""Faults on a real cluster: each is named by `status` within a minute, ends as documented, and loses nothing."""

import time
from typing import Any

import pytest

from mstar.errors import ClusterError, IntegrityError, OutOfMemory, StorageError, StoreRefused
from tests.cluster.lab import Lab, committed_once

pytestmark = pytest.mark.slow
MINUTE = 60.0


def why(found: dict[str, Any]) -> str:
    said: str = found["status"]["why"]
    return said


def start(lab: Lab, name: str, **changes: Any) -> None:
    lab.mstarctl("run", "-f", str(lab.spec(name, **changes)))


def mend(lab: Lab, name: str) -> None:
    """Submit the run again without its fault: it goes on from the last commit to its end."""
    lab.mstarctl("run", "-f", str(lab.spec(name)), "--wait")
    committed_once(lab, name, 5)


def test_out_of_memory(lab: Lab):
    small = {"resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}}}
    start(lab, "memory", stages={"evaluate": small})
    lab.until(lambda found: "out of memory" in why(found), "memory", MINUTE)
    ended = lab.mstarctl("wait", "memory", "--store", lab.url, code=OutOfMemory.exit_code)
    assert "64Mi" in ended.stderr
    mend(lab, "memory")


def test_an_image_that_is_not_there(lab: Lab):
    start(
        lab, "image", stages={"evaluate": {"image": "localhost/no-such-image:1"}}, start_seconds=15
    )
    found = lab.until(lambda found: "image pull" in why(found), "image", MINUTE)
    assert "localhost/no-such-image:1" in why(found)
    ended = lab.mstarctl("wait", "image", "--store", lab.url, code=ClusterError.exit_code)
    assert "could not start within 15 s" in ended.stderr


@pytest.mark.parametrize(
    ("name", "pod", "words"),
    [
        ("gpus", {"resources": {"limits": {"nvidia.com/gpu": "8"}}}, "nvidia.com/gpu (asks for 8)"),
        ("selector", {"patch": {"spec": {"nodeSelector": {"gpu": "h100"}}}}, "gpu=h100"),
    ],
)
def test_a_request_that_no_node_can_meet(lab: Lab, name: str, pod: dict[str, Any], words: str):
    start(lab, name, stages={"evaluate": pod}, pending_seconds=40)
    found = lab.until(lambda found: "unschedulable" in why(found), name, MINUTE)
    assert words in why(found)
    assert found["status"]["phase"] == "waiting"
    lab.mstarctl("wait", name, "--store", lab.url, code=ClusterError.exit_code)


def test_a_quota_that_is_used_up(lab: Lab):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "tight"},
        "spec": {"hard": {"requests.memory": "700Mi"}},
    }
    lab.cluster.apply(lab.namespace, [quota])
    big = {"resources": {"requests": {"memory": "690Mi"}}}
    try:
        start(lab, "quota", stages={"evaluate": big})
        found = lab.until(lambda found: "quota" in why(found), "quota", MINUTE)
        assert "tight" in why(found)
    finally:
        lab.kubectl("delete", "resourcequota", "tight")
    lab.mstarctl("cancel", "quota", "--store", lab.url)
    lab.nothing_left("quota")


def test_wrong_credentials(lab: Lab):
    lab.secret("wrong-keys", "nobody", "nothing-of-the-kind")
    start(lab, "keys", secret="wrong-keys")
    found = lab.until(lambda found: found["status"]["phase"] == "failed", "keys", MINUTE)
    assert found["status"]["exit_code"] == StoreRefused.exit_code
    assert "nothing-of-the-kind" not in why(found)
    lab.mstarctl("wait", "keys", "--store", lab.url, code=StoreRefused.exit_code)
    mend(lab, "keys")


def test_a_secret_that_is_missing_is_refused_before_anything_is_made(lab: Lab):
    spec = lab.spec("secretless", secret="no-such-secret")
    found = lab.mstarctl("run", "-f", str(spec), code=ClusterError.exit_code)
    assert "no Secret no-such-secret" in found.stderr
    lab.nothing_left("secretless")


def test_a_bucket_that_is_missing(lab: Lab):
    spec = lab.spec("bucketless")
    found = lab.mstarctl(
        "run",
        "-f",
        str(spec),
        "--set",
        "store=s3://no-such-bucket/runs",
        code=StoreRefused.exit_code,
    )
    assert "no-such-bucket" in found.stderr
    lab.nothing_left("bucketless")


def test_a_bucket_that_goes_away_and_comes_back(lab: Lab, s3_running: None):
    start(lab, "away")
    lab.until_running("away", "generate")
    lab.cluster.stop_s3()
    began = time.monotonic()
    seen = lab.mstarctl("status", "away", "--store", lab.url, code=StorageError.exit_code)
    assert lab.cluster.s3_endpoint in seen.stderr
    assert time.monotonic() - began < MINUTE
    time.sleep(max(0.0, 25 - (time.monotonic() - began)))
    lab.cluster.start_s3()
    lab.mstarctl("wait", "away", "--store", lab.url)
    committed_once(lab, "away", 5)


def test_a_corrupted_shard(lab: Lab, s3: Any):
    # The scorer waits for an image that never comes, so the generator's part can be damaged before it is read.
    start(lab, "corrupt", stages={"score": {"image": "localhost/no-such-image:1"}})
    lab.until(lambda found: found["finished_steps"] >= 2, "corrupt")
    lab.mstarctl("cancel", "corrupt", "--store", lab.url)
    lab.nothing_left("corrupt")
    (step,) = [entry for entry in lab.history("corrupt") if entry.name == "iter-01/generate"]
    part = next(
        key for key in lab.store.list(f"steps/{step.ref.id}") if key.endswith("responses.parquet")
    )
    whole = lab.store.get(part)
    lab.store.put(part, whole[:-100] + bytes(100))
    again = ("run", "-f", str(lab.spec("corrupt")))
    ended = lab.mstarctl(*again, "--wait", code=IntegrityError.exit_code)
    assert "responses.parquet" in ended.stderr
    assert "responses.parquet" in why(lab.status("corrupt"))
    lab.store.put(part, whole)
    mend(lab, "corrupt")


def test_cancel_in_each_stage_leaves_nothing_and_the_run_goes_on(lab: Lab):
    start(lab, "cancelled")
    for number, stage in enumerate(("evaluate", "generate", "score", "train")):
        if number:
            lab.mstarctl("resume", "cancelled", "--store", lab.url)
        if len(lab.history("cancelled")) > number:
            continue  # it was done before the cancel of the stage before reached it
        lab.until_running("cancelled", stage)
        lab.mstarctl("cancel", "cancelled", "--store", lab.url)
        lab.nothing_left("cancelled")
        assert lab.status("cancelled")["status"]["phase"] == "cancelled"
        assert len(lab.history("cancelled")) >= number
    lab.mstarctl("resume", "cancelled", "--store", lab.url, "--wait")
    committed_once(lab, "cancelled", 5)
