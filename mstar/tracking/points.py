"""A run's curves: points that follow from its history and its manifests alone, the same whenever they are asked for.

A train step has a point for each optimizer step, and any step a last one with what it found. The loss of all the
policy's train steps is one curve over the optimizer steps of the whole run; what an iteration found is a point at the
iteration's number.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mstar.config import HOW, RunSpec
from mstar.core.schedule import rate_share
from mstar.tasks import GenerateTask, Task, TrainTask

ITERATION = re.compile(r"iter-(\d+)|sft")
SELECTION = (
    *("selected", "selected_queries", "steps_selected"),
    *("steps_other", "reward_selected", "reward_other"),
)
WORK = ("sample", "train", "score")
"""Phases in which tokens are made or read: the first that a step has is what its speed is told by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Values at place ``x`` of the axis ``axis``; ``at`` is when (epoch seconds)."""

    axis: str
    x: int
    values: Mapping[str, float]
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A step as its history entry, task and manifest have it."""

    index: int
    name: str
    task: Task
    results: Mapping[str, Any]
    timings: Mapping[str, float]
    seconds: float
    usage: Mapping[str, float] = field(default_factory=dict)
    finished_at: float

    @property
    def label(self) -> str:
        """The step's place and name, as in keys."""
        return label(self.index, self.name)

    @property
    def steps(self) -> int:
        """Optimizer steps of its own."""
        return int(self.results.get("optimizer_steps", 0))


