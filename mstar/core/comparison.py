"""How sure one can be of a mean over few trainings and many questions, and of a difference between two methods.

A training (one seed on one base) and a question are both draws: another seed trains another policy, another test set
asks other questions, and all policies answer the same ones. So a mean of ``values[training][question]`` varies in two
crossed ways, and its interval has to hold both. The variance is the unbiased one of a mean over two crossed draws;
and because three trainings are few, the interval is Student's. Percentiles of a bootstrap of three values cannot reach
beyond the three, and hold the truth three times in four.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import cos, floor, fsum, pi, sin, sqrt, tan
from statistics import NormalDist

from mstar.core.metrics import mean, wilson_interval

MANY = 400
"""From so many degrees of freedom on Student's distribution is the normal one for our purposes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean of ``n`` trainings; ``low`` and ``high`` are None where nothing says how far others would be."""

    mean: float
    low: float | None
    high: float | None
    n: int


def mean_estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of one value a training with Student's interval. Raises ``ValueError`` for no values."""
    centre, count = mean(values), len(values)
    if count < 2:
        return Estimate(mean=centre, low=None, high=None, n=count)
    half = student_quantile(count - 1, level) * sqrt(_variance(values, centre) / count)
    return Estimate(mean=centre, low=centre - half, high=centre + half, n=count)


def crossed_estimate(values: Sequence[Sequence[float]], level: float = 0.95) -> Estimate:
    """The mean of ``values[training][question]`` with an interval for other trainings and other questions.

    Degrees of freedom by Satterthwaite's rule. One training alone says nothing of others: then the interval is for
    other questions only. Raises ``ValueError`` for no values, or where trainings answered different questions.
    """
    trainings = len(values)
    questions = len(values[0]) if values else 0
    if not questions or any(len(row) != questions for row in values):
        raise ValueError(f"{trainings} trainings with different questions, or none, have no mean")
    rows = [mean(row) for row in values]
    columns = [fsum(column) / trainings for column in zip(*values, strict=True)]
    centre = mean(rows)
    if questions == 1:
        return mean_estimate(rows, level)
    of_questions = _variance(columns, centre) / questions
    if trainings == 1:
        half = student_quantile(questions - 1, level) * sqrt(of_questions)
        return Estimate(mean=centre, low=centre - half, high=centre + half, n=1)
    of_trainings = _variance(rows, centre) / trainings
    rest = fsum(
        (value - row - column + centre) ** 2
        for row, line in zip(rows, values, strict=True)
        for column, value in zip(columns, line, strict=True)
    )
    # What is neither the training's nor the question's own is in both terms, and is taken out of the sum once.
    both = rest / ((trainings - 1) * (questions - 1)) / (trainings * questions)
    total = max(of_trainings + of_questions - both, of_trainings, of_questions)
    freedom = _freedom((of_trainings, trainings - 1), (of_questions, questions - 1))
    half = student_quantile(freedom, level) * sqrt(total)
    return Estimate(mean=centre, low=centre - half, high=centre + half, n=trainings)


def share_estimate(correct: Sequence[Sequence[bool]], level: float = 0.95) -> Estimate:
    """The mean accuracy of ``correct[training][question]``; one training, or all alike, has Wilson's interval.

    Raises as ``crossed_estimate``.
    """
    found = crossed_estimate([[float(right) for right in row] for row in correct], level)
    low, high = found.low, found.high
    if found.n == 1 or low is None or high is None or low == high:
        low, high = wilson_interval(round(found.mean * len(correct[0])), len(correct[0]), level)
    return Estimate(mean=found.mean, low=max(0.0, low), high=min(1.0, high), n=found.n)


def paired_estimate(
    ours: Sequence[Sequence[bool]], theirs: Sequence[Sequence[bool]], level: float = 0.95
) -> Estimate:
    """Mean accuracy of ``ours`` less that of ``theirs``, paired by training and by question.

    Where every pair of answers differs alike (mostly: not at all), the interval is Wilson's for other questions.
    Raises ``ValueError`` where the pairs do not fit, and as ``crossed_estimate``.
    """
    pairs = zip(ours, theirs, strict=True)
    found = crossed_estimate(
        [[float(a) - float(b) for a, b in zip(x, y, strict=True)] for x, y in pairs], level
    )
    low, high = found.low, found.high
    if low is None or high is None:
        return found
    if low == high:
        _, reach = wilson_interval(0, len(ours[0]), level)
        low, high = found.mean - reach, found.mean + reach
    return Estimate(mean=found.mean, low=max(-1.0, low), high=min(1.0, high), n=found.n)


def interpolate(curve: Sequence[tuple[float, float]], at: float) -> float | None:
    """The value of a curve at ``at``, on the line between its neighbours; None outside of what was measured.

    Of several points at one place the last is taken.
    """
    places = dict(sorted(curve, key=lambda point: point[0]))
    if at in places:
        return places[at]
    before = [x for x in places if x < at]
    after = [x for x in places if x > at]
    if not before or not after:
        return None
    left, right = before[-1], after[0]
    share = (at - left) / (right - left)
    return places[left] + share * (places[right] - places[left])


@cache
def student_quantile(freedom: int, level: float = 0.95) -> float:
    """How many standard errors a two-sided interval of ``level`` reaches to each side.

    Raises ``ValueError`` unless ``freedom >= 1`` and ``0 < level < 1``.
    """
    if freedom < 1 or not 0 < level < 1:
        raise ValueError(f"no Student interval of level {level} with {freedom} degrees of freedom")
    if freedom > MANY:
        return NormalDist().inv_cdf((1 + level) / 2)
    low, high = 0.0, pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < level else (low, middle)
    return tan((low + high) / 2) * sqrt(freedom)


def _inside(angle: float, freedom: int) -> float:
    """P(|t| <= sqrt(freedom) tan(angle)): a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    square = cos(angle) ** 2
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total, index = 0.0, 2 if odd else 1
    for _ in range((freedom - 1) // 2 if odd else freedom // 2):
        total += term
        term *= square * index / (index + 1)
        index += 2
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def _variance(values: Sequence[float], centre: float) -> float:
    return fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def _freedom(*parts: tuple[float, int]) -> int:
    """Satterthwaite's degrees of freedom of a sum of variances, rounded down."""
    total = fsum(variance for variance, _ in parts)
    if total == 0:
        return min(freedom for _, freedom in parts)
    # Shares, because squares of small variances may vanish.
    return max(1, floor(1 / fsum((v / total) ** 2 / freedom for v, freedom in parts)))
