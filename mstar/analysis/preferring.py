"""The PRM as a reranker: its Top-k against the other right responses of the same query (paper, figures 2b and 2c)."""

from collections.abc import Callable, Mapping, Sequence

from mstar.analysis.records import Contrast, estimate
from mstar.core.metrics import mean
from mstar.core.records import Scored
from mstar.core.reward import process_reward
from mstar.core.seeds import derive_seed
from mstar.core.steps import split_steps

TOP = 2
"""The paper's Top-2."""

Measures = Mapping[str, float]
Rater = Callable[[str], Measures]
"""What is known of a response from its text alone, by name: the question's generator may know which steps matter."""

Pair = tuple[float, float]
"""A query's mean over its Top-k, and over its other right responses."""


def ranked(group: Sequence[Scored]) -> list[Scored]:
    """The right responses of a query that the PRM has scored, best first; ties go to the lowest sample index."""
    right = [item for item in group if item.grade.correct and item.step_scores]
    return sorted(right, key=lambda s: (-process_reward(s.step_scores), s.response.sample))


class Preferring:
    """Gathers a query's means; queries of at most ``top`` right responses have no others, and are left out."""

    def __init__(self, separator: str, top: int = TOP) -> None:
        self.compared = 0
        self._separator = separator
        self._top = top
        self._pairs: dict[str, list[Pair]] = {}

    def add(self, right: Sequence[Scored], rate: Rater | None = None) -> None:
        """The right responses of one query, best first."""
        if len(right) <= self._top:
            return
        self.compared += 1
        found = [self._measures(item, rate) for item in right]
        for name in found[0]:
            values = [measures[name] for measures in found]
            pair = mean(values[: self._top]), mean(values[self._top :])
            self._pairs.setdefault(name, []).append(pair)

    def result(self, seed: int) -> dict[str, Contrast]:
        """The contrasts by measure; none when no query had enough right responses."""
        return {
            name: contrast(pairs, derive_seed(seed, name)) for name, pairs in self._pairs.items()
        }

    def _measures(self, item: Scored, rate: Rater | None) -> dict[str, float]:
        response = item.response
        found = {
            "steps": float(len(split_steps(response.text, self._separator))),
            "tokens": float(response.token_count),
        }
        return found | dict(rate(response.text) if rate else {})


def contrast(pairs: Sequence[Pair], seed: int) -> Contrast:
    """Means with intervals over queries. Raises ``ValueError`` for no pairs."""
    return Contrast(
        top=estimate([top for top, _ in pairs], derive_seed(seed, "top")),
        other=estimate([other for _, other in pairs], derive_seed(seed, "other")),
        difference=estimate([top - other for top, other in pairs], derive_seed(seed, "difference")),
    )
