"""Rows with their intervals: final accuracy, paired differences, equal updates, equal queries, what adoption saved.

An interval is for other seeds and other questions (``core.comparison``). Cells are paired by seed and base.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mstar.core.comparison import (
    Estimate,
    interpolate,
    mean_estimate,
    paired_estimate,
    share_estimate,
)
from mstar.study.records import Answered, CellRecord

Place = tuple[str | None, int]
"""Base and seed."""

MEASURES: Mapping[str, str] = {"updates": "optimizer updates", "queries": "queries"}
"""What two rows may be given the same amount of, and how it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Accuracy of several tests of one kind. ``questions`` is how many each was asked."""

    accuracy: Estimate
    questions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal:
    """A row where it had as much of something as the others: ``at`` units of it.

    ``accuracy`` is greedy on validation there. ``against`` is how much row and baseline both had, which may be more
    than all rows had; ``difference`` is the row's accuracy less the baseline's there.
    """

    total: float
    at: float | None
    accuracy: Estimate | None
    against: float | None = None
    difference: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """A row as far as its cells are finished."""

    name: str
    recipe: str
    paper: dict[str, Any] | None
    cells: tuple[CellRecord, ...]
    of: int
    overall: Result | None
    by_base: Mapping[str, Result]
    difference: Estimate | None
    pairs: int
    equal: Mapping[str, Equal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """Seconds of steps that were made, and that adopting spared: what each adopting run would have needed besides."""

    steps: int
    adopted: int
    seconds: float
    saved: float

    @property
    def share(self) -> float:
        """The part of all step-time that adoption saved."""
        whole = self.seconds + self.saved
        return self.saved / whole if whole else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """A row as the study has it, before its results."""

    name: str
    recipe: str
    paper: dict[str, Any] | None
    of: int


def compare_rows(
    plans: Sequence[RowPlan], records: Sequence[CellRecord], baseline: str | None
) -> list[RowResult]:
    """Every row with what its records say, and against the baseline's where there is one."""
    by_row = {p.name: tuple(r for r in records if r.row == p.name) for p in plans}
    base = by_row.get(baseline or "", ())
    equal = {what: _equal(by_row, what, baseline) for what in MEASURES}
    results = []
    for plan in plans:
        found = by_row[plan.name]
        both = pairs_of(found, base) if plan.name != baseline else []
        ours, theirs = paired_answers(both)
        results.append(
            RowResult(
                name=plan.name,
                recipe=plan.recipe,
                paper=plan.paper,
                cells=found,
                of=plan.of,
                overall=result_of([record.final for record in found]),
                by_base=_by_base(found),
                difference=paired_estimate(ours, theirs) if ours else None,
                pairs=len(ours),
                equal={what: rows[plan.name] for what, rows in equal.items() if plan.name in rows},
            )
        )
    return results


def result_of(tests: Sequence[Answered]) -> Result | None:
    """The mean of the tests that asked the first one's questions (``accuracy.n`` of them); None for no test."""
    same = [test for test in tests if test.questions == tests[0].questions]
    if not same:
        return None
    estimate = share_estimate([test.answers() for test in same])
    return Result(accuracy=estimate, questions=same[0].count)


def starting_points(records: Sequence[CellRecord]) -> dict[str, Result]:
    """Base and warm-up as results of their own, each policy once, since rows share them.

    Where rows differ in it (a student of a teacher, and one alone), it is named by row: ``warm-up (row)``.
    """
    tests: dict[str, dict[str, list[tuple[Place, Answered]]]] = {}
    for record in records:
        for phase, test in record.tests.items():
            if phase != "final":
                found = tests.setdefault(phase, {}).setdefault(record.row, [])
                found.append((record.pair, test))
    results: dict[str, Result | None] = {}
    for phase, by_row in tests.items():
        everything = [item for found in by_row.values() for item in found]
        by_pair: dict[Place, set[str]] = {}
        for pair, test in everything:
            by_pair.setdefault(pair, set()).add(test.correct)
        if all(len(policies) == 1 for policies in by_pair.values()):
            results[phase] = _of_policies(test for _, test in everything)
        else:
            for row, found in by_row.items():
                results[f"{phase} ({row})"] = _of_policies(test for _, test in found)
    return {phase: result for phase, result in results.items() if result}


def _of_policies(tests: Iterable[Answered]) -> Result | None:
    return result_of(list({test.correct: test for test in tests}.values()))


