"""What every executor promises: names, not handles, and nothing that only the process knows."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mstar.errors import NotFound, WorkerLost
from mstar.execution import Execution
from mstar.executors.base import ABSENT, Executor, Job, State
from mstar.executors.fake import FakeExecutor
from mstar.executors.local import LocalExecutor
from mstar.recipe import next_step
from mstar.storage.open import open_store
from mstar.tasks import task_hash
from tests import fake_api
from tests.executors.making import executor as kubernetes
from tests.executors.making import real_pods
from tests.fake_kubelet import Kubelet
from tests.runs import INPUTS, small_spec

SECONDS = 600


@pytest.fixture(params=["fake", "local", "kubernetes"])
def executor(request, tmp_path):
    def fail(job: Job) -> None:
        raise NotFound(f"nothing for {job.step}")

    found: Executor
    if request.param == "kubernetes":
        store = open_store(tmp_path)
        with fake_api.running() as cluster:
            kubelet = Kubelet(cluster, real_pods(store))
            cluster.logs = EverySame()
            found = kubernetes(cluster, store, run="run")
            yield found
            found.close()
            kubelet.join()
        return
    found = FakeExecutor(fail) if request.param == "fake" else LocalExecutor()
    yield found
    found.close()


class EverySame(dict[str, str]):
    """Every pod printed the same."""

    def get(self, key, default=""):
        return "NotFound: …\n"


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


def worker_of(patch, script):
    """Have workers started that run a script."""
    real = subprocess.Popen

    def start(command, **options):
        return real([sys.executable, "-c", script], **options)

    patch.setattr("mstar.executors.local.subprocess.Popen", start)


def test_an_attempt_that_was_never_submitted_is_absent(executor, tmp_path):
    assert executor.observe("nobody") == ABSENT
    executor.delete("nobody")
    executor.retire("nobody")
    assert executor.log("nobody") == ""
    assert executor.find(0, task_hash(job(tmp_path).task)) is None


def test_a_failed_attempt_says_why_and_with_which_code(executor, tmp_path):
    name = executor.submit(job(tmp_path))
    found = ended(executor, name)
    assert found.state is State.FAILED
    assert found.exit_code == NotFound.exit_code
    assert not found.retriable
    assert not found.excused
    assert found.message
    assert executor.log(name)


def test_submitting_a_name_twice_starts_one_attempt(executor, tmp_path):
    first = executor.submit(job(tmp_path))
    assert executor.submit(job(tmp_path)) == first
    assert ended(executor, first).state is State.FAILED


def test_two_attempts_have_two_names(executor, tmp_path):
    first = executor.submit(job(tmp_path))
    ended(executor, first)
    executor.delete(first)
    assert executor.submit(job(tmp_path, 2)) != first


def test_a_deleted_attempt_is_absent_and_the_next_one_runs(executor, tmp_path):
    name = executor.submit(job(tmp_path))
    executor.delete(name)
    assert executor.observe(name) == ABSENT
    executor.delete(name)
    assert ended(executor, executor.submit(job(tmp_path, 2))).state is State.FAILED


def test_a_retired_attempt_is_done_with_and_may_be_retired_again(executor, tmp_path):
    name = executor.submit(job(tmp_path))
    ended(executor, name)
    executor.retire(name)
    executor.retire(name)
    assert executor.observe(name).state in {State.FAILED, State.ABSENT}


def test_waiting_ends_after_the_given_time_when_nothing_happens(executor):
    began = time.monotonic()
    executor.wait("nobody", 0.2)
    assert time.monotonic() - began < 10


def test_a_closed_executor_may_be_closed_again(executor):
    executor.close()
    executor.close()


def test_a_killed_worker_is_a_failure_that_may_pass_and_the_next_attempt_gets_a_new_one(
    tmp_path, monkeypatch
):
    executor = LocalExecutor()
    try:
        with monkeypatch.context() as patch:
            worker_of(patch, "import time; time.sleep(600)")  # at work until it is killed
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
    worker_of(
        monkeypatch,
        'import os, sys; sys.stdin.readline(); os.write(1, b\'{"job": "ru\'); os.abort()',
    )
    executor = LocalExecutor()
    try:
        executor.submit(job(tmp_path))
        found = ended(executor, "run-0000-1-1")
    finally:
        executor.close()
    assert (found.exit_code, found.retriable) == (WorkerLost.exit_code, True)
    assert "SIGABRT" in found.message
