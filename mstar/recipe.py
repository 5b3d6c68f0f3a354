"""The recipe: which step comes next, as a program that reads from top to bottom.

``recipe`` is a generator: it yields a step and is sent what the step's commit says. ``next_step`` replays it over the
steps already done, so a controller that was killed anywhere knows where it stands from the store alone. Both are pure.
The parts of the program are in ``plan``.
"""

from collections.abc import Callable, Generator, Iterator, Sequence

from mstar.config import RunSpec
from mstar.core.rules.threshold import ALPHAS
from mstar.core.schedule import mixes
from mstar.errors import IntegrityError
from mstar.plan import Done, Inputs, Plan, Step
from mstar.storage.manifest import Ref
from mstar.tasks import task_hash

__all__ = [
    "Done",
    "Inputs",
    "Recipe",
    "Step",
    "follow",
    "next_step",
    "planned",
    "planned_names",
    "planned_steps",
    "recipe",
]

Recipe = Generator[Step, Done, None]


def next_step(spec: RunSpec, inputs: Inputs, history: Sequence[Done]) -> Step | None:
    """The step after ``history``, or None when the run is complete.

    Raises ``IntegrityError`` when the history is not one that this spec and these inputs would have written.
    """
    program = recipe(spec, inputs)
    step = next(program, None)
    for done in history:
        step = follow(program, step, done)
    return step


def follow(program: Recipe, step: Step | None, done: Done) -> Step | None:
    """Tell the recipe that ``step`` is done; the step after it. Raises as ``next_step``."""
    if step is None or step.name != done.name or task_hash(step.task) != done.ref.id:
        wanted = f"{step.name} ({task_hash(step.task)[:12]})" if step else "nothing more"
        raise IntegrityError(
            f"the run's history has {done.name} ({done.ref.id[:12]}) where its spec asks for {wanted}: "
            "the history belongs to another spec, another data set or another version; start a run of another name"
        )
    try:
        return program.send(done)
    except StopIteration:
        return None


def recipe(spec: RunSpec, inputs: Inputs) -> Recipe:
    """Base, warm-up, PRM, evolving, final test, benchmarks (paper, sections 3 and 4)."""
    plan = Plan(spec, inputs)
    yield from plan.test("base", inputs.model)
    yield from plan.benchmarks("base", inputs.model)
    if spec.evolve.how.learns_from == "answers":
        policy = yield from plan.sft(inputs.model)
        yield from plan.test("final", policy)
        yield from plan.benchmarks("final", policy)
        return
    start, examples = inputs.model, None
    if spec.warm_up:
        start, examples = yield from plan.warm_up(spec.warm_up)
        yield from plan.test("warm-up", start)
    prm = None
    if spec.prm and spec.evolve.needs_prm:
        reasoner = start
        if spec.teacher and spec.warm_up and examples:
            reasoner = yield from plan.teacher(spec.warm_up, examples)
        prm = yield from plan.prm(spec.prm, reasoner, examples)
    policy = yield from plan.evolve(spec.evolve, start, prm)
    yield from plan.test("final", policy)
    yield from plan.benchmarks("final", policy)


def planned_steps(spec: RunSpec) -> int:
    """How many steps the whole run has: known from the spec, for progress bars."""
    tests, public = 1 if spec.data.test else 0, spec.evaluation.benchmarks
    ends = 2 * tests + (1 + public.base if public else 0)
    if spec.evolve.how.learns_from == "answers":
        return ends + 2
    warm = 3 + tests if spec.warm_up else 0
    prm = 0
    if spec.prm and spec.evolve.needs_prm:
        prm = 6 + bool(spec.prm.completer_epochs and spec.warm_up) + bool(spec.teacher)
    iterations, unlabeled = spec.evolve.iterations, spec.evolve.unlabeled
    mixed = (
        sum(mixes(turn, iterations, unlabeled.after) for turn in range(1, iterations + 1))
        if unlabeled
        else 0
    )
    return ends + warm + prm + 4 * iterations + 2 * mixed + 1


def planned_names(spec: RunSpec, inputs: Inputs) -> list[str]:
    """The names of all steps in order, for a person to look at before anything runs."""
    return [step.name for step in planned(spec, inputs)]


def nothing_known(step: Step) -> Done | None:
    """No step is done yet."""
    del step
    return None


def planned(
    spec: RunSpec, inputs: Inputs, known: Callable[[Step], Done | None] = nothing_known
) -> Iterator[Step]:
    """All steps in order; what they read from each other is made up where ``known`` does not say that it is there."""
    program = recipe(spec, inputs)
    step = next(program, None)
    grid = spec.evolve.exploration.temperatures if spec.evolve.exploration else ()
    passes = dict.fromkeys(map(str, spec.evaluation.pass_at), 0.0)
    found = {
        "sampled": [{"temperature": t, "reward_pass_at_2": 0.0, "pass_at": passes} for t in grid],
        "alphas": [{"alpha": alpha, "balanced_accuracy": 0.0} for alpha in ALPHAS],
    }
    while step is not None:
        done = known(step)
        yield step
        identity = task_hash(step.task)
        ref = Ref(kind="step", id=identity, digest=identity)
        step = follow(program, step, done or Done(name=step.name, ref=ref, results=found))
