"""A number that is not known well: the least and the most that it is taken to be."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Range:
    """From ``low`` to ``high``, both finite and at least 0. Sums and products are of equal ends."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (
            math.isfinite(self.low) and math.isfinite(self.high) and 0 <= self.low <= self.high
        ):
            raise ValueError(f"no range from {self.low} to {self.high}")

    @classmethod
    def of(cls, value: float) -> Self:
        """A number that is known."""
        return cls(value, value)

    def __add__(self, other: "Range | float") -> "Range":
        other = _range(other)
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        other = _range(other)
        return Range(self.low * other.low, self.high * other.high)

    def __truediv__(self, other: "Range | float") -> "Range":
        """The least over the most, and the most over the least."""
        other = _range(other)
        return Range(self.low / other.high, self.high / other.low)

    def least(self, other: "Range | float") -> "Range":
        """Never more than ``other``."""
        other = _range(other)
        return Range(min(self.low, other.low), min(self.high, other.high))

    def most(self, other: "Range | float") -> "Range":
        """Never less than ``other``."""
        other = _range(other)
        return Range(max(self.low, other.low), max(self.high, other.high))

    @property
    def middle(self) -> float:
        """The geometric mean of the ends (the arithmetic one when the low end is 0)."""
        return math.sqrt(self.low * self.high) if self.low else self.high / 2


ZERO = Range(0.0, 0.0)


def total(ranges: Iterable[Range]) -> Range:
    """The sum; nothing for none."""
    found = ZERO
    for each in ranges:
        found += each
    return found


def _range(value: Range | float) -> Range:
    return value if isinstance(value, Range) else Range.of(value)
