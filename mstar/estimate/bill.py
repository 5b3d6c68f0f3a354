"""From work and speed to time, GPU-hours, bytes and cost: by step, by stage, and in all. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mstar.cluster import STAGES, Stage
from mstar.estimate.assumptions import Assumptions
from mstar.estimate.layout import Layout, Setup, setup_of
from mstar.estimate.memory import held_bytes, trained_parameters
from mstar.estimate.models import ModelFacts
from mstar.estimate.ranges import ZERO, Range, total
from mstar.estimate.speed import Speed, TrainSpeed
from mstar.estimate.work import Work
from mstar.optimization import Optimization

HOUR = 3600.0
MEGA = 1e6
ITERATION_TRAIN = re.compile(r"iter-\d+/train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Seconds by model (``model``, ``teacher``): sampling, as a stage is run; a PRM that reads; training a policy."""

    sampling: Mapping[tuple[str, Stage], Speed]
    judging: Mapping[str, Speed]
    training: Mapping[tuple[str, Optimization], TrainSpeed]
    process: Range
    """Seconds that a process needs to start, each pod once (here: once in all)."""
    load: Mapping[str, Range]
    """Seconds until a step has loaded a model, by model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """One step. ``device`` seconds are at work, ``held`` ones are paid for: start and idle GPUs too.

    ``kept`` bytes go into the store; ``state`` of them are a trainer's state that ``gc`` may drop.
    """

    work: Work
    device: Range
    held: Range
    wall: Range
    kept: Range = ZERO
    state: Range = ZERO
    droppable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """All steps of one stage, or of a run."""

    name: str
    steps: int
    adopted: int
    rows: Range
    tokens: Range
    gpu_hours: Range
    wall: Range
    kept: Range
    cost: Range | None


def step_cost(
    work: Work,
    layout: Layout,
    models: Mapping[str, ModelFacts],
    speeds: Speeds,
    numbers: Assumptions,
    *,
    first: bool = False,
) -> StepCost:
    """What one step takes. A committed one takes nothing; the ``first`` to be made here starts the process."""
    if work.adopted:
        return StepCost(work=work, device=ZERO, held=ZERO, wall=ZERO)
    device = _device_seconds(work, speeds)
    hosts = max(1, layout.parallel)
    ranks = layout.working
    beside = work.checked / (numbers["checked_per_s"] * float(hosts))
    kept, state = stored_bytes(work, layout, models, numbers)
    start = speeds.load.get(work.model, ZERO)
    if work.prm:
        start += speeds.load.get(work.prm, ZERO)
    if layout.pods or first:
        start += speeds.process
    if layout.pods:
        beside += (kept if work.optimization else ZERO) / (numbers["store_mb_per_s"] * MEGA)
    wall = device / float(ranks) + beside + start * float(max(1, layout.waves))
    # A pod holds its GPUs from its start to its end, whatever of it is at work.
    held = (device / float(ranks) + beside) * float(layout.together)
    held += start * float(max(1, layout.pods) * layout.devices)
    return StepCost(
        work=work,
        device=device,
        held=held,
        wall=wall,
        kept=kept,
        state=state,
        droppable=bool(ITERATION_TRAIN.fullmatch(work.name)),
    )


def _device_seconds(work: Work, speeds: Speeds) -> Range:
    seconds = ZERO
    if work.prompts.high:
        stage: Stage = "evaluate" if work.stage == "evaluate" else "generate"
        speed = speeds.sampling[work.model, stage]
        seconds += (
            work.prompts * speed.prompt + work.read * speed.read + work.generated * speed.drawn
        )
    if work.prm:
        judge = speeds.judging[work.prm]
        seconds += work.judged_prompts * judge.prompt + work.judged_tokens * judge.read
    if work.optimization:
        training = speeds.training[work.model, work.optimization]
        seconds += work.examples * training.prompt + work.trained * training.token
    return seconds


def stored_bytes(
    work: Work, layout: Layout, models: Mapping[str, ModelFacts], numbers: Assumptions
) -> tuple[Range, Range]:
    """Bytes that a step leaves in the store, and those of them that are a trainer's state."""
    if work.optimization:
        model = models[work.model]
        setup = setup_of(layout.execution, work.optimization, layout.parallel)
        state = Range.of(state_bytes(model, setup, work.optimization))
        return state + model.parameters * held_bytes(setup, work.optimization), state
    return work.tokens * numbers["token_bytes"] + work.rows * numbers["record_bytes"], ZERO


def state_bytes(model: ModelFacts, setup: Setup, optimization: Optimization) -> float:
    """A trainer's state: AdamW's moments; DeepSpeed also writes float32 copies, and weights that are not frozen."""
    learning = trained_parameters(model, setup, optimization)
    if setup.zero is None:
        return 8.0 * learning
    written = learning if setup.lora else model.parameters
    return 12.0 * learning + written * (2.0 if optimization.dtype == "bfloat16" else 4.0)


def by_stage(steps: Sequence[StepCost], price: float | None) -> list[StageCost]:
    """A line for each stage that has steps, and one for all; ``price`` is of a GPU-hour."""
    found = [
        _sum(stage, [step for step in steps if step.work.stage == stage], price) for stage in STAGES
    ]
    return [*(stage for stage in found if stage.steps), _sum("all", steps, price)]


def _sum(name: str, steps: Iterable[StepCost], price: float | None) -> StageCost:
    steps = list(steps)
    made = [step for step in steps if not step.work.adopted]
    hours = total(step.held for step in made) / HOUR
    return StageCost(
        name=name,
        steps=len(steps),
        adopted=len(steps) - len(made),
        rows=total(step.work.rows for step in made),
        tokens=total(_handled(step.work) for step in made),
        gpu_hours=hours,
        wall=total(step.wall for step in made),
        kept=total(step.kept for step in made),
        cost=None if price is None else hours * price,
    )


def _handled(work: Work) -> Range:
    """Response tokens that a step draws, scores or learns from."""
    return work.generated + work.judged_tokens + work.trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Bytes in the store: ``inputs`` (data, models), ``steps`` (what they add), ``interim`` (a checkpoint inside one).

    ``droppable`` is what ``gc --drop-trainer-state`` takes once the run is finished.
    """

    inputs: Range
    steps: Range
    interim: Range
    droppable: Range

    @property
    def peak(self) -> Range:
        """The most at any time."""
        return self.inputs + self.steps + self.interim

    @property
    def swept(self) -> Range:
        """What is left after a sweep."""
        left = self.inputs + self.steps
        return Range(
            max(0.0, left.low - self.droppable.low), max(0.0, left.high - self.droppable.high)
        )


def bucket(steps: Sequence[StepCost], inputs: Range) -> Bucket:
    """What a run leaves in its store."""
    made = [step for step in steps if not step.work.adopted]
    trained = [step.kept for step in made if step.work.optimization]
    states = [step.state for step in made if step.droppable]
    return Bucket(
        inputs=inputs,
        steps=total(step.kept for step in made),
        interim=max(trained, key=lambda size: size.high, default=ZERO),
        droppable=total(states[:-1]),
    )
