"""A whole plan: facts and assumptions in, steps and totals and warnings out. Pure but for what ``known`` looks up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mstar.cluster import Stage
from mstar.config import RunSpec
from mstar.errors import SpecError
from mstar.estimate.assumptions import Assumption, Assumptions
from mstar.estimate.bill import Bucket, Speeds, StageCost, StepCost, bucket, by_stage, step_cost
from mstar.estimate.calibration import Calibration
from mstar.estimate.fitting import (
    idle_warnings,
    memory_warnings,
    quota_warnings,
    verdicts,
)
from mstar.estimate.folders import DataFacts
from mstar.estimate.hardware import Gpu
from mstar.estimate.layout import Layout, layouts, setup_of
from mstar.estimate.memory import Verdict
from mstar.estimate.models import ModelFacts
from mstar.estimate.ranges import ZERO, Range
from mstar.estimate.scratch import scratch_warnings
from mstar.estimate.speed import (
    HALF,
    Lengths,
    Speed,
    TrainSpeed,
    assumed_speed,
    assumed_training,
)
from mstar.estimate.work import Work, Workload, base_models
from mstar.optimization import Optimization
from mstar.plan import Inputs
from mstar.recipe import Done, Step, nothing_known, planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a plan is made from. ``models`` has the policy's base, ``model``, and with a teacher ``teacher``.

    ``images`` are the tokens that each model makes of the data's own images, where that can be told. ``price`` is of a
    GPU-hour, ``quota`` in bytes.
    """

    spec: RunSpec
    data: DataFacts
    inputs: Inputs
    models: Mapping[str, ModelFacts]
    images: Mapping[str, Range]
    gpu: Gpu
    numbers: Assumptions
    calibration: Calibration | None = None
    local: bool = False
    price: float | None = None
    quota: float | None = None
    known: Callable[[Step], Done | None] = nothing_known


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a run is expected to take. The last of ``stages`` is all of them."""

    steps: tuple[StepCost, ...]
    stages: tuple[StageCost, ...]
    bucket: Bucket
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    assumptions: Mapping[str, Assumption]
    layouts: Mapping[Stage, Layout]


def make_plan(given: Given) -> RunPlan:
    """The plan. Raises ``SpecError`` when something can neither be computed nor was measured."""
    spec, numbers = given.spec, given.numbers
    places = layouts(spec, local=given.local)
    lengths = {key: _lengths(given, key) for key in given.models}
    workload = Workload(
        queries=given.data.queries,
        numbers=numbers,
        hinted=spec.prompts.hinted,
        response_tokens=lambda most: _response(given, most),
        models=base_models(given.inputs.model, given.inputs.teacher),
        longest=spec.evolve.rollout.max_new_tokens,
    )
    done: dict[str, Done] = {}

    def known(step: Step) -> Done | None:
        if found := given.known(step):
            done[step.name] = found
        return found

    works = [
        workload.of(step, done[step.name].results if step.name in done else None)
        for step in planned(spec, given.inputs, known)
    ]
    speeds = _speeds(given, works, places, lengths)
    first = next((work for work in works if not work.adopted), None)
    steps = [
        step_cost(work, places[work.stage], given.models, speeds, numbers, first=work is first)
        for work in works
    ]
    store = bucket(steps, _input_bytes(given))
    on_gpu = given.calibration is None or given.calibration.device.kind == "cuda"
    memory = verdicts(
        works,
        places,
        given.models,
        lengths,
        given.gpu,
        numbers,
        most=spec.evolve.rollout.max_new_tokens,
        width=HALF if on_gpu else 4.0,
    )
    warnings = [*memory_warnings(memory), *quota_warnings(store, given.quota)]
    warnings += idle_warnings(places, local=given.local)
    if not given.local:
        warnings += scratch_warnings(works, places, given.models, spec.cluster)
    return RunPlan(
        steps=tuple(steps),
        stages=tuple(by_stage(steps, given.price)),
        bucket=store,
        verdicts=tuple(memory),
        warnings=tuple(warnings),
        assumptions=numbers.asked,
        layouts=places,
    )


def _response(given: Given, most: int) -> Range:
    """Tokens of a response that may have at most so many."""
    measured = given.calibration
    if measured and measured.generate and not measured.random:
        grown = given.numbers["length_growth"] * measured.generate.response_tokens
        return grown.least(float(most))
    return given.numbers["response_share"] * float(most)


def _lengths(given: Given, key: str) -> Lengths:
    numbers, facts, measured = given.numbers, given.models[key], given.calibration
    response = _response(given, given.spec.evolve.rollout.max_new_tokens)
    if measured and key == "model" and not numbers.is_said("image_tokens"):
        image = Range.of(measured.image_tokens)
        text = Range.of(max(0.0, measured.prompt_tokens - measured.image_tokens))
        return Lengths(text=text, image=image, response=response)
    known = None if numbers.is_said("image_tokens") else given.images.get(key) or facts.image_tokens
    image = known or numbers["image_tokens"]
    return Lengths(text=_text(given), image=image, response=response)


def _text(given: Given) -> Range:
    """Tokens of a prompt without its image: from the data's own questions where they were looked at."""
    questions = given.data.questions
    if not questions:
        return given.numbers["text_tokens"]
    around = len(given.spec.prompts.query)
    mean = sum(questions) / len(questions) + around
    # A chat template puts some tokens around all of it.
    return Range.of(mean) / given.numbers["characters_per_token"] + Range(5.0, 30.0)


