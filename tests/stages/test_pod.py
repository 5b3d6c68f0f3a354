"""A stage's pod does its part of a step once, joins the shards when it is the last, and leaves word of how it ended."""

import json
import os
import signal

import pytest

from mstar import logs
from mstar.errors import (
    DataError,
    IntegrityError,
    NotFound,
    Preempted,
    SpecError,
    StorageError,
    StoreRefused,
)
from mstar.execution import Execution
from mstar.stages import pod as module
from mstar.stages import run
from mstar.stages.context import Gang
from mstar.stages.pod import Pod, Stopping, serve, this_pod
from mstar.stages.run import Request
from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Ref
from mstar.storage.reading import read_manifest
from mstar.tasks import ScoreTask, task_hash
from tests.executors.making import STEPS

KEY = "runs/small/jobs/job/request.json"
GENERATE, SCORE = STEPS["warm-up/generate"].task, STEPS["warm-up/score"].task
TRAIN, EVALUATE = STEPS["warm-up/train"].task, STEPS["base/test"].task


class Stage:
    """Stands for every stage: writes a part and notes what it was given; ``trouble`` may raise."""

    def __init__(self):
        self.shards, self.joined, self.contexts = [], [], []
        self.trouble = lambda context: None

    def shard(self, task, context, shard, writer):
        self.contexts.append(context)
        self.shards.append(shard[0])
        context.track(4, "queries")(2)
        self.trouble(context)
        writer.add_bytes("part", f"{shard[0]}".encode())
        return {"responses": 1}

    def whole(self, task, context, writer):
        return self.shard(task, context, (0, 1), writer)

    def finish(self, task, context, shards, writer):
        self.joined.append(len(shards))
        return {"selected": 1}


@pytest.fixture
def stage(monkeypatch):
    found = Stage()
    monkeypatch.setattr(run, "generate_shard", found.shard)
    monkeypatch.setattr(run, "score_shard", found.shard)
    monkeypatch.setattr(run, "train_whole", found.whole)
    monkeypatch.setattr(run, "evaluate_whole", found.whole)
    monkeypatch.setattr(run, "finish_score", found.finish)
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.0)
    return found


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


