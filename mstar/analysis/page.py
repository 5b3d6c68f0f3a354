"""``analysis.json`` and ``analysis.html``: one self-contained page in the style of a run's report, without a script."""

import json
from dataclasses import asdict
from pathlib import Path

from mstar.analysis.records import Analysis
from mstar.analysis.sections import (
    length_section,
    missing_section,
    relevance_section,
    threshold_section,
    verifier_section,
)
from mstar.analysis.words import sentences
from mstar.report.document import date, document, write_whole
from mstar.report.markup import Html, el
from mstar.report.scale import whole


def write_analysis(found: Analysis, folder: Path, *, now: float) -> tuple[Path, Path]:
    """Write both files into ``folder``, each whole or not at all; ``now`` is epoch seconds. Their paths."""
    data, page = folder / "analysis.json", folder / "analysis.html"
    write_whole(data, (as_json(found) + "\n").encode())
    write_whole(page, render(found, now=now).encode())
    return data, page


def as_json(found: Analysis) -> str:
    """The analysis for programs."""
    return json.dumps(asdict(found), indent=1, ensure_ascii=False, allow_nan=False)


def render(found: Analysis, *, now: float) -> str:
    """The page as text."""
    missing = missing_section(found)
    sections = [
        verifier_section(found),
        length_section(found),
        relevance_section(found),
        threshold_section(found),
        *([missing] if missing else []),
    ]
    return document(f"M-STaR: the PRM of {found.run}", _header(found, now), sections)


def _header(found: Analysis, now: float) -> Html:
    facts = {
        "Policy": found.policy,
        "Questions": f"{whole(found.queries)} of {found.split}",
        "Samples a question": f"{found.samples} at temperature {found.temperature:g}",
        "Sampled": "by an earlier analysis" if found.adopted else "for this page",
        "Seed": str(found.seed),
        "Written": date(now),
    }
    items = (el("div", el("dt", name), el("dd", text)) for name, text in facts.items())
    return el(
        "header",
        el("p", "M-STaR: self-evolving training for multimodal reasoning", class_="kicker"),
        el("h1", f"What the reward model of {found.run} is good for"),
        el("ul", (el("li", text) for text in sentences(found)), class_="lead"),
        el("dl", items, class_="facts"),
    )
