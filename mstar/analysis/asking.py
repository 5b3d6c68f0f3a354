"""What to sample for an analysis: which policy, which PRM, which queries. From the run's history; nothing is run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mstar.analysis.verifying import sizes_of
from mstar.core.seeds import derive_seed
from mstar.errors import NotFound, SpecError
from mstar.history import Entry, Run
from mstar.recipe import planned_steps
from mstar.report.collect import read_task
from mstar.storage.manifest import Ref
from mstar.storage.reading import resolve
from mstar.storage.store import Store
from mstar.tasks import EvaluateTask, Prompt, ScoreTask, Slice

TEMPERATURE = 1.0
"""As the PRM's own verification in the run."""

WARM_UP, FINAL = "warm-up", "final"
ITERATION = re.compile(r"iter-(\d{2,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a person wants to know: None for the split and the number of queries are the run's own for validation."""

    policy: str = WARM_UP
    samples: int = 64
    queries: int | None = None
    split: str | None = None
    seed: int = 0


def sampling_task(store: Store, run: Run, history: Sequence[Entry], ask: Ask) -> EvaluateTask:
    """The evaluation whose responses answer ``ask``.

    It carries neither the run's name nor its seed, so runs that share policy and PRM share it. Raises ``NotFound``
    when the run has no PRM or has not come so far, and ``SpecError`` for what cannot be asked of it.
    """
    spec = run.spec
    split = ask.split or spec.data.validation
    known = _splits(store, run)
    if split not in known:
        raise SpecError(
            f"run {run.name} has no split {split!r}; its data set has {', '.join(known)}"
        )
    limit = ask.queries or (spec.evaluation.queries if split == spec.data.validation else None)
    prm = find_prm(store, run, history)
    prompts = spec.prompts
    form = prompts.model_dump(include={"options_before", "option", "options_between"})
    return EvaluateTask(
        data=run.inputs.data,
        slice=Slice(split=split, count=min(known[split], limit or known[split])),
        model=find_policy(run, history, ask.policy),
        prm=prm,
        prompt=Prompt(template=prompts.query, **form),
        answers=spec.answers,
        step_separator=prompts.step_separator,
        temperatures=(TEMPERATURE,),
        samples=ask.samples,
        max_new_tokens=spec.evolve.rollout.max_new_tokens,
        pass_at=sizes_of(ask.samples),
        verify=True,
        retokenize=spec.teacher is not None,
        seed=derive_seed(ask.seed, "analysis"),
    )


def find_prm(store: Store, run: Run, history: Sequence[Entry]) -> Ref:
    """The PRM that the run trained, or was given; ``NotFound`` says why there is none."""
    for entry in history:
        if entry.name == "prm/train":
            return entry.ref
    for entry in history:
        task = read_task(store, entry.ref.id) if entry.name.startswith("iter-") else None
        if isinstance(task, EvaluateTask | ScoreTask) and task.prm:
            return task.prm
    evolve = run.spec.evolve
    if run.spec.prm is None:
        why = "its spec says prm: null"
    elif not evolve.needs_prm:
        why = (
            "it trains none, because neither its selection nor adaptive exploration asks one; "
            "analyse a run that does"
        )
    else:
        why = f"it has not come so far ({_progress(run, history)}); resume it first"
    raise NotFound(f"run {run.name} has no process reward model to analyse: {why}")


def find_policy(run: Run, history: Sequence[Entry], name: str) -> Ref:
    """The checkpoint called ``warm-up``, ``final`` or ``iter-NN``; ``NotFound`` when the run has not made it yet.

    Iteration 0 and the warm-up are what evolving starts from: the base model where the run has no warm-up.
    """
    match = ITERATION.fullmatch(name)
    if not match and name not in {WARM_UP, FINAL}:
        raise SpecError(
            f"--policy {name!r}: expected warm-up, final or an iteration such as iter-03"
        )
    iterations = run.spec.evolve.iterations
    index = int(match[1]) if match else iterations if name == FINAL else 0
    if index > iterations:
        raise SpecError(
            f"--policy {name}: run {run.name} has {iterations} iterations, iter-01 to iter-{iterations:02d}"
        )
    if index == 0 and run.spec.warm_up is None:
        return run.inputs.model
    step = f"iter-{index:02d}/train" if index else "warm-up/train"
    for entry in history:
        if entry.name == step:
            return entry.ref
    raise NotFound(
        f"run {run.name} has no policy {name} yet: {step} is not done ({_progress(run, history)}); "
        "resume it, or name an earlier policy with --policy"
    )


def _splits(store: Store, run: Run) -> dict[str, int]:
    """The splits that the data set in the store really holds, with their numbers of queries."""
    names = [part.name for part in resolve(store, run.inputs.data).parts]
    return {
        split: count
        for split, count in run.inputs.queries.items()
        if any(name == f"{split}.parquet" or name.startswith(f"{split}-") for name in names)
    }


def _progress(run: Run, history: Sequence[Entry]) -> str:
    return f"{len(history)} of {planned_steps(run.spec)} steps are done"
