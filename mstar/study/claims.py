"""A study's claims: what it set out to see, and whether its results show it.

A claim is a difference that is said to be above zero. It is *seen* when the whole 95 % interval of the difference is,
*not seen* when the whole interval is below (the opposite shows), and else cannot be told from these cells. One pair
alone tells nothing: its interval is for other questions, and another seed may differ as much as a method does.
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
)
from mstar.study.records import CellRecord, Point, Sampled
from mstar.study.spec import Claim

LEAST = 2
"""Pairs that a verdict needs."""

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
        found = self.measured.difference if self.measured else None
        if found is None or found.n < LEAST or found.low is None or found.high is None:
            return Verdict.OPEN
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


def exploration(point: Point) -> float | None:
    """Pass@K − Greedy, K the largest: what sampling still finds and greedy decoding does not (section 4.1).

    Where several temperatures were measured, at the one that the policy would be sampled with next: of the best
    Reward-Pass@2, or of the best Pass@K where no PRM was asked.
    """
    measured = [sampled for sampled in point.sampled if sampled.pass_at]
    if point.greedy is None or not measured:
        return None
    return _passed(max(measured, key=_liked)) - point.greedy


def _liked(sampled: Sampled) -> tuple[float, float]:
    return sampled.reward_pass_at_2 or 0.0, _passed(sampled)


def _passed(sampled: Sampled) -> float:
    return sampled.pass_at[max(sampled.pass_at)]


def _measured(claim: Claim, records: Sequence[CellRecord]) -> Measured | None:
    ours = [record for record in records if record.row == claim.row]
    if claim.over is None:
        return _mean([(lost, each) for each in ours if (lost := _lost(each)) is not None])
    by_pair = {record.pair: record for record in records if record.row == claim.over}
    return _BY[claim.by]([(each, by_pair[each.pair]) for each in ours if each.pair in by_pair])


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


def _left(cell: CellRecord) -> float | None:
    return exploration(cell.points[-1]) if cell.points else None


def _lost(cell: CellRecord) -> float | None:
    known = [found for point in cell.points if (found := exploration(point)) is not None]
    return known[0] - known[-1] if len(known) > 1 else None


_BY: Mapping[str, Callable[[Pairs], Measured | None]] = {
    "accuracy": _accuracy,
    "updates": _at_equal("updates"),
    "queries": _at_equal("queries"),
    "exploration": _of_each(_left),
    "exploration lost": _of_each(_lost),
}