@pytest.fixture
def word(tmp_path, monkeypatch):
    file = tmp_path / "termination-log"
    file.touch()
    monkeypatch.setattr(logs, "LAST_WORD", file)
    for name in ("JOB_COMPLETION_INDEX", "MSTAR_GANG_SIZE", "MSTAR_POD"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda: json.loads(file.read_text())
    signal.signal(signal.SIGTERM, before)


def requested(store, task=GENERATE, shards=3):
    request = Request(store=store.url, task=task, execution=Execution(shards=shards), attempt="2-1")
    store.put(KEY, request.model_dump_json().encode())
    return request


def work(store, request, index, name="", gang=None, stopping=None):
    pod = Pod(index=index, name=name or f"job-{index}-abcde", gang=gang)
    return serve(store, request, pod, KEY, stopping or Stopping())


def committed(store, task):
    return read_manifest(store, "step", task_hash(task))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("task", [GENERATE, SCORE], ids=["generate", "score"])
def test_the_pod_of_the_last_shard_joins_them_in_the_order_of_the_shards(store, stage, task, order):
    request = requested(store, task)
    for index in order[:2]:
        work(store, request, index)
        assert committed(store, task) is None
    manifest = work(store, request, order[2])
    assert manifest == committed(store, task)
    assert [part.name for part in manifest.parts] == [f"{i:05d}/part" for i in range(3)]
    assert manifest.results["responses"] == 3
    assert stage.joined == ([3] if task is SCORE else [])


def test_each_pod_does_its_own_shard_and_no_shard_is_done_twice(store, stage):
    request = requested(store)
    work(store, request, 1)
    work(store, request, 1, name="job-1-again")
    assert stage.shards == [1]
    work(store, request, 0)
    work(store, request, 2)
    assert stage.shards == [1, 0, 2]


def test_a_step_that_is_committed_is_not_done_again(store, stage):
    request = requested(store, shards=1)
    manifest = work(store, request, 0)
    assert work(store, request, 0, name="job-0-again") == manifest
    assert stage.shards == [0]


def test_a_pod_that_died_after_its_shard_is_made_good_by_the_next(store, stage, monkeypatch):
    request = requested(store)

    def dies(*_):
        raise StorageError("the bucket is gone")

    work(store, request, 0)
    work(store, request, 1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "finish", dies)
        with pytest.raises(StorageError):
            work(store, request, 2)
    assert committed(store, GENERATE) is None
    assert work(store, request, 2, name="job-2-again") == committed(store, GENERATE)
    assert stage.shards == [0, 1, 2]


def test_two_pods_that_join_at_once_leave_one_commit(store, stage, monkeypatch):
    request = requested(store, SCORE, shards=1)
    real = run.finish

    def both(task, context, shards):
        other = ArtifactWriter(store, task_hash(task), "other")
        other.add_bytes("theirs", b"theirs")
        other.commit()
        return real(task, context, shards)

    monkeypatch.setattr(module, "finish", both)
    assert [part.name for part in work(store, request, 0).parts] == ["theirs"]


def test_pods_of_one_shard_write_into_folders_of_their_own_and_a_gang_into_one(store, stage):
    work(store, requested(store, shards=1), 0, name="job-0-q1w2e")
    gang = Gang(size=2, rank=1, address="job-0.job", port=29_500)
    work(store, requested(store, TRAIN), 1, gang=gang)
    work(store, requested(store, EVALUATE), 0, name="job-0-zzzzz")
    assert [context.attempt for context in stage.contexts] == ["2-1-q1w2e", "2-1", "2-1-zzzzz"]
    assert [context.gang for context in stage.contexts] == [None, gang, None]
    manifest = committed(store, TRAIN)
    assert manifest is not None
    assert manifest.attempt == 1


def test_how_far_a_pod_is_stands_beside_its_request(store, stage):
    work(store, requested(store), 2)
    told = json.loads(store.get(keys.pod_progress(KEY, 2)))
    assert told == {"done": 2, "total": 4, "unit": "queries"}


@pytest.mark.parametrize("error", [StorageError("no"), StoreRefused("no")])
def test_progress_that_cannot_be_told_is_no_failure(store, stage, monkeypatch, error):
    real = FolderStore.put

    def put(self, key, data):
        if "progress" in key:
            raise error
        real(self, key, data)

    request = requested(store)
    monkeypatch.setattr(FolderStore, "put", put)
    work(store, request, 0)
    assert stage.shards == [0]


def test_a_pod_that_is_asked_to_go_while_it_tells_its_progress_goes(store, stage, monkeypatch):
    stopping, real = Stopping(), FolderStore.put

    def put(self, key, data):
        if "progress" in key:
            stopping.heard()
        real(self, key, data)

    request = requested(store)
    monkeypatch.setattr(FolderStore, "put", put)
    with pytest.raises(Preempted):
        work(store, request, 0, stopping=stopping)


def test_the_environment_says_which_pod_it_is(monkeypatch):
    for name in ("JOB_COMPLETION_INDEX", "MSTAR_GANG_SIZE", "MSTAR_POD"):
        monkeypatch.delenv(name, raising=False)
    assert this_pod() == Pod(index=0, name="pod", gang=None)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    monkeypatch.setenv("MSTAR_POD", "job-3-abcde")
    assert this_pod() == Pod(index=3, name="job-3-abcde", gang=None)
    monkeypatch.setenv("MSTAR_GANG_SIZE", "4")
    monkeypatch.setenv("MSTAR_GANG_ADDRESS", "job-0.job")
    monkeypatch.setenv("MSTAR_GANG_PORT", "29500")
    assert this_pod().gang == Gang(size=4, rank=3, address="job-0.job", port=29_500)


def test_a_pod_that_did_its_part_ends_well(store, stage, word, monkeypatch):
    requested(store)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert module.main(store.url, KEY) == 0
    assert stage.shards == [1]


@pytest.mark.parametrize("task", [GENERATE, SCORE, EVALUATE], ids=lambda task: task.stage)
def test_asked_to_go_a_stage_without_checkpoints_goes_at_once_and_leaves_nothing(
    store, stage, word, task
):
    requested(store, task)
    stage.trouble = lambda context: signal.raise_signal(signal.SIGTERM)
    assert module.main(store.url, KEY) == Preempted.exit_code
    assert word()["exit_code"] == Preempted.exit_code
    assert word()["retriable"]
    assert [key for key in store.list("steps") if "attempt-" in key] == []


def test_asked_to_go_training_is_told_and_decides_when(store, stage, word):
    requested(store, TRAIN)
    seen = []

    def trouble(context):
        assert not context.stopping()
        signal.raise_signal(signal.SIGTERM)
        seen.append(context.stopping())
        raise Preempted("a checkpoint is kept")

    stage.trouble = trouble
    assert module.main(store.url, KEY) == Preempted.exit_code
    assert seen == [True]
    assert word()["message"] == "a checkpoint is kept"


def test_asked_to_go_when_it_was_nearly_done_training_may_commit(store, stage, word):
    requested(store, TRAIN)
    stage.trouble = lambda context: signal.raise_signal(signal.SIGTERM)
    assert module.main(store.url, KEY) == 0
    assert committed(store, TRAIN)


@pytest.mark.parametrize(
    ("error", "code", "retriable"),
    [
        (DataError("query 7"), 4, False),
        (StorageError("gone"), 7, True),
        (OSError(28, "No space left on device"), 7, True),
        (ZeroDivisionError("never"), 1, True),
    ],
)
def test_how_a_stage_failed_is_the_exit_code_and_the_last_word(
    store, stage, word, error, code, retriable
):
    requested(store)

    def trouble(context):
        raise error

    stage.trouble = trouble
    assert module.main(store.url, KEY) == code
    assert (word()["exit_code"], word()["retriable"]) == (code, retriable)
    assert str(error).rpartition("]")[2].strip() in word()["message"]


REQUESTS = {
    "none": (None, NotFound, "the run's folder was removed"),
    "half of one": (b'{"store": ', IntegrityError, "is no request"),
    "something else": (b'{"hello": 1}', SpecError, "is no task file"),
    "a list": (b"[]", SpecError, "is no task file"),
}


@pytest.mark.parametrize(("body", "kind", "words"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_is_none_is_named(store, stage, word, body, kind, words):
    if body is not None:
        store.put(KEY, body)
    assert module.main(store.url, KEY) == kind.exit_code
    assert words in word()["message"]
    assert KEY in word()["message"]


def test_a_store_that_is_none_is_named(stage, word):
    assert module.main("ftp://somewhere", KEY) == SpecError.exit_code


def test_a_shard_s_manifest_that_was_altered_is_an_integrity_error(store, stage, word, monkeypatch):
    request = requested(store, shards=2)
    work(store, request, 0)
    key = keys.manifest("step", keys.shard_id(task_hash(GENERATE), 0, 2))
    store.put(key, store.get(key).replace(b'"responses"', b'"responces"'))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert module.main(store.url, KEY) == IntegrityError.exit_code
    assert key in word()["message"]
    assert not word()["retriable"]


def test_a_corrupted_shard_of_the_step_before_is_an_integrity_error(store, word):
    """The real stage: what it reads is held against the manifest."""
    with ArtifactWriter(store, "a" * 64, "1-1") as writer:
        part = writer.add_bytes("00000/responses.parquet", b"PAR1" + bytes(100) + b"PAR1", rows=3)
        made = writer.commit().manifest
    task = SCORE.model_copy(update={"responses": Ref.of(made)})
    assert isinstance(task, ScoreTask)
    store.put(part.key, b"PAR1" + bytes(99) + b"xPAR1")
    requested(store, task, shards=1)
    assert module.main(store.url, KEY) == IntegrityError.exit_code
    assert "responses.parquet" in word()["message"]


def test_nothing_is_asked_of_a_hub(store, stage, word, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    requested(store)
    module.main(store.url, KEY)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
