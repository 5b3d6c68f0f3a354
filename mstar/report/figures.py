"""A chart or a table with everything around it: caption, legend, the numbers behind it, a way to scroll it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mstar.report.charts import Axis, Chart, Series, line_chart, swatch
from mstar.report.markup import Child, Html, el
from mstar.report.scale import nice_ticks, percent

WIDE, NARROW = (560, 300), (328, 240)
"""Sizes of a chart; the style sheet shows the one that fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page. ``short`` is its title in the list of sections."""

    id: str
    title: str
    short: str
    body: Html


def absent(*why: Child) -> Html:
    """What stands where something would, when it is not there: always with the reason."""
    return el("p", *why, class_="absent")


def figure(
    chart: Chart,
    caption: Child,
    *,
    value: Callable[[float], str] | None = percent,
) -> Html:
    """A line chart with its legend, and its numbers as a table; without the table when ``value`` is None."""
    legend = None
    if len(chart.named) > 1:
        items = (el("li", swatch(series.style), series.name) for series in chart.named)
        legend = el("ul", items, class_="legend")
    return el(
        "figure",
        el("figcaption", caption),
        legend,
        el("div", line_chart(chart, *WIDE), class_="wide"),
        el("div", line_chart(chart, *NARROW), class_="narrow"),
        _numbers(chart, value) if value else None,
    )


def table(
    caption: Child,
    head: Sequence[Child],
    rows: Sequence[Sequence[Child]],
    *,
    class_: str | None = None,
    label: str,
) -> Html:
    """A table whose first column names its rows. It scrolls by itself where it is wider than the page."""
    names = (el("th", cell, scope="col") for cell in head)
    lines = (
        el("tr", el("th", row[0], scope="row"), (_cell(cell) for cell in row[1:])) for row in rows
    )
    return scrolled(
        el(
            "table",
            el("caption", caption),
            el("thead", el("tr", names)),
            el("tbody", lines),
            class_=class_,
        ),
        label,
    )


def scrolled(content: Html, label: str) -> Html:
    """A region that scrolls sideways, also by keyboard."""
    return el("div", content, class_="scroll", role="region", tabindex=0, aria_label=label)


def share_axis(label: str, values: Sequence[float]) -> Axis:
    """A y axis for shares, from 0 when the values reach far down."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    ticks = nice_ticks(max(0.0, low - 0.03), min(1.0, high + 0.03), 4)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    low = max(0.0, min(ticks[0], step * (low // step)))
    high = min(1.0, max(ticks[-1], step * -(-high // step)))
    ticks = nice_ticks(low, high, 5)
    return Axis(
        label=label, low=low, high=high, ticks=tuple((tick, percent(tick, 0)) for tick in ticks)
    )


def iteration_axis(last: int, first: int = 0) -> Axis:
    """An x axis of iterations."""
    return Axis(
        label="iteration",
        low=first - 0.15,
        high=max(last, first + 1) + 0.15,
        ticks=tuple((index, str(index)) for index in range(first, max(last, first + 1) + 1)),
    )


def _cell(cell: Child) -> Html:
    return cell if isinstance(cell, Html) and cell.startswith("<td") else el("td", cell)


def _numbers(chart: Chart, value: Callable[[float], str]) -> Html:
    places = sorted({point.x for series in chart.named for point in series.points})
    names = dict(chart.x.ticks)
    rows = [
        [names.get(place, f"{place:g}"), *(_at(series, place, value) for series in chart.named)]
        for place in places
    ]
    head = [chart.x.label, *(series.name for series in chart.named)]
    return el(
        "details",
        el("summary", "The numbers"),
        table(chart.label, head, rows, label=f"{chart.label}, numbers"),
        class_="numbers",
    )


def _at(series: Series, place: float, value: Callable[[float], str]) -> str:
    point = next((p for p in series.points if p.x == place), None)
    if point is None:
        return "–"
    if point.low is None or point.high is None:
        return value(point.y)
    return f"{value(point.y)} ({value(point.low)} to {value(point.high)})"