def adoption_of(records: Sequence[CellRecord]) -> Adoption:
    """What adoption saved over all records."""
    costs = [record.cost for record in records]
    return Adoption(
        steps=sum(cost.steps for cost in costs),
        adopted=sum(cost.adopted for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        saved=sum(cost.saved for cost in costs),
    )


def estimate_body(found: Estimate | None) -> dict[str, Any] | None:
    """An estimate as ``study.json`` has it: shares, not per cent."""
    if found is None:
        return None
    return {key: _rounded(value) for key, value in asdict(found).items()}


def row_body(row: RowResult) -> dict[str, Any]:
    """A row as ``study.json`` has it."""
    return {
        "name": row.name,
        "recipe": row.recipe,
        "paper": row.paper,
        "cells": len(row.cells),
        "of": row.of,
        "accuracy": estimate_body(row.overall.accuracy if row.overall else None),
        "questions": row.overall.questions if row.overall else None,
        "by_base": {name: estimate_body(found.accuracy) for name, found in row.by_base.items()},
        "by_cell": [
            {
                "base": record.base,
                "seed": record.seed,
                "accuracy": _rounded(accuracy(record)),
                "pass_at": record.final.pass_at,
            }
            for record in row.cells
        ],
        "difference": estimate_body(row.difference),
        "equal": {
            what: {
                "total": _rounded(found.total),
                "at": _rounded(found.at),
                "accuracy": estimate_body(found.accuracy),
                "against": _rounded(found.against),
                "difference": estimate_body(found.difference),
            }
            for what, found in row.equal.items()
        },
        "updates": [record.updates for record in row.cells],
        "adoption": asdict(adoption_of(row.cells)),
    }


def accuracy(record: CellRecord) -> float:
    """Greedy accuracy of a cell's last policy on the test questions."""
    answers = record.final.answers()
    return sum(answers) / len(answers)


def curve(record: CellRecord, what: str) -> list[tuple[float, float]]:
    """Greedy accuracy on validation against cumulative updates or queries."""
    return [
        (float(getattr(point, what)), point.greedy)
        for point in record.points
        if point.greedy is not None
    ]


def paired_answers(
    pairs: Sequence[tuple[CellRecord, CellRecord]],
) -> tuple[list[list[bool]], list[list[bool]]]:
    """Answers of both cells of each pair, of those pairs that were asked the first one's questions."""
    both = [(a, b) for a, b in pairs if a.final.questions == b.final.questions]
    both = [pair for pair in both if pair[0].final.questions == both[0][0].final.questions]
    return [a.final.answers() for a, _ in both], [b.final.answers() for _, b in both]


def difference_at_equal(
    pairs: Sequence[tuple[CellRecord, CellRecord]], what: str
) -> tuple[float, Estimate] | None:
    """The mean difference of greedy accuracy on validation where both had the same amount of ``what``, and how much.

    None where no pair has two curves.
    """
    curves = [(curve(a, what), curve(b, what)) for a, b in pairs]
    curves = [(a, b) for a, b in curves if len(a) > 1 and len(b) > 1]
    if not curves:
        return None
    at = min(_total(pair) for pair in curves)
    read = [(interpolate(a, at), interpolate(b, at)) for a, b in curves]
    known = [a - b for a, b in read if a is not None and b is not None]
    return (at, mean_estimate(known)) if known else None


def pairs_of(
    ours: Sequence[CellRecord], theirs: Sequence[CellRecord]
) -> list[tuple[CellRecord, CellRecord]]:
    """Cells of the same base and seed."""
    by_pair = {record.pair: record for record in theirs}
    return [(record, by_pair[record.pair]) for record in ours if record.pair in by_pair]


def _by_base(records: Sequence[CellRecord]) -> dict[str, Result]:
    names = dict.fromkeys(record.base for record in records if record.base)
    found = {
        name: result_of([record.final for record in records if record.base == name])
        for name in names
    }
    return {name: result for name, result in found.items() if result}


def _equal(
    by_row: Mapping[str, Sequence[CellRecord]], what: str, baseline: str | None
) -> dict[str, Equal]:
    """Rows at the smallest total of all rows that have a curve; a row measured once only is not one of them."""
    measured = {
        name: [record for record in records if len(curve(record, what)) > 1]
        for name, records in by_row.items()
    }
    measured = {name: records for name, records in measured.items() if records}
    totals = {
        name: _total(curve(each, what) for each in records) for name, records in measured.items()
    }
    at = min(totals.values(), default=0.0)
    result: dict[str, Equal] = {}
    for name, records in measured.items():
        read = [interpolate(curve(record, what), at) for record in records]
        known = [value for value in read if value is not None]
        both = pairs_of(records, measured.get(baseline or "", ())) if name != baseline else []
        against, difference = difference_at_equal(both, what) or (None, None)
        result[name] = Equal(
            total=totals[name],
            at=at,
            accuracy=mean_estimate(known) if known else None,
            against=against,
            difference=difference,
        )
    return result


def _total(curves: Iterable[Sequence[tuple[float, float]]]) -> float:
    """The least amount at which the curves end."""
    return min(max(x for x, _ in points) for points in curves)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
