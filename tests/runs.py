"""Runs for tests: small specs, made-up inputs, and a fake stage that commits plausible results at once."""

from collections.abc import Callable
from typing import Any

from mstar.config import RunSpec, parse_spec
from mstar.executors.base import Job
from mstar.history import Run, run_bytes
from mstar.recipe import Done, Inputs, Step
from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.manifest import Ref, sha256
from mstar.storage.store import Store
from mstar.tasks import EvaluateTask, Task, task_hash, task_inputs

NOTHING: dict[str, Any] = {}


def small_spec(**changes: Any) -> RunSpec:
    """A valid spec of a few queries; a dict given for a key is merged into the key's own."""
    raw: dict[str, Any] = {
        "name": "small",
        "data": {"path": "data"},
        "model": "model",
        "evolve": {"iterations": 2, "exploration": {"lowest": 0.5, "highest": 1.0, "step": 0.25}},
        "evaluation": {"samples": 2, "pass_at": [1, 2]},
    }
    for key, value in changes.items():
        merge = isinstance(value, dict) and isinstance(raw.get(key), dict)
        raw[key] = raw[key] | value if merge else value
    return parse_spec(raw)


def made_up(kind: Any, text: str) -> Ref:
    """A reference to an artifact that is nowhere."""
    return Ref(kind=kind, id=sha256(text.encode()), digest=sha256(text[::-1].encode()))


INPUTS = Inputs(
    data=made_up("dataset", "data"),
    queries={"train": 40, "validation": 8, "test": 12, "unlabeled": 30},
    model=made_up("model", "model"),
    unlabeled=made_up("dataset", "unlabeled"),
    benchmarks=made_up("dataset", "benchmarks"),
)


def made_up_results(task: Task, best: float = 0.75) -> dict[str, Any]:
    """What a stage might find; Reward-Pass@2 is highest at the temperature ``best``."""
    if not isinstance(task, EvaluateTask):
        return {"responses": 4}
    points = [
        # Pass@K likes the hottest best, so that what is tuned on shows.
        {
            "temperature": t,
            "reward_pass_at_2": 1 - abs(t - best) / 2,
            "pass_at": {str(k): t / 2 for k in task.pass_at},
        }
        for t in task.temperatures
    ]
    alphas = [{"alpha": a, "balanced_accuracy": 1 - abs(a - best)} for a in (0.5, 0.75)]
    return {"queries": 8, "sampled": points} | ({"alphas": alphas} if task.verify else {})


def done(step: Step, *, best: float = 0.75) -> Done:
    """A step as if it had been committed."""
    identity = task_hash(step.task)
    return Done(
        name=step.name,
        ref=Ref(kind="step", id=identity, digest=sha256(identity.encode())),
        results=made_up_results(step.task, best),
    )


def stored_run(store: Store, spec: RunSpec) -> Run:
    """A run as ``prepare`` would leave it, without data and model."""
    run = Run(spec=spec, inputs=INPUTS)
    store.create(keys.spec(spec.name), run_bytes(run))
    return run


def committing(store: Store) -> Callable[[Job], None]:
    """A stage that does no work: it writes one part and commits."""

    def run(job: Job) -> None:
        identity = task_hash(job.task)
        with ArtifactWriter(store, identity, job.attempt) as writer:
            writer.add_bytes("part", identity.encode())
            inputs = [ref.digest for ref in task_inputs(job.task)]
            timings = {"work": 1.5, "write": 0.5}
            writer.commit(results=made_up_results(job.task), inputs=inputs, timings=timings)

    return run
