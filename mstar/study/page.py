"""``study.html``: one self-contained file in the style of a run's report, without any script."""

from mstar.report.document import date, document
from mstar.report.markup import Html, el
from mstar.report.scale import percent, points
from mstar.study.claims import Verdict, verdict_of
from mstar.study.curves import equal_section, iteration_section, temperature_section
from mstar.study.summary import Summary
from mstar.study.tables import (
    adoption_section,
    cells_section,
    claims_section,
    describe_cells,
    difference_section,
    missing_section,
    results_section,
)


def render(summary: Summary, *, now: float) -> str:
    """The page as text; ``now`` is epoch seconds."""
    claims, missing = claims_section(summary), missing_section(summary)
    sections = [
        results_section(summary),
        *([claims] if claims else []),
        difference_section(summary),
        cells_section(summary),
        equal_section(summary),
        iteration_section(summary),
        temperature_section(summary),
        adoption_section(summary),
        *([missing] if missing else []),
    ]
    return document(f"M-STaR study: {summary.study}", _header(summary, now), sections)


def headline(summary: Summary) -> str | None:
    """The result in a sentence: the best row, and what can be said of it against the baseline."""
    known = [(row, row.overall) for row in summary.rows if row.overall and len(row.cells) == row.of]
    if not known:
        return None
    best, found = max(known, key=lambda item: item[1].accuracy.mean)
    said = f"{best.name} answers most: {percent(found.accuracy.mean)} of the test questions"
    difference = best.difference
    if difference is None or difference.low is None or difference.high is None:
        return f"{said}."
    span = f"{points(difference.low)} to {points(difference.high)}"
    against = f"{points(difference.mean)} points against {summary.baseline} (95 % interval {span})"
    told = verdict_of(difference) is not Verdict.OPEN
    apart = "" if told else ", which cannot be told apart from none"
    return f"{said}, {against}{apart}."


def _header(summary: Summary, now: float) -> Html:
    said = headline(summary)
    total = len(summary.records) + len(summary.missing)
    written = date(now)
    facts = {
        "Rows": str(len(summary.rows)),
        "Cells finished": f"{len(summary.records)} of {total}",
        "Rest on": describe_cells(summary.records),
        "Baseline": summary.baseline or "none",
        "Written": written,
    }
    items = (el("div", el("dt", name), el("dd", text)) for name, text in facts.items())
    return el(
        "header",
        el("p", "M-STaR: self-evolving training for multimodal reasoning", class_="kicker"),
        el("h1", f"Study {summary.study}"),
        el("p", said, class_="lead") if said else None,
        el("dl", items, class_="facts"),
    )
