"""A study's claims: what it set out to see, and whether its results show it.

A claim is a difference that is said to be above zero. It is *seen* when the whole 95 % interval of the difference is,
*not seen* when the whole interval is below (the opposite shows), and else cannot be told from these cells. One pair
alone tells nothing, since its interval is for other questions and another seed may differ as much as a method does, and
two tell too little: there is a verdict from three pairs on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mstar.core.comparison import Estimate, mean_estimate, paired_estimate
from mstar.study.compare import (
    difference_at_equal,
    estimate_body,
    paired_answers,
    pairs_of,
)
from mstar.study.records import CellRecord, Point, Sampled
from mstar.study.spec import Claim

NEAR = 1e-6

LEAST = 3
"""Pairs that a verdict needs: an interval from two holds the truth less often than it says."""

Pairs = Sequence[tuple[CellRecord, CellRecord]]


class Verdict(StrEnum):
    """What the results say of a claim."""

    SEEN = "seen"
    NOT_SEEN = "not seen"
    OPEN = "cannot be told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A difference over ``pairs`` of cells, each measured on ``questions``; ``at`` is the equal amount of both."""

    difference: Estimate
    pairs: int
    questions: int
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim with what its cells say of it; ``measured`` is None while there are none."""

    claim: Claim
    measured: Measured | None

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.measured.difference if self.measured else None)


def verdict_of(difference: Estimate | None) -> Verdict:
    """What a difference's interval says of its being above zero."""
    found = difference
    if found is None or found.n < LEAST or found.low is None or found.high is None:
        return Verdict.OPEN
    if found.low == found.high:
        return (
            Verdict.OPEN
        )  # equal differences by chance have an interval of no width, and say nothing of others
    if found.low > 0:
        return Verdict.SEEN
    return Verdict.NOT_SEEN if found.high < 0 else Verdict.OPEN


def judge(claims: Sequence[Claim], records: Sequence[CellRecord]) -> tuple[Judged, ...]:
    """Each claim with the cells of its rows, paired by seed and base."""
    return tuple(Judged(claim=claim, measured=_measured(claim, records)) for claim in claims)


def judged_body(judged: Judged) -> dict[str, Any]:
    """A claim as ``study.json`` has it."""
    found = judged.measured
    return {
        **judged.claim.model_dump(mode="json"),
        "verdict": judged.verdict.value,
        "difference": estimate_body(found.difference) if found else None,
        "pairs": found.pairs if found else 0,
        "questions": found.questions if found else None,
        "at": found.at if found else None,
    }


def pass_at_k(point: Point) -> float | None:
    """Pass@K, K the largest, at the temperature in use (figures 3 and 5)."""
    sampled = _in_use(point)
    return sampled.pass_at[max(sampled.pass_at)] if sampled and sampled.pass_at else None


def exploration(point: Point) -> float | None:
    """Pass@K − Greedy: what sampling still finds and greedy decoding does not (section 4.1)."""
    passed = pass_at_k(point)
    return None if passed is None or point.greedy is None else passed - point.greedy


def reward_pass(point: Point) -> float | None:
    """Reward-Pass@2 at the temperature in use (figure 5)."""
    sampled = _in_use(point)
    return sampled.reward_pass_at_2 if sampled else None


def _in_use(point: Point) -> Sampled | None:
    if point.temperature is None:
        return None
    at = point.temperature
    return next((each for each in point.sampled if abs(each.temperature - at) < NEAR), None)


def _measured(claim: Claim, records: Sequence[CellRecord]) -> Measured | None:
    ours = [record for record in records if record.row == claim.row]
    if claim.over is None:
        lost = _LOST[claim.by]
        return _mean([(value, each) for each in ours if (value := lost(each)) is not None])
    theirs = [record for record in records if record.row == claim.over]
    return _BY[claim.by](pairs_of(ours, theirs))


def _mean(values: Sequence[tuple[float, CellRecord]]) -> Measured | None:
    """The mean of what was read of each cell on validation."""
    if not values:
        return None
    return Measured(
        difference=mean_estimate([value for value, _ in values]),
        pairs=len(values),
        questions=values[0][1].points[-1].questions,
    )


def _accuracy(pairs: Pairs) -> Measured | None:
    ours, theirs = paired_answers(pairs)
    if not ours:
        return None
    found = paired_estimate(ours, theirs)
    return Measured(difference=found, pairs=len(ours), questions=len(ours[0]))


def _at_equal(what: str) -> Callable[[Pairs], Measured | None]:
    def measure(pairs: Pairs) -> Measured | None:
        found = difference_at_equal(pairs, what)
        if found is None:
            return None
        at, difference = found
        asked = pairs[0][0].points[-1].questions
        return Measured(difference=difference, pairs=difference.n, questions=asked, at=at)

    return measure


def _of_each(measure: Callable[[CellRecord], float | None]) -> Callable[[Pairs], Measured | None]:
    def measured(pairs: Pairs) -> Measured | None:
        read = [(measure(ours), measure(theirs), ours) for ours, theirs in pairs]
        return _mean([(a - b, cell) for a, b, cell in read if a is not None and b is not None])

    return measured


def _last(measure: Callable[[Point], float | None]) -> Callable[[CellRecord], float | None]:
    return lambda cell: measure(cell.points[-1]) if cell.points else None


def _lost(measure: Callable[[Point], float | None]) -> Callable[[CellRecord], float | None]:
    """How much less the last policy has than the first."""

    def lost(cell: CellRecord) -> float | None:
        if len(cell.points) < 2:
            return None
        first, last = measure(cell.points[0]), measure(cell.points[-1])
        return None if first is None or last is None else first - last

    return lost


_LOST: Mapping[str, Callable[[CellRecord], float | None]] = {
    "pass@k lost": _lost(pass_at_k),
    "exploration lost": _lost(exploration),
}

_BY: Mapping[str, Callable[[Pairs], Measured | None]] = {
    "accuracy": _accuracy,
    "updates": _at_equal("updates"),
    "queries": _at_equal("queries"),
    "pass@k": _of_each(_last(pass_at_k)),
    "exploration": _of_each(_last(exploration)),
    "reward-pass@2": _of_each(_last(reward_pass)),
    **{by: _of_each(lost) for by, lost in _LOST.items()},
}
