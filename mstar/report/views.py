"""What a report knows of a run: plain values, read once from the store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mstar.config import RunSpec
from mstar.core.rules import find_rule
from mstar.storage.manifest import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Right answers among ``n``, with the 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What an evaluation found at one temperature. ``reward_pass_at_2`` is None where no PRM was asked."""

    temperature: float
    accuracy: float
    pass_at: Mapping[int, float]
    pass_minus_greedy: float | None = None
    reward_pass_at_2: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation of one policy on one split."""

    queries: int
    samples: int
    greedy: Share | None
    sampled: tuple[Sampled, ...] = ()
    verification: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def nearest(self, temperature: float) -> Sampled | None:
        """The measures at the sampled temperature nearest to ``temperature``; None when it was greedy only."""
        return min(
            self.sampled, key=lambda s: round(abs(s.temperature - temperature), 6), default=None
        )

    @property
    def largest_k(self) -> int | None:
        """The largest K for which Pass@K is known."""
        return max((k for point in self.sampled for k in point.pass_at), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What one iteration's score step kept; None where there was nothing to average."""

    queries: int
    solved: int
    responses: int
    correct: int
    answered: int
    selected: int
    selected_queries: int
    steps_selected: float | None
    steps_other: float | None
    reward_selected: float | None
    reward_other: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One iteration as far as it has come; 0 is the policy that evolving starts from and only evaluated.

    ``temperature`` is the one its responses were sampled at.
    """

    index: int
    evaluation: Evaluation | None = None
    temperature: float | None = None
    selection: Selection | None = None
    losses: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The PRM's error on steps that it was not trained on; ``mse_of_mean`` is that of always guessing their mean."""

    steps: int
    mse: float
    mse_of_mean: float
    auc: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrmView:
    """A PRM: its data, its training, its error and its worth as a verifier, each as far as it is known."""

    examples: int | None = None
    labelled_steps: int | None = None
    mean_label: float | None = None
    losses: tuple[float, ...] = ()
    held_out: HeldOut | None = None
    verification: Evaluation | None = None
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """A finished step's cost. ``seconds`` is what its making took, also where this run only adopted it.

    ``timings`` are the seconds of its phases; what they leave of ``seconds`` is start-up, storage and waiting.
    ``undecided`` responses got no verdict in time; None where there is always one.
    ``peak_bytes`` is the most device memory that a process of it took, where that was measured.
    """

    name: str
    ref: Ref
    adopted: bool
    seconds: float
    finished_at: float
    timings: Mapping[str, float]
    tokens: int | None
    undecided: int | None = None
    peak_bytes: float | None = None

    @property
    def overhead(self) -> float:
        """Seconds outside the stage's own phases."""
        return max(0.0, self.seconds - sum(self.timings.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as far as it has come. ``tests`` are the test evaluations by phase: base, warm-up, final.

    ``benchmarks`` are scores by phase (base, final) and benchmark, as ``Scores.as_json`` writes them.
    """

    name: str
    spec: RunSpec
    data: Ref
    queries: Mapping[str, int]
    planned: int
    steps: tuple[StepView, ...]
    tests: Mapping[str, Evaluation]
    benchmarks: Mapping[str, Mapping[str, Any]]
    iterations: tuple[Iteration, ...]
    prm: PrmView | None
    versions: Mapping[str, str]

    @property
    def finished(self) -> bool:
        return len(self.steps) >= self.planned

    @property
    def progress(self) -> str:
        """How far the run is, in words."""
        if self.finished:
            return "finished"
        return f"not finished: {len(self.steps)} of {self.planned} steps are done"

    def step(self, name: str) -> StepView | None:
        """The finished step called ``name``."""
        return next((step for step in self.steps if step.name == name), None)


def describe(spec: RunSpec) -> str:
    """What distinguishes a run, in a few words of the paper."""
    evolve = spec.evolve
    if evolve.how.learns_from == "answers":
        return evolve.how.title
    select = evolve.select
    alpha = "an alpha chosen on validation" if select.alpha is None else select.alpha
    rule = find_rule(select.rule).says.format(k=select.k, alpha=alpha)
    if select.limit:
        rule += f", at most {select.limit:,} at random"
    exploration = evolve.exploration
    if exploration is None:
        temperature = f"temperature {evolve.rollout.temperature:g}"
    else:
        every = "iteration" if exploration.every == 1 else f"{exploration.every} iterations"
        temperature = f"temperature chosen every {every}"
        if exploration.tune_on == "pass_at_k":
            temperature += " by Pass@K"
    words = [evolve.how.title, rule, temperature]
    if spec.teacher:
        words.append("warm-up data and PRM of a larger model")
    if evolve.unlabeled:
        labels = {"vote": "labeled by vote", "oracle": "with their true answers"}
        words.append(
            f"unlabeled queries {labels[evolve.unlabeled.labels]} after {evolve.unlabeled.after:.0%}"
        )
    return ", ".join(words)
