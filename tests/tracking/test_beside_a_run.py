"""Who runs steps says when there is something to tell, and its trackers never keep it."""

import importlib.util
import sys
from typing import ClassVar

import pytest
from mstarctl import telling as command

from mstar.errors import DataError, MissingDependency, Preempted
from mstar.executors.fake import FakeExecutor
from mstar.stages import pod as module
from mstar.stages import run as running
from mstar.stages.context import Gang
from mstar.stages.pod import Pod, Stopping, serve
from mstar.stages.run import ForRun, Request
from mstar.storage.folder import FolderStore
from mstar.tasks import task_hash
from mstar.tracking import process
from mstar.tracking.process import Telling
from tests.controller.test_controller import Silent
from tests.executors.making import STEPS
from tests.runs import committing, small_spec, stored_run

KEY = "runs/small/jobs/job/request.json"


class Heard:
    """Stands for the process that tells."""

    made: ClassVar[list["Heard"]] = []

    def __init__(self, url, run, tracking, warn):
        self.run, self.tracking, self.looks, self.closed = run, tracking, [], []
        Heard.made.append(self)

    def look(self, at=None, *, again=False):
        self.looks.append(at)

    def close(self, seconds=None):
        self.closed.append(seconds)


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    Heard.made = []
    monkeypatch.setattr(process, "Telling", Heard)
    monkeypatch.setattr(module, "Telling", Heard)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return Heard.made


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


def advance(store, work):
    from mstar.controller.loop import Controller

    run = stored_run(store, small_spec())
    with command.telling(store, run, Silent()) as reporter:
        Controller(store, FakeExecutor(work), run, reporter).advance()


def test_a_local_run_says_what_trains_and_what_is_finished(store, heard):
    advance(store, committing(store))
    (told,) = heard
    trained = [at.step for at in told.looks if at]
    assert trained == [
        "warm-up/train",
        "prm/completer",
        "prm/train",
        "iter-01/train",
        "iter-02/train",
    ]
    assert told.looks.count(None) == len(list(store.list("runs/small/history")))
    assert told.closed == [None]


def test_a_local_run_that_fails_lets_its_trackers_finish(store, heard):
    def fail(job):
        raise DataError("an image is broken")

    with pytest.raises(DataError):
        advance(store, fail)
    assert heard[0].closed == [None]


def served(store, monkeypatch, step, *, gang=None, trouble=lambda context: None):
    """One pod's part of a step for the run called small."""

    def whole(task, context, writer):
        trouble(context)
        return {}

    for name in ("train_whole", "evaluate_whole"):
        monkeypatch.setattr(running, name, whole)
    monkeypatch.setattr(running, "generate_shard", lambda *_: {"responses": 1})
    if store.size("runs/small/spec.json") is None:
        stored_run(store, small_spec())
    asked = ForRun(run="small", index=3, step=step)
    request = Request(store=store.url, task=STEPS[step].task, asked=asked)
    serve(store, request, Pod(index=0, name="pod-a", gang=gang), KEY, Stopping())


@pytest.mark.parametrize("step", ["warm-up/train", "base/test"])
def test_a_pod_that_trains_or_evaluates_has_trackers_told_of_its_commit(
    store, monkeypatch, heard, step
):
    served(store, monkeypatch, step)
    (told,) = heard
    assert [(at.step, at.id, at.committed) for at in told.looks] == [
        (step, task_hash(STEPS[step].task), False),
        (step, task_hash(STEPS[step].task), True),
    ]


def test_other_pods_tell_nobody(store, monkeypatch, heard):
    served(store, monkeypatch, "warm-up/generate")
    gang = Gang(size=2, rank=1, address="first", port=1)
    served(store, monkeypatch, "warm-up/train", gang=gang)
    assert heard == []


def test_a_pod_that_is_asked_to_go_does_not_wait_for_trackers_long(store, monkeypatch, heard):
    def preempt(context):
        raise Preempted("asked to stop")

    with pytest.raises(Preempted):
        served(store, monkeypatch, "warm-up/train", trouble=preempt)
    (told,) = heard
    assert [at.committed for at in told.looks] == [False]
    assert told.closed == [module.LAST_SECONDS]


def test_a_package_that_a_pod_lacks_is_said_before_it_works(store, monkeypatch, heard):
    stored_run(store, small_spec(tracking={"to": ["wandb"]}))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    worked: list[object] = []
    with pytest.raises(MissingDependency):
        served(store, monkeypatch, "base/test", trouble=worked.append)
    assert worked == []


SCRIPTS = {
    "dies": "import sys; sys.stderr.write('out of luck\\n'); sys.exit(3)",
    "hangs": "import time; time.sleep(600)",
}


@pytest.mark.parametrize(
    ("what", "why"), [("dies", "code 3; the last it said: out of luck"), ("hangs", "not through")]
)
def test_a_process_that_tells_and_dies_or_hangs_is_said_once(tmp_path, monkeypatch, what, why):
    (tmp_path / "bad_teller.py").write_text(SCRIPTS[what])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "MODULE", "bad_teller")
    warned: list[str] = []
    telling = Telling("store", "small", small_spec().tracking, warned.append)
    telling.look()
    if what == "dies":
        assert telling._child
        telling._child.wait()
    telling.look()
    telling.close(0.2)
    telling.look()
    assert len(warned) == 1
    assert why in warned[0]
    assert "mstarctl track small" in warned[0]
    assert sys.modules.get("wandb") is None
