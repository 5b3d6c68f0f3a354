"""What runs in a stage's pod: one request from the store, one shard of it, and a last word for whoever looks.

The pod of the last shard to commit joins them; any pod may be that one, and two of them harm nothing. SIGTERM asks a
stage to leave a checkpoint and go.
"""

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mstar.errors import (
    IntegrityError,
    MstarError,
    NotFound,
    Preempted,
    StorageError,
    StoreRefused,
)
from mstar.history import load_run
from mstar.logs import last_word
from mstar.stages.context import Context, Gang, Tell
from mstar.stages.run import (
    Request,
    finish,
    parse_request,
    plain_faults,
    run_shard,
    run_whole,
    scratch_folder,
)
from mstar.stages.worker import throttled
from mstar.storage import keys
from mstar.storage.manifest import Manifest
from mstar.storage.open import open_store
from mstar.storage.reading import read_manifest
from mstar.storage.store import Store
from mstar.tasks import GenerateTask, ScoreTask, task_hash
from mstar.tracking.packages import to_tell
from mstar.tracking.process import Telling
from mstar.tracking.reading import AtWork

log = logging.getLogger("mstar.stage")

PROGRESS_SECONDS = 5.0
LAST_SECONDS = 15.0
"""A pod that is to go has no time to lose for its trackers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """Who this pod is: ``index`` is its shard, or its node in a gang; ``name`` differs for each pod."""

    index: int
    name: str
    gang: Gang | None


def this_pod() -> Pod:
    """The pod as Kubernetes describes it in the environment."""
    index = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    size = int(os.environ.get("MSTAR_GANG_SIZE", "1"))
    gang = None
    if size > 1:
        gang = Gang(
            size=size,
            rank=index,
            address=os.environ["MSTAR_GANG_ADDRESS"],
            port=int(os.environ["MSTAR_GANG_PORT"]),
        )
    return Pod(index=index, name=os.environ.get("MSTAR_POD", "pod"), gang=gang)


def main(store_url: str, request_key: str) -> int:
    """Do the pod's part of the request; the exit code says how it went, the termination message why."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    stopping = Stopping()
    signal.signal(signal.SIGTERM, stopping.heard)
    try:
        store = open_store(store_url)
        request = _read_request(store, request_key)
        pod = this_pod()
        log.info("%s of %s as %s", request.task.stage, task_hash(request.task), pod.name)
        manifest = serve(store, request, pod, request_key, stopping)
        log.info("committed %s", manifest.id, extra={"results": manifest.results})
    except MstarError as error:
        log.error("%s: %s", type(error).__name__, error)  # noqa: TRY400 - a person's mistake needs no traceback
        last_word(str(error), error.exit_code, retriable=error.retriable)
        return error.exit_code
    except Exception as error:
        log.exception("a defect in mstar")
        last_word(f"a defect in mstar: {type(error).__name__}: {error}", 1, retriable=True)
        return 1
    return 0


def serve(
    store: Store, request: Request, pod: Pod, request_key: str, stopping: "Stopping"
) -> Manifest:
    """The manifest of the step, or of this pod's shard where others still work on theirs."""
    task = request.task
    if manifest := read_manifest(store, "step", task_hash(task)):
        return manifest
    key = keys.pod_progress(request_key, pod.index)
    tell = throttled(_progress(store, key), time.monotonic, PROGRESS_SECONDS)
    with scratch_folder(None) as scratch:
        context = Context(
            store=store,
            execution=request.execution,
            # A pod that Kubernetes replaced may still be writing: no two share a folder, but for a gang, which is one.
            attempt=request.attempt
            if pod.gang
            else f"{request.attempt}-{pod.name.rpartition('-')[2]}",
            scratch=scratch,
            tell=tell,
            stopping=stopping.asked,
            gang=pod.gang,
        )
        # Training leaves a checkpoint; of the other stages a shard is the least that can be kept.
        stopping.at_once = task.stage != "train"
        with plain_faults(scratch), _tracked(store, request, pod):
            if not isinstance(task, GenerateTask | ScoreTask):
                return run_whole(task, context)
            shard = run_shard(task, context, pod.index, request.execution.shards)
            shards = _committed(store, request)
            return finish(task, context, shards) if shards else shard


@contextmanager
def _tracked(store: Store, request: Request, pod: Pod) -> Iterator[None]:
    """Have the run's trackers told while the block works at a train or evaluate step, and of its commit."""
    asked, task = request.asked, request.task
    alone = pod.gang is None or pod.gang.rank == 0
    if asked is None or not alone or task.stage not in {"train", "evaluate"}:
        yield
        return
    identity = task_hash(task)
    at = AtWork(index=asked.index, step=asked.step, id=identity)
    tracking = to_tell(load_run(store, asked.run).spec.tracking)
    if not tracking.to:
        log.info("no tracker is told: none is named, or tensorboard is not installed")
    telling = Telling(store.url, asked.run, tracking, log.warning)
    telling.look(at)
    try:
        yield
        telling.look(at.model_copy(update={"committed": True}))
    except BaseException:
        telling.close(LAST_SECONDS)
        raise
    telling.close()


class Stopping:
    """A request to stop (SIGTERM): noted for a stage that looks, or raised at once where there is nothing to save."""

    def __init__(self) -> None:
        self.at_once = True
        self._asked = False

    def asked(self) -> bool:
        """Whether we were asked to stop."""
        return self._asked

    def heard(self, *_: object) -> None:
        """The signal's handler."""
        log.warning("asked to stop (SIGTERM)")
        self._asked = True
        if self.at_once:
            raise Preempted("the pod was asked to stop; what it had not committed is done again")


def _progress(store: Store, key: str) -> Tell:
    """Tell how far the pod is to whoever watches the run; nobody waits for this, so its failure is no failure."""

    def tell(done: int, total: int, unit: str) -> None:
        try:
            store.put(key, json.dumps({"done": done, "total": total, "unit": unit}).encode())
        except (StorageError, StoreRefused) as error:
            log.info("progress could not be told: %s", error)

    return tell


def _read_request(store: Store, key: str) -> Request:
    try:
        raw = json.loads(store.get(key))
    except NotFound:
        raise NotFound(f"no request {key} in {store.url}: the run's folder was removed") from None
    except ValueError as error:
        raise IntegrityError(f"{key} in {store.url} is no request: {error}") from None
    return parse_request(raw, key)


def _committed(store: Store, request: Request) -> list[Manifest]:
    """The manifests of all shards in order, or nothing while one is missing."""
    found = []
    for index in range(request.execution.shards):
        identity = keys.shard_id(task_hash(request.task), index, request.execution.shards)
        manifest = read_manifest(store, "step", identity)
        if manifest is None:
            return []
        found.append(manifest)
    return found
