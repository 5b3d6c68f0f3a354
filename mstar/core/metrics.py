"""What is measured: Pass@K, Reward-Pass@K, how sure one can be of a share, and how good the PRM is (section 4.1)."""

from collections.abc import Iterable, Sequence
from math import comb, fsum, sqrt
from random import Random
from statistics import NormalDist

from mstar.core.records import Scored
from mstar.core.reward import process_reward


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that ``k`` of the ``samples`` drawn without replacement hold a right one: unbiased for Pass@K.

    Exact up to the last division. Raises ``ValueError`` unless ``1 <= k <= samples`` and ``0 <= correct <= samples``.
    """
    if not (1 <= k <= samples and 0 <= correct <= samples):
        raise ValueError(f"pass@{k} of {samples} samples with {correct} correct is not defined")
    everything = comb(samples, k)
    return (everything - comb(samples - correct, k)) / everything


def mean_pass_at_k(counts: Iterable[tuple[int, int]], k: int) -> float:
    """The mean of ``pass_at_k`` over queries, given (samples, correct) of each. Raises as both."""
    return mean([pass_at_k(samples, correct, k) for samples, correct in counts])


def reward_pass_at_k(scored: Sequence[Scored], k: int) -> bool:
    """Whether a right response is among the ``k`` of the highest process reward, of all responses to one query.

    Ties go to the lowest sample index. Raises ``ValueError`` for no responses, ``k < 1`` or missing step scores.
    """
    if not scored or k < 1:
        raise ValueError(f"reward-pass@{k} of {len(scored)} responses is not defined")
    ranked = sorted(scored, key=lambda s: (-process_reward(s.step_scores), s.response.sample))
    return any(item.grade.correct for item in ranked[:k])


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, whatever the order. Raises ``ValueError`` for no values."""
    if not values:
        raise ValueError("the mean of no values is not defined")
    return fsum(values) / len(values)


def wilson_interval(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Lowest and highest share that ``correct`` of ``total`` is compatible with; (0, 1) when there were none.

    Raises ``ValueError`` unless ``0 <= correct <= total`` and ``0 < level < 1``.
    """
    if not (0 <= correct <= total and 0 < level < 1):
        raise ValueError(f"no interval of level {level} for {correct} of {total}")
    if not total:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = correct / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    # At the ends the exact bound is the share itself, which rounding would miss.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == total else min(1.0, centre + half)
    return low, high


def bootstrap_interval(
    values: Sequence[float], *, seed: int, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of the mean of ``values``, one a query; only ``seed`` decides the resamples.

    Raises ``ValueError`` for no values, no resamples, or a level outside (0, 1).
    """
    if not values or resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"no interval of level {level} for {len(values)} values from {resamples} resamples"
        )
    # Of Random, only random() promises the same numbers in every version of Python.
    draw, count = Random(seed).random, len(values)
    means = sorted(
        fsum(values[int(draw() * count)] for _ in range(count)) / count for _ in range(resamples)
    )
    tail = int((1 - level) / 2 * resamples)
    return means[tail], means[resamples - 1 - tail]


def mean_squared_error(predictions: Sequence[float], targets: Sequence[float]) -> float:
    """The PRM's error on step labels; the Brier score where targets are 0 or 1. Raises ``ValueError`` for none."""
    return mean([(p - t) ** 2 for p, t in zip(predictions, targets, strict=True)])


def area_under_curve(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """The chance that a positive scores higher than a negative, ties half; None without one of each.

    Takes n log n time. Raises ``ValueError`` when the two have different lengths.
    """
    ranked = sorted(zip(scores, positive, strict=True))
    positives = sum(is_positive for _, is_positive in ranked)
    negatives = len(ranked) - positives
    if not positives or not negatives:
        return None
    twice_wins, below, start = 0, 0, 0
    while start < len(ranked):
        stop, tied = start, 0
        while stop < len(ranked) and ranked[stop][0] == ranked[start][0]:
            tied += ranked[stop][1]
            stop += 1
        level = stop - start - tied
        twice_wins += tied * (2 * below + level)
        below += level
        start = stop
    return twice_wins / (2 * positives * negatives)
