"""Several machines that share nothing but the store train as one does, and none of them waits for a dead one.

Each machine is a process with a scratch folder of its own; they meet at 127.0.0.1.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mstar.errors import IntegrityError, Preempted, WorkerLost
from mstar.execution import DeepSpeed
from mstar.stages.context import Gang
from mstar.storage.folder import FolderStore
from mstar.storage.reading import read_manifest
from mstar.storage.store import Store
from mstar.tasks import TrainTask, task_hash
from tests.ports import Port
from tests.stages.backends.rank import stands
from tests.stages.steps import (
    EACH_STEP,
    ONE_THREAD,
    SECONDS,
    attempt,
    digests,
    losses,
    make_policy_task,
    progress,
    rank_processes,
    start,
    until_kept,
)
from tests.tiny import build_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed]
ROWS = 320
NOTICE_SECONDS = 180
"""Within so long a machine must have noticed that another is gone."""

ALONE = ONE_THREAD.model_copy(update={"deepspeed": DeepSpeed(processes=2, zero_stage=1)})
EACH = EACH_STEP.model_copy(update={"deepspeed": DeepSpeed(processes=1, zero_stage=1)})


class Machines:
    """A gang of two on disks of their own, ended with the test."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.ports: list[Port] = []

    def start(
        self,
        task: TrainTask,
        name: str,
        *,
        other: TrainTask | None = None,
        stand_at: int | None = None,
    ) -> list["subprocess.Popen[bytes]"]:
        self.ports.append(Port())
        pair = [
            start(
                self.store,
                other if other and rank else task,
                name,
                self.folder / f"machine-{rank}",
                execution=EACH,
                gang=Gang(size=2, rank=rank, address="127.0.0.1", port=self.ports[-1].number),
                ranks_stand=None if stand_at is None else stands(kept=stand_at),
            )
            for rank in (0, 1)
        ]
        self.started += pair
        return pair


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
def machines(s3_store, tmp_path):
    gang = Machines(s3_store, tmp_path)
    yield gang
    for process in gang.started:
        process.kill()
        process.communicate()
    for port in gang.ports:
        port.close()


def ended(
    processes: list["subprocess.Popen[bytes]"], seconds: float = SECONDS
) -> list[tuple[int, str]]:
    """Exit code and last words of each."""
    deadline = time.monotonic() + seconds
    found = []
    for process in processes:
        _, said = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
        found.append((process.returncode, said.decode()))
    return found


def test_a_gang_killed_here_and_there_and_preempted_commits_what_one_machine_does(
    machines, alone, tmp_path
):
    model, expected, curve = alone
    store = machines.store
    task = make_policy_task(store, model, tmp_path / "data", ROWS)
    for victim in (1, 0):
        kept = max(progress(store, task), default=0)
        gang = machines.start(task, f"killed-{victim}", stand_at=kept + 6)
        until_kept(store, task, kept + 3, *gang)
        assert len(rank_processes(tmp_path)) == 4  # torchrun and a rank on each machine
        gang[victim].kill()
        ((code, said),) = ended([gang[1 - victim]], NOTICE_SECONDS)
        assert (code, "\nWorkerLost: " in f"\n{said}") == (WorkerLost.exit_code, True), said
        assert rank_processes(tmp_path) == []
        assert read_manifest(store, "step", task_hash(task)) is None
    kept = max(progress(store, task))
    gang = machines.start(task, "preempted", stand_at=kept + 6)
    until_kept(store, task, kept + 3, *gang)
    os.killpg(gang[1].pid, signal.SIGTERM)
    for code, said in ended(gang):
        assert code == Preempted.exit_code, said
        assert f"a checkpoint after optimizer step {max(progress(store, task))} is in" in said
    assert max(progress(store, task)) < ROWS // 8
    for code, said in ended(machines.start(task, "last")):
        assert code == 0, said
    found = read_manifest(store, "step", task_hash(task))
    assert found is not None
    assert losses(store, found) == curve
    assert digests(found) == digests(expected)
    assert found.digest == expected.digest
    # Nothing is left of the attempts that failed, nor of the checkpoints inside the step.
    left = set(store.list(f"steps/{task_hash(task)}"))
    named = {part.key for part in found.parts}
    assert left == named | {f"steps/{task_hash(task)}/manifest.json"}


def test_machines_that_prepared_different_rows_all_refuse_to_train(machines, alone, tmp_path):
    model, _, _ = alone
    task = make_policy_task(machines.store, model, tmp_path / "data", 16)
    gang = machines.start(task, "1", other=task.model_copy(update={"seed": 4}))
    for code, said in ended(gang):
        assert code == IntegrityError.exit_code, said
        assert "prepared different rows" in said
