"""Several machines that share nothing but the store train as one does, and none of them waits for a dead one.

Each machine is a process with a scratch folder of its own; they meet at 127.0.0.1.
"""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mstar.errors import IntegrityError, Preempted, WorkerLost
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Manifest
from mstar.storage.reading import read_manifest
from mstar.tasks import DeepSpeed, Execution, TrainTask, task_hash
from tests.stages.steps import (
    EACH_STEP,
    ONE_THREAD,
    Order,
    attempt,
    digests,
    losses,
    make_policy_task,
    progress,
)
from tests.tiny import build_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed]
ROOT = Path(__file__).resolve().parents[2]
ROWS = 160
SECONDS = 240
NOTICE_SECONDS = 60
"""Within so long a machine must have noticed that another is gone."""

ALONE = ONE_THREAD.model_copy(update={"deepspeed": DeepSpeed(processes=2, zero_stage=1)})
EACH = EACH_STEP.model_copy(update={"deepspeed": DeepSpeed(processes=1, zero_stage=1)})


class Machines:
    """A gang of two: started together, watched, and ended with the test."""

    def __init__(self, store: FolderStore, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(
        self, task: TrainTask, name: str, *, other: TrainTask | None = None, how: Execution = EACH
    ) -> list["subprocess.Popen[bytes]"]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return [
            self._start(rank, port, other if other and rank else task, name, how) for rank in (0, 1)
        ]

    def said(self, rank: int, name: str) -> str:
        return (self.folder / f"{name}-{rank}.txt").read_text()

    def _start(
        self, rank: int, port: int, task: TrainTask, name: str, how: Execution
    ) -> "subprocess.Popen[bytes]":
        order = Order(
            store=self.store.url,
            task=task,
            execution=how,
            attempt=name,
            scratch=self.folder / f"machine-{rank}",
            gang={"size": 2, "rank": rank, "address": "127.0.0.1", "port": port},
        )
        path = self.folder / f"{name}-{rank}.json"
        path.write_text(order.model_dump_json())
        with (self.folder / f"{name}-{rank}.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.stages.steps", str(path)],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one machine with two ranks commits, without any checkpoint inside the step."""
    pytest.importorskip("deepspeed")
    root = tmp_path_factory.mktemp("alone")
    model = build_tiny_model(root / "model")
    store = FolderStore(root / "store")
    task = make_policy_task(store, model, root / "data", ROWS)
    manifest = attempt(store, task, root / "scratch", execution=ALONE)
    return model, manifest, losses(store, manifest)


@pytest.fixture
def machines(tmp_path):
    gang = Machines(FolderStore(tmp_path / "store"), tmp_path)
    yield gang
    for process in gang.started:
        process.kill()
        process.wait()


def until_kept(store: FolderStore, task: TrainTask, steps: int) -> None:
    deadline = time.monotonic() + SECONDS
    while max(progress(store, task), default=0) < steps:
        assert time.monotonic() < deadline, f"no checkpoint after step {steps} in {SECONDS} s"
        time.sleep(0.01)


def codes(processes: list["subprocess.Popen[bytes]"], seconds: float = SECONDS) -> list[int]:
    deadline = time.monotonic() + seconds
    return [process.wait(max(0.1, deadline - time.monotonic())) for process in processes]


def committed(store: FolderStore, task: TrainTask) -> Manifest:
    manifest = read_manifest(store, "step", task_hash(task))
    assert manifest is not None
    return manifest


def test_a_gang_killed_here_and_there_and_preempted_commits_what_one_machine_does(
    machines, alone, tmp_path
):
    model, expected, curve = alone
    store = machines.store
    task = make_policy_task(store, model, tmp_path / "data", ROWS)
    for victim, steps in ((1, 3), (0, 7)):
        name = f"killed-{victim}"
        gang = machines.start(task, name)
        until_kept(store, task, steps)
        gang[victim].kill()
        survivor = gang[1 - victim]
        assert codes([survivor], NOTICE_SECONDS) == [WorkerLost.exit_code], machines.said(
            1 - victim, name
        )
        assert "WorkerLost" in machines.said(1 - victim, name)
        assert read_manifest(store, "step", task_hash(task)) is None
    gang = machines.start(task, "preempted")
    until_kept(store, task, 11)
    gang[1].send_signal(signal.SIGTERM)
    assert codes(gang) == [Preempted.exit_code] * 2
    assert "a checkpoint after optimizer step" in machines.said(0, "preempted")
    assert max(progress(store, task)) < ROWS // 8
    gang = machines.start(task, "last")
    assert codes(gang) == [0, 0], machines.said(0, "last") + machines.said(1, "last")
    found = committed(store, task)
    assert losses(store, found) == curve
    assert digests(found) == digests(expected)
    assert found.digest == expected.digest
    # Nothing is left of the attempts that failed, nor of the checkpoints inside the step.
    left = {key for key in store.list(f"steps/{task_hash(task)}")}
    named = {part.key for part in found.parts}
    assert left == named | {f"steps/{task_hash(task)}/manifest.json"}


def test_machines_that_prepared_different_rows_all_refuse_to_train(machines, alone, tmp_path):
    model, _, _ = alone
    task = make_policy_task(machines.store, model, tmp_path / "data", 16)
    gang = machines.start(task, "1", other=task.model_copy(update={"seed": 4}))
    assert codes(gang) == [IntegrityError.exit_code] * 2
    for rank in (0, 1):
        assert "prepared different rows" in machines.said(rank, "1")
