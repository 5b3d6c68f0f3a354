"""Why a threshold loses to Top-k: it keeps all of a query's right responses or none (paper, section 3.3)."""

from collections.abc import Sequence

from mstar.analysis.records import Survival, share
from mstar.core.records import Scored
from mstar.core.rules import ranking
from mstar.core.rules.threshold import ALPHAS, AlphaTable

KS = (1, 2, 4)
AT_LEAST = 2
"""Right responses that a query must have: one alone can only survive or not."""


class Surviving:
    """Counts, for each rule, the queries of which all, none or some right responses are kept."""

    def __init__(self) -> None:
        self.queries = 0
        self._by_alpha = {alpha: _Tally() for alpha in ALPHAS}
        self._by_k = {k: _Tally() for k in KS}
        self._alphas = AlphaTable()

    def add(self, group: Sequence[Scored]) -> None:
        """All responses to one query; those that the PRM has not scored do not count."""
        judged = [scored for scored in group if scored.step_scores]
        self._alphas.add(judged)
        right = [ranking(scored) for scored in judged if scored.grade.correct]
        if len(right) < AT_LEAST:
            return
        self.queries += 1
        for alpha, tally in self._by_alpha.items():
            tally.add(sum(reward > alpha for reward in right), len(right))
        for k, tally in self._by_k.items():
            tally.add(min(k, len(right)), len(right))

    def result(self) -> tuple[Survival, ...]:
        """Thresholds by alpha, then Top-k by k; nothing when no query counts."""
        if not self.queries:
            return ()
        thresholds = [tally.result(alpha=alpha) for alpha, tally in self._by_alpha.items()]
        return (*thresholds, *(tally.result(k=k) for k, tally in self._by_k.items()))

    def balanced_accuracy(self) -> dict[float, float]:
        """By alpha, the mean of the shares of right responses above it and of wrong ones not above it.

        Nothing where only one kind has scores.
        """
        rows = self._alphas.rows()
        return {r.alpha: r.balanced_accuracy for r in rows if r.balanced_accuracy is not None}


class _Tally:
    def __init__(self) -> None:
        self.all = self.none = self.some = self.kept = 0

    def add(self, kept: int, right: int) -> None:
        self.kept += kept
        if kept == right:
            self.all += 1
        elif kept:
            self.some += 1
        else:
            self.none += 1

    def result(self, *, alpha: float | None = None, k: int | None = None) -> Survival:
        total = self.all + self.none + self.some
        return Survival(
            alpha=alpha,
            k=k,
            all=share(self.all, total),
            none=share(self.none, total),
            some=share(self.some, total),
            kept=self.kept / total,
        )