def label(index: int, name: str) -> str:
    """A step's place and name, as in keys."""
    return f"{index:04d}-{name.replace('/', '-')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """The points of one step: as many of ``losses`` as there are, then ``found``."""

    label: str
    losses: int
    curve: "Curve | None"
    found: tuple[Point, ...]

    @property
    def size(self) -> int:
        """How many points it has."""
        return self.losses + len(self.found)

    def points(self, losses: Sequence[float], first: int) -> list[Point]:
        """Its points from the ``first`` on; ``losses`` are all of the step's."""
        told = self.curve.points(losses, first) if self.curve else []
        return told + list(self.found[max(0, first - self.losses) :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The loss of one train step: ``offset`` optimizer steps are before it on its axis.

    ``start`` are those that its optimizer had done before. It began at ``began`` and took ``seconds``
    (None: it goes on).
    """

    name: str
    offset: int
    start: int
    rate: float
    warmup: int
    began: float
    seconds: float | None

    def points(self, losses: Sequence[float], first: int, now: float = 0.0) -> list[Point]:
        """A point for each loss from the ``first`` on; while the step goes on they are of ``now``."""
        return [
            Point(
                axis=f"{self.name}/step",
                x=self.offset + place + 1,
                values={
                    f"{self.name}/loss": losses[place],
                    f"{self.name}/learning_rate": self.rate
                    * rate_share(self.start + place, self.warmup),
                },
                at=now
                if self.seconds is None
                else self.began + self.seconds * (place + 1) / len(losses),
            )
            for place in range(first, len(losses))
        ]


@dataclass(slots=True, kw_only=True)
class Book:
    """Reads a run's steps in order: what a point is follows from those before it."""

    spec: RunSpec
    temperature: float = field(init=False)
    _offsets: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.temperature = self.spec.evolve.rollout.temperature

    def chapter(self, step: Finished) -> Chapter:
        """The points of the next step."""
        curve = None
        if isinstance(step.task, TrainTask):
            start = int(step.results["global_step"]) - step.steps
            curve = self.curve(step.name, step.task, start, step.finished_at - step.seconds, step.seconds)  # fmt: skip
            self._offsets[curve.name] = curve.offset + step.steps
        values = {key: value for key, value in self._found(step) if value is not None}
        last = Point(axis="iteration", x=self._iteration(step.name), values=values, at=step.finished_at)  # fmt: skip
        return Chapter(
            label=step.label,
            losses=step.steps,
            curve=curve,
            found=(last,) if values else (),
        )

    def curve(
        self, name: str, task: TrainTask, start: int, began: float, seconds: float | None = None
    ) -> Curve:
        """Where the losses of a train step that follows belong, also while it goes on."""
        curve = curve_name(name, task)
        return Curve(
            name=curve,
            offset=self._offsets.get(curve, 0),
            start=start,
            rate=task.optimization.learning_rate,
            warmup=task.optimization.warmup_steps,
            began=began,
            seconds=seconds,
        )

    def _iteration(self, name: str) -> int:
        if found := ITERATION.match(name):
            return int(found[1] or 1)
        return self.spec.evolve.iterations if name.startswith("final/") else 0

    def _found(self, step: Finished) -> Iterator[tuple[str, float | None]]:
        """What a step found, by tag."""
        results = step.results
        phase, _, what = step.name.partition("/")
        evolving = ITERATION.fullmatch(phase) is not None
        prefix = "unlabeled" if what.endswith("-unlabeled") else phase
        if isinstance(step.task, GenerateTask):
            temperature = step.task.sampling.temperature
            if prefix == phase and evolving:
                self.temperature = temperature
                yield "rollout/temperature", temperature
            else:
                yield f"{prefix}/{what}_temperature", temperature
        if "sampled" in results:
            place = f"test/{phase}" if what == "test" else "prm/verify"
            place = "validation" if evolving else place
            yield from _evaluated(place, results, self.temperature)
        if "solved" in results:
            yield from _selected("selection" if prefix == phase and evolving else prefix, results)
        if "mean_label" in results:
            yield f"{phase}/mean_label", results["mean_label"]
        for key, value in (results.get("held_out") or {}).items() if "objective" in results else ():
            yield f"{phase}/held_out_{key}", value
        for score in results.get("scores", ()):
            yield f"benchmark/{phase}/{score['benchmark']}", score["accuracy"]
        yield from _speed("speed" if evolving else f"speed/{phase}", what, step)


def curve_name(name: str, task: TrainTask) -> str:
    """Which curve a train step's loss is on: the policy's own, or one of another model."""
    if task.objective == "prm":
        return "prm"
    return {"prm/completer": "completer", "teacher/train": "teacher"}.get(name, "train")


def configuration(spec: RunSpec) -> dict[str, str | int | float | bool]:
    """What decides a run's results, as flat keys; what does not may change, and trackers take a parameter once."""
    flat: dict[str, str | int | float | bool] = {}

    def put(value: object, key: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                put(inner, f"{key}.{name}" if key else str(name))
        else:
            flat[key] = value if isinstance(value, str | int | float | bool) else str(value)

    put(spec.model_dump(mode="json", exclude=set(HOW)), "")
    return flat


def _evaluated(
    place: str, results: Mapping[str, Any], temperature: float
) -> Iterator[tuple[str, float | None]]:
    """Greedy, then sampled at the temperature in use, then at each temperature of a grid."""
    if greedy := results["greedy"]:
        yield f"{place}/greedy_accuracy", greedy["accuracy"]
        yield f"{place}/greedy_low", greedy["low"]
        yield f"{place}/greedy_high", greedy["high"]
    sampled = results["sampled"]
    if sampled:
        nearest = min(sampled, key=lambda point: round(abs(point["temperature"] - temperature), 6))
        yield f"{place}/temperature", nearest["temperature"]
        yield f"{place}/accuracy", nearest.get("accuracy")
        yield f"{place}/reward_pass_at_2", nearest.get("reward_pass_at_2")
        for k, value in nearest["pass_at"].items():
            yield f"{place}/pass_at_{k}", value
    for point in sampled if len(sampled) > 1 else ():
        at = f"exploration/T{point['temperature']:.2f}"
        widest = max(point["pass_at"], key=int, default=None)
        yield f"{at}/reward_pass_at_2", point.get("reward_pass_at_2")
        if widest:
            yield f"{at}/pass_at_{widest}", point["pass_at"][widest]
    verification = results.get("verification")
    if verification:
        widest = max(verification, key=int)
        for name, share in verification[widest].items():
            yield f"{place}/{name}_{widest}", share


def _selected(place: str, results: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for tag, part, whole in (
        ("solved", "solved", "queries"),
        ("right", "correct", "responses"),
        ("answered", "answered", "responses"),
        ("kept", "selected", "correct"),
    ):
        if results.get(whole) and part in results:
            yield f"{place}/{tag}_share", results[part] / results[whole]
    for key in SELECTION:
        yield f"{place}/{key}", results.get(key)


def _speed(prefix: str, what: str, step: Finished) -> Iterator[tuple[str, float | None]]:
    yield f"{prefix}/{what}_seconds", sum(step.timings.values()) or None
    phase = next((name for name in WORK if step.timings.get(name)), None)
    tokens = _tokens(step.results)
    if phase and tokens:
        yield f"{prefix}/{what}_tokens_per_second", tokens / step.timings[phase]
    for key, value in step.usage.items():
        yield f"{prefix}/{what}_{key}", value


def _tokens(results: Mapping[str, Any]) -> int:
    counts: Iterable[Mapping[str, Any]] = [results]
    if "sampled" in results:
        counts = [*([results["greedy"]] if results["greedy"] else []), *results["sampled"]]
    return sum(int(each.get("tokens", 0)) for each in counts)
