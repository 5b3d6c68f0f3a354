"""Adaptive exploration: the temperature at which the policy and the PRM together find most (paper, section 4.2)."""

from collections.abc import Iterable
from decimal import Decimal
from math import isfinite

MOST_POINTS = 1000
"""Temperatures a grid may have: each one costs an evaluation."""


def temperature_grid(low: float, high: float, step: float) -> list[float]:
    """``low``, ``low + step``, ... up to ``high``, each the float that is written shortest: 0.3, 0.4, ... 1.6.

    Raises ``ValueError`` unless all are finite, ``low <= high``, ``step > 0`` and the grid has at most ``MOST_POINTS``.
    """
    if not (all(map(isfinite, (low, high, step))) and low <= high and step > 0):
        raise ValueError(f"no temperatures from {low} to {high} in steps of {step}")
    # Decimals of the shortest texts: adding the floats themselves would drift to 0.7999999999999999.
    first, width = Decimal(str(low)), Decimal(str(step))
    intervals = (Decimal(str(high)) - first) / width
    if intervals >= MOST_POINTS:
        raise ValueError(
            f"temperatures from {low} to {high} in steps of {step} are more than {MOST_POINTS}"
        )
    return [float(first + index * width) for index in range(int(intervals) + 1)]


def choose_temperature(points: Iterable[tuple[float, float]], current: float) -> float:
    """The temperature of the highest Reward-Pass@2, given (temperature, Reward-Pass@2) of each.

    Of equal ones the nearest to ``current``, then the lower: do not move without a reason. Raises ``ValueError`` for no
    points, or a value that is not finite.
    """
    measured = list(points)
    if not measured:
        raise ValueError("no temperature was measured")
    for temperature, found in measured:
        if not (isfinite(temperature) and isfinite(found)):
            raise ValueError(f"reward-pass@2 {found} at temperature {temperature} is not a number")
    here = Decimal(str(current))

    def merit(point: tuple[float, float]) -> tuple[float, Decimal, float]:
        # Decimal: as floats, 0.9 is nearer to 1.0 than 1.1 is, or the other way round.
        return point[1], -abs(Decimal(str(point[0])) - here), -point[0]

    return max(measured, key=merit)[0]
