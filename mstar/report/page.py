"""The page: header, sections, style and script in one file that asks nothing of any other."""

from collections.abc import Sequence
from pathlib import Path

from mstar.report.browser import browser_section
from mstar.report.collect import collect, elapsed_seconds
from mstar.report.cost import cost_section
from mstar.report.document import date, document, resource, write_whole
from mstar.report.exploration import saturation_section, temperature_section
from mstar.report.gains import accuracy_section, headline, results_section
from mstar.report.markup import Html, el, join
from mstar.report.public import public_section
from mstar.report.responses import Album, collect_responses
from mstar.report.scale import duration, whole
from mstar.report.table import results_table
from mstar.report.training import loss_section, selection_section
from mstar.report.verifier import prm_section
from mstar.report.views import RunView, describe
from mstar.storage.store import Store

LIMIT_BYTES = 6_000_000
"""A page is smaller than this: fewer queries are shown until it is."""

QUERIES = 24
"""Queries of each iteration in the browser of responses, where the limit allows."""


def write_report(store: Store, runs: Sequence[str], path: Path, *, now: float) -> None:
    """Write the page about ``runs`` to ``path``, whole or not at all; ``now`` is epoch seconds.

    Runs may be at work still: what is missing is named, with the reason.
    """
    views = collect(store, list(dict.fromkeys(runs)))
    count = QUERIES
    album = collect_responses(store, views, count)
    page = render(views, album, now=now)
    while len(page.encode()) >= LIMIT_BYTES and count > 1:
        count //= 2
        album = collect_responses(store, views, count)
        page = render(views, album, now=now)
    write_whole(path, page.encode())


def render(runs: Sequence[RunView], album: Album, *, now: float) -> str:
    """The page as text."""
    sections = [
        results_section(runs),
        public_section(runs),
        accuracy_section(runs),
        saturation_section(runs),
        temperature_section(runs),
        prm_section(runs),
        selection_section(runs),
        loss_section(runs),
        cost_section(runs),
        browser_section(runs, album),
    ]
    title = f"M-STaR: {', '.join(run.name for run in runs)}"
    there = [section for section in sections if section]
    return document(title, _header(runs, now), there, script=resource("page.js"))


def _header(runs: Sequence[RunView], now: float) -> Html:
    said = headline(results_table(runs))
    cards = (
        el(
            "li",
            el("h2", run.name),
            el("p", describe(run.spec)),
            el("p", f"Seed {run.spec.seed}, {run.progress}.", class_="note"),
            class_=f"run b{index % 6}",
        )
        for index, run in enumerate(runs)
    )
    return el(
        "header",
        el("p", "M-STaR: self-evolving training for multimodal reasoning", class_="kicker"),
        el("h1", "How ", _listed([run.name for run in runs]), " evolved"),
        el("p", said, class_="lead") if said else None,
        el("ul", cards, class_="runs"),
        _facts(runs, now),
    )


def _facts(runs: Sequence[RunView], now: float) -> Html:
    ends = [step.finished_at for run in runs for step in run.steps]
    starts = [
        step.finished_at - step.seconds for run in runs for step in run.steps if not step.adopted
    ]
    versions = {name: text for run in runs for name, text in run.versions.items()}
    data = {f"{whole(count)} {split}" for run in runs for split, count in run.queries.items()}
    facts = {
        "Work": duration(elapsed_seconds(runs)) if starts else "none yet",
        "From": date(min(starts)) if starts else "–",
        "To": date(max(ends)) if ends else "–",
        "Questions": ", ".join(sorted(data)),
        "Written": date(now),
        "Versions": ", ".join(f"{name} {text}" for name, text in sorted(versions.items())) or "–",
    }
    # A run that is at work adopts steps of others: each counts once.
    open_ones = {
        s.ref.id: s.undecided for run in runs for s in run.steps if s.undecided is not None
    }
    if open_ones:
        facts["Undecided answers"] = (
            f"{whole(sum(open_ones.values()))}, none of them counted as right"
        )
    items = (el("div", el("dt", name), el("dd", text)) for name, text in facts.items())
    return el("dl", items, class_="facts")


def _listed(names: Sequence[str]) -> Html:
    if len(names) < 2:
        return join(names)
    return join(", ".join(names[:-1]), " and ", names[-1])
