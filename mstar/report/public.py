"""Public benchmarks: each policy's accuracy by the official rules, and the sub-scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from mstar.benchmarks.registry import said_of
from mstar.core.metrics import wilson_interval
from mstar.report.figures import Section, absent, table
from mstar.report.markup import Child, Html, el, join
from mstar.report.scale import percent, whole
from mstar.report.views import RunView

Column = tuple[str, Mapping[str, Any]]
"""A policy, and its scores by benchmark as ``Scores.as_json`` writes them."""


def public_section(runs: Sequence[RunView]) -> Section | None:
    """Benchmarks by policy; None where no run asks for any."""
    asking = [run for run in runs if run.spec.evaluation.benchmarks]
    if not asking:
        return None
    columns = _columns(asking)
    body: list[Child] = []
    if columns:
        titles = {name: one["title"] for _, found in columns for name, one in found.items()}
        body = [
            _overall(columns, titles),
            *(_parts(columns, name, titles[name]) for name in titles),
        ]
    body += [
        absent(f"{run.name} has no scores yet: the step final/benchmarks is its last.")
        for run in asking
        if "final" not in run.benchmarks
    ]
    return Section(id="benchmarks", title="Public benchmarks", short="Benchmarks", body=join(body))


def _columns(runs: Sequence[RunView]) -> list[Column]:
    """The base models, each once, then the last policy of each run."""
    found: list[Column] = []
    for run in runs:
        base = run.benchmarks.get("base")
        if base and base not in [scores for _, scores in found]:
            found.append((f"base ({run.name})" if found else "base", base))
    return found + [
        (run.name, run.benchmarks["final"]) for run in runs if "final" in run.benchmarks
    ]


def _overall(columns: Sequence[Column], titles: Mapping[str, str]) -> Html:
    head: list[Child] = ["Benchmark", "Questions", *(label for label, _ in columns)]
    rows: list[list[Child]] = []
    for name, title in titles.items():
        cells = [found.get(name) for _, found in columns]
        count = next(one["total"] for one in cells if one)
        rows.append([title, said_of(name, count), *map(_share, cells)])
    unread = sum(one["unread"] for _, found in columns for one in found.values())
    responses = sum(one["responses"] for _, found in columns for one in found.values())
    caption = (
        "Accuracy by the official rules, without a judge, and its 95 % interval. In "
        f"{whole(unread)} of {whole(responses)} responses no answer was found: they count as wrong."
    )
    return table(caption, head, rows, label="Public benchmarks")


def _share(score: Mapping[str, Any] | None) -> Child:
    if score is None:
        return "–"
    low, high = wilson_interval(score["correct"], score["total"])
    return join(el("strong", percent(score["accuracy"])), f" ({percent(low)} to {percent(high)})")


def _parts(columns: Sequence[Column], name: str, title: str) -> Html:
    """The sub-scores of one benchmark, folded."""
    first = next(found[name] for _, found in columns if name in found)
    rows: list[list[Child]] = []
    for section, values in first["sections"].items():
        for value, count in values.items():
            shares = (_part(found.get(name), section, value) for _, found in columns)
            rows.append([f"{section}: {value}", whole(count["total"]), *shares])
    head: list[Child] = ["Part", "Questions", *(label for label, _ in columns)]
    inner = table(f"{title}, in parts.", head, rows, label=f"{title}, in parts")
    return el("details", el("summary", f"{title}: sub-scores"), inner)


def _part(score: Mapping[str, Any] | None, section: str, value: str) -> str:
    part = score["sections"].get(section, {}).get(value) if score else None
    return percent(part["accuracy"]) if part else "–"
