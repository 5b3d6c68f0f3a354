"""From values to places and to words: scales, round ticks, numbers as text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

THIN = "\u202f"
"""A narrow space that does not break, as between a number and its unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps ``low`` to ``start`` and ``high`` to ``end``; with ``log``, in proportion to the logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of ``value``; outside the domain it goes on in the same proportion."""
        low, high, at = self.low, self.high, value
        if self.log:
            floor_ = min(low, high)
            low, high, at = log10(low), log10(high), log10(max(value, floor_))
        if low == high:
            return (self.start + self.end) / 2
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round values from ``low`` to ``high``: steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from ``low`` to ``high``, with 2 and 5 times them where there are few."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    wide = len(powers) > 4
    values = (m * 10.0**p for p in powers for m in ((1,) if wide else (1, 2, 5)))
    return [float(f"{v:.6g}") for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]


def padded(values: Iterable[float], *, share: float = 0.06) -> tuple[float, float]:
    """Lowest and highest of the values with some air around; (0, 1) for none."""
    found: Sequence[float] = list(values)
    if not found:
        return 0.0, 1.0
    low, high = min(found), max(found)
    air = (high - low) * share or abs(high) * share or 0.5
    return low - air, high + air


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for None."""
    return "–" if value is None else f"{value * 100:.{digits}f}{THIN}%"


def points(value: float | None, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign."""
    return "–" if value is None else f"{value * 100:+.{digits}f}".replace("-", "−")


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with a true minus; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def whole(value: float | None) -> str:
    """A count with its thousands apart; a dash for None."""
    return "–" if value is None else f"{value:,.0f}".replace(",", THIN)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 4.2 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{THIN}h {minutes:02d}{THIN}min"
