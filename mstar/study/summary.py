"""A study as it stands: every row with its intervals, what is not there yet, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mstar.config import RunSpec
from mstar.study.claims import Judged, judge, judged_body
from mstar.study.collect import Trouble
from mstar.study.compare import (
    Adoption,
    Result,
    RowPlan,
    RowResult,
    adoption_of,
    compare_rows,
    estimate_body,
    row_body,
    starting_points,
)
from mstar.study.grid import Cell, paper_of
from mstar.study.records import CellRecord
from mstar.study.results import Aside, Merged
from mstar.study.spec import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What ``study.json`` and ``study.html`` say. ``missing`` are cells without results, failed ones among them."""

    study: str
    baseline: str | None
    seeds: tuple[int, ...]
    bases: tuple[str, ...]
    rows: tuple[RowResult, ...]
    claims: tuple[Judged, ...]
    starts: Mapping[str, Result]
    adoption: Adoption
    records: tuple[CellRecord, ...]
    missing: tuple[Cell, ...]
    troubles: tuple[Trouble, ...]
    aside: tuple[Aside, ...]


def summarise(
    study: Study,
    cells: Sequence[Cell],
    specs: Mapping[str, RunSpec],
    merged: Merged,
    troubles: Sequence[Trouble],
) -> Summary:
    """Everything that can be said now of a study; ``specs`` are by run name."""
    plans = []
    for row in study.rows:
        own = [cell for cell in cells if cell.row == row.name]
        paper = paper_of(specs[own[0].run])
        plans.append(RowPlan(name=row.name, recipe=row.recipe, paper=paper, of=len(own)))
    missing = tuple(cell for cell in cells if not merged.has(cell))
    return Summary(
        study=study.name,
        baseline=study.baseline,
        seeds=study.seeds,
        bases=tuple(base.name for base in study.bases),
        rows=tuple(compare_rows(plans, merged.records, study.baseline)),
        claims=judge(study.claims, merged.records),
        starts=starting_points(merged.records),
        adoption=adoption_of(merged.records),
        records=merged.records,
        missing=missing,
        troubles=tuple(_told(study, trouble) for trouble in troubles if trouble.cell in missing),
        aside=merged.aside,
    )


def summary_body(summary: Summary) -> dict[str, Any]:
    """The part of ``study.json`` that is computed: shares are shares (0.431, not 43.1), times are in seconds."""
    return {
        "baseline": summary.baseline,
        "seeds": list(summary.seeds),
        "bases": list(summary.bases),
        "finished": len(summary.records),
        "of": len(summary.records) + len(summary.missing),
        "rows": [row_body(row) for row in summary.rows],
        "claims": [judged_body(each) for each in summary.claims],
        "starts": {
            phase: {**(estimate_body(found.accuracy) or {}), "questions": found.questions}
            for phase, found in summary.starts.items()
        },
        "adoption": {**asdict(summary.adoption), "share": round(summary.adoption.share, 6)},
        "missing": [cell.run for cell in summary.missing],
        "failed": [
            {"run": each.cell.run, "error": each.error, "exit_code": each.exit_code}
            for each in summary.troubles
        ],
    }


def _told(study: Study, trouble: Trouble) -> Trouble:
    """The trouble without the places of this machine: the file is for other machines, too."""
    text = trouble.error.replace(str(study.folder), ".")
    return Trouble(cell=trouble.cell, error=text, exit_code=trouble.exit_code)
