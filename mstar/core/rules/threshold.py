"""Right responses of a process reward above ``alpha``: the PRM as a verifier (section 3.3).

The paper chooses alpha on the validation set by steps of 0.1, and does not say by which measure. Ours: how well
"``R_p`` is above alpha" tells right responses from wrong ones, both kinds counting the same (balanced accuracy).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mstar.core.records import Scored
from mstar.core.rules import Ask, Rule, ranking

ALPHAS = tuple(tenths / 10 for tenths in range(10))
"""What validation chooses from: 0.0, 0.1, ... 0.9."""


def keep(right: Sequence[Scored], ask: Ask) -> Sequence[Scored]:
    """None at all, where the PRM likes none."""
    return [item for item in right if ranking(item) > ask.alpha]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaRow:
    """The share of right and of wrong responses above one alpha, and how well that tells them apart.

    A share is None without a response of its kind, and then so is the balanced accuracy.
    """

    alpha: float
    right_above: float | None
    wrong_above: float | None
    balanced_accuracy: float | None


class AlphaTable:
    """How well each alpha tells right from wrong, over a stream; memory holds a few counts."""

    def __init__(self) -> None:
        self._above = {alpha: {True: 0, False: 0} for alpha in ALPHAS}
        self._seen = {True: 0, False: 0}

    def add(self, judged: Iterable[Scored]) -> None:
        """Count responses, all with step scores; raises as ``ranking`` when one has none."""
        for item in judged:
            right, reward = item.grade.correct, ranking(item)
            self._seen[right] += 1
            for alpha, above in self._above.items():
                above[right] += reward > alpha

    def rows(self) -> list[AlphaRow]:
        """One row an alpha, the lowest first."""
        return [self._row(alpha, above) for alpha, above in self._above.items()]

    def _row(self, alpha: float, above: dict[bool, int]) -> AlphaRow:
        right, wrong = (
            above[kind] / self._seen[kind] if self._seen[kind] else None for kind in (True, False)
        )
        balanced = None if right is None or wrong is None else (right + 1 - wrong) / 2
        return AlphaRow(
            alpha=alpha, right_above=right, wrong_above=wrong, balanced_accuracy=balanced
        )


def choose_alpha(points: Iterable[tuple[float, float | None]]) -> float:
    """The alpha of the highest balanced accuracy, given (alpha, accuracy) of each; of equal ones the lowest.

    An accuracy that could not be measured (None) counts as a toss, one half. Raises ``ValueError`` for no points.
    """
    measured = sorted(points, key=lambda point: point[0])
    if not measured:
        raise ValueError("no alpha was measured")
    return max(measured, key=lambda point: 0.5 if point[1] is None else point[1])[0]


RULE = Rule(keep=keep, says="PRM above {alpha}", needs=("alpha",), tuned=("alpha",), by_prm=True)
