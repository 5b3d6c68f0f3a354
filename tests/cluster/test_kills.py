"""Whatever is killed on a real cluster, each step is committed once and the run ends the same."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mstar.storage import keys
from tests.cluster.lab import Lab, committed_once

pytestmark = pytest.mark.slow
STEPS = 5


def digests(lab: Lab, name: str) -> dict[str, str]:
    return {entry.name: entry.ref.digest for entry in lab.history(name)}


def start(lab: Lab, name: str, **changes: Any) -> None:
    lab.mstarctl("run", "-f", str(lab.spec(name, **changes)))


def kill_controller(lab: Lab, name: str) -> None:
    for pod in lab.running(name, "controller"):
        lab.kill(pod)


@pytest.mark.parametrize("boundaries", [(1, 2, 3), (0, 4)])
def test_the_controller_killed_at_step_boundaries(lab: Lab, boundaries: tuple[int, ...]):
    name = f"boundaries-{len(boundaries)}"
    start(lab, name)
    for boundary in boundaries:
        deadline = time.monotonic() + 420
        while len(lab.history(name)) < boundary or not lab.running(name, "controller"):
            assert time.monotonic() < deadline, lab.status(name)
            time.sleep(0.2)
        kill_controller(lab, name)
    lab.mstarctl("wait", name, "--store", lab.url)
    committed_once(lab, name, STEPS)
    # A run of the same seed that nothing disturbs plans the very same steps, so it adopts every one.
    again = str(lab.spec(f"{name}-again"))
    seed = yaml.safe_load(lab.spec(name).read_text())["seed"]
    lab.mstarctl("run", "-f", again, "--set", f"seed={seed}", "--wait")
    assert digests(lab, f"{name}-again") == digests(lab, name)
    assert all(entry.adopted for entry in lab.history(f"{name}-again"))


def test_the_controller_killed_at_random_moments_leaves_live_work_alone(lab: Lab):
    start(lab, "moments")
    killed = 0
    moments = random.Random(os.urandom(8).hex())
    for component in ("evaluate", "train"):
        (worker,) = lab.until_running("moments", component)
        wait = moments.uniform(0, 3)
        print(f"killing the controller {wait:.2f} s after {component} began")  # noqa: T201 - pytest shows it
        time.sleep(wait)
        kill_controller(lab, "moments")
        killed += 1
        lab.kubectl(
            "wait", f"pod/{worker}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=200s"
        )
    lab.mstarctl("wait", "moments", "--store", lab.url)
    committed_once(lab, "moments", STEPS)
    assert killed == 2
    # No attempt but the first was ever needed: what the dead controller had started, the next one found.
    attempts = {job["metadata"]["labels"]["mstar.dev/attempt"] for job in step_jobs(lab, "moments")}
    assert attempts == {"1"}


def step_jobs(lab: Lab, name: str) -> list[dict[str, dict[str, dict[str, str]]]]:
    return lab.objects("jobs", f"mstar.dev/run={name},app.kubernetes.io/component!=controller")


def test_a_generator_killed_half_way_runs_its_shard_again_and_doubles_nothing(lab: Lab):
    shards = {"execution": {"shards": 2}}
    start(lab, "shards", stages={"generate": shards})
    first, _ = lab.until_running("shards", "generate", 2)
    lab.kill(first)
    lab.mstarctl("wait", "shards", "--store", lab.url)
    committed_once(lab, "shards", STEPS)
    (step,) = [entry for entry in lab.history("shards") if entry.name == "iter-01/generate"]
    manifest = json.loads(lab.store.get(keys.manifest("step", step.ref.id)))
    assert manifest["results"]["responses"] == 12 * 4


def test_a_trainer_killed_in_a_gang_restarts_the_gang_from_its_checkpoint_and_the_curve_joins(
    lab: Lab,
):
    ranks = {"processes": 1, "zero_stage": 1}
    gang = {"nodes": 2, "execution": {"deepspeed": ranks, "checkpoint_seconds": 1}}
    longer = ("--set", "evolve.optimization.epochs=60", "--set", "evolve.optimization.batch_size=8")
    spec = lab.spec("gang", stages={"train": gang})
    lab.mstarctl("run", "-f", str(spec), *longer)
    _, second = lab.until_running("gang", "train", 2)
    deadline = time.monotonic() + 300
    while not any("/progress/" in key and key.endswith(".json") for key in lab.store.list("steps")):
        assert time.monotonic() < deadline, lab.status("gang")
        time.sleep(0.5)
    lab.kill(second)
    found = lab.until(lambda seen: seen["status"]["attempt"] >= 2, "gang", 240)
    assert found["status"]["step"] == "iter-01/train"
    lab.mstarctl("wait", "gang", "--store", lab.url)
    committed_once(lab, "gang", STEPS)
    (step,) = [entry for entry in lab.history("gang") if entry.name == "iter-01/train"]
    manifest = json.loads(lab.store.get(keys.manifest("step", step.ref.id)))
    losses = json.loads(
        lab.store.get(next(p["key"] for p in manifest["parts"] if p["name"] == "losses.json"))
    )
    assert (
        len(losses) == manifest["results"]["optimizer_steps"] == manifest["results"]["global_step"]
    )
    assert not list(lab.store.list(f"steps/{step.ref.id}/progress"))


def test_two_controllers_at_once_commit_each_step_once(lab: Lab, tmp_path: Path):
    start(lab, "twins")
    lab.until(lambda found: found["finished_steps"] >= 1, "twins")
    (pod,) = lab.running("twins", "controller")
    uid = "a-second-controller"
    for key in list(lab.store.list(f"{keys.run('twins')}/lease")):
        lab.store.delete(
            key
        )  # the lease is taken away: each of the two will believe that it holds the run
    log = (tmp_path / "second.log").open("wb")
    script = Path(__file__).parent / "second_controller.py"
    second = subprocess.Popen(
        [sys.executable, str(script), lab.url, "twins", lab.namespace, uid],
        env=os.environ | lab.environment(),
        stderr=log,
    )
    try:
        lab.until(lambda found: found["status"]["phase"] == "finished", "twins")
        assert second.wait(120) in {0, 8}, (tmp_path / "second.log").read_text()
    finally:
        second.kill()
        log.close()
    lab.mstarctl("wait", "twins", "--store", lab.url)
    committed_once(lab, "twins", STEPS)
    assert pod.startswith("mstar-twins-")
