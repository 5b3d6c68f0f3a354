"""What every executor promises: names, not handles, and nothing that only the process knows."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mstar.errors import NotFound, WorkerLost
from mstar.executors.base import ABSENT, Executor, Job, State
from mstar.executors.fake import FakeExecutor
from mstar.executors.local import LocalExecutor
from mstar.recipe import next_step
from mstar.tasks import Execution
from tests.runs import INPUTS, small_spec

SECONDS = 60


@pytest.fixture(params=["fake", "local"])
def executor(request):
    def fail(job: Job) -> None:
        raise NotFound(f"nothing for {job.step}")

    found: Executor = FakeExecutor(fail) if request.param == "fake" else LocalExecutor()
    yield found
    found.close()


def job(tmp_path, number=1):
    """A task whose model is nowhere: it fails at once, and with the reason."""
    step = next_step(small_spec(), INPUTS, [])
    assert step is not None
    return Job(
        run="run",
        index=0,
        step=step.name,
        number=number,
        store=str(tmp_path),
        task=step.task,
        execution=Execution(threads=1),
        attempt=f"1-{number}",
    )


def ended(executor, name):
    deadline = time.monotonic() + SECONDS
    while executor.observe(name).state is State.RUNNING and time.monotonic() < deadline:
        executor.wait(name, 1.0)
    return executor.observe(name)


def test_an_attempt_that_was_never_submitted_is_absent(executor):
    assert executor.observe("nobody") == ABSENT
    executor.delete("nobody")
    assert executor.log("nobody") == ""


def test_a_failed_attempt_says_why_and_with_which_code(executor, tmp_path):
    executor.submit(job(tmp_path))
    found = ended(executor, "run-0000-1-1")
    assert found.state is State.FAILED
    assert found.exit_code == NotFound.exit_code
    assert not found.retriable
    assert found.message
    assert executor.log("run-0000-1-1")


def test_submitting_a_name_twice_starts_one_attempt(executor, tmp_path):
    executor.submit(job(tmp_path))
    executor.submit(job(tmp_path))
    assert ended(executor, "run-0000-1-1").state is State.FAILED


def test_a_deleted_attempt_is_absent_and_the_next_one_runs(executor, tmp_path):
    executor.submit(job(tmp_path))
    executor.delete("run-0000-1-1")
    assert executor.observe("run-0000-1-1") == ABSENT
    executor.submit(job(tmp_path, 2))
    assert ended(executor, "run-0000-1-2").state is State.FAILED


def test_a_killed_worker_is_a_failure_that_may_pass_and_the_next_attempt_gets_a_new_one(tmp_path):
    executor = LocalExecutor()
    try:
        executor.submit(job(tmp_path))
        assert executor._worker is not None
        os.kill(executor._worker.pid, signal.SIGKILL)
        found = ended(executor, "run-0000-1-1")
        assert (found.state, found.exit_code) == (State.FAILED, WorkerLost.exit_code)
        assert found.retriable
        assert "SIGKILL" in found.message
        executor.delete("run-0000-1-1")
        executor.submit(job(tmp_path, 2))
        assert ended(executor, "run-0000-1-2").exit_code == NotFound.exit_code
    finally:
        executor.close()


def test_a_closed_executor_leaves_no_process(tmp_path):
    executor = LocalExecutor()
    executor.submit(job(tmp_path))
    assert executor._worker is not None
    pid = executor._worker.pid
    executor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_half_an_event_from_a_killed_worker_is_no_reason_to_wait_for_ever(tmp_path, monkeypatch):
    script = 'import os, sys; sys.stdin.readline(); os.write(1, b\'{"job": "ru\'); os.abort()'
    real = subprocess.Popen

    def dying(command, **options):
        return real([sys.executable, "-c", script], **options)

    monkeypatch.setattr("mstar.executors.local.subprocess.Popen", dying)
    executor = LocalExecutor()
    try:
        executor.submit(job(tmp_path))
        found = ended(executor, "run-0000-1-1")
    finally:
        executor.close()
    assert (found.exit_code, found.retriable) == (WorkerLost.exit_code, True)
    assert "SIGABRT" in found.message