def _speeds(
    given: Given,
    works: list[Work],
    places: Mapping[Stage, Layout],
    lengths: Mapping[str, Lengths],
) -> Speeds:
    open_works = [work for work in works if not work.adopted]
    sampling: dict[tuple[str, Stage], Speed] = {}
    judging: dict[str, Speed] = {}
    training: dict[tuple[str, Optimization], TrainSpeed] = {}
    for work in open_works:
        stage = work.stage
        if work.prompts.high and (work.model, stage) not in sampling:
            sampling[work.model, stage] = _sampling(given, work.model, places[stage], lengths)
        if work.prm and work.prm not in judging:
            judging[work.prm] = _judging(given, work.prm, places["score"], lengths)
        if work.optimization and (work.model, work.optimization) not in training:
            training[work.model, work.optimization] = _training(
                given, work.model, work.optimization, places["train"], lengths
            )
    process, load = _starting(given)
    return Speeds(sampling=sampling, judging=judging, training=training, process=process, load=load)


def _starting(given: Given) -> tuple[Range, dict[str, Range]]:
    """Seconds of a process's start, and of each model's loading: measured here, else fetched from the store."""
    measured, numbers = given.calibration, given.numbers
    if measured and given.local:
        process = numbers["measured_spread"] * measured.start_seconds
        return process, {key: _spread(given, key) * measured.load_seconds for key in given.models}
    rate = numbers["store_mb_per_s"] * 1e6
    load = {key: Range.of(facts.file_bytes) / rate for key, facts in given.models.items()}
    return numbers["start_seconds"], load


def _sampling(given: Given, key: str, place: Layout, lengths: Mapping[str, Lengths]) -> Speed:
    measured = given.calibration
    if measured is None:
        return assumed_speed(
            given.models[key],
            given.gpu,
            place.execution,
            lengths[key],
            given.numbers,
            samples=given.spec.evolve.rollout.samples,
        )
    if measured.generate is None:
        raise _unmeasured(measured, "generate")
    found, spread = measured.generate, _spread(given, key)
    return Speed(
        prompt=spread * found.prompt_seconds,
        read=spread * (found.prompt_seconds / measured.prompt_tokens),
        drawn=spread * found.token_seconds,
    )


def _judging(given: Given, key: str, place: Layout, lengths: Mapping[str, Lengths]) -> Speed:
    measured = given.calibration
    if measured is None or (measured.score is None and given.gpu.arithmetic):
        facts = given.models[key]
        return assumed_speed(facts, given.gpu, place.execution, lengths[key], given.numbers)
    if measured.score is None:
        raise _unmeasured(measured, "score")
    found, spread = measured.score, _spread(given, key)
    return Speed(
        prompt=spread * found.prompt_seconds, read=spread * found.token_seconds, drawn=ZERO
    )


def _training(
    given: Given,
    key: str,
    optimization: Optimization,
    place: Layout,
    lengths: Mapping[str, Lengths],
) -> TrainSpeed:
    measured = given.calibration
    if measured is None or (measured.train is None and given.gpu.arithmetic):
        setup = setup_of(place.execution, optimization)
        return assumed_training(
            given.models[key],
            given.gpu,
            optimization,
            lengths[key],
            given.numbers,
            recomputed=setup.recomputed,
            offloaded=setup.offload != "none",
        )
    if measured.train is None:
        raise _unmeasured(measured, "train")
    token = _spread(given, key) * measured.train.token_seconds
    return TrainSpeed(prompt=token * lengths[key].prompt, token=token)


def _spread(given: Given, key: str) -> Range:
    """Around a measured second; of another model than the measured one, in proportion to its size."""
    spread = given.numbers["measured_spread"]
    if key == "model":
        return spread
    ratio = given.models[key].parameters / given.models["model"].parameters
    return spread * given.numbers["size_scaling"] * ratio


def _unmeasured(measured: Calibration, part: str) -> SpecError:
    why = measured.left_out.get(part, "nothing to measure it on")
    return SpecError(
        f"the calibration on {measured.device.name} has no {part} ({why}), and nothing is known of that device: name a "
        "GPU of that kind with --gpu, or change execution so that it fits and measure again"
    )


def _input_bytes(given: Given) -> Range:
    models = sum(facts.file_bytes for facts in given.models.values())
    if given.data.bytes is not None:
        return Range.of(given.data.bytes + models)
    queries = sum(given.data.queries.values())
    return given.numbers["image_kb"] * (1e3 * queries) + models
