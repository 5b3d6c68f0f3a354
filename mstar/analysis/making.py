"""Having one step done that belongs to no run's recipe, and noting that a run's analysis rests on it."""

import json
from collections.abc import Callable

from mstar.controller.decide import Patience, Seen, Stop, Submit, decide
from mstar.errors import IntegrityError, by_code
from mstar.execution import Execution
from mstar.executors.base import ABSENT, Executor, Job
from mstar.storage import keys
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import read_manifest
from mstar.storage.store import Store
from mstar.tasks import Task, task_hash

STEP = "analysis/sample"
INDEX = 9999
"""Its place among a run's logs: behind all steps of the run's own."""

POLL_SECONDS = 0.5

Tell = Callable[[int, int, str], None]
"""Called with units done, units in all, and what the units are."""


def made(
    store: Store,
    run: str,
    task: Task,
    executor: Callable[[], Executor],
    *,
    execution: Execution,
    attempts: int,
    tell: Tell,
) -> tuple[Manifest, bool]:
    """The step's commit, and whether it was there already; else it is run, by an executor opened for it alone.

    Raises the step's own error when it fails and trying again does not help, or has not ``attempts`` times.
    """
    identity = task_hash(task)
    if manifest := read_manifest(store, "step", identity):
        return manifest, True
    store.create(keys.task(identity), json.dumps(task.model_dump(mode="json"), indent=1).encode())
    running = executor()
    try:
        return _run(store, run, task, running, execution, attempts, tell), False
    finally:
        running.close()


def note_step(store: Store, run: str, step: Ref) -> None:
    """Note that a run's analysis rests on a step, so that it is kept as long as the run is."""
    body = json.dumps({"step": step.model_dump()}, indent=1) + "\n"
    store.put(keys.analysis(run, step.id), body.encode())


def noted_steps(store: Store, run: str) -> list[Ref]:
    """The steps that analyses of a run rest on; ``IntegrityError`` when a note is unreadable."""
    found = []
    for key in store.list(keys.analyses(run)):
        try:
            found.append(Ref.model_validate(json.loads(store.get(key))["step"]))
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{key} in {store.url} is not the note of an analysis ({error}); delete it"
            ) from None
    return found


def _run(
    store: Store,
    run: str,
    task: Task,
    executor: Executor,
    execution: Execution,
    attempts: int,
    tell: Tell,
) -> Manifest:
    identity, job, number = task_hash(task), "", 0
    while True:
        seen = executor.observe(job) if job else ABSENT
        # The commit is read after the state, so that an attempt which has ended well has also committed.
        manifest = read_manifest(store, "step", identity)
        if manifest:
            return manifest
        tell(seen.done, seen.total, seen.unit)
        now = Seen(
            step=STEP, committed=False, job=seen, attempts=number, seconds=0.0, cancelled=False
        )
        action = decide(now, Patience(attempts=attempts))
        if job and isinstance(action, Stop | Submit) and (text := executor.log(job)):
            log = keys.log(run, INDEX, STEP, f"analysis-{number}")
            store.put(log, text.encode())
        if isinstance(action, Stop):
            raise by_code(action.exit_code, action.message)
        if isinstance(action, Submit):
            if job:
                executor.delete(job)
            number = action.number
            job = executor.submit(
                Job(
                    run=run,
                    index=INDEX,
                    step=STEP,
                    number=number,
                    store=store.url,
                    task=task,
                    execution=execution,
                    attempt=f"analysis-{number}",
                )
            )
        else:
            executor.wait(job, POLL_SECONDS)
