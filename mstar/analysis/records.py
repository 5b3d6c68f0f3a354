"""What an analysis finds: plain values, as ``analysis.json`` has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mstar.core.metrics import bootstrap_interval, mean, wilson_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over ``n`` queries with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Accuracy against N, all over the same queries (paper, figure 2a).

    ``curves`` has Best-of-N, weighted voting, majority voting and Pass@N, a value for each of ``sizes``;
    ``differences`` are paired by query: ``best_of_n - majority_vote`` and so on. ``greedy`` is None when it was not
    measured.
    """

    sizes: tuple[int, ...]
    curves: Mapping[str, tuple[Estimate, ...]]
    differences: Mapping[str, tuple[Estimate, ...]]
    greedy: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The PRM's Top-k against the other right responses of the same query: means of the queries' means.

    ``difference`` is top less other, paired by query.
    """

    top: Estimate
    other: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """What a rule leaves of a query's right responses: shares of the queries, and the mean number it keeps.

    Either ``alpha`` (threshold) or ``k`` (Top-k) is given.
    """

    alpha: float | None = None
    k: int | None = None
    all: Estimate
    none: Estimate
    some: Estimate
    kept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Responses of one policy to one set of queries, and what the PRM's preference among them looks like.

    ``queries`` were read; ``compared`` of them have more right responses than the Top-k takes, and are what
    ``contrasts`` rest on; ``survivable`` have two right responses or more, and are what ``survivals`` rest on.
    ``balanced_accuracy`` says, by alpha, how well "above alpha" tells right from wrong, where wrong ones are scored.
    """

    name: str
    label: str
    temperature: float
    queries: int
    compared: int
    survivable: int
    contrasts: Mapping[str, Contrast] = field(default_factory=dict)
    survivals: tuple[Survival, ...] = ()
    balanced_accuracy: Mapping[str, float] = field(default_factory=dict)
    alpha: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an endpoint said of pairs, one of the Top-k and one other right response of the same query each.

    ``responses`` were wanted, ``cached`` of them known from before, ``asked`` now and ``judged`` in all.
    """

    model: str
    responses: int
    cached: int
    asked: int
    judged: int
    contrast: Contrast | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What the analysis does not have, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Everything about one run's PRM. ``step`` is the evaluation with the samples, which the store keeps."""

    run: str
    policy: str
    split: str
    queries: int
    samples: int
    temperature: float
    top: int
    seed: int
    step: str
    adopted: bool
    verification: Verification
    sources: tuple[Source, ...]
    judgement: Judgement | None
    missing: tuple[Missing, ...]

    @property
    def sampled(self) -> Source:
        """The source that ``verification`` rests on, too."""
        return self.sources[0]


def estimate(values: Sequence[float], seed: int) -> Estimate:
    """The mean of one value a query, with a bootstrap over queries. Raises ``ValueError`` for no values."""
    low, high = bootstrap_interval(values, seed=seed)
    return Estimate(value=mean(values), low=low, high=high, n=len(values))


def share(count: int, total: int) -> Estimate:
    """``count`` of ``total`` queries, with Wilson's interval; 0 of none is 0, and may be anything."""
    low, high = wilson_interval(count, total)
    return Estimate(value=count / total if total else 0.0, low=low, high=high, n=total)
