"""``study.html``: one self-contained file in the style of a run's report, without any script."""

from datetime import UTC, datetime
from importlib.resources import files

from mstar.report.figures import Section
from mstar.report.markup import Html, el
from mstar.report.scale import percent, points
from mstar.study.curves import equal_section, iteration_section, temperature_section
from mstar.study.summary import Summary
from mstar.study.tables import (
    adoption_section,
    cells_section,
    describe_cells,
    difference_section,
    missing_section,
    results_section,
)

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing may be fetched, and no script runs, whatever a name says."""


def render(summary: Summary, *, now: float) -> str:
    """The page as text; ``now`` is epoch seconds."""
    missing = missing_section(summary)
    sections = [
        results_section(summary),
        difference_section(summary),
        cells_section(summary),
        equal_section(summary),
        iteration_section(summary),
        temperature_section(summary),
        adoption_section(summary),
        *([missing] if missing else []),
    ]
    style = (files("mstar.report") / "page.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"M-STaR study: {summary.study}"),
        el("style", Html(style)),
    )
    body = el(
        "body",
        el("a", "Skip to the result", href="#results", class_="skip"),
        _header(summary, now),
        el(
            "nav",
            el("ul", (el("li", el("a", s.short, href=f"#{s.id}")) for s in sections)),
            aria_label="Sections",
        ),
        el("main", map(_section, sections)),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def headline(summary: Summary) -> str | None:
    """The result in a sentence: the best row, and what can be said of it against the baseline."""
    known = [(row, row.overall) for row in summary.rows if row.overall]
    if not known:
        return None
    best, found = max(known, key=lambda item: item[1].accuracy.mean)
    said = f"{best.name} answers most: {percent(found.accuracy.mean)} of the test questions"
    difference = best.difference
    if difference is None or difference.low is None or difference.high is None:
        return f"{said}."
    span = f"{points(difference.low)} to {points(difference.high)}"
    against = f"{points(difference.mean)} points against {summary.baseline} (95 % interval {span})"
    apart = "" if difference.low > 0 else ", which cannot be told apart from none"
    return f"{said}, {against}{apart}."


def _header(summary: Summary, now: float) -> Html:
    said = headline(summary)
    total = len(summary.records) + len(summary.missing)
    written = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
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


def _section(section: Section) -> Html:
    name = f"{section.id}-title"
    return el(
        "section",
        el("h2", section.title, id=name),
        section.body,
        id=section.id,
        aria_labelledby=name,
    )
